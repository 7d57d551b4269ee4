//! Rules that tell of an ill training, named and parameterised as SageMaker Debugger's built-in
//! ones (<https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html>).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    limits,
    validation::{Violations, parse},
};

/// What happens once a rule applies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RuleAction {
    /// A warning in the job's log and an event.
    #[default]
    Warn,
    /// Training ends early, and its model is kept.
    Stop,
}

/// A sign of an ill training.
///
/// Tensors are looked at on the steps that have metric points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Rule {
    /// The mean loss of some steps does not fall below the least one before.
    LossNotDecreasing {
        /// Steps of each mean; an epoch's unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(minimum = 1)]
        num_steps: Option<u64>,
        /// Least fall in per cent.
        #[serde(default = "diff_percent")]
        diff_percent: f64,
        /// Means in a row without it.
        #[serde(default = "three")]
        patience: u32,
        /// What happens then.
        #[serde(default)]
        action: RuleAction,
    },
    /// Gradients of a layer's kernel are close to 0.
    VanishingGradient {
        /// Mean absolute value below which they are.
        #[serde(default = "vanishing")]
        threshold: f64,
        /// Observations in a row.
        #[serde(default = "three")]
        patience: u32,
        /// What happens then.
        #[serde(default)]
        action: RuleAction,
    },
    /// A weight or gradient is not finite or too large.
    ExplodingTensor {
        /// Largest absolute value.
        #[serde(default = "exploding")]
        threshold: f64,
        /// What happens then.
        #[serde(default)]
        action: RuleAction,
    },
    /// The loss of validation exceeds that of training.
    Overfit {
        /// Epoch, from 1, from which on it counts.
        #[serde(default = "one")]
        start_epoch: u32,
        /// `(val_loss - loss) / loss` above which it does.
        #[serde(default = "ratio_threshold")]
        ratio_threshold: f64,
        /// Epochs in a row.
        #[serde(default = "one")]
        patience: u32,
        /// What happens then.
        #[serde(default)]
        action: RuleAction,
    },
    /// Most units of a layer with a ReLU yield nothing but 0.
    DeadRelu {
        /// Per cent of a batch for which a living unit is active.
        #[serde(default = "threshold_inactivity")]
        threshold_inactivity: f64,
        /// Per cent of dead units above which a layer is dead.
        #[serde(default = "threshold_layer")]
        threshold_layer: f64,
        /// Observations in a row.
        #[serde(default = "three")]
        patience: u32,
        /// What happens then.
        #[serde(default)]
        action: RuleAction,
    },
}

const fn one() -> u32 {
    1
}
const fn three() -> u32 {
    3
}
const fn diff_percent() -> f64 {
    0.1
}
const fn vanishing() -> f64 {
    1e-7
}
const fn exploding() -> f64 {
    1e10
}
const fn ratio_threshold() -> f64 {
    0.1
}
const fn threshold_inactivity() -> f64 {
    1.0
}
const fn threshold_layer() -> f64 {
    50.0
}

impl Rule {
    /// Reads a rule: `"overfit"` or `{"type": "overfit", "patience": 3}`.
    pub fn read(value: Value, pointer: &str, v: &mut Violations) -> Option<Self> {
        let value = match value {
            Value::String(name) => serde_json::json!({ "type": name }),
            other => other,
        };
        let rule: Self = parse(value, pointer, v)?;
        rule.check(pointer, v);
        Some(rule)
    }

    /// Name as in the spec.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::LossNotDecreasing { .. } => "loss_not_decreasing",
            Self::VanishingGradient { .. } => "vanishing_gradient",
            Self::ExplodingTensor { .. } => "exploding_tensor",
            Self::Overfit { .. } => "overfit",
            Self::DeadRelu { .. } => "dead_relu",
        }
    }

    /// What happens once it applies.
    #[must_use]
    pub fn action(&self) -> RuleAction {
        match self {
            Self::LossNotDecreasing { action, .. }
            | Self::VanishingGradient { action, .. }
            | Self::ExplodingTensor { action, .. }
            | Self::Overfit { action, .. }
            | Self::DeadRelu { action, .. } => *action,
        }
    }

    /// How often in a row its sign must show.
    #[must_use]
    pub fn patience(&self) -> u32 {
        match self {
            Self::LossNotDecreasing { patience, .. }
            | Self::VanishingGradient { patience, .. }
            | Self::Overfit { patience, .. }
            | Self::DeadRelu { patience, .. } => *patience,
            Self::ExplodingTensor { .. } => 1,
        }
    }

    fn check(&self, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        v.check_range(&at("patience"), self.patience(), 1, limits::MAX_EPOCHS);
        match self {
            Self::LossNotDecreasing {
                num_steps,
                diff_percent,
                ..
            } => {
                v.check_range(&at("num_steps"), num_steps.unwrap_or(1), 1, 1_000_000_000);
                v.check_range(&at("diff_percent"), *diff_percent, 0.0, 100.0);
            }
            Self::VanishingGradient { threshold, .. } | Self::ExplodingTensor { threshold, .. } => {
                v.check_range(&at("threshold"), *threshold, 1e-30, 1e38);
            }
            Self::Overfit {
                start_epoch,
                ratio_threshold,
                ..
            } => {
                v.check_range(&at("start_epoch"), *start_epoch, 1, limits::MAX_EPOCHS);
                v.check_range(&at("ratio_threshold"), *ratio_threshold, 0.0, 1e9);
            }
            Self::DeadRelu {
                threshold_inactivity,
                threshold_layer,
                ..
            } => {
                let inactivity = at("threshold_inactivity");
                v.check_range(&inactivity, *threshold_inactivity, 0.0, 100.0);
                v.check_range(&at("threshold_layer"), *threshold_layer, 0.0, 100.0);
            }
        }
    }
}
