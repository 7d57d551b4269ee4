//! Sums from which all metrics follow.

use std::collections::BTreeMap;

use nereid_core::spec::objective::Average;
use serde::{Deserialize, Serialize};

use super::super::exact;

/// Keras' `backend.epsilon()`, the least target that errors are divided by.
const EPSILON: f64 = 1e-7;

/// Sums over the samples so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::training) struct Tally {
    pub(in crate::training) samples: u64,
    #[serde(with = "exact")]
    pub(super) loss: f64,
    pub(super) correct: u64,
    /// Samples whose class was among the k most likely, by k.
    pub(super) top: BTreeMap<usize, u64>,
    /// By class or label: samples of it, samples taken for it, and both at once.
    pub(super) actual: Vec<u64>,
    pub(super) predicted: Vec<u64>,
    pub(super) hits: Vec<u64>,
    pub(super) matrix: Vec<u64>,
    /// Histograms of probabilities for ROC curves.
    pub(super) curves: Vec<u64>,
    /// By value.
    pub(super) values: Vec<Sums>,
}

/// Sums of one number's errors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sums {
    count: u64,
    #[serde(with = "exact")]
    pub(super) absolute: f64,
    #[serde(with = "exact")]
    pub(super) squares: f64,
    #[serde(with = "exact")]
    pub(super) relative: f64,
    #[serde(with = "exact")]
    targets: f64,
    #[serde(with = "exact")]
    target_squares: f64,
}

impl Sums {
    pub(super) fn add(&mut self, y: f64, t: f64) {
        self.count += 1;
        self.absolute += (y - t).abs();
        self.squares += (y - t) * (y - t);
        self.relative += ((y - t) / t.abs().max(EPSILON)).abs();
        self.targets += t;
        self.target_squares += t * t;
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn r2(&self) -> f64 {
        let total = self.target_squares - self.targets * self.targets / self.count.max(1) as f64;
        if total > 0.0 {
            1.0 - self.squares / total
        } else {
            0.0
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
impl Tally {
    pub(super) fn resize(&mut self, names: usize) {
        self.actual.resize(names, 0);
        self.predicted.resize(names, 0);
        self.hits.resize(names, 0);
    }

    pub(super) fn average(&self, average: Average, of: impl Fn(u64, u64, u64) -> f64) -> f64 {
        super::averaged(self, average, of)
    }

    /// Mean over all values of all samples.
    pub(super) fn mean_of_values(&self, of: impl Fn(&Sums) -> f64) -> f64 {
        let count: u64 = self.values.iter().map(|s| s.count).sum();
        self.values.iter().map(of).sum::<f64>() / count.max(1) as f64
    }

    pub(super) fn r2(&self) -> f64 {
        let n = self.values.len().max(1) as f64;
        self.values.iter().map(Sums::r2).sum::<f64>() / n
    }

    /// The correlation of Gorodkin (2004), which for two classes is that of Matthews (1975).
    pub(super) fn matthews(&self) -> f64 {
        let product = |a: &[u64], b: &[u64]| -> f64 {
            let pairs = a.iter().zip(b);
            pairs.map(|(&a, &b)| a as f64 * b as f64).sum()
        };
        let n = self.samples as f64;
        let together = product(&self.actual, &self.predicted);
        let spread = |v: &[u64]| n * n - product(v, v);
        let scale = (spread(&self.actual) * spread(&self.predicted)).sqrt();
        if scale > 0.0 {
            (self.correct as f64 * n - together) / scale
        } else {
            0.0
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}
