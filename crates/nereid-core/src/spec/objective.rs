//! Losses and metrics: what training minimises and what is measured beside it, as in Keras 3.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What training minimises (<https://keras.io/api/losses/>).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Loss {
    /// Cross-entropy with integer class labels.
    SparseCategoricalCrossentropy {
        /// Whether the network ends in logits; found from its last activation unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_logits: Option<bool>,
    },
    /// Cross-entropy with one-hot class labels (made from the class labels).
    CategoricalCrossentropy {
        /// Whether the network ends in logits; found from its last activation unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_logits: Option<bool>,
        /// Share of the target spread over all classes.
        #[serde(default)]
        label_smoothing: f64,
    },
    /// Cross-entropy of two classes, with one output.
    BinaryCrossentropy {
        /// Whether the network ends in logits; found from its last activation unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_logits: Option<bool>,
    },
    /// Mean squared error.
    Mse {},
    /// Mean absolute error.
    Mae {},
    /// Squared below `delta`, linear above (Huber, 1964).
    Huber {
        /// Where squared turns into linear.
        #[serde(default = "huber_delta")]
        delta: f64,
    },
}

const fn huber_delta() -> f64 {
    1.0
}

impl Loss {
    /// Tells whether the target is a class rather than a number.
    #[must_use]
    pub fn is_classification(&self) -> bool {
        !matches!(self, Self::Mse {} | Self::Mae {} | Self::Huber { .. })
    }

    /// Returns what the spec says of logits.
    #[must_use]
    pub fn from_logits(&self) -> Option<bool> {
        match self {
            Self::SparseCategoricalCrossentropy { from_logits }
            | Self::CategoricalCrossentropy { from_logits, .. }
            | Self::BinaryCrossentropy { from_logits } => *from_logits,
            _ => None,
        }
    }
}

/// What is measured beside the loss (<https://keras.io/api/metrics/>).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Metric {
    /// Share of samples whose most likely class is right.
    Accuracy {},
    /// Share of samples whose class is among the `k` most likely.
    TopKAccuracy {
        /// How many classes count.
        #[serde(default = "top_k")]
        #[schema(minimum = 1)]
        k: usize,
    },
    /// Precision, the unweighted mean over classes.
    Precision {},
    /// Recall, the unweighted mean over classes.
    Recall {},
    /// Harmonic mean of precision and recall, the unweighted mean over classes.
    F1 {},
    /// Counts by true class (rows) and predicted class (columns); final evaluation only.
    ConfusionMatrix {},
    /// Mean absolute error.
    Mae {},
    /// Root of the mean squared error.
    Rmse {},
    /// Coefficient of determination.
    R2 {},
}

const fn top_k() -> usize {
    5
}

impl Metric {
    /// Tells whether the metric needs classes.
    #[must_use]
    pub fn is_classification(&self) -> bool {
        !matches!(self, Self::Mae {} | Self::Rmse {} | Self::R2 {})
    }

    /// Name under which values are reported, such as `top_5_accuracy`.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Accuracy {} => "accuracy".to_owned(),
            Self::TopKAccuracy { k } => format!("top_{k}_accuracy"),
            Self::Precision {} => "precision".to_owned(),
            Self::Recall {} => "recall".to_owned(),
            Self::F1 {} => "f1".to_owned(),
            Self::ConfusionMatrix {} => "confusion_matrix".to_owned(),
            Self::Mae {} => "mae".to_owned(),
            Self::Rmse {} => "rmse".to_owned(),
            Self::R2 {} => "r2".to_owned(),
        }
    }

    /// Tells whether larger values are better.
    #[must_use]
    pub fn larger_is_better(key: &str) -> bool {
        let base = key.strip_prefix("val_").unwrap_or(key);
        !matches!(base, "loss" | "mae" | "rmse" | "mse")
    }
}
