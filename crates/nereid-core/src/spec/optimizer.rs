//! Optimisers with Keras 3's names and defaults.

mod check;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::schedule::LearningRate;
use crate::validation::{ObjectReader, Violations, parse};

/// Changes the weights after each batch (<https://keras.io/api/optimizers/>).
///
/// What Keras' optimisers share beside the learning rate and `weight_decay` is in `fit`: clipping,
/// accumulation of gradients, moving averages of weights, and which weights decay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd {
        /// Step size: a number or a schedule.
        #[serde(default = "sgd_rate")]
        learning_rate: LearningRate,
        /// Weight of the previous step.
        #[serde(default)]
        momentum: f64,
        /// Nesterov's variant of momentum.
        #[serde(default)]
        nesterov: bool,
        /// Share of each weight taken off per step, times the step size.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight_decay: Option<f64>,
    },
    /// Adam (Kingma and Ba, 2014).
    Adam {
        /// Step size: a number or a schedule.
        #[serde(default = "adam_rate")]
        learning_rate: LearningRate,
        /// Decay of the first moment.
        #[serde(default = "beta_1")]
        beta_1: f64,
        /// Decay of the second moment.
        #[serde(default = "beta_2")]
        beta_2: f64,
        /// Added to the denominator.
        #[serde(default = "epsilon")]
        epsilon: f64,
        /// Whether the largest second moment so far is used (Reddi et al., 2018).
        #[serde(default, skip_serializing_if = "is_false")]
        amsgrad: bool,
        /// Share of each weight taken off per step, times the step size.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight_decay: Option<f64>,
    },
    /// Adam with decoupled weight decay (Loshchilov and Hutter, 2017).
    Adamw {
        /// Step size: a number or a schedule.
        #[serde(default = "adam_rate")]
        learning_rate: LearningRate,
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
        /// Whether the largest second moment so far is used (Reddi et al., 2018).
        #[serde(default, skip_serializing_if = "is_false")]
        amsgrad: bool,
    },
    /// `RMSprop` (Hinton, 2012).
    Rmsprop {
        /// Step size: a number or a schedule.
        #[serde(default = "adam_rate")]
        learning_rate: LearningRate,
        /// Decay of the moving average of squared gradients.
        #[serde(default = "rho")]
        rho: f64,
        /// Weight of the previous step.
        #[serde(default)]
        momentum: f64,
        /// Added to the denominator.
        #[serde(default = "epsilon")]
        epsilon: f64,
        /// Whether the variance of the gradients is used instead of their mean square.
        #[serde(default, skip_serializing_if = "is_false")]
        centered: bool,
        /// Share of each weight taken off per step, times the step size.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight_decay: Option<f64>,
    },
    /// Adagrad (Duchi et al., 2011).
    Adagrad {
        /// Step size: a number or a schedule.
        #[serde(default = "adam_rate")]
        learning_rate: LearningRate,
        /// Sum of squared gradients to start with.
        #[serde(default = "accumulator")]
        initial_accumulator_value: f64,
        /// Added to the denominator.
        #[serde(default = "epsilon")]
        epsilon: f64,
        /// Share of each weight taken off per step, times the step size.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight_decay: Option<f64>,
    },
    /// Adadelta (Zeiler, 2012); its paper has a step size of 1.
    Adadelta {
        /// Step size: a number or a schedule.
        #[serde(default = "adam_rate")]
        learning_rate: LearningRate,
        /// Decay of the moving averages.
        #[serde(default = "adadelta_rho")]
        rho: f64,
        /// Added to the denominator.
        #[serde(default = "epsilon")]
        epsilon: f64,
        /// Share of each weight taken off per step, times the step size.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight_decay: Option<f64>,
    },
    /// Adam with the infinity norm (Kingma and Ba, 2014).
    Adamax {
        /// Step size: a number or a schedule.
        #[serde(default = "adam_rate")]
        learning_rate: LearningRate,
        /// Decay of the first moment.
        #[serde(default = "beta_1")]
        beta_1: f64,
        /// Decay of the infinity norm.
        #[serde(default = "beta_2")]
        beta_2: f64,
        /// Added to the denominator.
        #[serde(default = "epsilon")]
        epsilon: f64,
        /// Share of each weight taken off per step, times the step size.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight_decay: Option<f64>,
    },
    /// Adam with Nesterov's momentum (Dozat, 2016).
    Nadam {
        /// Step size: a number or a schedule.
        #[serde(default = "adam_rate")]
        learning_rate: LearningRate,
        /// Decay of the first moment.
        #[serde(default = "beta_1")]
        beta_1: f64,
        /// Decay of the second moment.
        #[serde(default = "beta_2")]
        beta_2: f64,
        /// Added to the denominator.
        #[serde(default = "epsilon")]
        epsilon: f64,
        /// Share of each weight taken off per step, times the step size.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight_decay: Option<f64>,
    },
    /// Follow the regularised leader (McMahan et al., 2013).
    Ftrl {
        /// Step size: a number or a schedule.
        #[serde(default = "adam_rate")]
        learning_rate: LearningRate,
        /// Exponent of the accumulator, at most 0.
        #[serde(default = "ftrl_power")]
        learning_rate_power: f64,
        /// Sum of squared gradients to start with.
        #[serde(default = "accumulator")]
        initial_accumulator_value: f64,
        /// Strength of the L1 penalty.
        #[serde(default)]
        l1_regularization_strength: f64,
        /// Strength of the L2 penalty.
        #[serde(default)]
        l2_regularization_strength: f64,
        /// Strength of the L2 penalty on the gradient.
        #[serde(default)]
        l2_shrinkage_regularization_strength: f64,
        /// Added to the rate's denominator.
        #[serde(default)]
        beta: f64,
        /// Share of each weight taken off per step, times the step size.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight_decay: Option<f64>,
    },
    /// Adam with a step for each layer (You et al., 2019).
    Lamb {
        /// Step size: a number or a schedule.
        #[serde(default = "adam_rate")]
        learning_rate: LearningRate,
        /// Decay of the first moment.
        #[serde(default = "beta_1")]
        beta_1: f64,
        /// Decay of the second moment.
        #[serde(default = "beta_2")]
        beta_2: f64,
        /// Added to the denominator.
        #[serde(default = "epsilon")]
        epsilon: f64,
        /// Share of each weight taken off per step, times the step size.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight_decay: Option<f64>,
    },
    /// Sign of an interpolated momentum (Chen et al., 2023).
    Lion {
        /// Step size: a number or a schedule.
        #[serde(default = "adam_rate")]
        learning_rate: LearningRate,
        /// Weight of the momentum in the step.
        #[serde(default = "beta_1")]
        beta_1: f64,
        /// Decay of the momentum.
        #[serde(default = "lion_beta_2")]
        beta_2: f64,
        /// Share of each weight taken off per step, times the step size.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight_decay: Option<f64>,
    },
}

