//! Attention.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::spec::initializers::{Initializer, InitializerForm, lenient};

const fn yes() -> bool {
    true
}

/// Multi-head attention (Vaswani et al., 2017) of one input to itself, or of a query to a value
/// and, as third input, a key (the value unless given).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MultiHeadAttentionLayer)]
pub struct MultiHeadAttention {
    /// Number of heads.
    #[schema(minimum = 1)]
    pub num_heads: usize,
    /// Size of each head's queries and keys.
    #[schema(minimum = 1)]
    pub key_dim: usize,
    /// Size of each head's values; `key_dim` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub value_dim: Option<usize>,
    /// Share of attention weights dropped while training.
    #[serde(default)]
    #[schema(minimum = 0, exclusive_maximum = 1)]
    pub dropout: f64,
    /// Whether biases are added.
    #[serde(default = "yes")]
    pub use_bias: bool,
    /// Whether a step attends to itself and earlier steps only.
    #[serde(default)]
    pub use_causal_mask: bool,
    /// Initial values of the kernels; `glorot_uniform` unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub kernel_initializer: Option<Initializer>,
    /// Initial values of the biases; zeros unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub bias_initializer: Option<Initializer>,
}
