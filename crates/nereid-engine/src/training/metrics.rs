//! Metrics, gathered batch by batch on the host.

use std::collections::BTreeMap;

use nereid_core::spec::Metric;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{batches::BatchTargets, exact};
use crate::outputs::most_likely;

/// Most classes of a confusion matrix; larger ones would swell every report.
const MAX_MATRIX_CLASSES: usize = 1_000;

/// Sums from which all metrics follow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) samples: u64,
    #[serde(with = "exact")]
    loss: f64,
    correct: u64,
    /// Samples whose class was among the k most likely, by k.
    top: BTreeMap<usize, u64>,
    /// By class: samples of it, samples taken for it, and both at once.
    actual: Vec<u64>,
    predicted: Vec<u64>,
    hits: Vec<u64>,
    matrix: Vec<u64>,
    #[serde(with = "exact")]
    absolute: f64,
    #[serde(with = "exact")]
    squares: f64,
    #[serde(with = "exact")]
    targets: f64,
    #[serde(with = "exact")]
    target_squares: f64,
}

/// What is to be measured.
#[derive(Debug, Clone)]
pub(super) struct Measures {
    metrics: Vec<Metric>,
    classes: usize,
    /// Least output of a single-output network that means the second class.
    threshold: Option<f32>,
}

impl Measures {
    /// Measures `metrics`; `binary` gives the threshold of a single output.
    pub(super) fn new(metrics: &[Metric], classes: usize, threshold: Option<f32>) -> Self {
        Self {
            metrics: metrics.to_vec(),
            classes,
            threshold,
        }
    }

    /// Adds a batch with its mean loss; `outputs` are row-major.
    pub(super) fn add(
        &self,
        tally: &mut Tally,
        outputs: &[f32],
        targets: &BatchTargets,
        loss: f64,
        matrix: bool,
    ) {
        let n = targets.len();
        tally.samples += n as u64;
        #[expect(clippy::cast_precision_loss, reason = "batches are small")]
        let samples = n as f64;
        tally.loss += loss * samples;
        match targets {
            BatchTargets::Class(targets) => {
                let width = outputs.len() / n.max(1);
                let matrix = matrix && self.wants_matrix();
                for (row, &target) in outputs.chunks_exact(width.max(1)).zip(targets) {
                    self.add_class(tally, row, target as usize, matrix);
                }
            }
            BatchTargets::Value(targets) => {
                for (&y, &t) in outputs.iter().zip(targets) {
                    add_value(tally, f64::from(y), f64::from(t));
                }
            }
        }
    }

    fn wants_matrix(&self) -> bool {
        self.metrics.contains(&Metric::ConfusionMatrix {}) && self.classes <= MAX_MATRIX_CLASSES
    }

    fn add_class(&self, tally: &mut Tally, row: &[f32], target: usize, matrix: bool) {
        let predicted = match self.threshold {
            Some(threshold) => usize::from(row[0] > threshold),
            None => most_likely(row),
        };
        tally.actual.resize(self.classes, 0);
        tally.predicted.resize(self.classes, 0);
        tally.hits.resize(self.classes, 0);
        tally.actual[target] += 1;
        tally.predicted[predicted] += 1;
        if predicted == target {
            tally.correct += 1;
            tally.hits[target] += 1;
        }
        for metric in &self.metrics {
            let Metric::TopKAccuracy { k } = metric else {
                continue;
            };
            let hit = match self.threshold {
                Some(_) => *k >= 2 || predicted == target,
                None => row.iter().filter(|&&y| y > row[target]).count() < *k,
            };
            *tally.top.entry(*k).or_default() += u64::from(hit);
        }
        if matrix {
            tally.matrix.resize(self.classes * self.classes, 0);
            tally.matrix[target * self.classes + predicted] += 1;
        }
    }

    /// Returns loss and metrics by name, each with `prefix`.
    pub(super) fn values(&self, tally: &Tally, prefix: &str) -> BTreeMap<String, f64> {
        let share = |n: u64| ratio(n, tally.samples);
        #[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]
        let n = tally.samples.max(1) as f64;
        let mut values = BTreeMap::from([(format!("{prefix}loss"), tally.loss / n)]);
        for metric in &self.metrics {
            let value = match metric {
                Metric::Accuracy {} => share(tally.correct),
                Metric::TopKAccuracy { k } => share(tally.top.get(k).copied().unwrap_or(0)),
                Metric::Precision {} => {
                    macro_mean(tally, |hits, _, predicted| ratio(hits, predicted))
                }
                Metric::Recall {} => macro_mean(tally, |hits, actual, _| ratio(hits, actual)),
                Metric::F1 {} => macro_mean(tally, |hits, actual, predicted| {
                    ratio(2 * hits, actual + predicted)
                }),
                Metric::ConfusionMatrix {} => continue,
                Metric::Mae {} => tally.absolute / n,
                Metric::Rmse {} => (tally.squares / n).sqrt(),
                Metric::R2 {} => {
                    let total = tally.target_squares - tally.targets * tally.targets / n;
                    if total > 0.0 {
                        1.0 - tally.squares / total
                    } else {
                        0.0
                    }
                }
            };
            values.insert(format!("{prefix}{}", metric.key()), value);
        }
        values
    }

    /// Returns the metrics that are no single number.
    pub(super) fn reports(&self, tally: &Tally, classes: &[String]) -> BTreeMap<String, Value> {
        if tally.matrix.is_empty() {
            return BTreeMap::new();
        }
        let counts: Vec<&[u64]> = tally.matrix.chunks(self.classes).collect();
        let report = json!({ "classes": classes, "counts": counts });
        BTreeMap::from([("confusion_matrix".to_owned(), report)])
    }
}

impl Tally {
    /// Tells whether counts read from a file are possible in an epoch of so many rows.
    pub(super) fn fits(&self, classes: usize, rows: usize) -> bool {
        let rows = rows as u64;
        let small = |v: &[u64]| v.iter().all(|&n| n <= rows);
        let sized = |v: &[u64]| v.is_empty() || v.len() == classes;
        self.samples <= rows
            && self.correct <= rows
            && self.top.values().all(|&n| n <= rows)
            && self.matrix.is_empty()
            && [&self.actual, &self.predicted, &self.hits]
                .into_iter()
                .all(|v| sized(v) && small(v))
    }
}

fn add_value(tally: &mut Tally, y: f64, t: f64) {
    tally.absolute += (y - t).abs();
    tally.squares += (y - t) * (y - t);
    tally.targets += t;
    tally.target_squares += t * t;
}

#[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// Unweighted mean over the classes that occur, as scikit-learn's `average="macro"`.
fn macro_mean(tally: &Tally, of: impl Fn(u64, u64, u64) -> f64) -> f64 {
    let (mut sum, mut n) = (0.0, 0.0);
    for (i, &actual) in tally.actual.iter().enumerate() {
        if actual + tally.predicted[i] > 0 {
            sum += of(tally.hits[i], actual, tally.predicted[i]);
            n += 1.0;
        }
    }
    if n == 0.0 { 0.0 } else { sum / n }
}
