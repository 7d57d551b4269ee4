//! Learning rates: a number, or a schedule over the steps with Keras 3's names and formulas.
//!
//! Beside steps, lengths may be given in epochs, so that nobody need know the number of batches;
//! where a schedule has a natural end and no length is given, it ends with the training.

mod check;
mod curve;

use serde::{Deserialize, Deserializer, Serialize, de::Error};
use serde_json::Value;
use utoipa::ToSchema;

pub use curve::Horizon;

use crate::validation::{Violations, parse};

/// Step size of an optimiser: a number, or an object that says how it changes.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum LearningRate {
    /// The same at each step, unless a callback lowers it.
    Constant(f64),
    /// A function of the step.
    Scheduled(Schedule),
    /// Found before training by a range test (Smith, 2015), and then the same at each step.
    Auto(Auto),
}

/// The word `auto`: Nereid finds the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    /// Found before training.
    Auto,
}

/// How a learning rate changes with the steps (<https://keras.io/api/optimizers/learning_rate_schedules/>).
///
/// A step is a batch, also where gradients are accumulated, as in Keras. Any schedule but
/// `one_cycle` may begin with `warmup_steps` or `warmup_epochs`, in which the rate rises in a
/// line from 0 to its first value; the schedule's own steps count from their end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Schedule {
    /// One rate, after a warm-up.
    Constant(Constant),
    /// Along half a cosine (Loshchilov and Hutter, 2016).
    CosineDecay(CosineDecay),
    /// Along half cosines, again and again.
    CosineDecayRestarts(CosineDecayRestarts),
    /// Times `decay_rate` each `decay_steps`.
    ExponentialDecay(RateDecay),
    /// Divided by `1 + decay_rate × step / decay_steps`.
    InverseTimeDecay(RateDecay),
    /// Along a polynomial to `end_learning_rate`.
    PolynomialDecay(PolynomialDecay),
    /// Steps between constant values.
    PiecewiseConstantDecay(PiecewiseConstantDecay),
    /// Up and down once (Smith and Topin, 2017), with `PyTorch`'s names and formula.
    OneCycle(OneCycle),
}

/// Parameters of `constant`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConstantSchedule)]
pub struct Constant {
    /// The rate.
    pub learning_rate: f64,
    /// Steps of warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Epochs of warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_epochs: Option<f64>,
}

/// Parameters of `cosine_decay`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CosineDecaySchedule)]
pub struct CosineDecay {
    /// Rate at the start.
    pub initial_learning_rate: f64,
    /// Steps of decay; what is left of the training unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_steps: Option<u64>,
    /// Epochs of decay, instead of `decay_steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_epochs: Option<f64>,
    /// Share of the rate that is left in the end.
    #[serde(default)]
    pub alpha: f64,
    /// Rate that the warm-up leads to, from `initial_learning_rate`; without it the warm-up leads
    /// from 0 to `initial_learning_rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_target: Option<f64>,
    /// Steps of warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Epochs of warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_epochs: Option<f64>,
}

/// Parameters of `cosine_decay_restarts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CosineDecayRestartsSchedule)]
pub struct CosineDecayRestarts {
    /// Rate at the start.
    pub initial_learning_rate: f64,
    /// Steps of the first decay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_decay_steps: Option<u64>,
    /// Epochs of the first decay, instead of `first_decay_steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_decay_epochs: Option<f64>,
    /// Length of each decay in lengths of the one before.
    #[serde(default = "two")]
    pub t_mul: f64,
    /// First rate of each decay in first rates of the one before.
    #[serde(default = "one")]
    pub m_mul: f64,
    /// Share of the rate that is left in the end.
    #[serde(default)]
    pub alpha: f64,
    /// Steps of warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Epochs of warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_epochs: Option<f64>,
}

/// Parameters of `exponential_decay` and `inverse_time_decay`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RateDecaySchedule)]
pub struct RateDecay {
    /// Rate at the start.
    pub initial_learning_rate: f64,
    /// Steps over which the decay applies once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_steps: Option<u64>,
    /// Epochs over which the decay applies once, instead of `decay_steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_epochs: Option<f64>,
    /// The decay.
    pub decay_rate: f64,
    /// Whether the rate changes only each whole `decay_steps`.
    #[serde(default)]
    pub staircase: bool,
    /// Steps of warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Epochs of warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_epochs: Option<f64>,
}

/// Parameters of `polynomial_decay`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PolynomialDecaySchedule)]
pub struct PolynomialDecay {
    /// Rate at the start.
    pub initial_learning_rate: f64,
    /// Steps of decay; what is left of the training unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_steps: Option<u64>,
    /// Epochs of decay, instead of `decay_steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_epochs: Option<f64>,
    /// Rate in the end.
    #[serde(default = "end_learning_rate")]
    pub end_learning_rate: f64,
    /// Exponent; 1 is a line.
    #[serde(default = "one")]
    pub power: f64,
    /// Whether the rate rises again after `decay_steps`.
    #[serde(default)]
    pub cycle: bool,
    /// Steps of warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Epochs of warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_epochs: Option<f64>,
}

