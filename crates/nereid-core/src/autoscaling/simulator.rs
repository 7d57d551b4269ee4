//! Drives the controller with loads of known shape against replicas that queue, take their time to
//! load, and finish what they have.

use chrono::{DateTime, TimeDelta, TimeZone, Utc};

use super::{Autoscaling, Memory, Observation, ScalingMetric, decide};

/// Requests a second that one replica answers.
const RATE: f64 = 50.0;
/// Seconds until a new replica is ready.
const LOADING: u32 = 8;
/// Seconds that an observation covers.
const WINDOW: usize = 10;

struct Run {
    /// Replicas wanted after each second.
    desired: Vec<u32>,
    /// Requests waiting after each second.
    backlog: Vec<f64>,
}

impl Run {
    /// Changes of direction: a step out after one in, or the other way round.
    fn turns(&self) -> usize {
        let steps = self.desired.windows(2).map(|w| w[1].cmp(&w[0]));
        let steps: Vec<_> = steps.filter(|o| o.is_ne()).collect();
        steps.windows(2).filter(|w| w[0] != w[1]).count()
    }

    fn most(&self) -> u32 {
        self.desired.iter().copied().max().unwrap()
    }

    fn last(&self) -> u32 {
        *self.desired.last().unwrap()
    }
}

fn policy(metric: ScalingMetric, target_value: f64) -> Autoscaling {
    Autoscaling {
        min_capacity: 1,
        max_capacity: 20,
        metric,
        target_value,
        scale_out_cooldown: 15,
        scale_in_cooldown: 120,
        disable_scale_in: false,
        schedules: Vec::new(),
    }
}

fn start() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap()
}

/// Runs `seconds` of a load given as requests a second at each of them.
fn simulate(policy: &Autoscaling, seconds: u32, load: impl Fn(u32) -> f64) -> Run {
    let mut memory = Memory {
        desired: policy.min_capacity,
        ..Memory::default()
    };
    // When each replica will be ready.
    let mut replicas: Vec<u32> = vec![0; memory.desired as usize];
    let (mut backlog, mut samples) = (0.0_f64, Vec::new());
    let mut run = Run {
        desired: Vec::new(),
        backlog: Vec::new(),
    };
    for t in 0..seconds {
        let count = replicas.iter().filter(|&&at| at <= t).count();
        let ready = f64::from(u32::try_from(count).unwrap());
        let arrived = load(t);
        let waiting = backlog + arrived;
        let served = waiting.min(ready * RATE);
        backlog = waiting - served;
        let busy = (served / RATE).min(ready);
        let wait = if ready > 0.0 {
            backlog / (ready * RATE)
        } else {
            0.0
        };
        samples.push((arrived, busy + backlog, wait));
        let recent = &samples[samples.len().saturating_sub(WINDOW)..];
        let mean = |f: fn(&(f64, f64, f64)) -> f64| {
            recent.iter().map(f).sum::<f64>() / f64::from(u32::try_from(recent.len()).unwrap())
        };
        let traffic = mean(|s| s.0) > 0.0;
        let value = match policy.metric {
            ScalingMetric::Concurrency => mean(|s| s.1) / ready.max(1.0),
            ScalingMetric::RequestsPerMinute => mean(|s| s.0) * 60.0 / ready.max(1.0),
            ScalingMetric::LatencyP99 | ScalingMetric::QueueTime => {
                1e3 * (mean(|s| s.2) + 1.0 / RATE)
            }
        };
        let seen = Observation {
            ready: u32::try_from(count).unwrap(),
            value: (traffic && count > 0).then_some(value),
            held: traffic && count == 0,
        };
        let now = start() + TimeDelta::seconds(i64::from(t));
        if decide(policy, &mut memory, seen, now).is_some() {
            let wanted = memory.desired as usize;
            replicas.truncate(wanted);
            replicas.resize(wanted, t + LOADING);
        }
        run.desired.push(memory.desired);
        run.backlog.push(backlog);
    }
    run
}

