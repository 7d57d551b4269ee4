//! How rows are held out, and how often those of each class are trained on.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How validation and test rows are chosen; how many is for `validation_split` and `test_split`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Method.
    pub by: SplitBy,
}

/// A method of choosing held-out rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SplitBy {
    /// At random, by `seed`.
    #[default]
    Random,
    /// At random with the share of each class, up to rounding, in each part.
    Stratified,
    /// In the order of the data: the last rows are for testing, those before them to validate.
    Time,
}

impl Split {
    /// Tells whether the spec leaves the method as it is.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How rare classes are made as frequent as others by sampling, anew in each epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClassBalance {
    /// Rows of rarer classes are repeated until each class has as many as the largest.
    Oversample,
    /// Of each class as many rows are drawn as the smallest has.
    Undersample,
}
