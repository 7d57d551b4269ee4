//! How traffic goes over from one generation of an endpoint to the next, by the names of
//! SageMaker's `DeploymentConfig`
//! (<https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeploymentConfig.html>).
//!
//! A rollout begins *warming*; once the new generation is ready it is *shifting* until all traffic
//! is its own, then *baking* while the old one stays loaded for a rollback without a wait, and at
//! last *completed*. [`Progress::next`] is a pure function; the store calls it under the endpoint's
//! lock and records each change.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{limits, validation::Violations, words::words};

mod rules;

pub use rules::{Breach, Measured, RollbackMetric, RollbackRule};

words! {
    /// How traffic goes over to a new generation.
    RolloutType {
        /// All at once, as soon as it is ready.
        AllAtOnce = "all_at_once",
        /// A share first, the rest after a while.
        Canary = "canary",
        /// In equal steps.
        Linear = "linear",
        /// All at once, with the old generation kept loaded for a while.
        BlueGreen = "blue_green",
        /// None: a share of the requests is copied to it, and its answers are compared.
        Shadow = "shadow",
    }
}

words! {
    /// Where a rollout stands.
    RolloutStatus {
        /// The new generation's replicas get ready.
        Warming = "warming",
        /// Part of the traffic, or a copy of it, goes to the new generation.
        Shifting = "shifting",
        /// All traffic goes to the new generation; the old one is still loaded.
        Baking = "baking",
        /// The old generation is gone.
        Completed = "completed",
        /// Traffic went back to the old generation, or never left it.
        RolledBack = "rolled_back",
        /// A newer update took its place.
        Superseded = "superseded",
    }
}

impl RolloutStatus {
    /// Tells whether nothing more will happen.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::RolledBack | Self::Superseded)
    }
}

words! {
    /// What becomes of a shadow once its time is over.
    ShadowEnd {
        /// It is unloaded; its report stays.
        Retire = "retire",
        /// It gets all the traffic.
        Promote = "promote",
    }
}

/// How an update of an endpoint is carried out, and what undoes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rollout {
    /// How traffic goes over.
    #[serde(rename = "type")]
    pub kind: RolloutType,
    /// Per cent of the traffic that a canary gets first.
    #[schema(minimum = 1, maximum = 50)]
    pub canary_size: u32,
    /// Per cent of the traffic that each step of a linear rollout adds.
    #[schema(minimum = 1, maximum = 50)]
    pub linear_step_size: u32,
    /// Per cent of the requests that a shadow gets a copy of.
    #[schema(minimum = 1, maximum = 100)]
    pub shadow_sample: u32,
    /// What becomes of a shadow after its time.
    pub shadow_end: ShadowEnd,
    /// Seconds that a canary, each linear step or a shadow is watched.
    #[schema(minimum = 1, maximum = 86_400)]
    pub wait_interval_in_seconds: u32,
    /// Seconds for which the old generation stays loaded after all traffic has left it; 300 for
    /// `blue_green` and else 0 unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 86_400)]
    pub termination_wait_in_seconds: Option<u32>,
    /// Seconds after which a rollout that has not got all the traffic is undone.
    #[schema(minimum = 10, maximum = 604_800)]
    pub maximum_execution_timeout_in_seconds: u32,
    /// What undoes the rollout by itself while it is shifting or baking.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 8)]
    pub auto_rollback: Vec<RollbackRule>,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            kind: RolloutType::AllAtOnce,
            canary_size: 10,
            linear_step_size: 20,
            shadow_sample: 100,
            shadow_end: ShadowEnd::Retire,
            wait_interval_in_seconds: 300,
            termination_wait_in_seconds: None,
            maximum_execution_timeout_in_seconds: 28_800,
            auto_rollback: Vec::new(),
        }
    }
}

impl Rollout {
    /// Records what is out of its limits.
    pub fn check(&self, at: &str, v: &mut Violations) {
        let longest = limits::MAX_ROLLOUT_WAIT;
        v.check_range(&format!("{at}/canary_size"), self.canary_size, 1, 50);
        let step = self.linear_step_size;
        v.check_range(&format!("{at}/linear_step_size"), step, 1, 50);
        v.check_range(&format!("{at}/shadow_sample"), self.shadow_sample, 1, 100);
        let wait = self.wait_interval_in_seconds;
        v.check_range(&format!("{at}/wait_interval_in_seconds"), wait, 1, longest);
        let bake = self.bake();
        let field = format!("{at}/termination_wait_in_seconds");
        v.check_range(&field, bake, 0, longest);
        v.check_range(
            &format!("{at}/maximum_execution_timeout_in_seconds"),
            self.maximum_execution_timeout_in_seconds,
            10,
            limits::MAX_ROLLOUT_TIME,
        );
        let (n, most) = (self.auto_rollback.len(), limits::MAX_ROLLBACK_RULES);
        v.check(
            n <= most,
            &format!("{at}/auto_rollback"),
            "too_many",
            || format!("{n} rules are more than the {most} allowed"),
        );
        for (i, rule) in self.auto_rollback.iter().enumerate().take(most) {
            rule.check(&format!("{at}/auto_rollback/{i}"), self.kind, v);
        }
    }

