//! Convolutions, pools and other layers over steps or planes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Activation;
use crate::spec::{
    initializers::{Initializer, InitializerForm, lenient},
    regularizers::{Regularizer, RegularizerForm, lenient as regularizer},
};

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

/// Border handling of convolutions over steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepPadding {
    /// No padding: the window stays inside.
    #[default]
    Valid,
    /// Zero padding so that the output has `ceil(input / stride)` positions; an odd surplus goes
    /// to the end, as in TensorFlow.
    Same,
    /// Zero padding before the first step only: an output never depends on later steps.
    Causal,
}

impl From<Padding> for StepPadding {
    fn from(padding: Padding) -> Self {
        match padding {
            Padding::Valid => Self::Valid,
            Padding::Same => Self::Same,
        }
    }
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

/// Rows and columns added around a plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Margins {
    /// The same on all four sides.
    All(usize),
    /// Above and below, then left and right.
    Symmetric([usize; 2]),
    /// `[[above, below], [left, right]]`.
    Sides([[usize; 2]; 2]),
}

impl Margins {
    /// Returns `[[above, below], [left, right]]`.
    #[must_use]
    pub fn get(self) -> [[usize; 2]; 2] {
        match self {
            Self::All(n) => [[n; 2]; 2],
            Self::Symmetric([h, w]) => [[h; 2], [w; 2]],
            Self::Sides(sides) => sides,
        }
    }
}

const fn one() -> usize {
    1
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_one(n: &usize) -> bool {
    *n == 1
}
const fn two() -> usize {
    2
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
const fn margins() -> Margins {
    Margins::All(1)
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
    pub padding: StepPadding,
    /// Spacing between kernel elements.
    #[serde(default = "one")]
    #[schema(minimum = 1)]
    pub dilation_rate: usize,
    /// Groups of channels that are convolved apart; both channel counts are multiples of it.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schema(minimum = 1)]
    pub groups: usize,
    /// Activation applied to the output.
    #[serde(default)]
    pub activation: Activation,
    /// Whether a bias is added.
    #[serde(default = "yes")]
    pub use_bias: bool,
    /// Initial values of the kernel; `glorot_uniform` unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub kernel_initializer: Option<Initializer>,
    /// Initial values of the bias; zeros unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub bias_initializer: Option<Initializer>,
    /// What is added to the loss for the kernel; nothing unless given.
    #[serde(
        default,
        deserialize_with = "regularizer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<RegularizerForm>)]
    pub kernel_regularizer: Option<Regularizer>,
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
    /// Groups of channels that are convolved apart; both channel counts are multiples of it.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schema(minimum = 1)]
    pub groups: usize,
    /// Activation applied to the output.
    #[serde(default)]
    pub activation: Activation,
    /// Whether a bias is added.
    #[serde(default = "yes")]
    pub use_bias: bool,
    /// Initial values of the kernel; `glorot_uniform` unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub kernel_initializer: Option<Initializer>,
    /// Initial values of the bias; zeros unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub bias_initializer: Option<Initializer>,
    /// What is added to the loss for the kernel; nothing unless given.
    #[serde(
        default,
        deserialize_with = "regularizer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<RegularizerForm>)]
    pub kernel_regularizer: Option<Regularizer>,
}

/// Transposed 2-D convolution, which makes planes larger: `(height, width, in) →
/// (height · stride, width · stride, filters)`, with padding `valid` up to a window more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Conv2DTransposeLayer)]
pub struct Conv2DTranspose {
    /// Number of output channels.
    #[schema(minimum = 1)]
    pub filters: usize,
    /// Window height and width.
    pub kernel_size: Pair,
    /// Steps between windows of the output.
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
    /// Initial values of the kernel; `glorot_uniform` unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub kernel_initializer: Option<Initializer>,
    /// Initial values of the bias; zeros unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub bias_initializer: Option<Initializer>,
    /// What is added to the loss for the kernel; nothing unless given.
    #[serde(
        default,
        deserialize_with = "regularizer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<RegularizerForm>)]
    pub kernel_regularizer: Option<Regularizer>,
}

/// 2-D convolution of each channel by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DepthwiseConv2DLayer)]
pub struct DepthwiseConv2D {
    /// Window height and width.
    pub kernel_size: Pair,
    /// Steps between windows.
    #[serde(default = "pair_one")]
    pub strides: Pair,
    /// Border handling.
    #[serde(default)]
    pub padding: Padding,
    /// Output channels of each input channel.
    #[serde(default = "one")]
    #[schema(minimum = 1)]
    pub depth_multiplier: usize,
    /// Spacing between kernel elements.
    #[serde(default = "pair_one")]
    pub dilation_rate: Pair,
    /// Activation applied to the output.
    #[serde(default)]
    pub activation: Activation,
    /// Whether a bias is added.
    #[serde(default = "yes")]
    pub use_bias: bool,
    /// Initial values of the kernel; `glorot_uniform` unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub depthwise_initializer: Option<Initializer>,
    /// Initial values of the bias; zeros unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub bias_initializer: Option<Initializer>,
}

/// A depthwise 2-D convolution, then one of window 1 over all channels (Chollet, 2016).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SeparableConv2DLayer)]
pub struct SeparableConv2D {
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
    /// Channels between the two convolutions, of each input channel.
    #[serde(default = "one")]
    #[schema(minimum = 1)]
    pub depth_multiplier: usize,
    /// Activation applied to the output.
    #[serde(default)]
    pub activation: Activation,
    /// Whether a bias is added.
    #[serde(default = "yes")]
    pub use_bias: bool,
    /// Initial values of the depthwise kernel; `glorot_uniform` unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub depthwise_initializer: Option<Initializer>,
    /// Initial values of the pointwise kernel; `glorot_uniform` unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub pointwise_initializer: Option<Initializer>,
    /// Initial values of the bias; zeros unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub bias_initializer: Option<Initializer>,
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
    #[serde(default = "two")]
    #[schema(minimum = 1)]
    pub pool_size: usize,
    /// Step between windows; the window's length unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strides: Option<usize>,
    /// Border handling.
    #[serde(default)]
    pub padding: Padding,
}

/// Zeros around planes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ZeroPadding2DLayer)]
pub struct ZeroPadding2D {
    /// Rows and columns added.
    #[serde(default = "margins")]
    pub padding: Margins,
}

/// How [`UpSampling2D`] fills in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Repeats the nearest value.
    #[default]
    Nearest,
    /// Linear between the centres of neighbours, in both directions.
    Bilinear,
}

/// Planes made larger by whole factors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UpSampling2DLayer)]
pub struct UpSampling2D {
    /// Factors of height and width.
    #[serde(default = "pair_two")]
    pub size: Pair,
    /// How new values come about.
    #[serde(default)]
    pub interpolation: Interpolation,
}
