//! Columns of a table: what a client declares of each, and what inspection found out.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    limits,
    validation::{Violations, escape},
};

/// Buckets of a hashed category unless declared.
pub const DEFAULT_CATEGORY_BUCKETS: u32 = 64;
/// Buckets of a hashed bag of words unless declared.
pub const DEFAULT_TEXT_BUCKETS: u32 = 256;
/// Words of a vocabulary unless declared, with padding and unknown.
pub const DEFAULT_VOCABULARY: u32 = 10_000;
/// Tokens of a text unless declared.
pub const DEFAULT_TOKENS: u32 = 64;
/// Categories that get an input of their own unless declared.
pub const DEFAULT_CATEGORIES: u32 = 1_000;

/// How a category becomes numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CategoryEncoding {
    /// One input per category, 1 for the one that it is.
    #[default]
    OneHot,
    /// A whole number from 1, 0 for missing or unknown; for an `Embedding`.
    Index,
    /// One input per bucket of a hash; no list of categories is kept.
    Hash,
}

/// What becomes of a category that the training data lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// All inputs are 0 (scikit-learn's `handle_unknown="ignore"`).
    #[default]
    Ignore,
    /// An input of its own (`num_oov_indices=1` of Keras' `StringLookup`).
    Bucket,
}

/// How text becomes numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextEncoding {
    /// A bag of words hashed into buckets: counts, of length 1 (L2) over all buckets.
    #[default]
    Hash,
    /// A fixed number of word indices: 0 pads, 1 stands for unknown words; for an `Embedding`.
    Tokens,
}

/// What a client says about a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ColumnSpec {
    /// A number.
    Number {
        /// Stands for missing values; the mean of the training rows unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        impute: Option<f64>,
    },
    /// True or false, also as 1 and 0 or yes and no.
    Boolean {},
    /// A date or a time, by ISO 8601 (RFC 3339); without an offset it is UTC.
    Timestamp {},
    /// One of a set of words or numbers.
    Category {
        /// How it becomes numbers.
        #[serde(default)]
        encoding: CategoryEncoding,
        /// Most categories that are kept, the most frequent ones; the others are unknown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_categories: Option<u32>,
        /// Buckets of `hash`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        buckets: Option<u32>,
        /// What becomes of a category that the training data lacks.
        #[serde(default)]
        unknown: Unknown,
    },
    /// Words.
    Text {
        /// How it becomes numbers.
        #[serde(default)]
        encoding: TextEncoding,
        /// Buckets of `hash`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        buckets: Option<u32>,
        /// Size of the vocabulary of `tokens`, with padding and unknown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vocabulary: Option<u32>,
        /// Number of `tokens`; longer texts are cut, shorter ones padded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        length: Option<u32>,
    },
    /// No feature.
    Ignore {},
}

impl ColumnSpec {
    pub(super) fn check(&self, pointer: &str, v: &mut Violations) {
        let mut option = |field: &str, fits: bool, given: Option<u32>, min: u32, max: u32| {
            let at = format!("{pointer}/{}", escape(field));
            if let Some(n) = given {
                v.check_range(&at, n, min, max);
                v.check(fits, &at, "conflict", || {
                    format!("{field} does not go with this encoding")
                });
            }
        };
        match self {
            Self::Number { impute: Some(n) } => {
                let narrow = n.abs() <= f64::from(f32::MAX);
                v.check(narrow, &format!("{pointer}/impute"), "out_of_range", || {
                    format!("{n} does not fit a 32-bit float")
                });
            }
            Self::Category {
                encoding,
                max_categories,
                buckets,
                unknown,
            } => {
                let hash = *encoding == CategoryEncoding::Hash;
                let most = limits::MAX_CATEGORIES;
                option("max_categories", !hash, *max_categories, 1, most);
                option("buckets", hash, *buckets, 2, limits::MAX_BUCKETS);
                let bucket = *unknown == Unknown::Bucket;
                v.check(
                    !bucket || *encoding == CategoryEncoding::OneHot,
                    &format!("{pointer}/unknown"),
                    "conflict",
                    || "a bucket for unknown categories goes with one_hot only".to_owned(),
                );
            }
            Self::Text {
                encoding,
                buckets,
                vocabulary,
                length,
            } => {
                let hash = *encoding == TextEncoding::Hash;
                option("buckets", hash, *buckets, 2, limits::MAX_BUCKETS);
                let words = limits::MAX_VOCABULARY;
                option("vocabulary", !hash, *vocabulary, 3, words);
                option("length", !hash, *length, 1, limits::MAX_TOKENS);
            }
            _ => {}
        }
    }
}

