//! Ranges and conflicts of the schedules' parameters.

use super::{OneCycle, PiecewiseConstantDecay, Schedule};
use crate::{limits, validation::Violations};

/// Largest learning rate.
pub(super) const MAX_RATE: f64 = 100.0;
/// Most steps that a spec may name.
const MAX_STEPS: u64 = 1_000_000_000_000;

/// What is checked of each schedule.
pub(super) struct Common {
    rates: Vec<(&'static str, f64)>,
    pub(super) warmup: (Option<u64>, Option<f64>),
}

impl Schedule {
    pub(super) fn common(&self) -> Common {
        let initial = |rate: f64| vec![("initial_learning_rate", rate)];
        let (rates, warmup) = match self {
            Self::Constant(c) => (
                vec![("learning_rate", c.learning_rate)],
                (c.warmup_steps, c.warmup_epochs),
            ),
            Self::CosineDecay(c) => {
                let mut rates = initial(c.initial_learning_rate);
                rates.extend(c.warmup_target.map(|rate| ("warmup_target", rate)));
                (rates, (c.warmup_steps, c.warmup_epochs))
            }
            Self::CosineDecayRestarts(c) => (
                initial(c.initial_learning_rate),
                (c.warmup_steps, c.warmup_epochs),
            ),
            Self::ExponentialDecay(c) | Self::InverseTimeDecay(c) => (
                initial(c.initial_learning_rate),
                (c.warmup_steps, c.warmup_epochs),
            ),
            Self::PolynomialDecay(c) => {
                let mut rates = initial(c.initial_learning_rate);
                rates.push(("end_learning_rate", c.end_learning_rate));
                (rates, (c.warmup_steps, c.warmup_epochs))
            }
            Self::PiecewiseConstantDecay(c) => (Vec::new(), (c.warmup_steps, c.warmup_epochs)),
            Self::OneCycle(c) => (vec![("max_lr", c.max_lr)], (None, None)),
        };
        Common { rates, warmup }
    }

    pub(super) fn check(&self, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        let Common { rates, warmup } = self.common();
        for (field, rate) in rates {
            v.check_range(&at(field), rate, 0.0, MAX_RATE);
        }
        check_length(pointer, "warmup", warmup, false, v);
        match self {
            Self::Constant(_) => {}
            Self::CosineDecay(c) => {
                check_length(pointer, "decay", (c.decay_steps, c.decay_epochs), false, v);
                v.check_range(&at("alpha"), c.alpha, 0.0, 1.0);
                let warms = c.warmup_steps.is_some() || c.warmup_epochs.is_some();
                v.check(
                    c.warmup_target.is_none() || warms,
                    &at("warmup_target"),
                    "conflict",
                    || "warmup_target needs warmup_steps or warmup_epochs".to_owned(),
                );
            }
            Self::CosineDecayRestarts(c) => {
                let first = (c.first_decay_steps, c.first_decay_epochs);
                check_length(pointer, "first_decay", first, true, v);
                v.check_range(&at("t_mul"), c.t_mul, 1.0, 1e3);
                v.check_range(&at("m_mul"), c.m_mul, 0.0, 1e3);
                v.check_range(&at("alpha"), c.alpha, 0.0, 1.0);
            }
            Self::ExponentialDecay(c) | Self::InverseTimeDecay(c) => {
                check_length(pointer, "decay", (c.decay_steps, c.decay_epochs), true, v);
                v.check_range(&at("decay_rate"), c.decay_rate, 0.0, 1e6);
            }
            Self::PolynomialDecay(c) => {
                check_length(pointer, "decay", (c.decay_steps, c.decay_epochs), false, v);
                v.check_range(&at("power"), c.power, 0.0, 100.0);
            }
            Self::PiecewiseConstantDecay(c) => c.check(pointer, v),
            Self::OneCycle(c) => c.check(pointer, v),
        }
    }

    /// Tells whether the schedule moves an optimiser's momentum that has one or has none.
    #[must_use]
    pub fn cycles_momentum(&self, has_momentum: bool) -> bool {
        match self {
            Self::OneCycle(c) => c.cycle_momentum.unwrap_or(has_momentum),
            _ => false,
        }
    }
}

impl PiecewiseConstantDecay {
    fn check(&self, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        for (i, rate) in self.values.iter().enumerate() {
            v.check_range(&at(&format!("values/{i}")), *rate, 0.0, MAX_RATE);
        }
        let (steps, epochs) = (&self.boundaries, &self.epoch_boundaries);
        let n = match (steps, epochs) {
            (Some(b), None) => {
                v.check(b.is_sorted(), &at("boundaries"), "out_of_order", || {
                    "boundaries must rise".to_owned()
                });
                b.len()
            }
            (None, Some(b)) => {
                let fits = b.is_sorted()
                    && b.iter()
                        .all(|&e| e > 0.0 && e <= f64::from(limits::MAX_EPOCHS));
                v.check(fits, &at("epoch_boundaries"), "out_of_order", || {
                    let max = limits::MAX_EPOCHS;
                    format!("boundaries must rise, above 0 and up to {max}")
                });
                b.len()
            }
            _ => {
                let detail = "give either boundaries (steps) or epoch_boundaries";
                v.push(at("boundaries"), "conflict", detail);
                return;
            }
        };
        let max = limits::MAX_SCHEDULE_BOUNDARIES;
        v.check(n <= max, &at("boundaries"), "too_many", || {
            format!("{n} boundaries are more than the {max} allowed")
        });
        let given = self.values.len();
        v.check(given == n + 1, &at("values"), "out_of_range", || {
            format!("{n} boundaries need {} values, not {given}", n + 1)
        });
    }
}

impl OneCycle {
    fn check(&self, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        let steps = self.total_steps.unwrap_or(1);
        v.check_range(&at("total_steps"), steps, 1, MAX_STEPS);
        // Three phases have two that are as long.
        let most = if self.three_phase { 0.5 } else { 1.0 };
        v.check_range(&at("pct_start"), self.pct_start, 0.0, most);
        v.check_range(&at("div_factor"), self.div_factor, 1e-3, 1e9);
        v.check_range(&at("final_div_factor"), self.final_div_factor, 1e-3, 1e12);
        v.check_range(&at("base_momentum"), self.base_momentum, 0.0, 0.999_999);
        v.check_range(&at("max_momentum"), self.max_momentum, 0.0, 0.999_999);
    }
}

/// Checks a length that is given in steps, in epochs, or not at all.
fn check_length(
    pointer: &str,
    what: &str,
    (steps, epochs): (Option<u64>, Option<f64>),
    required: bool,
    v: &mut Violations,
) {
    let at = |unit: &str| format!("{pointer}/{what}_{unit}");
    v.check_range(&at("steps"), steps.unwrap_or(1), 1, MAX_STEPS);
    let given = epochs.unwrap_or(1.0);
    v.check_range(&at("epochs"), given, 1e-6, f64::from(limits::MAX_EPOCHS));
    v.check(
        steps.is_none() || epochs.is_none(),
        &at("epochs"),
        "conflict",
        || format!("{what}_steps and {what}_epochs exclude each other"),
    );
    v.check(
        !required || steps.is_some() || epochs.is_some(),
        &at("steps"),
        "missing",
        || format!("either {what}_steps or {what}_epochs is required"),
    );
}
