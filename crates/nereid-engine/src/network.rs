//! Networks: built from a spec's plan, run with or without gradients.
//!
//! Shapes in specs and artifacts are channels-last, as Keras has them; on the processor all
//! layers compute so; elsewhere convolutions and pools run channels-first, and
//! [`activation::Act`] converts between both.

mod activation;
mod adapters;
mod attention;
mod build;
mod convolution;
mod functions;
mod half;
mod initial;
mod kernels;
mod layers;
mod merge;
mod noise;
mod norm;
mod parameters;
mod recurrent;
mod resize;
#[cfg(test)]
mod tests;
mod window;

use burn::tensor::{Device, Tensor};
use nereid_core::spec::{layers::Activation, network::Source};

pub(crate) use activation::Act;
pub(crate) use adapters::Adaptation;
use adapters::Adapter;
pub(crate) use attention::{Attention, Projection};
pub(crate) use convolution::{POINT, kept};
pub(crate) use functions::Function;
pub(crate) use kernels::change;
pub(crate) use layers::{Kind, Node};
pub(crate) use merge::Join;
pub(crate) use parameters::{Parameter, flat, host};
pub(crate) use recurrent::{Bidirectional, Cell, Recurrent};
pub(crate) use resize::mixture;
pub(crate) use window::Window;

/// A graph of layers with its weights.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) device: Device,
    pub(crate) input: Vec<usize>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) parameters: Vec<Parameter>,
    /// Low-rank changes of weights, whose matrices are the last parameters.
    adapters: Vec<Adapter>,
    /// Whether training computes products in half precision.
    pub(crate) half: bool,
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
    /// Outputs of all layers, if they are wanted.
    pub(crate) outputs: Option<Vec<Seen>>,
}

/// Output of a layer, kept to look at.
pub(crate) struct Seen {
    pub(crate) layer: String,
    /// Without gradients, channels last.
    pub(crate) output: Tensor<2>,
    /// Units, or channels of an image.
    pub(crate) channels: usize,
    /// Whether a ReLU yielded it.
    pub(crate) relu: bool,
}

impl Mode<'_> {
    fn keep(&mut self, node: &Node, act: &Act) {
        if let Self::Training(pass) = self
            && let Some(outputs) = &mut pass.outputs
        {
            outputs.push(Seen {
                layer: node.name.clone(),
                output: act.clone().flat().inner(),
                channels: act.channels(),
                relu: node.activation.is_relu(),
            });
        }
    }
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

    /// Runs a batch of preprocessed samples and shows what each layer takes.
    pub(crate) fn observe(&self, input: Tensor<2>, each: &mut dyn FnMut(&Node, &[Act])) {
        let weights: Vec<_> = self.parameters.iter().map(|p| p.value.clone()).collect();
        let mut acts = Acts::new(self, Act::new(input, self.input.clone()));
        for (i, node) in self.nodes.iter().enumerate() {
            let inputs: Vec<_> = node.sources.iter().map(|&s| acts.take(s)).collect();
            each(node, &inputs);
            let act = node.run(inputs, i, &weights, &mut Mode::Inference, node.activation);
            acts.put(act);
        }
    }

    /// Runs a batch with the given weights, in the order of `parameters`.
    pub(crate) fn forward(
        &self,
        weights: &[Tensor<1>],
        input: Tensor<2>,
        ending: Ending,
        mode: &mut Mode<'_>,
    ) -> Tensor<2> {
        let mut acts = Acts::new(self, Act::new(input, self.input.clone()));
        let last = self.nodes.len().saturating_sub(1);
        for (i, node) in self.nodes.iter().enumerate() {
            let function = if i == last && ending == Ending::Logits {
                Function::LINEAR
            } else {
                node.activation
            };
            let inputs = node.sources.iter().map(|&s| acts.take(s)).collect();
            let act = node.run(inputs, i, weights, mode, function);
            mode.keep(node, &act);
            acts.put(act);
        }
        acts.take(Source::before(self.nodes.len())).flat()
    }

    /// Returns the last layer that has weights.
    pub(crate) fn head(&self) -> Option<&str> {
        let mut names = self.nodes.iter().rev().map(|node| node.name.as_str());
        names.find(|name| self.parameters.iter().any(|p| p.layer() == *name))
    }

    /// Returns what regularisers add to the loss for the given weights, in the order of
    /// `parameters`; nothing if there are none.
    pub(crate) fn penalty(&self, weights: &[Tensor<1>]) -> Option<Tensor<1>> {
        let pairs = self.parameters.iter().zip(weights);
        let penalties = pairs.filter_map(|(parameter, weight)| {
            // As in Keras, what is frozen costs nothing.
            let regularizer = parameter.regularizer.filter(|_| parameter.trainable)?;
            let [l1, l2] = regularizer.factors();
            let absolute = (l1 > 0.0).then(|| weight.clone().abs().sum() * l1);
            let squares = (l2 > 0.0).then(|| (weight.clone() * weight.clone()).sum() * l2);
            absolute.into_iter().chain(squares).reduce(|a, b| a + b)
        });
        penalties.reduce(|a, b| a + b)
    }

    /// Tells whether the very last step is an activation that [`Ending::Logits`] leaves out.
    pub(crate) fn ends_in(&self, activation: Activation) -> bool {
        self.nodes
            .last()
            .is_some_and(|n| n.activation == Function::Named(activation))
    }
}

/// Outputs of layers that are still to be taken.
struct Acts {
    /// The network's input, then each layer's output.
    values: Vec<Option<Act>>,
    /// How often each is still taken.
    uses: Vec<usize>,
}

impl Acts {
    fn new(network: &Network, input: Act) -> Self {
        let n = network.nodes.len() + 1;
        let mut uses = vec![0; n];
        for &source in network.nodes.iter().flat_map(|node| &node.sources) {
            uses[position(source)] += 1;
        }
        uses[n - 1] += 1;
        let mut values = Vec::with_capacity(n);
        values.push(Some(input));
        Self { values, uses }
    }

    fn put(&mut self, act: Act) {
        self.values.push(Some(act));
    }

    /// Returns an output, giving it away the last time that it is taken.
    ///
    /// # Panics
    /// If it was taken more often than was counted, which no plan leads to.
    fn take(&mut self, source: Source) -> Act {
        let at = position(source);
        self.uses[at] -= 1;
        let value = if self.uses[at] == 0 {
            self.values[at].take()
        } else {
            self.values[at].clone()
        };
        #[expect(clippy::expect_used, reason = "counted when the pass began")]
        value.expect("an output is kept until it is taken for the last time")
    }
}

fn position(source: Source) -> usize {
    match source {
        Source::Input => 0,
        Source::Layer(i) => i + 1,
    }
}
