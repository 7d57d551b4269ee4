//! What happened to inference requests: counters and histograms that are written without a lock.
//!
//! Whoever reads takes a [`Snapshot`]; the difference of two is what happened between them.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::inference::{InferError, Timing};

/// Buckets of a histogram: four for each doubling, up to 67 seconds in microseconds.
const BUCKETS: usize = 104;

/// Counts values by size, each within a quarter of its value.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

/// A histogram at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramSnapshot {
    counts: Vec<u64>,
    /// Sum of all values.
    pub sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: array::from_fn(|_| AtomicU64::new(0)),
            sum: AtomicU64::new(0),
        }
    }
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            sum: 0,
        }
    }
}

/// Bucket of a value: two bits below the leading one.
fn bucket(value: u64) -> usize {
    if value < 4 {
        return usize::try_from(value).unwrap_or(0);
    }
    let octave = value.ilog2();
    let quarter = usize::try_from((value >> (octave - 2)) & 3).unwrap_or(0);
    ((octave as usize - 1) * 4 + quarter).min(BUCKETS - 1)
}

/// Largest value of a bucket.
const fn upper(bucket: usize) -> u64 {
    if bucket < 4 {
        return bucket as u64;
    }
    let (octave, quarter) = (bucket / 4 + 1, bucket % 4);
    ((quarter as u64 + 5) << (octave - 2)) - 1
}

impl Histogram {
    /// Counts a value.
    pub fn record(&self, value: u64) {
        self.buckets[bucket(value)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// Counts a time in microseconds.
    pub fn record_time(&self, time: Duration) {
        self.record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Copies what was counted so far.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            counts: self.buckets.iter().map(|n| n.load(Relaxed)).collect(),
            sum: self.sum.load(Relaxed),
        }
    }
}

impl HistogramSnapshot {
    /// Makes a histogram of its counts; buckets beyond the last are dropped, missing ones empty.
    #[must_use]
    pub fn from_counts(mut counts: Vec<u64>, sum: u64) -> Self {
        counts.resize(BUCKETS, 0);
        Self { counts, sum }
    }

    /// Returns the number of values in each bucket.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Value that a share `q` of all values does not exceed, to the upper end of its bucket;
    /// 0 if there is none.
    #[must_use]
    pub fn quantile(&self, q: f64) -> u64 {
        let count = self.count();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank among counted values; the share is between 0 and 1"
        )]
        let rank = ((count as f64 * q.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|&n| {
            seen += n;
            seen >= rank
        });
        found.map_or(0, upper)
    }

    /// Numbers of values that do not exceed each bucket's upper end, with that end, as Prometheus
    /// counts them; buckets beyond the largest value are left out.
    pub fn cumulative(&self) -> impl Iterator<Item = BucketCount> + '_ {
        let last = self
            .counts
            .iter()
            .rposition(|&n| n > 0)
            .map_or(0, |i| i + 1);
        let mut count = 0;
        self.counts[..last].iter().enumerate().map(move |(i, &n)| {
            count += n;
            BucketCount {
                upper: upper(i),
                count,
            }
        })
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let pairs = self.counts.iter().zip(&earlier.counts);
        Self {
            counts: pairs.map(|(now, then)| now.saturating_sub(*then)).collect(),
            sum: self.sum.saturating_sub(earlier.sum),
        }
    }
}

/// Values up to a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketCount {
    /// The bound, included.
    pub upper: u64,
    /// How many values do not exceed it.
    pub count: u64,
}

