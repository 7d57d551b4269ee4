//! Loops that ask: closed ones, which wait for each answer, and open ones, which do not.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, park_timeout},
    time::{Duration, Instant},
};

use anyhow::anyhow;
use nereid_core::{engine::Predictor, tensors::Batch};

use super::{Latency, client::Target};

/// Time in which a loop runs before its answers count.
const WARM_UP: Duration = Duration::from_millis(300);

/// When the next request is sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Loop {
    /// When the answer to the last one is there.
    Closed,
    /// So many times a second, whatever happens.
    Open(f64),
}

/// Answers that count.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Microseconds of each answer of 200.
    pub(super) micros: Vec<f64>,
    /// From when it was sent, not due, and for other answers, by status; 0 is no answer.
    pub(super) others: BTreeMap<u16, Vec<f64>>,
    seconds: f64,
}

impl Measured {
    /// Adds another round.
    pub(super) fn add(&mut self, other: Self) {
        self.micros.extend(other.micros);
        for (status, micros) in other.others {
            self.others.entry(status).or_default().extend(micros);
        }
        self.seconds += other.seconds;
    }

    /// Rate and latency of what was answered.
    pub(super) fn latency(&self) -> Latency {
        let mut sorted = self.micros.clone();
        sorted.sort_by(f64::total_cmp);
        let failed: usize = self.others.values().map(Vec::len).sum();
        Latency {
            per_second: count(sorted.len()) / self.seconds.max(f64::MIN_POSITIVE),
            p50_us: share(&sorted, 500),
            p99_us: share(&sorted, 990),
            p999_us: share(&sorted, 999),
            failed: failed as u64,
        }
    }
}

/// The value that so many thousandths do not exceed.
pub(super) fn share(sorted: &[f64], thousandths: usize) -> f64 {
    let at = (sorted.len() * thousandths / 1000).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// A number of requests as a number to divide.
pub(super) fn count(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

/// Runs the model alone on so many threads.
pub(super) async fn raw(
    model: &Arc<dyn Predictor>,
    batch: &Batch,
    threads: usize,
    time: Duration,
) -> anyhow::Result<Measured> {
    let loops = (0..threads).map(|_| {
        let (model, batch) = (Arc::clone(model), batch.clone());
        move |from: Instant, until: Instant| {
            let mut measured = Measured::default();
            loop {
                let began = Instant::now();
                if began >= until {
                    return Ok(measured);
                }
                model.predict(&batch)?;
                if began >= from {
                    measured.micros.push(micros(began.elapsed()));
                }
            }
        }
    });
    together(loops.collect(), time).await
}

/// Asks a server over so many connections.
pub(super) async fn http(
    target: &Target,
    clients: u16,
    how: Loop,
    time: Duration,
) -> anyhow::Result<Measured> {
    let next = Arc::new(AtomicU64::new(0));
    let loops = (0..clients).map(|_| {
        let (target, next) = (target.clone(), Arc::clone(&next));
        move |from: Instant, until: Instant| connection(&target, how, &next, from, until)
    });
    together(loops.collect(), time).await
}

fn connection(
    target: &Target,
    how: Loop,
    next: &AtomicU64,
    from: Instant,
    until: Instant,
) -> anyhow::Result<Measured> {
    let mut connection = target.connect()?;
    let mut measured = Measured::default();
    loop {
        let due = match how {
            Loop::Closed => Instant::now(),
            Loop::Open(rate) => {
                let turn = next.fetch_add(1, Relaxed);
                let turn = f64::from(u32::try_from(turn).unwrap_or(u32::MAX));
                from + Duration::from_secs_f64(turn / rate.max(0.001))
            }
        };
        if due >= until {
            return Ok(measured);
        }
        wait_until(due);
        let sent = Instant::now();
        let status = connection.ask();
        if sent >= until {
            // It was due long ago and nobody had time: it waited as long as until now.
            return Ok(measured);
        }
        if due < from {
            continue;
        }
        if let Ok(200) = status {
            measured.micros.push(micros(due.elapsed()));
        } else {
            let broken = status.is_err();
            let others = measured.others.entry(status.unwrap_or(0)).or_default();
            others.push(micros(sent.elapsed()));
            if broken {
                connection.renew()?;
            }
        }
    }
}

/// Sleeps, to some ten microseconds: the timers of an async runtime are as coarse as a millisecond.
fn wait_until(due: Instant) {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        park_timeout(left);
    }
}

/// Runs the loops on threads of their own, at the same time.
async fn together<F>(loops: Vec<F>, time: Duration) -> anyhow::Result<Measured>
where
    F: FnOnce(Instant, Instant) -> anyhow::Result<Measured> + Send + 'static,
{
    let run = move || {
        let begin = Arc::new(Barrier::new(loops.len()));
        let threads: Vec<_> = loops
            .into_iter()
            .map(|run| {
                let begin = Arc::clone(&begin);
                let run = move || {
                    begin.wait();
                    let from = Instant::now() + WARM_UP;
                    run(from, from + time)
                };
                thread::Builder::new().stack_size(256 << 10).spawn(run)
            })
            .collect();
        let mut all = Measured::default();
        for thread in threads {
            let measured = thread?.join().map_err(|_| anyhow!("a client panicked"))??;
            all.add(measured);
        }
        all.seconds = time.as_secs_f64();
        Ok(all)
    };
    tokio::task::spawn_blocking(run).await?
}

pub(super) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_all_answers() {
        let sorted: Vec<f64> = (0..1000).map(f64::from).collect();
        assert!((share(&sorted, 500) - 500.0).abs() < f64::EPSILON);
        assert!((share(&sorted, 999) - 999.0).abs() < f64::EPSILON);
        assert!(share(&[], 500).is_nan());
    }

    #[test]
    fn waits_until_a_moment_and_not_beyond_it() {
        let due = Instant::now() + Duration::from_millis(3);
        wait_until(due);
        assert!(Instant::now() >= due);
        wait_until(due);
    }
}
