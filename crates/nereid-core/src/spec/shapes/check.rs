//! Checks of a layer's own parameters, whatever its input.

use super::LayerError;
use crate::{
    limits,
    spec::{
        initializers::Initializer,
        layers::{Bidirectional, Layer, Pair, Recurrent},
        regularizers::Regularizer,
    },
};

/// Checks a layer's own parameters, whatever its input.
///
/// # Errors
/// Every parameter outside its range.
pub fn check_params(layer: &Layer) -> Result<(), Vec<LayerError>> {
    let mut checks = Checks(Vec::new());
    checks.windows(layer);
    checks.others(layer);
    if checks.0.is_empty() {
        Ok(())
    } else {
        Err(checks.0)
    }
}

struct Checks(Vec<LayerError>);

impl Checks {
    fn between(&mut self, field: &'static str, values: &[usize], least: usize) {
        let max = limits::MAX_FEATURES;
        for &n in values {
            if n < least || n > max {
                let detail = format!("{n} is not between {least} and {max}");
                self.0.push(LayerError::range(field, detail));
            }
        }
    }

    fn positive(&mut self, field: &'static str, values: &[usize]) {
        self.between(field, values, 1);
    }

    fn share(&mut self, field: &'static str, value: f64) {
        if !(0.0..1.0).contains(&value) {
            let detail = format!("{value} is not from 0 to below 1");
            self.0.push(LayerError::range(field, detail));
        }
    }

    fn epsilon(&mut self, epsilon: f64) {
        if !(epsilon > 0.0 && epsilon <= 1.0) {
            let detail = format!("{epsilon} is not above 0 and at most 1");
            self.0.push(LayerError::range("epsilon", detail));
        }
    }

    fn number(&mut self, field: &'static str, value: f64, least: f64) {
        let max = limits::MAX_INITIAL_VALUE;
        if !(least..=max).contains(&value) {
            let detail = format!("{value} is not between {least} and {max}");
            self.0.push(LayerError::range(field, detail));
        }
    }

    fn initial(&mut self, field: &'static str, initializer: Option<Initializer>) {
        if let Some(initializer) = initializer {
            initializer.check(field, &mut self.0);
        }
    }

    fn regular(&mut self, field: &'static str, regularizer: Option<Regularizer>) {
        if let Some(regularizer) = regularizer {
            regularizer.check(field, &mut self.0);
        }
    }

    fn stride_or_dilation(&mut self, strides: [usize; 2], dilation: [usize; 2]) {
        if strides != [1, 1] && dilation != [1, 1] {
            self.0.push(LayerError {
                field: "dilation_rate",
                code: "conflict",
                detail: "strides and dilation_rate cannot both be above 1".to_owned(),
            });
        }
    }

    /// Checks size, stride and dilation of a window over planes.
    fn window(&mut self, [size, strides, dilation]: [Pair; 3]) {
        self.positive("kernel_size", &size.get());
        self.positive("strides", &strides.get());
        self.positive("dilation_rate", &dilation.get());
        self.stride_or_dilation(strides.get(), dilation.get());
    }

    fn windows(&mut self, layer: &Layer) {
        match layer {
            Layer::Conv1D(l) => {
                self.positive("filters", &[l.filters]);
                self.positive("kernel_size", &[l.kernel_size]);
                self.positive("strides", &[l.strides]);
                self.positive("dilation_rate", &[l.dilation_rate]);
                self.positive("groups", &[l.groups]);
                self.stride_or_dilation([1, l.strides], [1, l.dilation_rate]);
                self.initial("kernel_initializer", l.kernel_initializer);
                self.regular("kernel_regularizer", l.kernel_regularizer);
                self.initial("bias_initializer", l.bias_initializer);
            }
            Layer::Conv2D(l) => {
                self.positive("filters", &[l.filters]);
                self.window([l.kernel_size, l.strides, l.dilation_rate]);
                self.positive("groups", &[l.groups]);
                self.initial("kernel_initializer", l.kernel_initializer);
                self.regular("kernel_regularizer", l.kernel_regularizer);
                self.initial("bias_initializer", l.bias_initializer);
            }
            Layer::Conv2DTranspose(l) => {
                self.positive("filters", &[l.filters]);
                self.window([l.kernel_size, l.strides, l.dilation_rate]);
                self.initial("kernel_initializer", l.kernel_initializer);
                self.regular("kernel_regularizer", l.kernel_regularizer);
                self.initial("bias_initializer", l.bias_initializer);
            }
            Layer::DepthwiseConv2D(l) => {
                self.window([l.kernel_size, l.strides, l.dilation_rate]);
                self.positive("depth_multiplier", &[l.depth_multiplier]);
                self.initial("depthwise_initializer", l.depthwise_initializer);
                self.initial("bias_initializer", l.bias_initializer);
            }
            Layer::SeparableConv2D(l) => {
                self.positive("filters", &[l.filters]);
                self.window([l.kernel_size, l.strides, l.dilation_rate]);
                self.positive("depth_multiplier", &[l.depth_multiplier]);
                self.initial("depthwise_initializer", l.depthwise_initializer);
                self.initial("pointwise_initializer", l.pointwise_initializer);
                self.initial("bias_initializer", l.bias_initializer);
            }
            Layer::MaxPooling1D(l) | Layer::AveragePooling1D(l) => {
                self.positive("pool_size", &[l.pool_size]);
                self.positive("strides", &[l.strides.unwrap_or(1)]);
            }
            Layer::MaxPooling2D(l) | Layer::AveragePooling2D(l) => {
                self.positive("pool_size", &l.pool_size.get());
                self.positive("strides", &l.strides.map_or([1, 1], Pair::get));
            }
            Layer::ZeroPadding2D(l) => self.between("padding", l.padding.get().as_flattened(), 0),
            Layer::UpSampling2D(l) => self.positive("size", &l.size.get()),
            _ => {}
        }
    }

