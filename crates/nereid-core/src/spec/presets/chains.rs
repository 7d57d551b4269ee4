//! Presets of dense layers and of convolutions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Layers, check_rate, dense, dropout, wants};
use crate::{
    limits,
    spec::{
        layers::{
            Activation, BatchNormalization, Conv2D, Layer, LayerSpec, Padding, Pair, Plain,
            Pooling2D,
        },
        shapes::LayerError,
    },
    validation::Violations,
};

/// Most entries of a list of sizes.
const MAX_SIZES: usize = 32;

fn check_sizes(v: &mut Violations, pointer: &str, sizes: &[usize], least: usize) {
    v.check(
        (least..=MAX_SIZES).contains(&sizes.len()),
        pointer,
        "out_of_range",
        || {
            format!(
                "{} sizes are not between {least} and {MAX_SIZES}",
                sizes.len()
            )
        },
    );
    for (i, &n) in sizes.iter().enumerate() {
        v.check_range(&format!("{pointer}/{i}"), n, 1, limits::MAX_FEATURES);
    }
}

/// Parameters of `mlp`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MlpPreset)]
pub struct Mlp {
    /// Units of each hidden layer.
    #[serde(default = "hidden")]
    #[schema(max_items = 32)]
    pub hidden: Vec<usize>,
    /// Activation of hidden layers.
    #[serde(default = "relu")]
    pub activation: Activation,
    /// Share dropped after each hidden layer.
    #[serde(default)]
    pub dropout: f64,
    /// Whether each hidden layer is normalised by batch.
    #[serde(default)]
    pub batch_normalization: bool,
}

fn hidden() -> Vec<usize> {
    vec![128, 64]
}
const fn relu() -> Activation {
    Activation::Relu
}

impl Mlp {
    pub(super) fn check(&self, pointer: &str, v: &mut Violations) {
        check_sizes(v, &format!("{pointer}/hidden"), &self.hidden, 0);
        check_rate(v, &format!("{pointer}/dropout"), self.dropout);
    }

    pub(super) fn expand(&self, input: &[usize], outputs: usize) -> Vec<LayerSpec> {
        let mut layers = Layers::default();
        if input.len() > 1 {
            layers.push(Layer::Flatten(Plain {}));
        }
        for &units in &self.hidden {
            if self.batch_normalization {
                layers.push(dense(units, Activation::Linear));
                layers.push(normalization());
                layers.push(super::activation(self.activation));
            } else {
                layers.push(dense(units, self.activation));
            }
            if self.dropout > 0.0 {
                layers.push(dropout(self.dropout));
            }
        }
        layers.finish(outputs)
    }
}

fn normalization() -> Layer {
    Layer::BatchNormalization(BatchNormalization {
        momentum: 0.99,
        epsilon: 1e-3,
    })
}

/// Parameters of `cnn`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CnnPreset)]
pub struct Cnn {
    /// Filters of each convolution; a pool that halves planes follows each.
    #[serde(default = "filters")]
    #[schema(min_items = 1, max_items = 32)]
    pub filters: Vec<usize>,
    /// Window of the convolutions.
    #[serde(default = "three")]
    #[schema(minimum = 1)]
    pub kernel_size: usize,
    /// Units of each dense layer before the last one.
    #[serde(default = "units")]
    #[schema(max_items = 32)]
    pub hidden: Vec<usize>,
    /// Activation of convolutions and dense layers.
    #[serde(default = "relu")]
    pub activation: Activation,
    /// Share dropped after each dense layer.
    #[serde(default)]
    pub dropout: f64,
    /// Whether convolutions are normalised by batch.
    #[serde(default)]
    pub batch_normalization: bool,
}

fn filters() -> Vec<usize> {
    vec![32, 64]
}
fn units() -> Vec<usize> {
    vec![128]
}
const fn three() -> usize {
    3
}

impl Cnn {
    pub(super) fn check(&self, pointer: &str, v: &mut Violations) {
        check_sizes(v, &format!("{pointer}/filters"), &self.filters, 1);
        check_sizes(v, &format!("{pointer}/hidden"), &self.hidden, 0);
        let at = format!("{pointer}/kernel_size");
        v.check_range(&at, self.kernel_size, 1, limits::MAX_FEATURES);
        check_rate(v, &format!("{pointer}/dropout"), self.dropout);
    }

    pub(super) fn expand(
        &self,
        input: &[usize],
        outputs: usize,
    ) -> Result<Vec<LayerSpec>, LayerError> {
        let [height, width, _] = *input else {
            return Err(wants("cnn", "(height, width, channels)", input));
        };
        let mut layers = Layers::default();
        let mut shorter = height.min(width);
        for &filters in &self.filters {
            layers.push(self.convolution(filters));
            if self.batch_normalization {
                layers.push(normalization());
                layers.push(super::activation(self.activation));
            }
            // Planes of one row or column cannot be halved.
            if shorter > 1 {
                layers.push(Layer::MaxPooling2D(Pooling2D {
                    pool_size: Pair::One(2),
                    strides: None,
                    padding: Padding::Valid,
                }));
                shorter /= 2;
            }
        }
        layers.push(Layer::Flatten(Plain {}));
        for &units in &self.hidden {
            layers.push(dense(units, self.activation));
            if self.dropout > 0.0 {
                layers.push(dropout(self.dropout));
            }
        }
        Ok(layers.finish(outputs))
    }

    fn convolution(&self, filters: usize) -> Layer {
        Layer::Conv2D(Conv2D {
            filters,
            kernel_size: Pair::One(self.kernel_size),
            strides: Pair::One(1),
            padding: Padding::Same,
            dilation_rate: Pair::One(1),
            groups: 1,
            activation: if self.batch_normalization {
                Activation::Linear
            } else {
                self.activation
            },
            use_bias: !self.batch_normalization,
            kernel_initializer: None,
            kernel_regularizer: None,
            bias_initializer: None,
        })
    }
}
