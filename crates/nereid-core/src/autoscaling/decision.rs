//! From what was observed to a number of replicas, with the reason in words.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::Autoscaling;

/// Share of the target by which the metric may stray before anything is done.
const TOLERANCE: f64 = 0.1;
/// A metric that replicas do not share must fall below this part of its target before one goes.
const SLACK: f64 = 0.5;
/// Most that one step outwards multiplies the capacity by.
const MOST_GROWTH: u32 = 2;
/// Replicas that one step outwards may always add.
const LEAST_STEP: u32 = 4;
/// Recommendations kept; one a second for the longest usual cooldown, thinned beyond.
const MAX_REMEMBERED: usize = 600;

/// What was seen of a variant during the last moments.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Observation {
    /// Replicas that answer.
    pub ready: u32,
    /// Value of the policy's metric for one ready replica; none if there was no request.
    pub value: Option<f64>,
    /// A request waits for the first replica.
    pub held: bool,
}

/// What an earlier look at a variant found to suffice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recommendation {
    /// When.
    pub at: DateTime<Utc>,
    /// Replicas that would have done.
    pub capacity: u32,
}

/// What a variant's autoscaling remembers between two looks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Replicas wanted.
    pub desired: u32,
    /// Last step outwards.
    pub scaled_out_at: Option<DateTime<Utc>>,
    /// Recommendations, oldest first.
    pub recommendations: Vec<Recommendation>,
}

/// A change of the number of replicas, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Replicas wanted before.
    pub from: u32,
    /// Replicas wanted now.
    pub to: u32,
    /// The reason in words.
    pub reason: String,
}

/// Looks at a variant and changes its memory; answers the step, if one is to be taken.
pub fn decide(
    policy: &Autoscaling,
    memory: &mut Memory,
    seen: Observation,
    now: DateTime<Utc>,
) -> Option<Decision> {
    let (floor, ceiling) = (policy.floor(now), policy.max_capacity);
    let wanted = wanted(policy, memory.desired, seen).clamp(floor, ceiling);
    remember(policy, memory, wanted, now);
    let from = memory.desired;
    let (to, reason) = if from < floor {
        (floor, format!("the least capacity is {floor} now"))
    } else if from > ceiling {
        (ceiling, format!("the largest capacity is {ceiling}"))
    } else if wanted > from {
        outwards(policy, memory, wanted, seen, now)?
    } else {
        inwards(policy, memory, now)?
    };
    if to > from {
        memory.scaled_out_at = Some(now);
    }
    memory.desired = to;
    // What sufficed before says nothing about the new capacity's own load.
    memory.recommendations.clear();
    Some(Decision { from, to, reason })
}

/// Replicas that what was seen asks for.
fn wanted(policy: &Autoscaling, desired: u32, seen: Observation) -> u32 {
    let Some(value) = seen.value else {
        return u32::from(seen.held);
    };
    if seen.ready == 0 {
        return desired.max(1);
    }
    let ratio = value / policy.target_value;
    if policy.metric.is_shared() {
        let needed = ratio * f64::from(seen.ready);
        let load = needed / f64::from(desired.max(1));
        if (load - 1.0).abs() <= TOLERANCE {
            return desired.max(1);
        }
        return to_capacity(needed);
    }
    if ratio > 1.0 + TOLERANCE {
        // What is still loading is not yet to be seen in the metric.
        to_capacity(f64::from(seen.ready) * ratio.min(f64::from(MOST_GROWTH))).max(desired)
    } else if ratio < SLACK {
        desired.saturating_sub(1).max(1)
    } else {
        desired.max(1)
    }
}

/// Rounds up: a part of a replica needs a whole one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range, NaN becomes 1"
)]
fn to_capacity(needed: f64) -> u32 {
    (needed - 1e-9).ceil().clamp(1.0, 1e6) as u32
}

fn remember(policy: &Autoscaling, memory: &mut Memory, capacity: u32, now: DateTime<Utc>) {
    let kept = &mut memory.recommendations;
    // One before the cooldown stays: it shows that all of the cooldown was watched.
    let start = now - seconds(policy.scale_in_cooldown);
    let old = kept.iter().take_while(|r| r.at <= start).count();
    kept.drain(..old.saturating_sub(1));
    let spacing = policy.scale_in_cooldown / u32::try_from(MAX_REMEMBERED / 2).unwrap_or(1);
    match kept.last_mut() {
        // Of several within a moment only the largest matters.
        Some(last) if now - last.at < seconds(spacing) => {
            last.capacity = last.capacity.max(capacity);
        }
        _ => kept.push(Recommendation { at: now, capacity }),
    }
}

fn outwards(
    policy: &Autoscaling,
    memory: &Memory,
    wanted: u32,
    seen: Observation,
    now: DateTime<Utc>,
) -> Option<(u32, String)> {
    let from = memory.desired;
    if from == 0 {
        return Some((wanted.min(LEAST_STEP), "a request waits".to_owned()));
    }
    let cooldown = seconds(policy.scale_out_cooldown);
    if memory.scaled_out_at.is_some_and(|at| now - at < cooldown) {
        return None;
    }
    let most = from
        .saturating_mul(MOST_GROWTH)
        .max(from.saturating_add(LEAST_STEP));
    let to = wanted.min(most);
    let reason = format!(
        "{} is {:.3} for each of {} ready replicas, the target is {}",
        policy.metric,
        seen.value.unwrap_or_default(),
        seen.ready,
        policy.target_value
    );
    Some((to, reason))
}

fn inwards(policy: &Autoscaling, memory: &Memory, now: DateTime<Utc>) -> Option<(u32, String)> {
    if policy.disable_scale_in {
        return None;
    }
    let cooldown = seconds(policy.scale_in_cooldown);
    if memory.scaled_out_at.is_some_and(|at| now - at < cooldown) {
        return None;
    }
    let seen = &memory.recommendations;
    let whole = seen.first().is_some_and(|r| now - r.at >= cooldown);
    let most = seen.iter().map(|r| r.capacity).max()?;
    if !whole || most >= memory.desired {
        return None;
    }
    let seconds = policy.scale_in_cooldown;
    let reason = if most == 0 {
        format!("no request for {seconds} s")
    } else {
        format!(
            "{most} would have kept {} at {} for {seconds} s",
            policy.metric, policy.target_value
        )
    };
    Some((most, reason))
}

fn seconds(n: u32) -> TimeDelta {
    TimeDelta::seconds(i64::from(n))
}