#[test]
fn a_step_is_followed_without_overshoot_and_left_again() {
    // 400 requests a second need 8 replicas, at a target of 80 % of one each 10.
    let policy = policy(ScalingMetric::RequestsPerMinute, 0.8 * RATE * 60.0);
    let run = simulate(&policy, 1_200, |t| {
        if (60..600).contains(&t) { 400.0 } else { 20.0 }
    });
    assert_eq!(run.desired[500], 10);
    assert!(run.most() <= 11, "{}", run.most());
    assert_eq!(run.last(), 1);
    assert_eq!(run.turns(), 1, "{:?}", run.desired);
    assert!(run.backlog[300] < 1.0, "{}", run.backlog[300]);
}

/// A queue that built up while replicas loaded shows in the concurrency: it may be answered with
/// more than the load needs, within bounds, and once it is gone so is the surplus.
#[test]
fn a_queue_makes_for_a_bounded_overshoot() {
    let policy = policy(ScalingMetric::Concurrency, 0.8);
    let run = simulate(&policy, 1_200, |t| if t < 60 { 20.0 } else { 400.0 });
    assert!(run.most() <= policy.max_capacity);
    let settled = &run.desired[700..];
    assert!(
        settled.iter().all(|&n| (9..=12).contains(&n)),
        "{settled:?}"
    );
    assert!(run.turns() <= 1, "{:?}", run.desired);
}

#[test]
fn a_load_that_swings_does_not_make_the_capacity_swing() {
    for period in [20.0, 45.0, 90.0] {
        let policy = policy(ScalingMetric::RequestsPerMinute, 0.8 * RATE * 60.0);
        let run = simulate(&policy, 3_600, |t| {
            200.0 + 100.0 * (f64::from(t) * std::f64::consts::TAU / period).sin()
        });
        let settled = Run {
            desired: run.desired[300..].to_vec(),
            backlog: Vec::new(),
        };
        assert_eq!(settled.turns(), 0, "period {period}: {:?}", settled.desired);
    }
}

#[test]
fn noise_around_the_target_is_ignored() {
    let policy = policy(ScalingMetric::RequestsPerMinute, 0.8 * RATE * 60.0);
    let run = simulate(&policy, 3_600, |t| {
        // A fixed sequence that looks like noise of ±8 %.
        let noise = f64::from(t.wrapping_mul(2_654_435_761) >> 16) / 32_768.0 - 1.0;
        160.0 * (1.0 + 0.08 * noise)
    });
    let steps = run.desired[60..]
        .windows(2)
        .filter(|w| w[0] != w[1])
        .count();
    assert_eq!(steps, 0, "{:?}", run.desired);
}

#[test]
fn latency_and_queue_time_settle() {
    for metric in [ScalingMetric::LatencyP99, ScalingMetric::QueueTime] {
        let policy = policy(metric, 100.0);
        let run = simulate(&policy, 2_400, |t| if t < 60 { 20.0 } else { 400.0 });
        assert!(run.backlog[2_399] < 1.0, "{metric}: {}", run.backlog[2_399]);
        assert!(run.turns() <= 6, "{metric}: {:?}", run.desired);
        assert!(run.last() >= 8, "{metric}: {}", run.last());
    }
}

#[test]
fn idle_variants_go_to_zero_and_come_back_for_the_first_request() {
    let mut policy = policy(ScalingMetric::Concurrency, 1.0);
    policy.min_capacity = 0;
    let run = simulate(&policy, 900, |t| {
        if (100..200).contains(&t) || t >= 800 {
            10.0
        } else {
            0.0
        }
    });
    assert_eq!(run.desired[99], 0);
    assert_eq!(run.desired[100], 1);
    assert!(run.desired[201..310].iter().all(|&n| n > 0));
    assert_eq!(run.desired[500], 0);
    assert!(run.desired[800] >= 1);
}

#[test]
fn bounds_hold_and_nothing_goes_where_that_is_disabled() {
    let mut policy = policy(ScalingMetric::RequestsPerMinute, 600.0);
    (policy.min_capacity, policy.max_capacity) = (2, 5);
    policy.disable_scale_in = true;
    let run = simulate(&policy, 900, |t| if t < 300 { 1e6 } else { 1.0 });
    assert!(run.desired.iter().all(|n| (2..=5).contains(n)));
    assert_eq!(run.last(), 5);
}
