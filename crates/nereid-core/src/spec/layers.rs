//! Layers, named, parametrised and defaulted as in Keras 3 (<https://keras.io/api/layers/>).
//!
//! Shapes are channels-last and without the batch dimension, as Keras documents them.

mod activation;
mod attention;
mod dense;
mod merge;
mod noise;
mod norm;
mod recurrent;
mod window;

pub use activation::{Activation, ActivationLayer, ELU, LeakyReLU, ReLU};
pub use attention::MultiHeadAttention;
pub use dense::{Dense, Embedding, Plain, PositionEmbedding, RepeatVector, Reshape};
pub use merge::Concatenate;
pub use noise::{Dropout, GaussianNoise};
pub use norm::{
    BatchNormalization, GroupNormalization, LayerNormalization, PReLU, RMSNormalization,
};
pub use recurrent::{Bidirectional, GRU, LSTM, MergeMode, Recurrent, SimpleRNN};
pub use window::{
    Conv1D, Conv2D, Conv2DTranspose, DepthwiseConv2D, Interpolation, Margins, Padding, Pair,
    Pooling1D, Pooling2D, SeparableConv2D, StepPadding, UpSampling2D, ZeroPadding2D,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{network::Defaults, regularizers::Regularizer, shapes::check_params};
use crate::{
    limits,
    validation::{ObjectReader, Violations, parse},
};

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
    /// Transposed 2-D convolution.
    Conv2DTranspose(Conv2DTranspose) => "conv2d_transpose",
    /// 2-D convolution of each channel by itself.
    DepthwiseConv2D(DepthwiseConv2D) => "depthwise_conv2d",
    /// Depthwise convolution, then one over channels.
    SeparableConv2D(SeparableConv2D) => "separable_conv2d",
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
    /// Maximum over all steps.
    GlobalMaxPooling1D(Plain) => "global_max_pooling1d",
    /// Maximum over height and width.
    GlobalMaxPooling2D(Plain) => "global_max_pooling2d",
    /// Zeros around planes.
    ZeroPadding2D(ZeroPadding2D) => "zero_padding2d",
    /// Larger planes.
    UpSampling2D(UpSampling2D) => "up_sampling2d",
    /// All values of a sample in one axis.
    Flatten(Plain) => "flatten",
    /// Another shape of the same size.
    Reshape(Reshape) => "reshape",
    /// The same vector at each step.
    RepeatVector(RepeatVector) => "repeat_vector",
    /// Random zeroing while training.
    Dropout(Dropout) => "dropout",
    /// Random zeroing of whole channels of steps while training.
    SpatialDropout1D(Dropout) => "spatial_dropout1d",
    /// Random zeroing of whole channels of planes while training.
    SpatialDropout2D(Dropout) => "spatial_dropout2d",
    /// Normal noise while training.
    GaussianNoise(GaussianNoise) => "gaussian_noise",
    /// Batch normalisation.
    BatchNormalization(BatchNormalization) => "batch_normalization",
    /// Layer normalisation.
    LayerNormalization(LayerNormalization) => "layer_normalization",
    /// Division by the root of the mean square.
    RMSNormalization(RMSNormalization) => "rms_normalization",
    /// Normalisation of groups of channels.
    GroupNormalization(GroupNormalization) => "group_normalization",
    /// Table lookup of integers.
    Embedding(Embedding) => "embedding",
    /// A learned vector for each position.
    PositionEmbedding(PositionEmbedding) => "position_embedding",
    /// Fully connected recurrence.
    SimpleRNN(SimpleRNN) => "simple_rnn",
    /// Long short-term memory.
    LSTM(LSTM) => "lstm",
    /// Gated recurrent unit.
    GRU(GRU) => "gru",
    /// A recurrent layer in both directions.
    Bidirectional(Bidirectional) => "bidirectional",
    /// Attention.
    MultiHeadAttention(MultiHeadAttention) => "multi_head_attention",
    /// Activation function.
    Activation(ActivationLayer) => "activation",
    /// Rectifier with a slope, a threshold or a largest value.
    ReLU(ReLU) => "re_lu",
    /// Rectifier with a slope of negative values.
    LeakyReLU(LeakyReLU) => "leaky_re_lu",
    /// Exponential linear unit.
    ELU(ELU) => "elu",
    /// Rectifier with learned slopes.
    PReLU(PReLU) => "p_re_lu",
    /// Sum of inputs.
    Add(Plain) => "add",
    /// First input less the second.
    Subtract(Plain) => "subtract",
    /// Product of inputs.
    Multiply(Plain) => "multiply",
    /// Mean of inputs.
    Average(Plain) => "average",
    /// Largest of inputs.
    Maximum(Plain) => "maximum",
    /// Smallest of inputs.
    Minimum(Plain) => "minimum",
    /// Inputs one after the other along an axis.
    Concatenate(Concatenate) => "concatenate",
}

