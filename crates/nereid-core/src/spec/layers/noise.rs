//! Noise while training.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Zeroes inputs at random while training, scaling the rest by `1 / (1 - rate)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DropoutLayer)]
pub struct Dropout {
    /// Share of inputs dropped, from 0 to below 1.
    #[schema(minimum = 0, exclusive_maximum = 1)]
    pub rate: f64,
}

/// Adds normal noise while training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GaussianNoiseLayer)]
pub struct GaussianNoise {
    /// Standard deviation of the noise.
    #[schema(minimum = 0)]
    pub stddev: f64,
}
