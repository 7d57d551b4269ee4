//! Layers, named, parametrised and defaulted as in Keras 3 (<https://keras.io/api/layers/>).
//!
//! Shapes are channels-last and without the batch dimension, as Keras documents them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::shapes::check_params;
use crate::validation::{ObjectReader, Violations, parse};

/// Element-wise activation (softmax: over the last axis), by its Keras name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Identity.
    #[default]
    Linear,
    /// `max(x, 0)`.
    Relu,
    /// `x` if positive, else `0.2 x` (Keras' default slope).
    LeakyRelu,
    /// Gaussian error linear unit, exact (not the tanh approximation).
    Gelu,
    /// Logistic function.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// Normalised exponential over the last axis.
    Softmax,
}

/// Border handling of convolutions and pools.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// No padding: the window stays inside.
    #[default]
    Valid,
    /// Zero padding so that the output has `ceil(input / stride)` positions; an odd surplus goes
    /// to the end, as in TensorFlow.
    Same,
}

/// One number for both axes or one for each (height, width).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Pair {
    /// The same for both axes.
    One(usize),
    /// Height, then width.
    Two([usize; 2]),
}

impl Pair {
    /// Returns height and width.
    #[must_use]
    pub fn get(self) -> [usize; 2] {
        match self {
            Self::One(n) => [n, n],
            Self::Two(pair) => pair,
        }
    }
}

const fn one() -> usize {
    1
}
const fn pair_one() -> Pair {
    Pair::One(1)
}
const fn pair_two() -> Pair {
    Pair::One(2)
}
const fn yes() -> bool {
    true
}
const fn batch_norm_momentum() -> f64 {
    0.99
}
const fn norm_epsilon() -> f64 {
    1e-3
}

/// Fully connected layer: `(…, in) → (…, units)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DenseLayer)]
pub struct Dense {
    /// Size of the output's last axis.
    #[schema(minimum = 1)]
    pub units: usize,
    /// Activation applied to the output.
    #[serde(default)]
    pub activation: Activation,
    /// Whether a bias is added.
    #[serde(default = "yes")]
    pub use_bias: bool,
}

/// 1-D convolution: `(steps, in) → (new steps, filters)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Conv1DLayer)]
pub struct Conv1D {
    /// Number of output channels.
    #[schema(minimum = 1)]
    pub filters: usize,
    /// Window length.
    #[schema(minimum = 1)]
    pub kernel_size: usize,
    /// Step between windows.
    #[serde(default = "one")]
    #[schema(minimum = 1)]
    pub strides: usize,
    /// Border handling.
    #[serde(default)]
    pub padding: Padding,
    /// Spacing between kernel elements.
    #[serde(default = "one")]
    #[schema(minimum = 1)]
    pub dilation_rate: usize,
    /// Activation applied to the output.
    #[serde(default)]
    pub activation: Activation,
    /// Whether a bias is added.
    #[serde(default = "yes")]
    pub use_bias: bool,
}

/// 2-D convolution: `(height, width, in) → (new height, new width, filters)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Conv2DLayer)]
pub struct Conv2D {
    /// Number of output channels.
    #[schema(minimum = 1)]
    pub filters: usize,
    /// Window height and width.
    pub kernel_size: Pair,
    /// Steps between windows.
    #[serde(default = "pair_one")]
    pub strides: Pair,
    /// Border handling.
    #[serde(default)]
    pub padding: Padding,
    /// Spacing between kernel elements.
    #[serde(default = "pair_one")]
    pub dilation_rate: Pair,
    /// Activation applied to the output.
    #[serde(default)]
    pub activation: Activation,
    /// Whether a bias is added.
    #[serde(default = "yes")]
    pub use_bias: bool,
}

/// Window of a 2-D pool: `(height, width, channels) → (new height, new width, channels)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Pooling2DLayer)]
pub struct Pooling2D {
    /// Window height and width.
    #[serde(default = "pair_two")]
    pub pool_size: Pair,
    /// Steps between windows; the window's size unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strides: Option<Pair>,
    /// Border handling.
    #[serde(default)]
    pub padding: Padding,
}

/// Window of a 1-D pool: `(steps, channels) → (new steps, channels)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Pooling1DLayer)]
pub struct Pooling1D {
    /// Window length.
    #[serde(default = "pool_1d")]
    #[schema(minimum = 1)]
    pub pool_size: usize,
    /// Step between windows; the window's length unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strides: Option<usize>,
    /// Border handling.
    #[serde(default)]
    pub padding: Padding,
}

const fn pool_1d() -> usize {
    2
}

/// A layer without parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PlainLayer)]
pub struct Plain {}

/// Gives each sample another shape of the same size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ReshapeLayer)]
pub struct Reshape {
    /// The new shape; one entry may be -1 and is inferred.
    #[schema(min_items = 1, max_items = 4)]
    pub target_shape: Vec<i64>,
}

