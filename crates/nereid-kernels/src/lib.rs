//! Arithmetic on host memory, written for processors' vector units and for several cores.
//!
//! Works on slices of `f32` alone: it knows no tensors, no gradients graph and no framework. All
//! images are channels-last. Vector code is chosen at run time from what the processor has
//! (AVX-512, AVX2, NEON, …). No result depends on the number of threads: what is summed is
//! always partitioned by the shape of the data.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined into the dispatched function is compiled for its instructions"
)]

mod attention;
mod conv;
mod elementwise;
mod functions;
mod geometry;
mod layer_norm;
mod lstm;
mod norm;
mod optim;
mod pool;
mod product;
mod simd;
#[cfg(test)]
mod tests;
mod winograd;

pub use attention::{Attention, AttentionGradients};
pub use conv::{Conv, Padded};
pub use elementwise::Curve;
pub use geometry::Windows;
pub use layer_norm::{LayerNormalised, layer_norm, layer_norm_gradients};
pub use lstm::{Lstm, LstmStates};
pub use norm::{NormGradients, Normalised, batch_norm, batch_norm_gradients};
pub use optim::{Adam, Momentum, RmsProp, adam, rmsprop, sgd};
pub use pool::{average, average_gradient, maximum, maximum_gradient};
pub use product::{Dense, column_sums, relu_gradient};
