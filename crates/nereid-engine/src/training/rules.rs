//! Signs of an ill training: which rules apply, seen from losses and watched tensors.
//!
//! All state is saved with the training, so that a resumed one warns of the same and only once.

use std::collections::BTreeMap;

use nereid_core::{
    engine::Monitor,
    events::LogLevel,
    spec::rules::{Rule, RuleAction},
};
use serde::{Deserialize, Serialize};

use super::{exact, watch::Observation};

/// What a rule remembers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RuleState {
    /// Times in a row that its sign showed.
    count: u32,
    /// Losses since the last mean, and how many.
    #[serde(with = "exact")]
    sum: f64,
    steps: u64,
    /// Least mean so far; NaN before the first.
    #[serde(with = "exact")]
    least: f64,
    /// Whether it has applied.
    fired: bool,
}

impl Default for RuleState {
    fn default() -> Self {
        Self {
            count: 0,
            sum: 0.0,
            steps: 0,
            least: f64::NAN,
            fired: false,
        }
    }
}

/// What a step showed.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) loss: f64,
    /// Tensors, if they were looked at.
    pub(super) observation: Option<Observation>,
    /// Steps of an epoch.
    pub(super) per_epoch: u64,
}

/// Tells of which kinds of tensors rules need more than norms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) weights: bool,
    pub(super) activations: bool,
}

impl Needs {
    pub(super) fn of(rules: &[Rule]) -> Self {
        let mut needs = Self::default();
        for rule in rules {
            match rule {
                Rule::VanishingGradient { .. } | Rule::ExplodingTensor { .. } => {
                    needs.weights = true;
                }
                Rule::DeadRelu { .. } => needs.activations = true,
                Rule::LossNotDecreasing { .. } | Rule::Overfit { .. } => {}
            }
        }
        needs
    }
}

/// What a rule saw.
enum Sign {
    /// Nothing to judge by.
    Nothing,
    Healthy,
    Ill(String),
}

impl From<Option<String>> for Sign {
    fn from(ill: Option<String>) -> Self {
        ill.map_or(Self::Healthy, Self::Ill)
    }
}

/// Applies what rules say of steps; returns why training is to end.
pub(super) fn after_step(
    rules: &[Rule],
    states: &mut [RuleState],
    step: &Step,
    monitor: &mut dyn Monitor,
) -> Option<String> {
    let look = |see: &dyn Fn(&Observation) -> Option<String>| {
        let observation = step.observation.as_ref();
        observation.map_or(Sign::Nothing, |observation| see(observation).into())
    };
    apply(rules, states, monitor, |rule, state| match rule {
        Rule::LossNotDecreasing {
            num_steps,
            diff_percent,
            ..
        } => {
            let steps = num_steps.unwrap_or(step.per_epoch.max(1));
            loss_stalls(state, step.loss, steps, *diff_percent)
        }
        Rule::VanishingGradient { threshold, .. } => look(&|seen| seen.vanishing(*threshold)),
        Rule::ExplodingTensor { threshold, .. } => look(&|seen| seen.exploding(*threshold)),
        Rule::DeadRelu {
            threshold_inactivity,
            threshold_layer,
            ..
        } => look(&|seen| seen.dead(*threshold_inactivity, *threshold_layer)),
        Rule::Overfit { .. } => Sign::Nothing,
    })
}

/// Applies what rules say of an epoch (from 0); returns why training is to end.
pub(super) fn after_epoch(
    rules: &[Rule],
    states: &mut [RuleState],
    epoch: u32,
    values: &BTreeMap<String, f64>,
    monitor: &mut dyn Monitor,
) -> Option<String> {
    apply(rules, states, monitor, |rule, _| match rule {
        Rule::Overfit {
            start_epoch,
            ratio_threshold,
            ..
        } => {
            let (Some(loss), Some(held_out)) = (values.get("loss"), values.get("val_loss")) else {
                return Sign::Nothing;
            };
            let ratio = (held_out - loss) / loss.abs().max(f64::MIN_POSITIVE);
            let counts = epoch + 1 >= *start_epoch && ratio > *ratio_threshold;
            let ill = counts.then(|| {
                format!("val_loss {held_out:.4} exceeds loss {loss:.4} by {ratio:.3} of it")
            });
            ill.into()
        }
        _ => Sign::Nothing,
    })
}

/// Counts how often each sign showed in a row.
fn apply(
    rules: &[Rule],
    states: &mut [RuleState],
    monitor: &mut dyn Monitor,
    mut sign: impl FnMut(&Rule, &mut RuleState) -> Sign,
) -> Option<String> {
    let mut stop = None;
    for (rule, state) in rules.iter().zip(states) {
        if state.fired {
            continue;
        }
        let what = match sign(rule, state) {
            Sign::Nothing => continue,
            Sign::Healthy => {
                state.count = 0;
                continue;
            }
            Sign::Ill(what) => what,
        };
        state.count += 1;
        if state.count < rule.patience() {
            continue;
        }
        state.fired = true;
        let reason = format!("rule {}: {what}", rule.name());
        monitor.log(LogLevel::Warn, reason.clone());
        if rule.action() == RuleAction::Stop {
            stop = stop.or(Some(reason));
        }
    }
    stop
}

#[expect(clippy::cast_precision_loss, reason = "step counts are far below 2^52")]
fn loss_stalls(state: &mut RuleState, loss: f64, steps: u64, diff_percent: f64) -> Sign {
    state.sum += loss;
    state.steps += 1;
    if state.steps < steps {
        return Sign::Nothing;
    }
    let mean = state.sum / state.steps as f64;
    (state.sum, state.steps) = (0.0, 0);
    let before = state.least;
    let enough = before - before.abs() * diff_percent / 100.0;
    state.least = mean.min(before);
    if before.is_nan() || mean < enough {
        return Sign::Healthy;
    }
    Sign::Ill(format!(
        "the mean loss of {steps} steps, {mean:.6}, is not {diff_percent} % below the least before, \
         {before:.6}"
    ))
}
