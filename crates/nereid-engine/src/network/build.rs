//! Builds a network from a plan, with Keras' initial weights.

use burn::tensor::Device;
use nereid_core::spec::{
    layers::{Activation, BatchNormalization, Conv2D, Layer, Pair, Pooling1D, Pooling2D},
    network::{Plan, PlannedLayer},
};

use super::{
    Network,
    layers::{Kind, Node},
    norm::{BatchNorm, LayerNorm},
    parameters::{Layout, Parameter},
    window::Window,
};
use crate::random::{self, Purpose};

impl Network {
    /// Builds a network whose initial weights follow from `seed`.
    pub(crate) fn build(plan: &Plan, seed: u64, device: &Device) -> Self {
        let mut builder = Builder {
            seed,
            device: device.clone().without_autodiff(),
            parameters: Vec::new(),
        };
        let nodes = plan.layers.iter().map(|l| builder.node(l)).collect();
        Self {
            device: builder.device,
            input: plan.input.clone(),
            nodes,
            parameters: builder.parameters,
        }
    }
}

struct Builder {
    seed: u64,
    device: Device,
    parameters: Vec<Parameter>,
}

/// Initial values of a weight.
#[derive(Clone, Copy)]
enum Initial {
    Constant(f32),
    /// `glorot_uniform` of a kernel.
    Glorot,
    /// `uniform`, Keras' default for embeddings.
    Small,
}

impl Builder {
    fn node(&mut self, planned: &PlannedLayer) -> Node {
        let inputs = planned.input.last().copied().unwrap_or(1);
        let name = planned.name.as_str();
        let mut activation = Activation::Linear;
        let kind = match &planned.layer {
            Layer::Dense(l) => {
                activation = l.activation;
                Kind::Dense {
                    kernel: self.kernel(name, vec![inputs, l.units], Layout::Same),
                    bias: l.use_bias.then(|| self.vector(name, "bias", l.units, 0.0)),
                    units: l.units,
                }
            }
            Layer::Conv1D(l) => {
                activation = l.activation;
                let shape = vec![l.kernel_size, inputs, l.filters];
                let window = Window {
                    size: [1, l.kernel_size],
                    stride: [1, l.strides],
                    dilation: [1, l.dilation_rate],
                    padding: l.padding,
                };
                self.conv(name, window, shape, l.use_bias)
            }
            Layer::Conv2D(l) => {
                activation = l.activation;
                let [h, w] = l.kernel_size.get();
                let shape = vec![h, w, inputs, l.filters];
                self.conv(name, conv_window(l), shape, l.use_bias)
            }
            Layer::MaxPooling1D(l) => Kind::MaxPool(steps_window(l)),
            Layer::AveragePooling1D(l) => Kind::AveragePool(steps_window(l)),
            Layer::MaxPooling2D(l) => Kind::MaxPool(pool_window(l)),
            Layer::AveragePooling2D(l) => Kind::AveragePool(pool_window(l)),
            Layer::GlobalAveragePooling1D(_) | Layer::GlobalAveragePooling2D(_) => {
                Kind::GlobalAverage
            }
            Layer::Flatten(_) | Layer::Reshape(_) => Kind::Reshape(planned.shape.output.clone()),
            Layer::Dropout(l) => Kind::Dropout(l.rate),
            Layer::BatchNormalization(l) => self.batch_norm(name, l, inputs),
            Layer::LayerNormalization(l) => Kind::LayerNorm(LayerNorm {
                gamma: self.vector(name, "gamma", inputs, 1.0),
                beta: self.vector(name, "beta", inputs, 0.0),
                epsilon: l.epsilon,
            }),
            Layer::Embedding(l) => Kind::Embedding {
                table: self.table(name, [l.input_dim, l.output_dim]),
                rows: l.input_dim,
                size: l.output_dim,
            },
            Layer::Activation(l) => {
                activation = l.activation;
                Kind::Activation
            }
        };
        Node {
            name: name.to_owned(),
            kind,
            activation,
        }
    }

