//! Networks: built from a spec's plan, run with or without gradients.
//!
//! Shapes in specs and artifacts are channels-last, as Keras has them; on the processor all
//! layers compute so; elsewhere convolutions and pools run channels-first, and
//! [`activation::Act`] converts between both.

mod activation;
mod build;
mod kernels;
mod layers;
mod norm;
mod parameters;
#[cfg(test)]
mod tests;
mod window;

use burn::tensor::{Device, Tensor};
use nereid_core::spec::layers::Activation;

pub(crate) use activation::Act;
pub(crate) use kernels::change;
pub(crate) use layers::Node;
pub(crate) use parameters::{Parameter, flat, host};

/// A chain of layers with its weights.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) device: Device,
    pub(crate) input: Vec<usize>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) parameters: Vec<Parameter>,
}

/// How a forward pass runs.
pub(crate) enum Mode<'a> {
    /// Dropout off, moving averages used.
    Inference,
    /// Dropout on, statistics of the batch used.
    Training(&'a mut TrainingPass),
}

/// What a training pass needs and leaves behind.
pub(crate) struct TrainingPass {
    pub(crate) seed: u64,
    pub(crate) step: u64,
    /// New moving averages, by parameter.
    pub(crate) moving: Vec<(usize, Tensor<1>)>,
}

/// Whether the last layer's softmax or sigmoid is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As the spec says.
    Whole,
    /// Left out: losses of logits are exact where those of probabilities round to 0 or 1.
    Logits,
}

impl Network {
    /// Runs a batch of preprocessed samples, one a row, without gradients.
    pub(crate) fn infer(&self, input: Tensor<2>) -> Tensor<2> {
        let weights: Vec<_> = self.parameters.iter().map(|p| p.value.clone()).collect();
        self.forward(&weights, input, Ending::Whole, &mut Mode::Inference)
    }

    /// Runs a batch with the given weights, in the order of `parameters`.
    pub(crate) fn forward(
        &self,
        weights: &[Tensor<1>],
        input: Tensor<2>,
        ending: Ending,
        mode: &mut Mode<'_>,
    ) -> Tensor<2> {
        let mut act = Act::new(input, self.input.clone());
        let last = self.nodes.len().saturating_sub(1);
        for (i, node) in self.nodes.iter().enumerate() {
            let activation = if i == last && ending == Ending::Logits {
                Activation::Linear
            } else {
                node.activation
            };
            act = node.run(act, i, weights, mode, activation);
        }
        act.flat()
    }

    /// Tells whether the very last step is an activation that [`Ending::Logits`] leaves out.
    pub(crate) fn ends_in(&self, activation: Activation) -> bool {
        self.nodes
            .last()
            .is_some_and(|n| n.activation == activation)
    }
}
