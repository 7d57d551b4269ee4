//! Autoscaling of endpoint variants: target tracking, by the names of AWS's Application Auto Scaling
//! (<https://docs.aws.amazon.com/autoscaling/application/APIReference/API_TargetTrackingScalingPolicyConfiguration.html>).
//!
//! [`decide`] is a pure function of policy, memory, observation and time; the store calls it under
//! the endpoint's lock. Growing follows the load at once, bounded in each step; shrinking goes to
//! the most that was needed during the whole cooldown, as Kubernetes' horizontal autoscaler
//! stabilises it, so that a load that swings does not make the capacity swing with it.

use chrono::{DateTime, Datelike, NaiveTime, Utc, Weekday};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{limits, validation::Violations, words::words};

mod decision;
#[cfg(test)]
mod simulator;

pub use decision::{Decision, Memory, Observation, Recommendation, decide};

words! {
    /// What a policy keeps at its target, always of one replica.
    ScalingMetric {
        /// Requests that a replica is working on or holds in its queue, on average.
        Concurrency = "concurrency",
        /// Requests a minute.
        RequestsPerMinute = "requests_per_minute",
        /// 99th percentile of the time from a request's arrival to its answer, in milliseconds.
        LatencyP99 = "latency_p99_ms",
        /// Mean time that requests wait for a batch, in milliseconds.
        QueueTime = "queue_time_ms",
    }
}

impl ScalingMetric {
    /// Tells whether twice the replicas halve it.
    pub(crate) const fn is_shared(self) -> bool {
        matches!(self, Self::Concurrency | Self::RequestsPerMinute)
    }
}

words! {
    /// Day of the week.
    Day {
        /// Monday.
        Monday = "monday",
        /// Tuesday.
        Tuesday = "tuesday",
        /// Wednesday.
        Wednesday = "wednesday",
        /// Thursday.
        Thursday = "thursday",
        /// Friday.
        Friday = "friday",
        /// Saturday.
        Saturday = "saturday",
        /// Sunday.
        Sunday = "sunday",
    }
}

impl From<Weekday> for Day {
    fn from(day: Weekday) -> Self {
        Self::ALL[day.num_days_from_monday() as usize]
    }
}

/// A least capacity at certain times, as AWS's scheduled actions set it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduledFloor {
    /// Days on which it begins; every day unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 7)]
    pub days: Vec<Day>,
    /// When it begins, UTC.
    #[schema(example = "07:30:00", value_type = String)]
    pub start: NaiveTime,
    /// When it ends, UTC; before `start` if on the next day.
    #[schema(example = "19:00:00", value_type = String)]
    pub end: NaiveTime,
    /// Least number of replicas meanwhile.
    #[serde(alias = "MinCapacity")]
    #[schema(minimum = 0, maximum = 64)]
    pub min_capacity: u32,
}

impl ScheduledFloor {
    fn holds(&self, now: DateTime<Utc>) -> bool {
        let (time, today) = (now.time(), now.weekday());
        let on = |day: Weekday| self.days.is_empty() || self.days.contains(&day.into());
        if self.start < self.end {
            return on(today) && time >= self.start && time < self.end;
        }
        (time >= self.start && on(today)) || (time < self.end && on(today.pred()))
    }
}

/// Between which bounds, and by what, a variant's number of replicas is chosen.
///
/// AWS's names in its own spelling (`MinCapacity`, …) are understood too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Autoscaling {
    /// Least number of replicas; with 0 the first request after an idle time waits for one.
    #[serde(alias = "MinCapacity")]
    #[schema(minimum = 0, maximum = 64)]
    pub min_capacity: u32,
    /// Largest number of replicas.
    #[serde(alias = "MaxCapacity")]
    #[schema(minimum = 1, maximum = 64)]
    pub max_capacity: u32,
    /// What is kept at the target.
    #[serde(default = "concurrency", alias = "Metric")]
    #[schema(default = "concurrency")]
    pub metric: ScalingMetric,
    /// Value that the metric of one replica is kept at.
    #[serde(alias = "TargetValue")]
    #[schema(exclusive_minimum = 0.0)]
    pub target_value: f64,
    /// Seconds between two steps outwards.
    #[serde(default = "scale_out_cooldown", alias = "ScaleOutCooldown")]
    #[schema(minimum = 1, maximum = 86_400, default = 30)]
    pub scale_out_cooldown: u32,
    /// Seconds for which fewer replicas must have sufficed before some are taken away.
    #[serde(default = "scale_in_cooldown", alias = "ScaleInCooldown")]
    #[schema(minimum = 1, maximum = 86_400, default = 300)]
    pub scale_in_cooldown: u32,
    /// Never take replicas away.
    #[serde(default, alias = "DisableScaleIn")]
    pub disable_scale_in: bool,
    /// Least capacities at certain times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 16)]
    pub schedules: Vec<ScheduledFloor>,
}