const fn sgd_rate() -> LearningRate {
    LearningRate::Constant(0.01)
}
const fn adam_rate() -> LearningRate {
    LearningRate::Constant(0.001)
}
const fn beta_1() -> f64 {
    0.9
}
const fn beta_2() -> f64 {
    0.999
}
const fn lion_beta_2() -> f64 {
    0.99
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
const fn adadelta_rho() -> f64 {
    0.95
}
const fn accumulator() -> f64 {
    0.1
}
const fn ftrl_power() -> f64 {
    -0.5
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Adam {
            learning_rate: adam_rate(),
            beta_1: beta_1(),
            beta_2: beta_2(),
            epsilon: epsilon(),
            amsgrad: false,
            weight_decay: None,
        }
    }
}

impl Optimizer {
    /// Reads an optimiser; mistakes in its schedule have pointers of their own.
    pub fn read(value: Value, pointer: &str, v: &mut Violations) -> Option<Self> {
        let mut r = ObjectReader::new(value, pointer, v)?;
        let rate = r.take("learning_rate");
        let mut rest = r.rest();
        let mut sound = true;
        if let Some(rate) = rate {
            let at = format!("{pointer}/learning_rate");
            sound = LearningRate::read(rate.clone(), &at, v).is_some();
            if sound {
                rest.insert("learning_rate".to_owned(), rate);
            }
        }
        let optimizer: Self = parse(Value::Object(rest), pointer, v)?;
        optimizer.check(pointer, v);
        sound.then_some(optimizer)
    }

