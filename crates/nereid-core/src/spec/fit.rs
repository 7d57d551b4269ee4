//! How a network is trained: loss, optimiser, metrics, fit options and callbacks, as in Keras 3.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{limits, validation::Violations};

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
    Mse,
    /// Mean absolute error.
    Mae,
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
        !matches!(self, Self::Mse | Self::Mae | Self::Huber { .. })
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

/// Changes the weights after each batch (<https://keras.io/api/optimizers/>).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd {
        /// Step size.
        #[serde(default = "sgd_rate")]
        learning_rate: f64,
        /// Weight of the previous step.
        #[serde(default)]
        momentum: f64,
        /// Nesterov's variant of momentum.
        #[serde(default)]
        nesterov: bool,
    },
    /// Adam (Kingma and Ba, 2014).
    Adam {
        /// Step size.
        #[serde(default = "adam_rate")]
        learning_rate: f64,
        /// Decay of the first moment.
        #[serde(default = "beta_1")]
        beta_1: f64,
        /// Decay of the second moment.
        #[serde(default = "beta_2")]
        beta_2: f64,
        /// Added to the denominator.
        #[serde(default = "epsilon")]
        epsilon: f64,
    },
    /// Adam with decoupled weight decay (Loshchilov and Hutter, 2017).
    Adamw {
        /// Step size.
        #[serde(default = "adam_rate")]
        learning_rate: f64,
        /// Share of each weight taken off per step, times the step size.
        #[serde(default = "weight_decay")]
        weight_decay: f64,
        /// Decay of the first moment.
        #[serde(default = "beta_1")]
        beta_1: f64,
        /// Decay of the second moment.
        #[serde(default = "beta_2")]
        beta_2: f64,
        /// Added to the denominator.
        #[serde(default = "epsilon")]
        epsilon: f64,
    },
    /// `RMSprop` (Hinton, 2012).
    Rmsprop {
        /// Step size.
        #[serde(default = "adam_rate")]
        learning_rate: f64,
        /// Decay of the moving average of squared gradients.
        #[serde(default = "rho")]
        rho: f64,
        /// Weight of the previous step.
        #[serde(default)]
        momentum: f64,
        /// Added to the denominator.
        #[serde(default = "epsilon")]
        epsilon: f64,
    },
}

const fn sgd_rate() -> f64 {
    0.01
}
const fn adam_rate() -> f64 {
    0.001
}
const fn beta_1() -> f64 {
    0.9
}
const fn beta_2() -> f64 {
    0.999
}
const fn epsilon() -> f64 {
    1e-7
}
const fn weight_decay() -> f64 {
    0.004
}
const fn rho() -> f64 {
    0.9
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Adam {
            learning_rate: adam_rate(),
            beta_1: beta_1(),
            beta_2: beta_2(),
            epsilon: epsilon(),
        }
    }
}

impl Optimizer {
    /// Returns the initial step size.
    #[must_use]
    pub fn learning_rate(&self) -> f64 {
        match self {
            Self::Sgd { learning_rate, .. }
            | Self::Adam { learning_rate, .. }
            | Self::Adamw { learning_rate, .. }
            | Self::Rmsprop { learning_rate, .. } => *learning_rate,
        }
    }

    /// Records every parameter outside its range.
    pub fn check(&self, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        v.check_range(&at("learning_rate"), self.learning_rate(), 1e-12, 100.0);
        match self {
            Self::Sgd {
                momentum, nesterov, ..
            } => {
                v.check_range(&at("momentum"), *momentum, 0.0, 0.999_999);
                v.check(
                    !nesterov || *momentum > 0.0,
                    &at("nesterov"),
                    "conflict",
                    || "nesterov needs a momentum above 0".to_owned(),
                );
            }
            Self::Adam {
                beta_1,
                beta_2,
                epsilon,
                ..
            }
            | Self::Adamw {
                beta_1,
                beta_2,
                epsilon,
                ..
            } => {
                v.check_range(&at("beta_1"), *beta_1, 0.0, 0.999_999_9);
                v.check_range(&at("beta_2"), *beta_2, 0.0, 0.999_999_9);
                v.check_range(&at("epsilon"), *epsilon, 1e-16, 1.0);
                if let Self::Adamw { weight_decay, .. } = self {
                    v.check_range(&at("weight_decay"), *weight_decay, 0.0, 10.0);
                }
            }
            Self::Rmsprop {
                rho,
                momentum,
                epsilon,
                ..
            } => {
                v.check_range(&at("rho"), *rho, 0.0, 0.999_999_9);
                v.check_range(&at("momentum"), *momentum, 0.0, 0.999_999);
                v.check_range(&at("epsilon"), *epsilon, 1e-16, 1.0);
            }
        }
    }
}