const fn concurrency() -> ScalingMetric {
    ScalingMetric::Concurrency
}
const fn scale_out_cooldown() -> u32 {
    30
}
const fn scale_in_cooldown() -> u32 {
    300
}

impl Autoscaling {
    /// Records what is out of its limits.
    pub fn check(&self, at: &str, v: &mut Violations) {
        let max = limits::MAX_REPLICAS;
        v.check_range(&format!("{at}/max_capacity"), self.max_capacity, 1, max);
        let least = self.max_capacity.min(max);
        v.check_range(&format!("{at}/min_capacity"), self.min_capacity, 0, least);
        v.check_range(&format!("{at}/target_value"), self.target_value, 1e-3, 1e9);
        for (field, seconds) in [
            ("scale_out_cooldown", self.scale_out_cooldown),
            ("scale_in_cooldown", self.scale_in_cooldown),
        ] {
            v.check_range(&format!("{at}/{field}"), seconds, 1, limits::MAX_COOLDOWN);
        }
        let (n, most) = (self.schedules.len(), limits::MAX_SCHEDULES);
        v.check(n <= most, &format!("{at}/schedules"), "too_many", || {
            format!("{n} schedules are more than the {most} allowed")
        });
        for (i, floor) in self.schedules.iter().enumerate().take(most) {
            let at = format!("{at}/schedules/{i}");
            v.check_range(&format!("{at}/min_capacity"), floor.min_capacity, 0, least);
            v.check(floor.start != floor.end, &at, "out_of_range", || {
                "start and end are the same time".to_owned()
            });
        }
    }

    /// Least number of replicas at a time.
    #[must_use]
    pub fn floor(&self, now: DateTime<Utc>) -> u32 {
        let scheduled = self.schedules.iter().filter(|s| s.holds(now));
        let floor = scheduled.map(|s| s.min_capacity).max().unwrap_or(0);
        floor.max(self.min_capacity).min(self.max_capacity)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    fn policy(json: &str) -> Autoscaling {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn aws_names_are_understood() {
        let aws = policy(
            r#"{"MinCapacity": 0, "MaxCapacity": 4, "TargetValue": 5, "ScaleInCooldown": 60, "ScaleOutCooldown": 1}"#,
        );
        let ours = policy(
            r#"{"min_capacity": 0, "max_capacity": 4, "target_value": 5, "scale_in_cooldown": 60, "scale_out_cooldown": 1}"#,
        );
        assert_eq!(aws, ours);
    }

    #[test]
    fn each_mistake_is_named() {
        let policy = policy(
            r#"{"min_capacity": 5, "max_capacity": 4, "target_value": 0, "scale_in_cooldown": 0,
                "schedules": [{"start": "08:00:00", "end": "08:00:00", "min_capacity": 9}]}"#,
        );
        let mut v = Violations::default();
        policy.check("/a", &mut v);
        let at: Vec<_> = v.into_vec().into_iter().map(|v| v.pointer).collect();
        let expected = [
            "/a/min_capacity",
            "/a/target_value",
            "/a/scale_in_cooldown",
            "/a/schedules/0/min_capacity",
            "/a/schedules/0",
        ];
        assert_eq!(at, expected);
    }

    /// A night shift that begins on Friday holds on Saturday morning, and only then.
    #[test]
    fn schedules_raise_the_floor_across_midnight() {
        let policy = policy(
            r#"{"min_capacity": 1, "max_capacity": 8, "target_value": 1,
                "schedules": [{"days": ["friday"], "start": "22:00:00", "end": "06:00:00", "min_capacity": 5}]}"#,
        );
        let floor = |day, hour| {
            let at = Utc.with_ymd_and_hms(2026, 11, day, hour, 0, 0).unwrap();
            policy.floor(at)
        };
        // 2026-11-27 is a Friday.
        assert_eq!([floor(27, 5), floor(27, 21), floor(27, 22)], [1, 1, 5]);
        assert_eq!([floor(28, 5), floor(28, 6), floor(28, 22)], [5, 1, 1]);
    }
}
