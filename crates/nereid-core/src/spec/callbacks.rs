//! Callbacks: what happens after epochs, as in Keras 3.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{limits, validation::Violations};

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