/// What is measured beside the loss (<https://keras.io/api/metrics/>).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Metric {
    /// Share of samples whose most likely class is right.
    Accuracy,
    /// Share of samples whose class is among the `k` most likely.
    TopKAccuracy {
        /// How many classes count.
        #[serde(default = "top_k")]
        #[schema(minimum = 1)]
        k: usize,
    },
    /// Precision, the unweighted mean over classes.
    Precision,
    /// Recall, the unweighted mean over classes.
    Recall,
    /// Harmonic mean of precision and recall, the unweighted mean over classes.
    F1,
    /// Counts by true class (rows) and predicted class (columns); final evaluation only.
    ConfusionMatrix,
    /// Mean absolute error.
    Mae,
    /// Root of the mean squared error.
    Rmse,
    /// Coefficient of determination.
    R2,
}

const fn top_k() -> usize {
    5
}

impl Metric {
    /// Tells whether the metric needs classes.
    #[must_use]
    pub fn is_classification(&self) -> bool {
        !matches!(self, Self::Mae | Self::Rmse | Self::R2)
    }

    /// Name under which values are reported, such as `top_5_accuracy`.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Accuracy => "accuracy".to_owned(),
            Self::TopKAccuracy { k } => format!("top_{k}_accuracy"),
            Self::Precision => "precision".to_owned(),
            Self::Recall => "recall".to_owned(),
            Self::F1 => "f1".to_owned(),
            Self::ConfusionMatrix => "confusion_matrix".to_owned(),
            Self::Mae => "mae".to_owned(),
            Self::Rmse => "rmse".to_owned(),
            Self::R2 => "r2".to_owned(),
        }
    }

    /// Tells whether larger values are better.
    #[must_use]
    pub fn larger_is_better(key: &str) -> bool {
        let base = key.strip_prefix("val_").unwrap_or(key);
        !matches!(base, "loss" | "mae" | "rmse" | "mse")
    }
}

/// How features are scaled before training, and in the same way when serving.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// `standard` for tables, `min_max` for images, `none` before an Embedding.
    #[default]
    Auto,
    /// To mean 0 and variance 1, from the training split.
    Standard,
    /// To 0…1, from the training split.
    MinMax,
    /// As they are.
    None,
}

/// Weight of each class in the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ClassWeight {
    /// `"balanced"`: `rows / (classes × rows of the class)`, as scikit-learn has it.
    Balanced(BalancedWeight),
    /// By class name; classes not named weigh 1.
    ByClass(BTreeMap<String, f64>),
}

/// The word `balanced`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalancedWeight {
    /// Inverse to the class frequencies.
    Balanced,
}

/// Options of the training loop, as of Keras' `fit` and optimiser arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FitOptions {
    /// Passes over the training data.
    #[schema(minimum = 1, maximum = 100_000)]
    pub epochs: u32,
    /// Samples per step.
    #[schema(minimum = 1, maximum = 65_536)]
    pub batch_size: u32,
    /// Share of the rows held out to validate after each epoch, drawn by `seed`.
    #[schema(minimum = 0, maximum = 0.9)]
    pub validation_split: f64,
    /// Share of the rows held out to the end for the final evaluation, drawn by `seed`.
    #[schema(minimum = 0, maximum = 0.9)]
    pub test_split: f64,
    /// Whether rows are reordered in each epoch.
    pub shuffle: bool,
    /// Seed of splits, initial weights, order and dropout.
    pub seed: u64,
    /// Weight of each class in the loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weight: Option<ClassWeight>,
    /// Largest norm of each weight's gradient; longer ones are scaled down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clipnorm: Option<f64>,
    /// Largest absolute value of a gradient entry; others are cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clipvalue: Option<f64>,
    /// How features are scaled.
    pub normalization: Normalization,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self {
            epochs: 1,
            batch_size: 32,
            validation_split: 0.0,
            test_split: 0.0,
            shuffle: true,
            seed: 0,
            class_weight: None,
            clipnorm: None,
            clipvalue: None,
            normalization: Normalization::Auto,
        }
    }
}