    fn others(&mut self, layer: &Layer) {
        match layer {
            Layer::Dense(l) => {
                self.positive("units", &[l.units]);
                self.initial("kernel_initializer", l.kernel_initializer);
                self.regular("kernel_regularizer", l.kernel_regularizer);
                self.initial("bias_initializer", l.bias_initializer);
            }
            Layer::Embedding(l) => {
                self.positive("input_dim", &[l.input_dim]);
                self.positive("output_dim", &[l.output_dim]);
                self.initial("embeddings_initializer", l.embeddings_initializer);
            }
            Layer::PositionEmbedding(l) => {
                self.positive("sequence_length", &[l.sequence_length]);
                self.initial("initializer", l.initializer);
            }
            Layer::RepeatVector(l) => self.positive("n", &[l.n]),
            Layer::Dropout(l) | Layer::SpatialDropout1D(l) | Layer::SpatialDropout2D(l) => {
                self.share("rate", l.rate);
            }
            Layer::GaussianNoise(l) => self.number("stddev", l.stddev, 0.0),
            Layer::BatchNormalization(l) => {
                self.share("momentum", l.momentum);
                self.epsilon(l.epsilon);
            }
            Layer::LayerNormalization(l) => self.epsilon(l.epsilon),
            Layer::RMSNormalization(l) => self.epsilon(l.epsilon),
            Layer::GroupNormalization(l) => {
                self.positive("groups", &[l.groups]);
                self.epsilon(l.epsilon);
            }
            Layer::ReLU(l) => {
                self.number("max_value", l.max_value.unwrap_or(0.0), 0.0);
                self.number("negative_slope", l.negative_slope, 0.0);
                self.number("threshold", l.threshold, 0.0);
            }
            Layer::LeakyReLU(l) => self.number("negative_slope", l.negative_slope, 0.0),
            Layer::ELU(l) => self.number("alpha", l.alpha, 0.0),
            Layer::PReLU(l) => self.initial("alpha_initializer", l.alpha_initializer),
            Layer::SimpleRNN(_) | Layer::LSTM(_) | Layer::GRU(_) | Layer::Bidirectional(_) => {
                self.recurrent(layer);
            }
            Layer::MultiHeadAttention(l) => {
                self.positive("num_heads", &[l.num_heads]);
                self.positive("key_dim", &[l.key_dim]);
                self.positive("value_dim", &[l.value_dim.unwrap_or(1)]);
                self.share("dropout", l.dropout);
                self.initial("kernel_initializer", l.kernel_initializer);
                self.initial("bias_initializer", l.bias_initializer);
            }
            _ => {}
        }
    }

    fn recurrent(&mut self, layer: &Layer) {
        let (units, initializers) = match layer {
            Layer::SimpleRNN(l)
            | Layer::Bidirectional(Bidirectional {
                layer: Recurrent::SimpleRNN(l),
                ..
            }) => (
                l.units,
                [
                    l.kernel_initializer,
                    l.recurrent_initializer,
                    l.bias_initializer,
                ],
            ),
            Layer::LSTM(l)
            | Layer::Bidirectional(Bidirectional {
                layer: Recurrent::LSTM(l),
                ..
            }) => (
                l.units,
                [
                    l.kernel_initializer,
                    l.recurrent_initializer,
                    l.bias_initializer,
                ],
            ),
            Layer::GRU(l)
            | Layer::Bidirectional(Bidirectional {
                layer: Recurrent::GRU(l),
                ..
            }) => (
                l.units,
                [
                    l.kernel_initializer,
                    l.recurrent_initializer,
                    l.bias_initializer,
                ],
            ),
            _ => return,
        };
        self.positive("units", &[units]);
        let fields = [
            "kernel_initializer",
            "recurrent_initializer",
            "bias_initializer",
        ];
        for (field, initializer) in fields.into_iter().zip(initializers) {
            self.initial(field, initializer);
        }
    }
}
