//! Ranges of each optimiser's own parameters.

use super::Optimizer;
use crate::validation::Violations;

/// Largest decay or weight of what was before.
const ALMOST_ONE: f64 = 0.999_999_9;

impl Optimizer {
    pub(super) fn check_own(&self, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        let betas = |beta_1: f64, beta_2: f64, v: &mut Violations| {
            v.check_range(&at("beta_1"), beta_1, 0.0, ALMOST_ONE);
            v.check_range(&at("beta_2"), beta_2, 0.0, ALMOST_ONE);
        };
        let small = |epsilon: f64, v: &mut Violations| {
            v.check_range(&at("epsilon"), epsilon, 1e-16, 1.0);
        };
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
            }
            | Self::Adamax {
                beta_1,
                beta_2,
                epsilon,
                ..
            }
            | Self::Nadam {
                beta_1,
                beta_2,
                epsilon,
                ..
            }
            | Self::Lamb {
                beta_1,
                beta_2,
                epsilon,
                ..
            } => {
                betas(*beta_1, *beta_2, v);
                small(*epsilon, v);
            }
            Self::Lion { beta_1, beta_2, .. } => betas(*beta_1, *beta_2, v),
            Self::Rmsprop {
                rho,
                momentum,
                epsilon,
                ..
            } => {
                v.check_range(&at("rho"), *rho, 0.0, ALMOST_ONE);
                v.check_range(&at("momentum"), *momentum, 0.0, 0.999_999);
                small(*epsilon, v);
            }
            Self::Adagrad {
                initial_accumulator_value,
                epsilon,
                ..
            } => {
                let value = *initial_accumulator_value;
                v.check_range(&at("initial_accumulator_value"), value, 0.0, 1e6);
                small(*epsilon, v);
            }
            Self::Adadelta { rho, epsilon, .. } => {
                v.check_range(&at("rho"), *rho, 0.0, ALMOST_ONE);
                small(*epsilon, v);
            }
            Self::Ftrl { .. } => self.check_ftrl(pointer, v),
        }
    }

    fn check_ftrl(&self, pointer: &str, v: &mut Violations) {
        let Self::Ftrl {
            learning_rate_power,
            initial_accumulator_value,
            l1_regularization_strength,
            l2_regularization_strength,
            l2_shrinkage_regularization_strength,
            beta,
            ..
        } = self
        else {
            return;
        };
        let at = |field: &str| format!("{pointer}/{field}");
        let power = *learning_rate_power;
        v.check_range(&at("learning_rate_power"), power, -10.0, 0.0);
        for (field, value) in [
            ("initial_accumulator_value", initial_accumulator_value),
            ("l1_regularization_strength", l1_regularization_strength),
            ("l2_regularization_strength", l2_regularization_strength),
            (
                "l2_shrinkage_regularization_strength",
                l2_shrinkage_regularization_strength,
            ),
            ("beta", beta),
        ] {
            v.check_range(&at(field), *value, 0.0, 1e6);
        }
    }
}