    fn bake(&self) -> u32 {
        let usual = match self.kind {
            RolloutType::BlueGreen => 300,
            _ => 0,
        };
        self.termination_wait_in_seconds.unwrap_or(usual)
    }
}

/// State of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Where it stands.
    pub status: RolloutStatus,
    /// Per cent of the traffic that goes to the new generation.
    pub share: u32,
    /// When the present state is to end.
    pub due_at: Option<DateTime<Utc>>,
    /// When the rollout began.
    pub started_at: DateTime<Utc>,
}

/// A change of a rollout's state, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where it stands now.
    pub status: RolloutStatus,
    /// Per cent of the traffic that goes to the new generation now.
    pub share: u32,
    /// When this is to end.
    pub due_at: Option<DateTime<Utc>>,
    /// The reason in words.
    pub reason: String,
}

impl Progress {
    /// Answers what is to change now.
    ///
    /// `ready` tells whether the new generation can carry its load, `breach` what its rules found.
    #[must_use]
    pub fn next(
        &self,
        policy: &Rollout,
        ready: bool,
        breach: Option<&Breach>,
        now: DateTime<Utc>,
    ) -> Option<Change> {
        if self.status.is_over() {
            return None;
        }
        let undone = |reason: String| Change {
            status: RolloutStatus::RolledBack,
            share: 0,
            due_at: None,
            reason,
        };
        if let Some(breach) = breach
            && self.status != RolloutStatus::Warming
        {
            return Some(undone(breach.to_string()));
        }
        let is_due = self.due_at.is_some_and(|at| at <= now);
        match self.status {
            RolloutStatus::Warming if ready => Some(Self::begin(policy, now)),
            RolloutStatus::Shifting if is_due => Some(self.shift(policy, now)),
            RolloutStatus::Baking if is_due => Some(Change {
                status: RolloutStatus::Completed,
                share: 100,
                due_at: None,
                reason: "the old generation is let go".to_owned(),
            }),
            RolloutStatus::Warming | RolloutStatus::Shifting => {
                let limit = policy.maximum_execution_timeout_in_seconds;
                let late = now - self.started_at > seconds(limit);
                late.then(|| undone(format!("it took longer than {limit} s")))
            }
            _ => None,
        }
    }

    fn begin(policy: &Rollout, now: DateTime<Utc>) -> Change {
        let due_at = Some(now + seconds(policy.wait_interval_in_seconds));
        let shifting = |share, reason| Change {
            status: RolloutStatus::Shifting,
            share,
            due_at,
            reason,
        };
        match policy.kind {
            RolloutType::AllAtOnce | RolloutType::BlueGreen => {
                all(policy, now, "the new generation is ready".to_owned())
            }
            RolloutType::Canary => {
                let share = policy.canary_size;
                shifting(share, format!("the canary gets {share} %"))
            }
            RolloutType::Linear => {
                let share = policy.linear_step_size;
                shifting(share, format!("the first step gives {share} %"))
            }
            RolloutType::Shadow => {
                let sample = policy.shadow_sample;
                shifting(0, format!("the shadow gets a copy of {sample} %"))
            }
        }
    }

    fn shift(&self, policy: &Rollout, now: DateTime<Utc>) -> Change {
        let waited = policy.wait_interval_in_seconds;
        match policy.kind {
            RolloutType::Shadow if policy.shadow_end == ShadowEnd::Retire => Change {
                status: RolloutStatus::RolledBack,
                share: 0,
                due_at: None,
                reason: "the shadow's time is over".to_owned(),
            },
            RolloutType::Linear if self.share + policy.linear_step_size < 100 => {
                let share = self.share + policy.linear_step_size;
                Change {
                    status: RolloutStatus::Shifting,
                    share,
                    due_at: Some(now + seconds(waited)),
                    reason: format!("nothing was wrong for {waited} s at {} %", self.share),
                }
            }
            _ => all(policy, now, format!("nothing was wrong for {waited} s")),
        }
    }

