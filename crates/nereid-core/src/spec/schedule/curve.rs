//! The formulas of the schedules: each rate is a pure function of the step.

use std::f64::consts::PI;

use super::{
    Anneal, CosineDecay, CosineDecayRestarts, OneCycle, PiecewiseConstantDecay, PolynomialDecay,
    RateDecay, Schedule,
};

/// How long a training is, by which lengths in epochs are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Epochs of the whole training.
    pub epochs: u32,
}

#[expect(clippy::cast_precision_loss, reason = "step counts are far below 2^52")]
impl Horizon {
    fn total(self) -> f64 {
        self.steps_per_epoch as f64 * f64::from(self.epochs)
    }

    /// Steps of a length that is given in steps or epochs, rounded to a whole step.
    fn steps(self, steps: Option<u64>, epochs: Option<f64>) -> Option<f64> {
        let epochs = || epochs.map(|e| (e * self.steps_per_epoch as f64).round().max(1.0));
        steps.map(|s| s as f64).or_else(epochs)
    }
}

impl Schedule {
    /// Returns the rate at a step, from 0.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "step counts are far below 2^52")]
    pub fn at(&self, step: u64, horizon: Horizon) -> f64 {
        let warmup = self.common().warmup;
        let warmup = horizon.steps(warmup.0, warmup.1).unwrap_or(0.0);
        let step = step as f64;
        let left = (horizon.total() - warmup).max(1.0);
        if step < warmup {
            let (from, to) = self.warmed(left, horizon);
            return from + (to - from) * (step / warmup);
        }
        self.decayed(step - warmup, left, horizon)
    }

    /// Returns momentum at a step, from 0, if the schedule has a say in it.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "step counts are far below 2^52")]
    pub fn momentum_at(&self, step: u64, horizon: Horizon) -> Option<f64> {
        match self {
            Self::OneCycle(c) => Some(c.at(step as f64, horizon.total()).1),
            _ => None,
        }
    }

    /// First and last rate of the warm-up.
    fn warmed(&self, left: f64, horizon: Horizon) -> (f64, f64) {
        match self {
            Self::CosineDecay(CosineDecay {
                initial_learning_rate,
                warmup_target: Some(target),
                ..
            }) => (*initial_learning_rate, *target),
            _ => (0.0, self.decayed(0.0, left, horizon)),
        }
    }

    /// The rate so many steps after the warm-up, of which there are `left`.
    fn decayed(&self, step: f64, left: f64, horizon: Horizon) -> f64 {
        match self {
            Self::Constant(c) => c.learning_rate,
            Self::CosineDecay(c) => {
                let steps = horizon.steps(c.decay_steps, c.decay_epochs).unwrap_or(left);
                c.at(step, steps)
            }
            Self::CosineDecayRestarts(c) => {
                let first = horizon.steps(c.first_decay_steps, c.first_decay_epochs);
                c.at(step / first.unwrap_or(left))
            }
            Self::ExponentialDecay(c) => {
                c.initial_learning_rate * c.decay_rate.powf(c.part(step, left, horizon))
            }
            Self::InverseTimeDecay(c) => {
                c.initial_learning_rate / (1.0 + c.decay_rate * c.part(step, left, horizon))
            }
            Self::PolynomialDecay(c) => {
                let steps = horizon.steps(c.decay_steps, c.decay_epochs).unwrap_or(left);
                c.at(step, steps)
            }
            Self::PiecewiseConstantDecay(c) => c.at(step, horizon),
            Self::OneCycle(c) => c.at(step, horizon.total()).0,
        }
    }
}

fn half_cosine(part: f64) -> f64 {
    0.5 * (1.0 + (PI * part).cos())
}

impl CosineDecay {
    fn at(&self, step: f64, steps: f64) -> f64 {
        let from = self.warmup_target.unwrap_or(self.initial_learning_rate);
        let part = (step / steps).min(1.0);
        from * ((1.0 - self.alpha) * half_cosine(part) + self.alpha)
    }
}

impl CosineDecayRestarts {
    /// `part`: steps done, in lengths of the first decay.
    fn at(&self, part: f64) -> f64 {
        let (restarts, part) = if self.t_mul <= 1.0 {
            (part.floor(), part.fract())
        } else {
            let grown = (1.0 - part * (1.0 - self.t_mul)).ln() / self.t_mul.ln();
            let restarts = grown.floor();
            let length = self.t_mul.powf(restarts);
            let done = (1.0 - length) / (1.0 - self.t_mul);
            (restarts, (part - done) / length)
        };
        let cosine = self.m_mul.powf(restarts) * half_cosine(part);
        self.initial_learning_rate * ((1.0 - self.alpha) * cosine + self.alpha)
    }
}

impl RateDecay {
    fn part(&self, step: f64, left: f64, horizon: Horizon) -> f64 {
        let steps = horizon.steps(self.decay_steps, self.decay_epochs);
        let part = step / steps.unwrap_or(left);
        if self.staircase { part.floor() } else { part }
    }
}

impl PolynomialDecay {
    fn at(&self, step: f64, steps: f64) -> f64 {
        let (step, steps) = if self.cycle {
            (step, steps * (step / steps).ceil().max(1.0))
        } else {
            (step.min(steps), steps)
        };
        let end = self.end_learning_rate;
        (self.initial_learning_rate - end) * (1.0 - step / steps).powf(self.power) + end
    }
}

impl PiecewiseConstantDecay {
    #[expect(clippy::cast_precision_loss, reason = "step counts are far below 2^52")]
    fn at(&self, step: f64, horizon: Horizon) -> f64 {
        let passed = match (&self.boundaries, &self.epoch_boundaries) {
            (Some(steps), _) => steps.iter().filter(|&&b| step > b as f64).count(),
            (None, Some(epochs)) => {
                let begun = |e: &&f64| horizon.steps(None, Some(**e)).is_some_and(|b| step >= b);
                epochs.iter().filter(begun).count()
            }
            (None, None) => 0,
        };
        let value = self.values.get(passed).or(self.values.last());
        value.copied().unwrap_or_default()
    }
}

impl OneCycle {
    /// Rate and momentum at a step; after the cycle they stay as they were at its end.
    #[expect(clippy::cast_precision_loss, reason = "step counts are far below 2^52")]
    fn at(&self, step: f64, whole: f64) -> (f64, f64) {
        let total = self.total_steps.map_or(whole, |s| s as f64);
        let first = self.max_lr / self.div_factor;
        let last = first / self.final_div_factor;
        let (low, high) = (self.base_momentum, self.max_momentum);
        let up = self.pct_start * total - 1.0;
        let phases = if self.three_phase {
            vec![
                (up, (first, self.max_lr), (high, low)),
                (2.0 * up, (self.max_lr, first), (low, high)),
                (total - 1.0, (first, last), (high, high)),
            ]
        } else {
            vec![
                (up, (first, self.max_lr), (high, low)),
                (total - 1.0, (self.max_lr, last), (low, high)),
            ]
        };
        let step = step.min(total - 1.0);
        let mut start = 0.0;
        for (end, rate, momentum) in phases {
            if step <= end {
                let part = if end > start {
                    (step - start) / (end - start)
                } else {
                    1.0
                };
                return (self.anneal(rate, part), self.anneal(momentum, part));
            }
            start = end;
        }
        (last, high)
    }

    fn anneal(&self, (from, to): (f64, f64), part: f64) -> f64 {
        match self.anneal_strategy {
            Anneal::Cos => to + (from - to) * half_cosine(part),
            Anneal::Linear => from + (to - from) * part,
        }
    }
}

#[cfg(test)]
mod tests;
