//! Layers of several inputs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const fn last() -> i64 {
    -1
}

/// Inputs one after the other along an axis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConcatenateLayer)]
pub struct Concatenate {
    /// Which axis: from 1 (the batch being 0), or from the end if negative.
    #[serde(default = "last")]
    pub axis: i64,
}
