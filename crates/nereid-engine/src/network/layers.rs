//! What each kind of layer does to a batch.

#![expect(
    clippy::many_single_char_names,
    reason = "axes and gates by their usual letters"
)]

use burn::tensor::{Int, Tensor};
use nereid_core::spec::{layers::StepPadding, network::Source};

use super::{
    Act, Mode,
    attention::Attention,
    convolution,
    functions::Function,
    half, kernels,
    merge::{Join, concatenate},
    noise::Noise,
    norm::{BatchNorm, GroupNorm, LayerNorm, RmsNorm, Slopes},
    recurrent::{Bidirectional, Recurrent},
    resize,
    window::Window,
};

/// A layer ready to run.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// The layer's unique name.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// What it takes.
    pub(crate) sources: Vec<Source>,
    /// Shape of its output.
    pub(crate) output: Vec<usize>,
    /// Applied after the layer itself.
    pub(crate) activation: Function,
}

/// Kinds of layers; weights by index into the network's parameters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Dense {
        kernel: usize,
        bias: Option<usize>,
        units: usize,
    },
    Conv {
        window: Window,
        kernel: usize,
        bias: Option<usize>,
        filters: usize,
        groups: usize,
    },
    ConvTranspose {
        window: Window,
        kernel: usize,
        bias: Option<usize>,
        filters: usize,
    },
    Separable {
        window: Window,
        depthwise: usize,
        pointwise: usize,
        bias: Option<usize>,
        multiplier: usize,
        filters: usize,
    },
    MaxPool(Window),
    AveragePool(Window),
    GlobalAverage,
    GlobalMaximum,
    ZeroPad([[usize; 2]; 2]),
    Nearest([usize; 2]),
    Bilinear([usize; 2]),
    Reshape,
    Repeat(usize),
    Noise(Noise),
    BatchNorm(BatchNorm),
    LayerNorm(LayerNorm),
    RmsNorm(RmsNorm),
    GroupNorm(GroupNorm),
    Slopes(Slopes),
    Embedding {
        table: usize,
        rows: usize,
        size: usize,
    },
    Positions(usize),
    Recurrent(Recurrent),
    Bidirectional(Bidirectional),
    Attention(Attention),
    Join(Join),
    Concatenate(usize),
    Activation,
}

impl Node {
    /// Notes that the layer's weights are not trained.
    pub(super) fn freeze(&mut self) {
        if let Kind::BatchNorm(norm) = &mut self.kind {
            norm.frozen = true;
        }
    }

    /// Runs the layer and then `activation`.
    pub(super) fn run(
        &self,
        mut inputs: Vec<Act>,
        index: usize,
        weights: &[Tensor<1>],
        mode: &mut Mode<'_>,
        activation: Function,
    ) -> Act {
        let joined = match &self.kind {
            Kind::Join(join) => join.run(inputs, &self.output),
            Kind::Concatenate(axis) => concatenate(inputs, *axis, &self.output),
            Kind::Attention(attention) => attention.run(inputs, index, weights, mode),
            _ => {
                let act = inputs.swap_remove(0);
                return match self.fused(act, weights, activation == Function::RELU) {
                    Ok(done) => done,
                    Err(act) => self.apply(act, index, weights, mode).activate(activation),
                };
            }
        };
        joined.activate(activation)
    }

    /// Runs a layer that may do its ReLU itself: with it, or as `Err` what is still to be done.
    fn fused(&self, act: Act, weights: &[Tensor<1>], relu: bool) -> Result<Act, Act> {
        match &self.kind {
            Kind::Dense {
                kernel,
                bias,
                units,
            } => {
                let bias = bias.map(|b| &weights[b]);
                dense(act, &weights[*kernel], bias, *units, relu)
            }
            Kind::Conv {
                window,
                kernel,
                bias,
                filters,
                groups: 1,
            } => {
                let bias = bias.map(|b| &weights[b]);
                window.layer(act, &weights[*kernel], bias, *filters, relu)
            }
            Kind::Separable {
                pointwise,
                bias,
                filters,
                ..
            } => {
                let between = self.convolve(act, weights);
                let bias = bias.map(|b| &weights[b]);
                convolution::POINT.layer(between, &weights[*pointwise], bias, *filters, relu)
            }
            _ => Err(act),
        }
    }

