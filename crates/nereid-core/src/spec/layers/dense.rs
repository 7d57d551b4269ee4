//! Dense layers and tables.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Activation;
use crate::spec::{
    initializers::{Initializer, InitializerForm, lenient},
    regularizers::{Regularizer, RegularizerForm, lenient as regularizer},
};

const fn yes() -> bool {
    true
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

/// Looks integers up in a table: `(…) → (…, output_dim)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EmbeddingLayer)]
pub struct Embedding {
    /// Size of the vocabulary: inputs are integers from 0 to below it.
    #[schema(minimum = 1)]
    pub input_dim: usize,
    /// Length of each vector.
    #[schema(minimum = 1)]
    pub output_dim: usize,
    /// Initial values of the table; `uniform` unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub embeddings_initializer: Option<Initializer>,
}

/// A learned vector for each position, whatever stands there, as KerasHub has it:
/// `(steps, channels) → (steps, channels)`. Its input is not part of its output; an Add of both is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PositionEmbeddingLayer)]
pub struct PositionEmbedding {
    /// Most steps of an input.
    #[schema(minimum = 1)]
    pub sequence_length: usize,
    /// Initial values of the table; `glorot_uniform` unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub initializer: Option<Initializer>,
}

/// Gives each sample another shape of the same size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ReshapeLayer)]
pub struct Reshape {
    /// The new shape; one entry may be -1 and is inferred.
    #[schema(min_items = 1, max_items = 4)]
    pub target_shape: Vec<i64>,
}

/// Repeats a vector: `(channels) → (n, channels)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RepeatVectorLayer)]
pub struct RepeatVector {
    /// How many times.
    #[schema(minimum = 1)]
    pub n: usize,
}

/// A layer without parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PlainLayer)]
pub struct Plain {}