/// Zeroes inputs at random while training, scaling the rest by `1 / (1 - rate)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DropoutLayer)]
pub struct Dropout {
    /// Share of inputs dropped, from 0 to below 1.
    #[schema(minimum = 0, exclusive_maximum = 1)]
    pub rate: f64,
}

/// Batch normalisation over the last axis (Ioffe and Szegedy, 2015).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BatchNormalizationLayer)]
pub struct BatchNormalization {
    /// Weight of the old value in the moving averages.
    #[serde(default = "batch_norm_momentum")]
    pub momentum: f64,
    /// Added to the variance.
    #[serde(default = "norm_epsilon")]
    pub epsilon: f64,
}

/// Layer normalisation over the last axis (Ba et al., 2016).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LayerNormalizationLayer)]
pub struct LayerNormalization {
    /// Added to the variance.
    #[serde(default = "norm_epsilon")]
    pub epsilon: f64,
}

/// Looks integers up in a table: `(…) → (…, output_dim)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EmbeddingLayer)]
pub struct Embedding {
    /// Size of the vocabulary: inputs are integers from 0 to below it.
    #[schema(minimum = 1)]
    pub input_dim: usize,
    /// Length of each vector.
    #[schema(minimum = 1)]
    pub output_dim: usize,
}

/// An activation as a layer of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ActivationLayer)]
pub struct ActivationLayer {
    /// Which one.
    pub activation: Activation,
}

macro_rules! layers {
    ($($(#[$doc:meta])* $name:ident($params:ty) => $snake:literal),+ $(,)?) => {
        /// Kind and parameters of a layer; `type` is Keras' class name.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
        #[serde(tag = "type")]
        pub enum Layer {
            $($(#[$doc])* $name($params)),+
        }

        impl Layer {
            /// Class names of all layers.
            pub const TYPES: &'static [&'static str] = &[$(stringify!($name)),+];

            /// Returns Keras' class name.
            #[must_use]
            pub fn type_name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name)),+ }
            }

            /// Returns the stem of Keras' automatic layer names.
            #[must_use]
            pub fn name_stem(&self) -> &'static str {
                match self { $(Self::$name(_) => $snake),+ }
            }

            fn parse_params(class: &str, params: Value, pointer: &str, v: &mut Violations) -> Option<Self> {
                match class {
                    $(stringify!($name) => parse(params, pointer, v).map(Self::$name),)+
                    other => {
                        v.push(
                            format!("{pointer}/type"),
                            "unknown_value",
                            format!("unknown layer {other:?}; known are {}", Self::TYPES.join(", ")),
                        );
                        None
                    }
                }
            }
        }
    };
}

layers! {
    /// Fully connected.
    Dense(Dense) => "dense",
    /// 1-D convolution.
    Conv1D(Conv1D) => "conv1d",
    /// 2-D convolution.
    Conv2D(Conv2D) => "conv2d",
    /// Maximum of each 1-D window.
    MaxPooling1D(Pooling1D) => "max_pooling1d",
    /// Mean of each 1-D window.
    AveragePooling1D(Pooling1D) => "average_pooling1d",
    /// Maximum of each 2-D window.
    MaxPooling2D(Pooling2D) => "max_pooling2d",
    /// Mean of each 2-D window.
    AveragePooling2D(Pooling2D) => "average_pooling2d",
    /// Mean over all steps.
    GlobalAveragePooling1D(Plain) => "global_average_pooling1d",
    /// Mean over height and width.
    GlobalAveragePooling2D(Plain) => "global_average_pooling2d",
    /// All values of a sample in one axis.
    Flatten(Plain) => "flatten",
    /// Another shape of the same size.
    Reshape(Reshape) => "reshape",
    /// Random zeroing while training.
    Dropout(Dropout) => "dropout",
    /// Batch normalisation.
    BatchNormalization(BatchNormalization) => "batch_normalization",
    /// Layer normalisation.
    LayerNormalization(LayerNormalization) => "layer_normalization",
    /// Table lookup of integers.
    Embedding(Embedding) => "embedding",
    /// Activation function.
    Activation(ActivationLayer) => "activation",
}

/// One layer of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LayerSpec {
    /// Unique name, which prefixes its weights; numbered after Keras' habit unless given
    /// (`dense`, `dense_1`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 63)]
    pub name: Option<String>,
    /// Kind and parameters.
    #[serde(flatten)]
    pub layer: Layer,
}

impl LayerSpec {
    /// Reads one layer, recording every mistake.
    pub fn read(value: Value, pointer: &str, violations: &mut Violations) -> Option<Self> {
        let mut reader = ObjectReader::new(value, pointer, violations)?;
        let name = reader.optional::<String>("name");
        let class = reader.required::<String>("type");
        let params = Value::Object(reader.rest());
        let layer = Layer::parse_params(&class?, params, pointer, violations)?;
        for e in check_params(&layer).err().into_iter().flatten() {
            violations.push(format!("{pointer}/{}", e.field), e.code, e.detail);
        }
        Some(Self { name, layer })
    }
}

impl From<Layer> for LayerSpec {
    fn from(layer: Layer) -> Self {
        Self { name: None, layer }
    }
}
