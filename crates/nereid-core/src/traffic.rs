//! What a gateway measured of a variant over a moment, as all processes share it.

use crate::{ids::VariantId, statistics::HistogramSnapshot};

/// Traffic of one variant through one process, over one to two seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Window {
    /// Requests answered or failed.
    pub requests: u64,
    /// Those that failed by the server's fault.
    pub errors: u64,
    /// Requests answered 429.
    pub rejected: u64,
    /// Time from a request's arrival to its answer, in microseconds.
    pub latency: HistogramSnapshot,
    /// Time in the replicas' queues, in microseconds, summed.
    pub queue_us: u64,
    /// Scores of the answers.
    pub scores: Scores,
    /// Requests of which the variant got a copy.
    pub mirrored: u64,
    /// Those that it answered otherwise than the variant that served.
    pub mismatched: u64,
}

impl Window {
    /// Tells whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests == 0 && self.rejected == 0 && self.mirrored == 0
    }
}

/// Moments of the scores of some rows: the probability of the most likely class, or the number
/// predicted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Scores {
    /// Rows.
    pub count: u64,
    /// Sum of their scores.
    pub sum: f64,
    /// Sum of the squares.
    pub squares: f64,
}

impl Scores {
    /// Takes a score in.
    pub fn add(&mut self, score: f64) {
        if score.is_finite() {
            self.count += 1;
            self.sum += score;
            self.squares += score * score;
        }
    }

    /// Takes the scores of others in.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
    }
}

/// A window with the variant it is of.
#[derive(Debug, Clone, PartialEq)]
pub struct VariantWindow {
    /// The variant.
    pub variant: VariantId,
    /// What was measured.
    pub window: Window,
}