macro_rules! statistics {
    ($($(#[$doc:meta])* $name:ident: $kind:ident => $taken:ty = $take:expr, $minus:expr;)+) => {
        /// What happened to the requests of a variant or replica; all times in microseconds.
        #[derive(Debug, Default)]
        pub struct Statistics { $($(#[$doc])* pub $name: $kind),+ }

        /// [`Statistics`] at one moment.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Snapshot { $($(#[$doc])* pub $name: $taken),+ }

        impl Statistics {
            /// Copies what was counted so far.
            #[must_use]
            pub fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: $take(&self.$name)),+ }
            }
        }

        impl Snapshot {
            /// What was counted since `earlier`; `in_flight` is that of now.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($name: $minus(&self.$name, &earlier.$name)),+ }
            }
        }
    };
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "called by the macro as the difference of histograms is"
)]
const fn minus(now: &u64, then: &u64) -> u64 {
    now.saturating_sub(*then)
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as above")]
const fn now(now: &u64, _: &u64) -> u64 {
    *now
}

statistics! {
    /// Requests that were answered.
    requests: AtomicU64 => u64 = load, minus;
    /// Rows of those.
    rows: AtomicU64 => u64 = load, minus;
    /// Requests that failed by a fault of the model or of all replicas.
    failures: AtomicU64 => u64 = load, minus;
    /// Requests that do not fit the model.
    invalid: AtomicU64 => u64 = load, minus;
    /// Requests answered 429.
    rejected: AtomicU64 => u64 = load, minus;
    /// Requests whose time was over.
    expired: AtomicU64 => u64 = load, minus;
    /// Requests that a second replica was asked for, since the first did not answer.
    retried: AtomicU64 => u64 = load, minus;
    /// Requests that a second replica was asked for, since the first was slow.
    hedged: AtomicU64 => u64 = load, minus;
    /// Requests answered from the response cache.
    cache_hits: AtomicU64 => u64 = load, minus;
    /// Executions of the model.
    executions: AtomicU64 => u64 = load, minus;
    /// Requests being worked on now.
    in_flight: AtomicU64 => u64 = load, now;
    /// Time from a request's arrival to its answer.
    latency: Histogram => HistogramSnapshot = Histogram::snapshot, HistogramSnapshot::since;
    /// Time in the replica's queue.
    queue: Histogram => HistogramSnapshot = Histogram::snapshot, HistogramSnapshot::since;
    /// Time of the execution that a request was part of.
    compute: Histogram => HistogramSnapshot = Histogram::snapshot, HistogramSnapshot::since;
    /// Rows of each execution.
    batch_rows: Histogram => HistogramSnapshot = Histogram::snapshot, HistogramSnapshot::since;
}

/// Counts a request as being worked on until dropped.
#[derive(Debug)]
pub struct InFlight<'a>(&'a AtomicU64);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Statistics {
    /// Counts a request as being worked on.
    #[must_use]
    pub fn enter(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(&self.in_flight)
    }

    /// Counts an answer to `rows` rows after `latency`.
    pub fn answered(&self, rows: usize, latency: Duration, timing: &Timing) {
        self.requests.fetch_add(1, Relaxed);
        self.rows.fetch_add(rows as u64, Relaxed);
        self.latency.record_time(latency);
        self.queue.record_time(timing.queue);
        self.compute.record_time(timing.compute);
        if timing.executions > 0 {
            let executions = u64::from(timing.executions);
            self.executions.fetch_add(executions, Relaxed);
            self.batch_rows.record(timing.batch_rows.into());
        }
    }

    /// Counts a request that was not answered.
    pub fn refused(&self, why: &InferError) {
        let counter = match why {
            InferError::Busy => &self.rejected,
            InferError::Expired => &self.expired,
            InferError::Invalid(_) => &self.invalid,
            InferError::Failed(_) | InferError::Gone => &self.failures,
        };
        counter.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for b in 1..BUCKETS {
            assert_eq!(bucket(upper(b)), b);
            assert_eq!(bucket(upper(b - 1) + 1), b);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_within_a_quarter() {
        let histogram = Histogram::default();
        for value in 1..=10_000 {
            histogram.record(value);
        }
        let taken = histogram.snapshot();
        assert_eq!((taken.count(), taken.sum), (10_000, 50_005_000));
        for (q, exact) in [(0.5, 5_000), (0.99, 9_900)] {
            let found = taken.quantile(q);
            assert!((exact..=exact + exact / 4).contains(&found), "{q}: {found}");
        }
        assert_eq!(taken.cumulative().last().unwrap().count, 10_000);
        assert_eq!(HistogramSnapshot::default().quantile(0.5), 0);
    }

    #[test]
    fn the_difference_of_two_snapshots_is_what_happened_between() {
        let statistics = Statistics::default();
        let timing = Timing {
            batch_rows: 4,
            executions: 1,
            ..Timing::default()
        };
        statistics.answered(4, Duration::from_millis(1), &timing);
        let before = statistics.snapshot();
        let _in_flight = statistics.enter();
        statistics.answered(2, Duration::from_millis(9), &timing);
        statistics.refused(&InferError::Busy);
        let between = statistics.snapshot().since(&before);
        assert_eq!((between.requests, between.rows), (1, 2));
        assert_eq!((between.rejected, between.in_flight), (1, 1));
        assert!((9_000..11_250).contains(&between.latency.quantile(0.99)));
    }
}
