//! Layers on the processor by our own arithmetic instead of the framework's.
//!
//! Each function takes tensors and gives them back if they are not the processor's, so that the
//! caller goes the framework's way, which every other device takes.

mod activation;
mod attention;
mod conv;
mod dense;
mod graph;
mod lstm;
mod norm;
mod pool;
#[cfg(test)]
mod tests;

pub(super) use activation::activate;
pub(super) use attention::attend;
pub(super) use conv::convolve;
pub(super) use dense::dense;
pub(crate) use graph::{change, in_memory};
pub(super) use lstm::lstm;
pub(super) use nereid_kernels::Attention as AttentionShape;
pub(super) use norm::{batch_norm, layer_norm};
pub(super) use pool::{maximum, mean, zero_pad};