    /// Runs what [`Self::fused`] leaves.
    fn apply(&self, act: Act, index: usize, weights: &[Tensor<1>], mode: &mut Mode<'_>) -> Act {
        match &self.kind {
            Kind::Conv { groups, .. } if *groups > 1 => self.convolve(act, weights),
            Kind::ConvTranspose { .. } => self.convolve(act, weights),
            Kind::MaxPool(window) => window.maximum_layer(act),
            Kind::AveragePool(window) => window.mean_layer(act),
            Kind::GlobalAverage if act.is_in_memory() => whole(act),
            Kind::GlobalAverage => global(act, |x| x.mean_dim(2)),
            Kind::GlobalMaximum => global(act, |x| x.max_dim(2)),
            Kind::ZeroPad(margins) => resize::zero_pad(act, *margins),
            Kind::Nearest(factors) => resize::nearest(act, *factors),
            Kind::Bilinear(factors) => resize::bilinear(act, *factors),
            Kind::Reshape => Act::new(act.flat(), self.output.clone()),
            Kind::Repeat(steps) => resize::repeat(act, *steps),
            Kind::Noise(noise) => noise.run(act, index, mode),
            Kind::BatchNorm(norm) => norm.run(act, weights, mode),
            Kind::LayerNorm(norm) => norm.run(act, weights),
            Kind::RmsNorm(norm) => norm.run(act, weights),
            Kind::GroupNorm(norm) => norm.run(act, weights),
            Kind::Slopes(slopes) => slopes.run(act, weights),
            Kind::Embedding { table, rows, size } => {
                embed(act, weights[*table].clone().reshape([*rows, *size]), *size)
            }
            Kind::Positions(table) => resize::positions(&act, weights[*table].clone()),
            Kind::Recurrent(layer) => layer.run(act, weights),
            Kind::Bidirectional(layer) => layer.run(act, weights),
            // Done already, or nothing to do but the activation.
            Kind::Dense { .. }
            | Kind::Conv { .. }
            | Kind::Separable { .. }
            | Kind::Activation
            | Kind::Join(_)
            | Kind::Concatenate(_)
            | Kind::Attention(_) => act,
        }
    }

    /// Convolutions that go the framework's way on every device.
    fn convolve(&self, act: Act, weights: &[Tensor<1>]) -> Act {
        let (rank, inputs) = (act.rank(), act.channels());
        let x = act.planes();
        // From Keras' order (height, width, …) to the framework's (…, height, width).
        let turned = |i: usize, [h, w]: [usize; 2], inputs: usize, outputs: usize| {
            let kernel: Tensor<4> = weights[i].clone().reshape([h, w, inputs, outputs]);
            kernel.permute([3, 2, 0, 1])
        };
        let y = match &self.kind {
            Kind::Conv {
                window,
                kernel,
                bias,
                filters,
                groups,
            } => {
                let kernel = turned(*kernel, window.size, inputs / groups, *filters);
                let bias = bias.map(|b| weights[b].clone());
                convolution::grouped(window, x, kernel, bias, *groups)
            }
            Kind::ConvTranspose {
                window,
                kernel,
                bias,
                filters,
            } => {
                let kernel = turned(*kernel, window.size, *filters, inputs);
                let bias = bias.map(|b| weights[b].clone());
                convolution::transposed(window, x, kernel, bias)
            }
            Kind::Separable {
                window,
                depthwise,
                multiplier,
                ..
            } => {
                let kernel = turned(*depthwise, window.size, 1, inputs * multiplier);
                convolution::grouped(window, x, kernel, None, inputs)
            }
            _ => x,
        };
        Act::from_planes(y, rank)
    }
}

/// Runs a dense layer: with its ReLU, or as `Err` without any activation.
fn dense(
    act: Act,
    kernel: &Tensor<1>,
    bias: Option<&Tensor<1>>,
    units: usize,
    relu: bool,
) -> Result<Act, Act> {
    let (n, inputs, size) = (act.rows(), act.channels(), act.size());
    let mut shape = act.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = units;
    }
    let width = size / inputs * units;
    let (y, done) = match kernels::dense(act.vectors(), kernel, bias, relu) {
        Ok(y) => (y, relu),
        Err(x) => {
            let y = half::matmul(x, kernel.clone().reshape([inputs, units]));
            let y = match bias {
                Some(bias) => y + bias.clone().reshape([1, units]),
                None => y,
            };
            (y, false)
        }
    };
    let y = if size == inputs {
        y
    } else {
        y.reshape([n, width])
    };
    let act = Act::new(y, shape);
    if done { Ok(act) } else { Err(act) }
}

/// Takes the mean of each channel, as that of a window of the whole.
fn whole(act: Act) -> Act {
    let [h, w, c] = act.plane_shape();
    let window = Window {
        size: [h, w],
        stride: [h, w],
        dilation: [1, 1],
        padding: StepPadding::Valid,
    };
    Act::new(window.mean_layer(act).flat(), vec![c])
}

/// Makes one number of each channel.
fn global(act: Act, f: impl FnOnce(Tensor<3>) -> Tensor<3>) -> Act {
    let (n, [h, w, c]) = (act.rows(), act.plane_shape());
    let planes: Tensor<3> = act.planes().reshape([n, c, h * w]);
    Act::new(f(planes).reshape([n, c]), vec![c])
}

/// Looks rows up; indices are checked where data comes in.
fn embed(act: Act, table: Tensor<2>, size: usize) -> Act {
    let (n, length) = (act.rows(), act.size());
    let mut shape = act.shape.clone();
    shape.push(size);
    let indices: Tensor<1, Int> = act.flat().reshape([n * length]).int();
    Act::new(table.select(0, indices).reshape([n, length * size]), shape)
}