    fn batch_norm(&mut self, name: &str, l: &BatchNormalization, n: usize) -> Kind {
        Kind::BatchNorm(BatchNorm {
            gamma: self.vector(name, "gamma", n, 1.0),
            beta: self.vector(name, "beta", n, 0.0),
            mean: self.fixed(name, "moving_mean", n, 0.0),
            variance: self.fixed(name, "moving_variance", n, 1.0),
            momentum: l.momentum,
            epsilon: l.epsilon,
        })
    }

    fn conv(&mut self, name: &str, window: Window, shape: Vec<usize>, bias: bool) -> Kind {
        let filters = shape.last().copied().unwrap_or(1);
        Kind::Conv {
            window,
            kernel: self.kernel(name, shape, Layout::Same),
            bias: bias.then(|| self.vector(name, "bias", filters, 0.0)),
            filters,
        }
    }

    fn kernel(&mut self, name: &str, shape: Vec<usize>, layout: Layout) -> usize {
        self.add(
            format!("{name}/kernel"),
            shape,
            layout,
            true,
            Initial::Glorot,
        )
    }

    fn table(&mut self, name: &str, shape: [usize; 2]) -> usize {
        let name = format!("{name}/embeddings");
        self.add(name, shape.to_vec(), Layout::Same, true, Initial::Small)
    }

    fn vector(&mut self, name: &str, role: &str, n: usize, value: f32) -> usize {
        let initial = Initial::Constant(value);
        self.add(
            format!("{name}/{role}"),
            vec![n],
            Layout::Same,
            true,
            initial,
        )
    }

    fn fixed(&mut self, name: &str, role: &str, n: usize, value: f32) -> usize {
        let initial = Initial::Constant(value);
        self.add(
            format!("{name}/{role}"),
            vec![n],
            Layout::Same,
            false,
            initial,
        )
    }

    fn add(
        &mut self,
        name: String,
        shape: Vec<usize>,
        layout: Layout,
        trainable: bool,
        initial: Initial,
    ) -> usize {
        let index = self.parameters.len();
        let n = shape.iter().product();
        let mut rng = random::generator(self.seed, Purpose::Weights, [index as u64, 0]);
        let values = match initial {
            Initial::Constant(value) => vec![value; n],
            Initial::Glorot => random::uniform(&mut rng, n, glorot_limit(&shape)),
            Initial::Small => random::uniform(&mut rng, n, 0.05),
        };
        let parameter = Parameter::new(name, shape, layout, trainable, values, &self.device);
        self.parameters.push(parameter);
        index
    }
}

/// Limit of Keras' `glorot_uniform` for a kernel of shape (…, in, out).
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "fans are far below 2^52 and the limit is a small number"
)]
fn glorot_limit(shape: &[usize]) -> f32 {
    let outputs = shape.last().copied().unwrap_or(1);
    let fan_in = shape.iter().product::<usize>() / outputs.max(1);
    let inputs = shape.iter().rev().nth(1).copied().unwrap_or(1);
    let fan_out = fan_in / inputs.max(1) * outputs;
    (6.0 / (fan_in + fan_out) as f64).sqrt() as f32
}

fn conv_window(l: &Conv2D) -> Window {
    Window {
        size: l.kernel_size.get(),
        stride: l.strides.get(),
        dilation: l.dilation_rate.get(),
        padding: l.padding,
    }
}

fn pool_window(l: &Pooling2D) -> Window {
    let size = l.pool_size.get();
    Window {
        size,
        stride: l.strides.map_or(size, Pair::get),
        dilation: [1, 1],
        padding: l.padding,
    }
}

fn steps_window(l: &Pooling1D) -> Window {
    Window {
        size: [1, l.pool_size],
        stride: [1, l.strides.unwrap_or(l.pool_size)],
        dilation: [1, 1],
        padding: l.padding,
    }
}
