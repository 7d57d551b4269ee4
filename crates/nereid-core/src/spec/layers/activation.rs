//! Activation functions by their Keras names.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Element-wise activation (softmax: over the last axis), by its Keras name
/// (<https://keras.io/api/layers/activations/>).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Identity.
    #[default]
    Linear,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x` if positive, else `0.2 x` (Keras' default slope; `0.01 x` under PyTorch's defaults).
    /// The layer LeakyReLU takes any slope.
    LeakyRelu,
    /// `x` if positive, else `exp(x) - 1`.
    Elu,
    /// Scaled elu of self-normalising networks (Klambauer et al., 2017).
    Selu,
    /// Gaussian error linear unit, exact (not the tanh approximation).
    Gelu,
    /// Gaussian error linear unit by its tanh approximation: Keras' `gelu(approximate=True)`.
    GeluApproximate,
    /// `x · sigmoid(x)`, also known as swish.
    #[serde(alias = "swish")]
    Silu,
    /// `x · tanh(softplus(x))` (Misra, 2019).
    Mish,
    /// Logistic function.
    Sigmoid,
    /// `min(max(x / 6 + 0.5, 0), 1)`.
    HardSigmoid,
    /// `x · hard_sigmoid(x)`, also known as hard swish.
    #[serde(alias = "hard_swish")]
    HardSilu,
    /// Hyperbolic tangent.
    Tanh,
    /// `log(exp(x) + 1)`.
    Softplus,
    /// `x / (1 + |x|)`.
    Softsign,
    /// Normalised exponential over the last axis.
    Softmax,
}

/// An activation as a layer of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ActivationLayer)]
pub struct ActivationLayer {
    /// Which one.
    pub activation: Activation,
}

/// `min(max(x, 0), max_value)`, with a slope below the threshold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ReLULayer)]
pub struct ReLU {
    /// Largest output; unlimited unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_value: Option<f64>,
    /// Slope of values below the threshold.
    #[serde(default)]
    pub negative_slope: f64,
    /// Value from which on inputs are passed through.
    #[serde(default)]
    pub threshold: f64,
}

/// `x` if positive, else `negative_slope · x`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LeakyReLULayer)]
pub struct LeakyReLU {
    /// Slope of negative values (PyTorch's default is 0.01).
    #[serde(default = "negative_slope")]
    pub negative_slope: f64,
}

const fn negative_slope() -> f64 {
    0.3
}

/// `x` if positive, else `alpha · (exp(x) - 1)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ELULayer)]
pub struct ELU {
    /// Slope of the negative part at 0.
    #[serde(default = "elu_alpha")]
    pub alpha: f64,
}

const fn elu_alpha() -> f64 {
    1.0
}
