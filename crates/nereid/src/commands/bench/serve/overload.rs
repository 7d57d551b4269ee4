//! What happens when far more is asked than can be answered.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;

use super::{
    client::{self, Target},
    load::{self, Loop, Measured, count, share},
};
use crate::output;

/// How much more is asked than can be answered.
const TIMES: f64 = 3.0;
/// Connections that ask: more than fit into the queue of a replica.
const CLIENTS: u16 = 400;
/// Time between two looks at the memory.
const LOOK: Duration = Duration::from_millis(100);

/// What happened.
#[derive(Debug, Serialize)]
pub(super) struct Overload {
    network: String,
    seconds: f64,
    capacity_per_second: f64,
    offered_per_second: f64,
    answered_per_second: f64,
    /// Answers per second as a share of the capacity.
    goodput: f64,
    refused_per_second: f64,
    /// From when a request was sent until 429 was there.
    refusal_p50_us: f64,
    refusal_p99_us: f64,
    /// Neither answered nor refused in order.
    broken: usize,
    /// Resident memory before, and at most meanwhile; of the server and its clients together.
    rss_before_mib: f64,
    rss_peak_mib: f64,
    /// From the end of it until a request is answered again.
    recovery_us: f64,
}

/// Asks `target` three times as often as it can answer, for `time`.
pub(super) async fn run(
    network: &str,
    target: Target,
    capacity: f64,
    time: Duration,
) -> anyhow::Result<Overload> {
    let before = resident_mib();
    let asked = target.clone();
    let mut running = JoinSet::new();
    let offered = capacity * TIMES;
    running.spawn(async move { load::http(&asked, CLIENTS, Loop::Open(offered), time).await });
    let mut peak = before;
    let measured: Measured = loop {
        tokio::select! {
            Some(ended) = running.join_next() => break ended??,
            () = tokio::time::sleep(LOOK) => peak = peak.max(resident_mib()),
        }
    };
    let ended = Instant::now();
    while !client::answers(target.clone()).await? {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let recovery_us = load::micros(ended.elapsed());
    let latency = measured.latency();
    let mut refusals = measured.others.get(&429).cloned().unwrap_or_default();
    refusals.sort_by(f64::total_cmp);
    let broken = measured.others.iter().filter(|(status, _)| **status != 429);
    Ok(Overload {
        network: network.to_owned(),
        seconds: time.as_secs_f64(),
        capacity_per_second: capacity,
        offered_per_second: offered,
        answered_per_second: latency.per_second,
        goodput: latency.per_second / capacity,
        refused_per_second: count(refusals.len()) / time.as_secs_f64(),
        refusal_p50_us: share(&refusals, 500),
        refusal_p99_us: share(&refusals, 990),
        broken: broken.map(|(_, times)| times.len()).sum(),
        rss_before_mib: before,
        rss_peak_mib: peak,
        recovery_us,
    })
}

/// Resident memory of this process; 0 where `/proc` is missing.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

impl Overload {
    pub(super) fn print(&self) -> anyhow::Result<()> {
        output::line(&format!(
            "\noverload of {}: {:.0}/s offered for {:.0} s, {:.0}/s answered ({:.0} % of capacity), \
             {:.0}/s refused after {:.0} µs (p50) and {:.0} µs (p99), {} broken; resident memory \
             {:.0} MiB before, at most {:.0} MiB; answered again after {:.0} µs",
            self.network,
            self.offered_per_second,
            self.seconds,
            self.answered_per_second,
            self.goodput * 100.0,
            self.refused_per_second,
            self.refusal_p50_us,
            self.refusal_p99_us,
            self.broken,
            self.rss_before_mib,
            self.rss_peak_mib,
            self.recovery_us,
        ))
    }
}