impl FitOptions {
    /// Records every option outside its range.
    pub fn check(&self, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        v.check_range(&at("epochs"), self.epochs, 1, limits::MAX_EPOCHS);
        v.check_range(
            &at("batch_size"),
            self.batch_size,
            1,
            limits::MAX_BATCH_SIZE,
        );
        v.check_range(&at("validation_split"), self.validation_split, 0.0, 0.9);
        v.check_range(&at("test_split"), self.test_split, 0.0, 0.9);
        let held_out = self.validation_split + self.test_split;
        v.check(held_out <= 0.95, &at("test_split"), "out_of_range", || {
            format!("validation_split and test_split hold out {held_out} of the rows, above 0.95")
        });
        if let Some(norm) = self.clipnorm {
            v.check_range(&at("clipnorm"), norm, 1e-9, 1e9);
        }
        if let Some(value) = self.clipvalue {
            v.check_range(&at("clipvalue"), value, 1e-9, 1e9);
            v.check(
                self.clipnorm.is_none(),
                &at("clipvalue"),
                "conflict",
                || "clipvalue and clipnorm exclude each other".to_owned(),
            );
        }
        if let Some(ClassWeight::ByClass(weights)) = &self.class_weight {
            for (class, weight) in weights {
                let class = crate::validation::escape(class);
                v.check_range(&at(&format!("class_weight/{class}")), *weight, 0.0, 1e6);
            }
        }
    }
}

/// A value that a callback watches after each epoch: `loss`, `val_loss`, `val_accuracy`, ….
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Monitor(pub String);

/// Something done after an epoch (<https://keras.io/api/callbacks/>).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Callback {
    /// Ends training when the monitored value no longer improves.
    EarlyStopping {
        /// Watched value; `val_loss`, or `loss` without validation data, unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        monitor: Option<Monitor>,
        /// Epochs without improvement before the end.
        #[serde(default)]
        patience: u32,
        /// Least change that counts as an improvement.
        #[serde(default)]
        min_delta: f64,
        /// Whether the best epoch's weights are kept instead of the last's.
        #[serde(default)]
        restore_best_weights: bool,
    },
    /// Lowers the learning rate when the monitored value no longer improves.
    ReduceLrOnPlateau {
        /// Watched value; `val_loss`, or `loss` without validation data, unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        monitor: Option<Monitor>,
        /// Factor on the learning rate.
        #[serde(default = "plateau_factor")]
        factor: f64,
        /// Epochs without improvement before each reduction.
        #[serde(default = "plateau_patience")]
        patience: u32,
        /// Least change that counts as an improvement.
        #[serde(default = "plateau_min_delta")]
        min_delta: f64,
        /// Epochs to wait after a reduction.
        #[serde(default)]
        cooldown: u32,
        /// The learning rate never goes below it.
        #[serde(default)]
        min_lr: f64,
    },
    /// Saves the whole training state, so that it can go on elsewhere.
    Checkpoint {
        /// Steps between checkpoints; by time alone unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        every_steps: Option<u64>,
        /// Seconds between checkpoints.
        #[serde(default = "checkpoint_seconds")]
        every_seconds: u64,
    },
}

const fn plateau_factor() -> f64 {
    0.1
}
const fn plateau_patience() -> u32 {
    10
}
const fn plateau_min_delta() -> f64 {
    1e-4
}
/// Seconds between checkpoints unless a spec says otherwise.
#[must_use]
pub const fn checkpoint_seconds() -> u64 {
    30
}

impl Callback {
    /// Returns the value the callback watches, if the spec names one.
    #[must_use]
    pub fn monitor(&self) -> Option<&Monitor> {
        match self {
            Self::EarlyStopping { monitor, .. } | Self::ReduceLrOnPlateau { monitor, .. } => {
                monitor.as_ref()
            }
            Self::Checkpoint { .. } => None,
        }
    }

    /// Records every parameter outside its range.
    pub fn check(&self, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        match self {
            Self::EarlyStopping {
                patience,
                min_delta,
                ..
            } => {
                v.check_range(&at("patience"), *patience, 0, limits::MAX_EPOCHS);
                v.check_range(&at("min_delta"), *min_delta, 0.0, 1e9);
            }
            Self::ReduceLrOnPlateau {
                factor,
                patience,
                min_delta,
                cooldown,
                min_lr,
                ..
            } => {
                v.check(
                    *factor > 0.0 && *factor < 1.0,
                    &at("factor"),
                    "out_of_range",
                    || format!("{factor} is not above 0 and below 1"),
                );
                v.check_range(&at("patience"), *patience, 0, limits::MAX_EPOCHS);
                v.check_range(&at("cooldown"), *cooldown, 0, limits::MAX_EPOCHS);
                v.check_range(&at("min_delta"), *min_delta, 0.0, 1e9);
                v.check_range(&at("min_lr"), *min_lr, 0.0, 100.0);
            }
            Self::Checkpoint {
                every_steps,
                every_seconds,
            } => {
                v.check_range(
                    &at("every_steps"),
                    every_steps.unwrap_or(1),
                    1,
                    1_000_000_000,
                );
                v.check_range(&at("every_seconds"), *every_seconds, 1, 86_400);
            }
        }
    }
}
