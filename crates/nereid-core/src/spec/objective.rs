//! Losses and metrics: what training minimises and what is measured beside it, as in Keras 3.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::train::Task;
use crate::validation::Violations;

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
    /// Cross-entropy that makes little of what is right already (Lin et al., 2018).
    CategoricalFocalCrossentropy {
        /// Whether the network ends in logits; found from its last activation unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_logits: Option<bool>,
        /// Share of the target spread over all classes.
        #[serde(default)]
        label_smoothing: f64,
        /// Factor on the loss.
        #[serde(default = "focal_alpha")]
        alpha: f64,
        /// How little is made of what is right already; 0 is cross-entropy.
        #[serde(default = "focal_gamma")]
        gamma: f64,
    },
    /// Cross-entropy of two classes, with one output; of each label or value, with several.
    BinaryCrossentropy {
        /// Whether the network ends in logits; found from its last activation unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_logits: Option<bool>,
        /// How far targets are moved towards one half: by half of this.
        #[serde(default, skip_serializing_if = "is_zero")]
        label_smoothing: f64,
    },
    /// Binary cross-entropy that makes little of what is right already (Lin et al., 2018).
    BinaryFocalCrossentropy {
        /// Whether the network ends in logits; found from its last activation unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_logits: Option<bool>,
        /// How far targets are moved towards one half: by half of this.
        #[serde(default)]
        label_smoothing: f64,
        /// Weight of the second class (the first has 1 less this), if classes are balanced.
        #[serde(default = "focal_alpha")]
        alpha: f64,
        /// How little is made of what is right already; 0 is cross-entropy.
        #[serde(default = "focal_gamma")]
        gamma: f64,
        /// Whether `alpha` weighs the classes.
        #[serde(default)]
        apply_class_balancing: bool,
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
    /// Logarithm of the hyperbolic cosine of the error.
    LogCosh {},
    /// Mean absolute error in percent of the target.
    Mape {},
    /// Mean squared error of `ln(1 + x)`; numbers below 0 count as 0.
    Msle {},
    /// `prediction - target × ln(prediction)`, for counts.
    Poisson {},
    /// Kullback-Leibler divergence of several values that are a distribution.
    KlDivergence {},
    /// Cosine of the angle between several values and their targets, times -1.
    CosineSimilarity {},
}

const fn huber_delta() -> f64 {
    1.0
}
const fn focal_alpha() -> f64 {
    0.25
}
const fn focal_gamma() -> f64 {
    2.0
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// What a loss compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossKind {
    /// A probability for each class with the one that is right.
    Categorical,
    /// A probability for each of one or more outputs with 0 or 1.
    Binary,
    /// Numbers with numbers.
    Numeric,
}

impl Loss {
    /// Returns what the loss compares.
    #[must_use]
    pub fn kind(&self) -> LossKind {
        match self {
            Self::SparseCategoricalCrossentropy { .. }
            | Self::CategoricalCrossentropy { .. }
            | Self::CategoricalFocalCrossentropy { .. } => LossKind::Categorical,
            Self::BinaryCrossentropy { .. } | Self::BinaryFocalCrossentropy { .. } => {
                LossKind::Binary
            }
            _ => LossKind::Numeric,
        }
    }

    /// Tells whether the loss is one of probabilities rather than of numbers.
    #[must_use]
    pub fn is_classification(&self) -> bool {
        self.kind() != LossKind::Numeric
    }

    /// Tells whether the loss makes sense only for several outputs.
    #[must_use]
    pub fn needs_several(&self) -> bool {
        matches!(self, Self::KlDivergence {} | Self::CosineSimilarity {})
    }

    /// Returns what the spec says of logits.
    #[must_use]
    pub fn from_logits(&self) -> Option<bool> {
        match self {
            Self::SparseCategoricalCrossentropy { from_logits }
            | Self::CategoricalCrossentropy { from_logits, .. }
            | Self::CategoricalFocalCrossentropy { from_logits, .. }
            | Self::BinaryCrossentropy { from_logits, .. }
            | Self::BinaryFocalCrossentropy { from_logits, .. } => *from_logits,
            _ => None,
        }
    }

    /// Returns the share by which targets are smoothed.
    #[must_use]
    pub fn label_smoothing(&self) -> f64 {
        match self {
            Self::CategoricalCrossentropy {
                label_smoothing, ..
            }
            | Self::CategoricalFocalCrossentropy {
                label_smoothing, ..
            }
            | Self::BinaryCrossentropy {
                label_smoothing, ..
            }
            | Self::BinaryFocalCrossentropy {
                label_smoothing, ..
            } => *label_smoothing,
            _ => 0.0,
        }
    }

