//! Normalisation.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::spec::initializers::{Initializer, InitializerForm, lenient};

const fn batch_norm_momentum() -> f64 {
    0.99
}
const fn norm_epsilon() -> f64 {
    1e-3
}
const fn rms_epsilon() -> f64 {
    1e-6
}
const fn groups() -> usize {
    32
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

/// Division by the root of the mean square over the last axis (Zhang and Sennrich, 2019).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RMSNormalizationLayer)]
pub struct RMSNormalization {
    /// Added to the mean square.
    #[serde(default = "rms_epsilon")]
    pub epsilon: f64,
}

/// Normalisation of groups of channels over all positions (Wu and He, 2018).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GroupNormalizationLayer)]
pub struct GroupNormalization {
    /// Number of groups, which divides the number of channels.
    #[serde(default = "groups")]
    #[schema(minimum = 1)]
    pub groups: usize,
    /// Added to the variance.
    #[serde(default = "norm_epsilon")]
    pub epsilon: f64,
}

/// `x` if positive, else `alpha · x` with learned slopes (He et al., 2015).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PReLULayer)]
pub struct PReLU {
    /// Initial values of the slopes; zeros unless given.
    #[serde(
        default,
        deserialize_with = "lenient",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<InitializerForm>)]
    pub alpha_initializer: Option<Initializer>,
    /// Axes (from 1, the batch being 0) along which slopes are shared; none unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 4)]
    pub shared_axes: Vec<usize>,
}
