//! From planned layers to what runs.

use nereid_core::spec::{
    layers::{
        Activation, Bidirectional as BidirectionalLayer, Interpolation, Layer, MultiHeadAttention,
        Padding, Pair, Pooling1D, Pooling2D, Recurrent as RecurrentLayer,
    },
    network::{Defaults, PlannedLayer},
    shapes,
};

use crate::network::{
    attention::{Attention, Projection},
    functions::Function,
    layers::{Kind, Node},
    merge::Join,
    noise::Noise,
    norm::{BatchNorm, GroupNorm, LayerNorm, RmsNorm, Slopes},
    recurrent::{Bidirectional, Cell, Recurrent},
    window::Window,
};

/// A layer with the position of its first weight.
pub(super) struct Weights<'a> {
    layer: &'a PlannedLayer,
    first: usize,
    defaults: Defaults,
}

impl<'a> Weights<'a> {
    pub(super) fn new(layer: &'a PlannedLayer, first: usize, defaults: Defaults) -> Self {
        Self {
            layer,
            first,
            defaults,
        }
    }

    /// Index of a weight that the layer has by its kind.
    fn index(&self, role: &str) -> usize {
        self.find(role).unwrap_or(self.first)
    }

    /// Index of a weight, if the layer has it.
    fn find(&self, role: &str) -> Option<usize> {
        let at = self.layer.weights.iter().position(|w| w.role == role)?;
        Some(self.first + at)
    }

    fn bias(&self) -> Option<usize> {
        self.find("bias")
    }

    fn function(&self, activation: Activation) -> Function {
        Function::of(activation, self.defaults)
    }

    pub(super) fn node(&self) -> Node {
        let kind = self
            .windowed()
            .or_else(|| self.shaping())
            .or_else(|| self.weighted())
            .unwrap_or(Kind::Activation);
        let activation = match &self.layer.layer {
            Layer::ReLU(l) => Function::Relu {
                largest: l.max_value,
                slope: l.negative_slope,
                threshold: l.threshold,
            },
            Layer::LeakyReLU(l) => Function::LeakyRelu(l.negative_slope),
            Layer::ELU(l) => Function::Elu(l.alpha),
            other => self.function(other.activation()),
        };
        Node {
            name: self.layer.name.clone(),
            kind,
            sources: self.layer.sources.clone(),
            output: self.layer.shape.output.clone(),
            activation,
        }
    }

    /// Layers with windows.
    fn windowed(&self) -> Option<Kind> {
        let inputs = self.layer.inputs.first()?.last().copied().unwrap_or(1);
        Some(match &self.layer.layer {
            Layer::Conv1D(l) => Kind::Conv {
                window: Window {
                    size: [1, l.kernel_size],
                    stride: [1, l.strides],
                    dilation: [1, l.dilation_rate],
                    padding: l.padding,
                },
                kernel: self.index("kernel"),
                bias: self.bias(),
                filters: l.filters,
                groups: l.groups,
            },
            Layer::Conv2D(l) => Kind::Conv {
                window: window([l.kernel_size, l.strides, l.dilation_rate], l.padding),
                kernel: self.index("kernel"),
                bias: self.bias(),
                filters: l.filters,
                groups: l.groups,
            },
            Layer::DepthwiseConv2D(l) => Kind::Conv {
                window: window([l.kernel_size, l.strides, l.dilation_rate], l.padding),
                kernel: self.index("kernel"),
                bias: self.bias(),
                filters: inputs * l.depth_multiplier,
                groups: inputs,
            },
            Layer::Conv2DTranspose(l) => Kind::ConvTranspose {
                window: window([l.kernel_size, l.strides, l.dilation_rate], l.padding),
                kernel: self.index("kernel"),
                bias: self.bias(),
                filters: l.filters,
            },
            Layer::SeparableConv2D(l) => Kind::Separable {
                window: window([l.kernel_size, l.strides, l.dilation_rate], l.padding),
                depthwise: self.index("depthwise_kernel"),
                pointwise: self.index("pointwise_kernel"),
                bias: self.bias(),
                multiplier: l.depth_multiplier,
                filters: l.filters,
            },
            Layer::MaxPooling1D(l) => Kind::MaxPool(steps_window(l)),
            Layer::AveragePooling1D(l) => Kind::AveragePool(steps_window(l)),
            Layer::MaxPooling2D(l) => Kind::MaxPool(pool_window(l)),
            Layer::AveragePooling2D(l) => Kind::AveragePool(pool_window(l)),
            _ => return None,
        })
    }

    /// Layers without weights that change shapes, join or disturb.
    fn shaping(&self) -> Option<Kind> {
        let rank = self.layer.shape.output.len();
        Some(match &self.layer.layer {
            Layer::GlobalAveragePooling1D(_) | Layer::GlobalAveragePooling2D(_) => {
                Kind::GlobalAverage
            }
            Layer::GlobalMaxPooling1D(_) | Layer::GlobalMaxPooling2D(_) => Kind::GlobalMaximum,
            Layer::ZeroPadding2D(l) => Kind::ZeroPad(l.padding.get()),
            Layer::UpSampling2D(l) => match l.interpolation {
                Interpolation::Nearest => Kind::Nearest(l.size.get()),
                Interpolation::Bilinear => Kind::Bilinear(l.size.get()),
            },
            Layer::Flatten(_) | Layer::Reshape(_) => Kind::Reshape,
            Layer::RepeatVector(l) => Kind::Repeat(l.n),
            Layer::Dropout(l) => Kind::Noise(Noise::Dropout(l.rate)),
            Layer::SpatialDropout1D(l) | Layer::SpatialDropout2D(l) => {
                Kind::Noise(Noise::Channels(l.rate))
            }
            Layer::GaussianNoise(l) => Kind::Noise(Noise::Normal(l.stddev)),
            Layer::Add(_) => Kind::Join(Join::Add),
            Layer::Subtract(_) => Kind::Join(Join::Subtract),
            Layer::Multiply(_) => Kind::Join(Join::Multiply),
            Layer::Average(_) => Kind::Join(Join::Average),
            Layer::Maximum(_) => Kind::Join(Join::Maximum),
            Layer::Minimum(_) => Kind::Join(Join::Minimum),
            Layer::Concatenate(l) => Kind::Concatenate(shapes::axis(l.axis, rank)?),
            _ => return None,
        })
    }

