//! What each kind of layer does to a batch.

use burn::tensor::{Int, Tensor, TensorData};
use nereid_core::spec::layers::Activation;

use super::{
    Act, Mode, kernels,
    norm::{BatchNorm, LayerNorm},
    window::Window,
};
use crate::random::{self, Purpose};

/// A layer ready to run.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Applied after the layer itself.
    pub(crate) activation: Activation,
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
    },
    MaxPool(Window),
    AveragePool(Window),
    GlobalAverage,
    Reshape(Vec<usize>),
    Dropout(f64),
    BatchNorm(BatchNorm),
    LayerNorm(LayerNorm),
    Embedding {
        table: usize,
        rows: usize,
        size: usize,
    },
    Activation,
}

impl Node {
    /// Runs the layer and then `activation`.
    pub(super) fn run(
        &self,
        act: Act,
        index: usize,
        weights: &[Tensor<1>],
        mode: &mut Mode<'_>,
        activation: Activation,
    ) -> Act {
        let relu = activation == Activation::Relu;
        let act = match &self.kind {
            Kind::Dense {
                kernel,
                bias,
                units,
            } => {
                let bias = bias.map(|b| &weights[b]);
                match dense(act, &weights[*kernel], bias, *units, relu) {
                    Ok(done) => return done,
                    Err(linear) => linear,
                }
            }
            Kind::Conv {
                window,
                kernel,
                bias,
                filters,
            } => {
                let bias = bias.map(|b| &weights[b]);
                match window.layer(act, &weights[*kernel], bias, *filters, relu) {
                    Ok(done) => return done,
                    Err(linear) => linear,
                }
            }
            Kind::MaxPool(window) => window.maximum_layer(act),
            Kind::AveragePool(window) => window.mean_layer(act),
            Kind::GlobalAverage => global_average(act),
            Kind::Reshape(shape) => Act::new(act.flat(), shape.clone()),
            Kind::Dropout(rate) => dropout(act, *rate, index, mode),
            Kind::BatchNorm(norm) => norm.run(act, weights, mode),
            Kind::LayerNorm(norm) => norm.run(act, weights),
            Kind::Embedding { table, rows, size } => {
                embed(act, weights[*table].clone().reshape([*rows, *size]), *size)
            }
            Kind::Activation => act,
        };
        act.activate(activation)
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
            let y = x.matmul(kernel.clone().reshape([inputs, units]));
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

fn global_average(act: Act) -> Act {
    let (n, [h, w, c]) = (act.rows(), act.plane_shape());
    let planes: Tensor<3> = act.planes().reshape([n, c, h * w]);
    Act::new(planes.mean_dim(2).reshape([n, c]), vec![c])
}

fn dropout(act: Act, rate: f64, index: usize, mode: &Mode<'_>) -> Act {
    let Mode::Training(pass) = mode else {
        return act;
    };
    if rate == 0.0 {
        return act;
    }
    let (n, size) = (act.rows(), act.size());
    let mut rng = random::generator(pass.seed, Purpose::Dropout, [pass.step, index as u64]);
    let mask = random::dropout_mask(&mut rng, n * size, rate);
    act.map(|x| {
        let device = x.device().without_autodiff();
        let mask: Tensor<2> = Tensor::from_data(TensorData::new(mask, [n, size]), &device);
        x * mask
    })
}

/// Looks rows up; indices are checked where data comes in.
fn embed(act: Act, table: Tensor<2>, size: usize) -> Act {
    let (n, length) = (act.rows(), act.size());
    let mut shape = act.shape.clone();
    shape.push(size);
    let indices: Tensor<1, Int> = act.flat().reshape([n * length]).int();
    Act::new(table.select(0, indices).reshape([n, length * size]), shape)
}
