//! Signs of an ill training: which rules apply, seen from losses and watched tensors.
//!
//! All state is saved with the training, so that a resumed one warns of the same and only once.

use std::collections::BTreeMap;

use nereid_core::{
    engine::Monitor,
    events::{LogLevel, RuleReport},
    spec::rules::{Rule, RuleAction},
};
use serde::{Deserialize, Serialize};

use super::{
    exact,
    watch::{Issue, Observation},
};

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
    /// Whether it has applied and not found the training well since.
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
    /// Steps done.
    pub(super) number: u64,
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
    Ill(Issue),
}

impl From<Option<Issue>> for Sign {
    fn from(ill: Option<Issue>) -> Self {
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
    let look = |see: &dyn Fn(&Observation) -> Option<Issue>| {
        let observation = step.observation.as_ref();
        observation.map_or(Sign::Nothing, |observation| see(observation).into())
    };
    apply(
        (rules, states),
        step.number,
        monitor,
        |rule, state| match rule {
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
        },
    )
}

/// Applies what rules say of an epoch (from 0), after so many steps; returns why training is to
/// end.
pub(super) fn after_epoch(
    rules: &[Rule],
    states: &mut [RuleState],
    (epoch, steps): (u32, u64),
    values: &BTreeMap<String, f64>,
    monitor: &mut dyn Monitor,
) -> Option<String> {
    apply((rules, states), steps, monitor, |rule, _| match rule {
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
            let ill = counts.then(|| Issue {
                layer: None,
                value: ratio,
                limit: *ratio_threshold,
                what: format!("val_loss {held_out:.4} exceeds loss {loss:.4} by {ratio:.3} of it"),
            });
            ill.into()
        }
        _ => Sign::Nothing,
    })
}

/// Counts how often each sign showed in a row, and reports those that showed often enough.
fn apply(
    (rules, states): (&[Rule], &mut [RuleState]),
    step: u64,
    monitor: &mut dyn Monitor,
    mut sign: impl FnMut(&Rule, &mut RuleState) -> Sign,
) -> Option<String> {
    let mut ending = None;
    for (rule, state) in rules.iter().zip(states) {
        let issue = match sign(rule, state) {
            Sign::Nothing => continue,
            Sign::Healthy => {
                (state.count, state.fired) = (0, false);
                continue;
            }
            Sign::Ill(issue) => issue,
        };
        state.count = state.count.saturating_add(1);
        if state.fired || state.count < rule.patience() {
            continue;
        }
        state.fired = true;
        let reason = format!("rule {}: {}", rule.name(), issue.what);
        monitor.log(LogLevel::Warn, reason.clone());
        monitor.rule(RuleReport {
            rule: rule.name().to_owned(),
            layer: issue.layer,
            step,
            value: Some(issue.value).filter(|value| value.is_finite()),
            limit: issue.limit,
            action: rule.action(),
            message: reason.clone(),
        });
        if rule.action() == RuleAction::Stop {
            ending = ending.or(Some(reason));
        }
    }
    ending
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
    Sign::Ill(Issue {
        layer: None,
        value: mean,
        limit: enough,
        what: format!(
            "the mean loss of {steps} steps, {mean:.6}, is not {diff_percent} % below the least \
             before, {before:.6}"
        ),
    })
}

#[cfg(test)]
mod tests {
    use nereid_core::{
        engine::Snapshot,
        events::MetricPoint,
        jobs::{Directive, JobPhase, Progress},
    };
    use serde_json::json;

    use super::*;

    /// Keeps what rules report.
    #[derive(Default)]
    struct Told(Vec<RuleReport>);

    impl Monitor for Told {
        fn phase(&mut self, _: JobPhase) {}
        fn progress(&mut self, _: Progress) {}
        fn metrics(&mut self, _: MetricPoint) {}
        fn rule(&mut self, report: RuleReport) {
            self.0.push(report);
        }
        fn log(&mut self, _: LogLevel, _: String) {}
        fn checkpoint(&mut self, _: Snapshot) {}
        fn directive(&mut self) -> Directive {
            Directive::Continue
        }
    }

    #[test]
    fn a_rule_reports_again_only_after_the_training_was_well() {
        let rule = json!({"type": "overfit", "ratio_threshold": 0.5, "patience": 2});
        let rules: Vec<Rule> = vec![serde_json::from_value(rule).unwrap()];
        let mut states = vec![RuleState::default()];
        let mut told = Told::default();
        // Ill, ill and so for long, well, ill once, well, ill twice.
        for (epoch, ratio) in (0_u32..).zip([1.0, 1.0, 2.0, 3.0, 0.0, 1.0, 0.0, 1.0, 4.0]) {
            let values = [("loss", 1.0), ("val_loss", 1.0 + ratio)];
            let values = values.map(|(name, value)| (name.to_owned(), value)).into();
            let at = (epoch, u64::from(epoch + 1) * 10);
            assert_eq!(
                after_epoch(&rules, &mut states, at, &values, &mut told),
                None
            );
        }
        let seen = told.0.iter().map(|r| (r.step, r.value, r.limit));
        assert_eq!(
            seen.collect::<Vec<_>>(),
            [(20, Some(1.0), 0.5), (90, Some(4.0), 0.5)]
        );
        let first = &told.0[0];
        assert_eq!((first.rule.as_str(), &first.layer), ("overfit", &None));
        assert!(first.message.contains("exceeds loss"), "{first:?}");
    }
}
