//! What each kind of layer does to a batch.

use burn::tensor::{Int, Tensor};
use nereid_core::spec::network::Source;

use super::{
    Act, Mode,
    attention::Attention,
    convolution,
    functions::Function,
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
    /// Runs the layer without its activation.
    pub(super) fn run(
        &self,
        mut inputs: Vec<Act>,
        index: usize,
        weights: &[Tensor<1>],
        mode: &mut Mode<'_>,
    ) -> Act {
        match &self.kind {
            Kind::Join(join) => return join.run(inputs, &self.output),
            Kind::Concatenate(axis) => return concatenate(inputs, *axis, &self.output),
            Kind::Attention(attention) => return attention.run(inputs, index, weights, mode),
            _ => {}
        }
        let act = inputs.swap_remove(0);
        match &self.kind {
            Kind::Dense {
                kernel,
                bias,
                units,
            } => {
                let bias = bias.map(|b| weights[b].clone());
                dense(act, weights[*kernel].clone(), bias, *units)
            }
            Kind::Conv { .. } | Kind::ConvTranspose { .. } | Kind::Separable { .. } => {
                self.convolve(act, weights)
            }
            Kind::MaxPool(window) => planes(act, |x| window.maximum(x)),
            Kind::AveragePool(window) => planes(act, |x| window.mean(x)),
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
            Kind::Activation | Kind::Join(_) | Kind::Concatenate(_) | Kind::Attention(_) => act,
        }
    }

    fn convolve(&self, act: Act, weights: &[Tensor<1>]) -> Act {
        let (rank, inputs) = (act.rank(), act.channels());
        let take = |i: Option<usize>| i.map(|i| weights[i].clone());
        let kernel =
            |i: usize, shape: [usize; 4]| -> Tensor<4> { weights[i].clone().reshape(shape) };
        let x = act.planes();
        let y = match &self.kind {
            Kind::Conv {
                window,
                kernel: k,
                bias,
                filters,
                groups,
            } => {
                let [h, w] = window.size;
                let k = kernel(*k, [*filters, inputs / groups, h, w]);
                convolution::grouped(window, x, k, take(*bias), *groups)
            }
            Kind::ConvTranspose {
                window,
                kernel: k,
                bias,
                filters,
            } => {
                let [h, w] = window.size;
                let k = kernel(*k, [inputs, *filters, h, w]);
                convolution::transposed(window, x, k, take(*bias))
            }
            Kind::Separable {
                window,
                depthwise,
                pointwise,
                bias,
                multiplier,
                filters,
            } => {
                let [h, w] = window.size;
                let between = inputs * multiplier;
                let k = kernel(*depthwise, [between, 1, h, w]);
                let x = convolution::grouped(window, x, k, None, inputs);
                let k = kernel(*pointwise, [*filters, between, 1, 1]);
                convolution::pointwise(x, k, take(*bias))
            }
            _ => x,
        };
        Act::from_planes(y, rank)
    }
}

fn dense(act: Act, kernel: Tensor<1>, bias: Option<Tensor<1>>, units: usize) -> Act {
    let (n, inputs, size) = (act.rows(), act.channels(), act.size());
    let mut shape = act.shape.clone();
    let mut y = act.vectors().matmul(kernel.reshape([inputs, units]));
    if let Some(bias) = bias {
        y = y + bias.reshape([1, units]);
    }
    if let Some(last) = shape.last_mut() {
        *last = units;
    }
    Act::new(y.reshape([n, size / inputs * units]), shape)
}

fn planes(act: Act, f: impl FnOnce(Tensor<4>) -> Tensor<4>) -> Act {
    let rank = act.rank();
    Act::from_planes(f(act.planes()), rank)
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