/// Parameters of `piecewise_constant_decay`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PiecewiseConstantDecaySchedule)]
pub struct PiecewiseConstantDecay {
    /// Last step (from 0) of each value but the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 1_000)]
    pub boundaries: Option<Vec<u64>>,
    /// Epochs done when each value but the first one begins, instead of `boundaries`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 1_000)]
    pub epoch_boundaries: Option<Vec<f64>>,
    /// The rates, one more than boundaries.
    #[schema(max_items = 1_001)]
    pub values: Vec<f64>,
    /// Steps of warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Epochs of warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_epochs: Option<f64>,
}

/// Parameters of `one_cycle`, those of `PyTorch`'s `OneCycleLR`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OneCycleSchedule)]
pub struct OneCycle {
    /// Highest rate.
    pub max_lr: f64,
    /// Steps of the cycle; the whole training unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_steps: Option<u64>,
    /// Share of the cycle in which the rate rises.
    #[serde(default = "pct_start")]
    pub pct_start: f64,
    /// How the rate goes from value to value.
    #[serde(default)]
    pub anneal_strategy: Anneal,
    /// The first rate is `max_lr / div_factor`.
    #[serde(default = "div_factor")]
    pub div_factor: f64,
    /// The last rate is the first one divided by this.
    #[serde(default = "final_div_factor")]
    pub final_div_factor: f64,
    /// Whether the rate falls to the first one before it falls to the last one.
    #[serde(default)]
    pub three_phase: bool,
    /// Whether momentum (`beta_1` of Adam and its kin) moves against the rate; as far as the
    /// optimiser has one unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycle_momentum: Option<bool>,
    /// Least momentum, at `max_lr`.
    #[serde(default = "base_momentum")]
    pub base_momentum: f64,
    /// Largest momentum, at both ends.
    #[serde(default = "max_momentum")]
    pub max_momentum: f64,
}

/// How a rate goes from one value to the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Anneal {
    /// Along half a cosine.
    #[default]
    Cos,
    /// In a line.
    Linear,
}

const fn one() -> f64 {
    1.0
}
const fn two() -> f64 {
    2.0
}
const fn end_learning_rate() -> f64 {
    1e-4
}
const fn pct_start() -> f64 {
    0.3
}
const fn div_factor() -> f64 {
    25.0
}
const fn final_div_factor() -> f64 {
    1e4
}
const fn base_momentum() -> f64 {
    0.85
}
const fn max_momentum() -> f64 {
    0.95
}

impl LearningRate {
    /// Reads a rate; every mistake has the pointer of its place.
    pub fn read(value: Value, pointer: &str, v: &mut Violations) -> Option<Self> {
        match value {
            Value::Object(_) => parse(value, pointer, v).map(Self::Scheduled),
            Value::Number(_) => parse(value, pointer, v).map(Self::Constant),
            Value::String(word) if word == "auto" => Some(Self::Auto(Auto::Auto)),
            _ => {
                let detail = "expected a number, \"auto\", or an object such as {\"type\": \"cosine_decay\", \"initial_learning_rate\": 0.001}";
                v.push(pointer, "wrong_type", detail);
                None
            }
        }
    }

    /// Returns the rate at a step, from 0.
    #[must_use]
    pub fn at(&self, step: u64, horizon: Horizon) -> f64 {
        match self {
            Self::Constant(rate) => *rate,
            Self::Auto(_) => 1e-3,
            Self::Scheduled(schedule) => schedule.at(step, horizon),
        }
    }

    /// Records every parameter outside its range.
    pub fn check(&self, pointer: &str, v: &mut Violations) {
        match self {
            Self::Constant(rate) => v.check_range(pointer, *rate, 1e-12, check::MAX_RATE),
            Self::Scheduled(schedule) => schedule.check(pointer, v),
            Self::Auto(_) => {}
        }
    }
}

impl From<f64> for LearningRate {
    fn from(rate: f64) -> Self {
        Self::Constant(rate)
    }
}

impl<'de> Deserialize<'de> for LearningRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut violations = Violations::default();
        let read = Self::read(Value::deserialize(deserializer)?, "", &mut violations);
        let first = violations.into_vec().into_iter().next();
        read.ok_or_else(|| {
            let first = first.map(|v| format!("learning_rate{}: {}", v.pointer, v.detail));
            D::Error::custom(first.unwrap_or_default())
        })
    }
}