impl Layer {
    /// Tells whether the layer does nothing but when training.
    #[must_use]
    pub fn is_noise(&self) -> bool {
        matches!(
            self,
            Self::Dropout(_)
                | Self::SpatialDropout1D(_)
                | Self::SpatialDropout2D(_)
                | Self::GaussianNoise(_)
        )
    }

    /// Returns what is added to the loss for the layer's kernel.
    #[must_use]
    pub fn kernel_regularizer(&self) -> Option<Regularizer> {
        match self {
            Self::Dense(l) => l.kernel_regularizer,
            Self::Conv1D(l) => l.kernel_regularizer,
            Self::Conv2D(l) => l.kernel_regularizer,
            Self::Conv2DTranspose(l) => l.kernel_regularizer,
            _ => None,
        }
    }

    /// Returns the activation that the layer ends in, if it is one that a loss can include.
    #[must_use]
    pub fn activation(&self) -> Activation {
        match self {
            Self::Dense(l) => l.activation,
            Self::Conv1D(l) => l.activation,
            Self::Conv2D(l) => l.activation,
            Self::Conv2DTranspose(l) => l.activation,
            Self::DepthwiseConv2D(l) => l.activation,
            Self::SeparableConv2D(l) => l.activation,
            Self::Activation(l) => l.activation,
            _ => Activation::Linear,
        }
    }
}

/// One layer of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LayerSpec {
    /// Unique name, which prefixes its weights; numbered after Keras' habit unless given
    /// (`dense`, `dense_1`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 63)]
    pub name: Option<String>,
    /// What it takes: names of earlier layers, or `"input"` for the network's input; the layer
    /// before unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 64, example = json!(["conv2d", "input"]))]
    pub inputs: Option<Vec<String>>,
    /// Kind and parameters.
    #[serde(flatten)]
    pub layer: Layer,
}

impl LayerSpec {
    /// Reads one layer, recording every mistake; `defaults` fill in what it leaves out.
    pub fn read(
        value: Value,
        pointer: &str,
        defaults: Defaults,
        violations: &mut Violations,
    ) -> Option<Self> {
        let mut reader = ObjectReader::new(value, pointer, violations)?;
        let name = reader.optional::<String>("name");
        let inputs = reader.optional::<Vec<String>>("inputs");
        let class = reader.required::<String>("type");
        let at = reader.pointer_to("trainable");
        if reader.take("trainable").is_some_and(|v| v != true) {
            let detail = "layers are kept from training by name: {\"fit\": {\"trainable\": {\"<name>\": false}}}";
            reader.violations().push(at, "unknown_field", detail);
        }
        let mut params = reader.rest();
        let max = limits::MAX_LAYER_INPUTS;
        if let Some(inputs) = &inputs {
            violations.check(
                (1..=max).contains(&inputs.len()),
                &format!("{pointer}/inputs"),
                "out_of_range",
                || format!("{} inputs are not between 1 and {max}", inputs.len()),
            );
        }
        let class = class?;
        defaults.fill_in(&class, &mut params);
        let params = Value::Object(params);
        let layer = Layer::parse_params(&class, params, pointer, violations)?;
        for e in check_params(&layer).err().into_iter().flatten() {
            violations.push(format!("{pointer}/{}", e.field), e.code, e.detail);
        }
        Some(Self {
            name,
            inputs,
            layer,
        })
    }
}

impl From<Layer> for LayerSpec {
    fn from(layer: Layer) -> Self {
        Self {
            name: None,
            inputs: None,
            layer,
        }
    }
}

impl Defaults {
    /// Adds the fields that a layer leaves out where they differ from Keras' defaults.
    fn fill_in(self, class: &str, params: &mut Map<String, Value>) {
        if self == Self::Keras {
            return;
        }
        let fields: &[(&str, Value)] = &match class {
            "BatchNormalization" => vec![("momentum", 0.9.into()), ("epsilon", 1e-5.into())],
            "LayerNormalization" | "GroupNormalization" => vec![("epsilon", 1e-5.into())],
            // The spacing of 32-bit floats at 1, as torch.nn.RMSNorm has it.
            "RMSNormalization" => vec![("epsilon", f64::from(f32::EPSILON).into())],
            "LeakyReLU" => vec![("negative_slope", 0.01.into())],
            "LSTM" => vec![("unit_forget_bias", false.into())],
            _ => vec![],
        };
        for (field, value) in fields {
            params.entry(*field).or_insert_with(|| value.clone());
        }
        if let ("Bidirectional", Some(Value::Object(inner))) = (class, params.get_mut("layer"))
            && let Some(class) = inner.get("type").and_then(Value::as_str).map(str::to_owned)
        {
            self.fill_in(&class, inner);
        }
    }
}