/// A feature column of a table whose columns are of mixed kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ColumnSchema {
    /// Name in the file.
    pub name: String,
    /// Kind and encoding.
    #[serde(flatten)]
    pub encoding: ColumnEncoding,
    /// Number of missing values in the inspected data.
    #[serde(default)]
    pub missing: u64,
    /// What a user should look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// How a column becomes inputs of the network; the same in training and serving.
///
/// With `indicator`, one more input is 1 where the value is missing: the inspected data had
/// missing values there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ColumnEncoding {
    /// One input.
    Number {
        /// Stands for missing values; the mean of the training rows unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        impute: Option<f64>,
        /// Whether missing values show in an input of their own.
        #[serde(default)]
        indicator: bool,
    },
    /// One input, 0 or 1.
    Boolean {
        /// Whether missing values show in an input of their own.
        #[serde(default)]
        indicator: bool,
    },
    /// Six inputs: days since 2000-01-01, year, month, day, weekday (0 is Monday), hour.
    Timestamp {
        /// Whether missing values show in an input of their own.
        #[serde(default)]
        indicator: bool,
    },
    /// As many inputs as categories or buckets, or a single index.
    Category {
        /// How it becomes numbers.
        encoding: CategoryEncoding,
        /// The categories in the order of their inputs; empty with `hash`.
        #[serde(default)]
        categories: Vec<String>,
        /// Buckets of `hash`.
        #[serde(default)]
        buckets: u32,
        /// What becomes of other categories.
        #[serde(default)]
        unknown: Unknown,
        /// Whether missing values show in an input of their own.
        #[serde(default)]
        indicator: bool,
    },
    /// As many inputs as buckets or tokens.
    Text {
        /// How it becomes numbers.
        encoding: TextEncoding,
        /// Buckets of `hash`.
        #[serde(default)]
        buckets: u32,
        /// Words from index 2 on, most frequent first; empty with `hash`.
        #[serde(default)]
        vocabulary: Vec<String>,
        /// Number of `tokens`.
        #[serde(default)]
        length: u32,
    },
}

impl ColumnEncoding {
    /// Returns the kind's name in JSON.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Number { .. } => "number",
            Self::Boolean { .. } => "boolean",
            Self::Timestamp { .. } => "timestamp",
            Self::Category { .. } => "category",
            Self::Text { .. } => "text",
        }
    }

    /// Number of inputs of the network that the column becomes.
    #[must_use]
    pub fn width(&self) -> usize {
        let values = match self {
            Self::Number { .. } | Self::Boolean { .. } => 1,
            Self::Timestamp { .. } => TIMESTAMP_WIDTH,
            Self::Category {
                encoding,
                categories,
                buckets,
                unknown,
                ..
            } => match encoding {
                CategoryEncoding::OneHot => {
                    categories.len() + usize::from(*unknown == Unknown::Bucket)
                }
                CategoryEncoding::Index => 1,
                CategoryEncoding::Hash => *buckets as usize,
            },
            Self::Text {
                encoding,
                buckets,
                length,
                ..
            } => match encoding {
                TextEncoding::Hash => *buckets as usize,
                TextEncoding::Tokens => *length as usize,
            },
        };
        values + usize::from(self.indicator())
    }

    /// Tells whether missing values show in an input of their own, the last one of the column.
    #[must_use]
    pub fn indicator(&self) -> bool {
        match self {
            Self::Number { indicator, .. }
            | Self::Boolean { indicator }
            | Self::Timestamp { indicator } => *indicator,
            Self::Category {
                indicator,
                encoding,
                ..
            } => *indicator && *encoding != CategoryEncoding::Index,
            Self::Text { .. } => false,
        }
    }

    /// Number of the column's first inputs that normalisation scales; the others stay as they are.
    #[must_use]
    pub fn scaled(&self) -> usize {
        match self {
            Self::Number { .. } => 1,
            Self::Timestamp { .. } => TIMESTAMP_WIDTH,
            _ => 0,
        }
    }
}

/// Inputs of a timestamp, without the indicator.
pub(super) const TIMESTAMP_WIDTH: usize = 6;

/// Number of inputs that the columns of a table become.
#[must_use]
pub fn table_width(columns: &[ColumnSchema]) -> usize {
    columns.iter().map(|c| c.encoding.width()).sum()
}