    /// Records every parameter outside its range.
    pub fn check(&self, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        let smoothing = self.label_smoothing();
        v.check_range(&at("label_smoothing"), smoothing, 0.0, 0.999);
        match self {
            Self::CategoricalFocalCrossentropy { alpha, gamma, .. }
            | Self::BinaryFocalCrossentropy { alpha, gamma, .. } => {
                v.check_range(&at("alpha"), *alpha, 0.0, 1.0);
                v.check_range(&at("gamma"), *gamma, 0.0, 100.0);
            }
            Self::Huber { delta } => v.check_range(&at("delta"), *delta, 1e-9, 1e9),
            _ => {}
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
    /// Share of labels (or of samples of two classes) that are right at a threshold of 0.5.
    BinaryAccuracy {},
    /// Share of what was taken for a class or label that is of it.
    Precision {
        /// Over which of them the mean is taken.
        #[serde(default, skip_serializing_if = "Average::is_macro")]
        average: Average,
    },
    /// Share of what is of a class or label that was taken for it.
    Recall {
        /// Over which of them the mean is taken.
        #[serde(default, skip_serializing_if = "Average::is_macro")]
        average: Average,
    },
    /// Harmonic mean of precision and recall.
    F1 {
        /// Over which of them the mean is taken.
        #[serde(default, skip_serializing_if = "Average::is_macro")]
        average: Average,
    },
    /// Area under the ROC curve, with Keras' 200 thresholds; of several classes or labels, the
    /// unweighted mean.
    Auc {},
    /// Share of labels that are wrong.
    HammingLoss {},
    /// Correlation of true and predicted classes (Matthews, 1975; Gorodkin, 2004).
    MatthewsCorrelation {},
    /// Counts by true class (rows) and predicted class (columns); final evaluation only.
    ConfusionMatrix {},
    /// Mean absolute error.
    Mae {},
    /// Mean squared error.
    Mse {},
    /// Root of the mean squared error.
    Rmse {},
    /// Mean absolute error in percent of the target.
    Mape {},
    /// Coefficient of determination; of several values, the unweighted mean.
    R2 {},
}

/// How precision, recall and F1 of several classes or labels become one number, as in scikit-learn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Average {
    /// The unweighted mean over those that occur.
    #[default]
    Macro,
    /// From the counts of all of them together.
    Micro,
    /// The mean weighted by how often each occurs.
    Weighted,
}

impl Average {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    fn is_macro(&self) -> bool {
        *self == Self::Macro
    }

    fn key(self, metric: &str) -> String {
        match self {
            Self::Macro => metric.to_owned(),
            Self::Micro => format!("{metric}_micro"),
            Self::Weighted => format!("{metric}_weighted"),
        }
    }
}

const fn top_k() -> usize {
    5
}

impl Metric {
    /// Tells whether the metric fits a kind of task; `several`: more than two classes.
    #[must_use]
    pub fn fits(&self, task: Task, several: bool) -> bool {
        match self {
            Self::Accuracy {} | Self::Precision { .. } | Self::Recall { .. } | Self::F1 { .. } => {
                matches!(task, Task::Classification | Task::MultiLabel)
            }
            Self::Auc {} => matches!(task, Task::Classification | Task::MultiLabel),
            Self::BinaryAccuracy {} => {
                task == Task::MultiLabel || (task == Task::Classification && !several)
            }
            Self::HammingLoss {} => task == Task::MultiLabel,
            Self::TopKAccuracy { .. } | Self::ConfusionMatrix {} | Self::MatthewsCorrelation {} => {
                task == Task::Classification
            }
            Self::Mae {} | Self::Mse {} | Self::Rmse {} | Self::Mape {} | Self::R2 {} => {
                matches!(task, Task::Regression | Task::Autoencoding)
            }
        }
    }

    /// Name under which values are reported, such as `top_5_accuracy`.
    #[must_use]
    pub fn key(&self) -> String {
        let name = match self {
            Self::TopKAccuracy { k } => return format!("top_{k}_accuracy"),
            Self::Precision { average } => return average.key("precision"),
            Self::Recall { average } => return average.key("recall"),
            Self::F1 { average } => return average.key("f1"),
            Self::Accuracy {} => "accuracy",
            Self::BinaryAccuracy {} => "binary_accuracy",
            Self::Auc {} => "auc",
            Self::HammingLoss {} => "hamming_loss",
            Self::MatthewsCorrelation {} => "matthews_correlation",
            Self::ConfusionMatrix {} => "confusion_matrix",
            Self::Mae {} => "mae",
            Self::Mse {} => "mse",
            Self::Rmse {} => "rmse",
            Self::Mape {} => "mape",
            Self::R2 {} => "r2",
        };
        name.to_owned()
    }

    /// Tells whether larger values are better.
    #[must_use]
    pub fn larger_is_better(key: &str) -> bool {
        let base = key.strip_prefix("val_").unwrap_or(key);
        !matches!(
            base,
            "loss" | "mae" | "rmse" | "mse" | "mape" | "hamming_loss"
        )
    }
}
