//! Layers that keep a state from step to step: `(steps, in) → (units)` or `(steps, units)`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Activation;
use crate::spec::initializers::{Initializer, InitializerForm, lenient};

const fn yes() -> bool {
    true
}
const fn tanh() -> Activation {
    Activation::Tanh
}
const fn sigmoid() -> Activation {
    Activation::Sigmoid
}

/// Fully connected recurrence: `h' = activation(x·W + h·U + b)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SimpleRNNLayer)]
pub struct SimpleRNN {
    /// Size of the state and of the output.
    #[schema(minimum = 1)]
    pub units: usize,
    /// Activation of the new state.
    #[serde(default = "tanh")]
    pub activation: Activation,
    /// Whether a bias is added.
    #[serde(default = "yes")]
    pub use_bias: bool,
    /// Whether the output holds the state after each step rather than after the last one.
    #[serde(default)]
    pub return_sequences: bool,
    /// Whether steps are taken from the last to the first.
    #[serde(default)]
    pub go_backwards: bool,
    /// Initial values of the kernel; `glorot_uniform` unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub kernel_initializer: Option<Initializer>,
    /// Initial values of the recurrent kernel; `orthogonal` unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub recurrent_initializer: Option<Initializer>,
    /// Initial values of the bias; zeros unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub bias_initializer: Option<Initializer>,
}

/// Long short-term memory (Hochreiter and Schmidhuber, 1997); gates in the order i, f, c, o.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LSTMLayer)]
#[expect(clippy::struct_excessive_bools, reason = "Keras' parameters")]
pub struct LSTM {
    /// Size of the state and of the output.
    #[schema(minimum = 1)]
    pub units: usize,
    /// Activation of the new state.
    #[serde(default = "tanh")]
    pub activation: Activation,
    /// Activation of the gates.
    #[serde(default = "sigmoid")]
    pub recurrent_activation: Activation,
    /// Whether a bias is added.
    #[serde(default = "yes")]
    pub use_bias: bool,
    /// Whether the forget gate's bias starts at 1, whatever `bias_initializer` says of it.
    #[serde(default = "yes")]
    pub unit_forget_bias: bool,
    /// Whether the output holds the state after each step rather than after the last one.
    #[serde(default)]
    pub return_sequences: bool,
    /// Whether steps are taken from the last to the first.
    #[serde(default)]
    pub go_backwards: bool,
    /// Initial values of the kernel; `glorot_uniform` unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub kernel_initializer: Option<Initializer>,
    /// Initial values of the recurrent kernel; `orthogonal` unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub recurrent_initializer: Option<Initializer>,
    /// Initial values of the bias; zeros unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub bias_initializer: Option<Initializer>,
}

/// Gated recurrent unit (Cho et al., 2014); gates in the order z, r, h.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GRULayer)]
#[expect(clippy::struct_excessive_bools, reason = "Keras' parameters")]
pub struct GRU {
    /// Size of the state and of the output.
    #[schema(minimum = 1)]
    pub units: usize,
    /// Activation of the new state.
    #[serde(default = "tanh")]
    pub activation: Activation,
    /// Activation of the gates.
    #[serde(default = "sigmoid")]
    pub recurrent_activation: Activation,
    /// Whether a bias is added.
    #[serde(default = "yes")]
    pub use_bias: bool,
    /// Whether the reset gate acts after the recurrent product, as in cuDNN and PyTorch.
    #[serde(default = "yes")]
    pub reset_after: bool,
    /// Whether the output holds the state after each step rather than after the last one.
    #[serde(default)]
    pub return_sequences: bool,
    /// Whether steps are taken from the last to the first.
    #[serde(default)]
    pub go_backwards: bool,
    /// Initial values of the kernel; `glorot_uniform` unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub kernel_initializer: Option<Initializer>,
    /// Initial values of the recurrent kernel; `orthogonal` unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub recurrent_initializer: Option<Initializer>,
    /// Initial values of the bias; zeros unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub bias_initializer: Option<Initializer>,
}

/// A recurrent layer inside of a [`Bidirectional`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type")]
pub enum Recurrent {
    /// Fully connected recurrence.
    SimpleRNN(SimpleRNN),
    /// Long short-term memory.
    LSTM(LSTM),
    /// Gated recurrent unit.
    GRU(GRU),
}

/// How a [`Bidirectional`] joins its two outputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MergeMode {
    /// One after the other along the last axis.
    #[default]
    Concat,
    /// Their sum.
    Sum,
    /// Their product.
    Mul,
    /// Their mean.
    Ave,
}

/// A recurrent layer run in both directions (Schuster and Paliwal, 1997).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BidirectionalLayer)]
pub struct Bidirectional {
    /// The layer; its twin runs the other way with weights of its own.
    pub layer: Recurrent,
    /// How both outputs are joined.
    #[serde(default)]
    pub merge_mode: MergeMode,
}