    /// Layers with weights but without windows.
    fn weighted(&self) -> Option<Kind> {
        Some(match &self.layer.layer {
            Layer::Dense(l) => Kind::Dense {
                kernel: self.index("kernel"),
                bias: self.bias(),
                units: l.units,
            },
            Layer::BatchNormalization(l) => Kind::BatchNorm(BatchNorm {
                gamma: self.index("gamma"),
                beta: self.index("beta"),
                mean: self.index("moving_mean"),
                variance: self.index("moving_variance"),
                momentum: l.momentum,
                epsilon: l.epsilon,
                unbiased: self.defaults == Defaults::Pytorch,
                frozen: false,
            }),
            Layer::LayerNormalization(l) => Kind::LayerNorm(LayerNorm {
                gamma: self.index("gamma"),
                beta: self.index("beta"),
                epsilon: l.epsilon,
            }),
            Layer::RMSNormalization(l) => Kind::RmsNorm(RmsNorm {
                scale: self.index("scale"),
                epsilon: l.epsilon,
            }),
            Layer::GroupNormalization(l) => Kind::GroupNorm(GroupNorm {
                gamma: self.index("gamma"),
                beta: self.index("beta"),
                groups: l.groups,
                epsilon: l.epsilon,
            }),
            Layer::PReLU(_) => Kind::Slopes(Slopes {
                alpha: self.index("alpha"),
                shape: self.layer.weights.first()?.shape.clone(),
            }),
            Layer::Embedding(l) => Kind::Embedding {
                table: self.index("embeddings"),
                rows: l.input_dim,
                size: l.output_dim,
            },
            Layer::PositionEmbedding(_) => Kind::Positions(self.index("position_embeddings")),
            Layer::SimpleRNN(l) => {
                Kind::Recurrent(self.recurrent("", &RecurrentLayer::SimpleRNN(l.clone())))
            }
            Layer::LSTM(l) => Kind::Recurrent(self.recurrent("", &RecurrentLayer::LSTM(l.clone()))),
            Layer::GRU(l) => Kind::Recurrent(self.recurrent("", &RecurrentLayer::GRU(l.clone()))),
            Layer::Bidirectional(l) => Kind::Bidirectional(self.bidirectional(l)),
            Layer::MultiHeadAttention(l) => Kind::Attention(self.attention(l)),
            _ => return None,
        })
    }

    fn recurrent(&self, prefix: &str, layer: &RecurrentLayer) -> Recurrent {
        let (cell, units, activation, sequences, backwards) = match layer {
            RecurrentLayer::SimpleRNN(l) => (
                Cell::Simple,
                l.units,
                l.activation,
                l.return_sequences,
                l.go_backwards,
            ),
            RecurrentLayer::LSTM(l) => (
                Cell::Lstm(self.function(l.recurrent_activation)),
                l.units,
                l.activation,
                l.return_sequences,
                l.go_backwards,
            ),
            RecurrentLayer::GRU(l) => (
                Cell::Gru(self.function(l.recurrent_activation), l.reset_after),
                l.units,
                l.activation,
                l.return_sequences,
                l.go_backwards,
            ),
        };
        Recurrent {
            cell,
            kernel: self.index(&format!("{prefix}kernel")),
            inner: self.index(&format!("{prefix}recurrent_kernel")),
            bias: self.find(&format!("{prefix}bias")),
            units,
            function: self.function(activation),
            sequences,
            backwards,
        }
    }

    fn bidirectional(&self, l: &BidirectionalLayer) -> Bidirectional {
        let forward = self.recurrent("forward/", &l.layer);
        let mut backward = self.recurrent("backward/", &l.layer);
        backward.backwards = !forward.backwards;
        Bidirectional {
            forward,
            backward,
            merge: l.merge_mode,
        }
    }

    fn attention(&self, l: &MultiHeadAttention) -> Attention {
        let projection = |role: &str| Projection {
            kernel: self.index(&format!("{role}/kernel")),
            bias: self.find(&format!("{role}/bias")),
        };
        Attention {
            query: projection("query"),
            key: projection("key"),
            value: projection("value"),
            output: projection("attention_output"),
            heads: l.num_heads,
            key_dim: l.key_dim,
            value_dim: l.value_dim.unwrap_or(l.key_dim),
            causal: l.use_causal_mask,
            dropout: l.dropout,
        }
    }
}

/// A window of a size, stride and dilation.
fn window([size, stride, dilation]: [Pair; 3], padding: Padding) -> Window {
    Window {
        size: size.get(),
        stride: stride.get(),
        dilation: dilation.get(),
        padding: padding.into(),
    }
}

fn pool_window(l: &Pooling2D) -> Window {
    let size = l.pool_size;
    window([size, l.strides.unwrap_or(size), Pair::One(1)], l.padding)
}

fn steps_window(l: &Pooling1D) -> Window {
    Window {
        size: [1, l.pool_size],
        stride: [1, l.strides.unwrap_or(l.pool_size)],
        dilation: [1, 1],
        padding: l.padding.into(),
    }
}
