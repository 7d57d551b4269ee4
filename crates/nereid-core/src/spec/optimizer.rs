//! Optimisers with Keras 3's names and defaults.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::validation::Violations;

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