    /// Answers the change by which a client ends the waiting: all traffic to the new generation.
    ///
    /// `None` while it is not ready, or once it has all.
    #[must_use]
    pub fn promote(&self, policy: &Rollout, now: DateTime<Utc>) -> Option<Change> {
        let shifting = self.status == RolloutStatus::Shifting;
        shifting.then(|| all(policy, now, "promoted by a client".to_owned()))
    }
}

/// All traffic goes to the new generation.
fn all(policy: &Rollout, now: DateTime<Utc>, reason: String) -> Change {
    let bake = policy.bake();
    let (status, due_at) = if bake == 0 {
        (RolloutStatus::Completed, None)
    } else {
        (RolloutStatus::Baking, Some(now + seconds(bake)))
    };
    Change {
        status,
        share: 100,
        due_at,
        reason,
    }
}

fn seconds(n: u32) -> TimeDelta {
    TimeDelta::seconds(i64::from(n))
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    fn policy(json: serde_json::Value) -> Rollout {
        let policy: Rollout = serde_json::from_value(json).unwrap();
        let mut v = Violations::default();
        policy.check("", &mut v);
        assert_eq!(v, Violations::default());
        policy
    }

    /// Takes a rollout through its states, always at the time they are due, and lists them.
    fn states(policy: &Rollout) -> Vec<(&'static str, u32, i64)> {
        let start = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
        let mut progress = Progress {
            status: RolloutStatus::Warming,
            share: 0,
            due_at: None,
            started_at: start,
        };
        let (mut now, mut seen) = (start, Vec::new());
        while let Some(change) = progress.next(policy, true, None, now) {
            seen.push((
                change.status.as_str(),
                change.share,
                (now - start).num_seconds(),
            ));
            progress.status = change.status;
            progress.share = change.share;
            progress.due_at = change.due_at;
            let Some(due) = change.due_at else { break };
            assert_eq!(
                progress.next(policy, true, None, due - seconds(1)),
                None,
                "not before it is due"
            );
            now = due;
        }
        seen
    }

    #[test]
    fn each_type_shifts_as_its_name_says() {
        let of = |json| states(&policy(json));
        let all = of(serde_json::json!({}));
        assert_eq!(all, [("completed", 100, 0)]);
        let blue = of(serde_json::json!({"type": "blue_green"}));
        assert_eq!(blue, [("baking", 100, 0), ("completed", 100, 300)]);
        let canary = of(
            serde_json::json!({"type": "canary", "canary_size": 5, "wait_interval_in_seconds": 60, "termination_wait_in_seconds": 30}),
        );
        let expected = [
            ("shifting", 5, 0),
            ("baking", 100, 60),
            ("completed", 100, 90),
        ];
        assert_eq!(canary, expected);
        let linear = of(
            serde_json::json!({"type": "linear", "linear_step_size": 40, "wait_interval_in_seconds": 10}),
        );
        let expected = [
            ("shifting", 40, 0),
            ("shifting", 80, 10),
            ("completed", 100, 20),
        ];
        assert_eq!(linear, expected);
        let shadow = of(serde_json::json!({"type": "shadow", "wait_interval_in_seconds": 10}));
        assert_eq!(shadow, [("shifting", 0, 0), ("rolled_back", 0, 10)]);
        let kept = of(
            serde_json::json!({"type": "shadow", "wait_interval_in_seconds": 10, "shadow_end": "promote"}),
        );
        assert_eq!(kept, [("shifting", 0, 0), ("completed", 100, 10)]);
    }

    #[test]
    fn a_breach_or_the_time_limit_undoes_it() {
        let policy = policy(
            serde_json::json!({"type": "canary", "maximum_execution_timeout_in_seconds": 60}),
        );
        let start = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
        let progress = |status| Progress {
            status,
            share: 10,
            due_at: None,
            started_at: start,
        };
        let breach = Breach {
            metric: RollbackMetric::ErrorRate,
            value: 0.5,
            threshold: 0.01,
            requests: 100,
        };
        let undone = progress(RolloutStatus::Shifting).next(&policy, true, Some(&breach), start);
        let undone = undone.unwrap();
        assert_eq!(
            (undone.status, undone.share),
            (RolloutStatus::RolledBack, 0)
        );
        assert!(undone.reason.contains("error_rate"), "{}", undone.reason);
        let late = start + seconds(61);
        let warming = progress(RolloutStatus::Warming).next(&policy, false, None, late);
        assert_eq!(warming.unwrap().status, RolloutStatus::RolledBack);
        let over = progress(RolloutStatus::Completed).next(&policy, true, Some(&breach), late);
        assert_eq!(over, None);
    }
}