    /// Replaces the step size.
    pub fn set_learning_rate(&mut self, rate: LearningRate) {
        match self {
            Self::Sgd { learning_rate, .. }
            | Self::Adam { learning_rate, .. }
            | Self::Adamw { learning_rate, .. }
            | Self::Rmsprop { learning_rate, .. }
            | Self::Adagrad { learning_rate, .. }
            | Self::Adadelta { learning_rate, .. }
            | Self::Adamax { learning_rate, .. }
            | Self::Nadam { learning_rate, .. }
            | Self::Ftrl { learning_rate, .. }
            | Self::Lamb { learning_rate, .. }
            | Self::Lion { learning_rate, .. } => *learning_rate = rate,
        }
    }

    /// Returns the step size.
    #[must_use]
    pub fn learning_rate(&self) -> &LearningRate {
        match self {
            Self::Sgd { learning_rate, .. }
            | Self::Adam { learning_rate, .. }
            | Self::Adamw { learning_rate, .. }
            | Self::Rmsprop { learning_rate, .. }
            | Self::Adagrad { learning_rate, .. }
            | Self::Adadelta { learning_rate, .. }
            | Self::Adamax { learning_rate, .. }
            | Self::Nadam { learning_rate, .. }
            | Self::Ftrl { learning_rate, .. }
            | Self::Lamb { learning_rate, .. }
            | Self::Lion { learning_rate, .. } => learning_rate,
        }
    }

    /// Returns the share of the weights taken off per step.
    #[must_use]
    pub fn weight_decay(&self) -> Option<f64> {
        match self {
            Self::Adamw { weight_decay, .. } => Some(*weight_decay),
            Self::Sgd { weight_decay, .. }
            | Self::Adam { weight_decay, .. }
            | Self::Rmsprop { weight_decay, .. }
            | Self::Adagrad { weight_decay, .. }
            | Self::Adadelta { weight_decay, .. }
            | Self::Adamax { weight_decay, .. }
            | Self::Nadam { weight_decay, .. }
            | Self::Ftrl { weight_decay, .. }
            | Self::Lamb { weight_decay, .. }
            | Self::Lion { weight_decay, .. } => *weight_decay,
        }
    }

    /// Tells whether weight decay applies to all weights unless a spec says otherwise.
    ///
    /// `adamw` is Keras' own and decays all; with the others `weight_decay` spares biases and the
    /// scales and offsets of normalisations.
    #[must_use]
    pub fn decays_all(&self) -> bool {
        matches!(self, Self::Adamw { .. })
    }

    /// Tells whether a schedule can move the weight of previous steps.
    #[must_use]
    pub fn has_momentum(&self) -> bool {
        match self {
            Self::Sgd { momentum, .. } | Self::Rmsprop { momentum, .. } => *momentum > 0.0,
            Self::Adam { .. } | Self::Adamw { .. } => true,
            _ => false,
        }
    }

    /// Records every parameter outside its range.
    pub fn check(&self, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        let rate = self.learning_rate();
        rate.check(&at("learning_rate"), v);
        if let Some(decay) = self.weight_decay() {
            v.check_range(&at("weight_decay"), decay, 0.0, 10.0);
        }
        let cycles = match rate {
            LearningRate::Scheduled(schedule) => schedule.cycles_momentum(self.has_momentum()),
            LearningRate::Constant(_) | LearningRate::Auto(_) => false,
        };
        v.check(
            !cycles || self.has_momentum(),
            &at("learning_rate/cycle_momentum"),
            "conflict",
            || "this optimiser has no momentum to cycle; use sgd with momentum, rmsprop with momentum, adam or adamw".to_owned(),
        );
        self.check_own(pointer, v);
    }
}
