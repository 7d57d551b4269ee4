//! Rules that undo a rollout by itself.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::RolloutType;
use crate::{limits, validation::Violations, words::words};

words! {
    /// What a rule holds against its threshold, of the new generation.
    RollbackMetric {
        /// Share of requests that fail, from 0 to 1.
        ErrorRate = "error_rate",
        /// 99th percentile of the latency in milliseconds.
        LatencyP99 = "latency_p99_ms",
        /// Distance of the mean score from the old generation's, in standard deviations of the
        /// latter (Cohen, 1988). A score is the probability of the most likely class, or the
        /// predicted number.
        ScoreGap = "score_gap",
        /// Share of the copied requests that a shadow answers otherwise, from 0 to 1.
        MismatchRate = "mismatch_rate",
    }
}

/// A limit that a new generation must keep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRule {
    /// What is measured.
    pub metric: RollbackMetric,
    /// Value above which the rollout is undone.
    #[schema(minimum = 0)]
    pub threshold: f64,
    /// Requests below which nothing is concluded.
    #[serde(default = "min_requests")]
    #[schema(minimum = 1, maximum = 1_000_000_000, default = 50)]
    pub min_requests: u64,
    /// Seconds looked back, since the last shift at most.
    #[serde(default = "evaluation_seconds")]
    #[schema(minimum = 5, maximum = 3_600, default = 60)]
    pub evaluation_seconds: u32,
}

const fn min_requests() -> u64 {
    50
}
const fn evaluation_seconds() -> u32 {
    60
}

impl RollbackRule {
    pub(super) fn check(&self, at: &str, kind: RolloutType, v: &mut Violations) {
        let most = match self.metric {
            RollbackMetric::ErrorRate | RollbackMetric::MismatchRate => 1.0,
            RollbackMetric::LatencyP99 | RollbackMetric::ScoreGap => 1e9,
        };
        v.check_range(&format!("{at}/threshold"), self.threshold, 0.0, most);
        let requests = self.min_requests;
        v.check_range(&format!("{at}/min_requests"), requests, 1, 1_000_000_000);
        v.check_range(
            &format!("{at}/evaluation_seconds"),
            self.evaluation_seconds,
            5,
            limits::MAX_EVALUATION_SECONDS,
        );
        let compares = self.metric != RollbackMetric::MismatchRate || kind == RolloutType::Shadow;
        v.check(compares, &format!("{at}/metric"), "unknown_value", || {
            "only a shadow's answers are compared one by one; score_gap compares those of others"
                .to_owned()
        });
    }

    /// Answers how `new` breaks the rule, if it does; `old` served at the same time.
    #[must_use]
    pub fn breach(&self, new: &Measured, old: &Measured) -> Option<Breach> {
        let (value, requests) = match self.metric {
            RollbackMetric::ErrorRate => (ratio(new.errors, new.requests)?, new.requests),
            RollbackMetric::LatencyP99 => (new.latency_p99_ms?, new.requests),
            RollbackMetric::ScoreGap => (score_gap(new, old)?, new.scores.min(old.scores)),
            RollbackMetric::MismatchRate => (ratio(new.mismatched, new.mirrored)?, new.mirrored),
        };
        let breaks = requests >= self.min_requests && value > self.threshold;
        breaks.then_some(Breach {
            metric: self.metric,
            value,
            threshold: self.threshold,
            requests,
        })
    }
}

/// What was measured of a generation over some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Measured {
    /// Requests answered or failed.
    pub requests: u64,
    /// Those that failed by the server's fault.
    pub errors: u64,
    /// 99th percentile of the latency in milliseconds, if there was any request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_p99_ms: Option<f64>,
    /// Rows with a score.
    pub scores: u64,
    /// Sum of the scores.
    pub score_sum: f64,
    /// Sum of their squares.
    pub score_squares: f64,
    /// Requests copied to it.
    pub mirrored: u64,
    /// Those of them that it answered otherwise.
    pub mismatched: u64,
}

/// A broken rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breach {
    /// What was measured.
    pub metric: RollbackMetric,
    /// Its value.
    pub value: f64,
    /// The rule's threshold.
    pub threshold: f64,
    /// Requests it was measured on.
    pub requests: u64,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            metric,
            value,
            threshold,
            requests,
        } = self;
        write!(
            f,
            "{metric} is {value:.4} over {requests} requests, above {threshold}"
        )
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of requests are far below 2^53"
)]
fn ratio(part: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of rows are far below 2^53"
)]
fn score_gap(new: &Measured, old: &Measured) -> Option<f64> {
    let mean = |m: &Measured| (m.scores > 0).then(|| m.score_sum / m.scores as f64);
    let (new_mean, old_mean) = (mean(new)?, mean(old)?);
    let variance = old.score_squares / old.scores as f64 - old_mean * old_mean;
    // Scores that hardly vary would make any difference infinite.
    let deviation = variance
        .max(0.0)
        .sqrt()
        .max(1e-3 * old_mean.abs())
        .max(1e-9);
    Some((new_mean - old_mean).abs() / deviation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(metric: RollbackMetric, threshold: f64) -> RollbackRule {
        RollbackRule {
            metric,
            threshold,
            min_requests: 10,
            evaluation_seconds: 60,
        }
    }

    #[test]
    fn rules_need_enough_requests_and_a_value_above() {
        let new = |requests, errors| Measured {
            requests,
            errors,
            ..Measured::default()
        };
        let (rule, old) = (rule(RollbackMetric::ErrorRate, 0.1), Measured::default());
        assert!(rule.breach(&new(9, 9), &old).is_none());
        assert!(rule.breach(&new(10, 1), &old).is_none());
        assert!(rule.breach(&new(10, 2), &old).is_some());
    }

    /// Two thousand scores of 0.9 ± 0.05 against as many of 0.7: four deviations apart.
    #[test]
    fn scores_are_compared_in_deviations() {
        let of = |mean: f64| {
            let n = 2_000_u32;
            let spread = 0.05;
            Measured {
                scores: u64::from(n),
                score_sum: mean * f64::from(n),
                score_squares: (mean * mean + spread * spread) * f64::from(n),
                ..Measured::default()
            }
        };
        let gap = rule(RollbackMetric::ScoreGap, 3.0).breach(&of(0.7), &of(0.9));
        assert!((gap.unwrap().value - 4.0).abs() < 1e-6);
        let none = rule(RollbackMetric::ScoreGap, 3.0).breach(&of(0.88), &of(0.9));
        assert!(none.is_none());
    }
}
