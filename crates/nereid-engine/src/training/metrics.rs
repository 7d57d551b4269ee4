//! Metrics, gathered batch by batch on the host.

mod auc;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use nereid_core::spec::{Metric, objective::Average};
use serde_json::{Value, json};

pub(super) use tally::Tally;

use super::batches::BatchTargets;
use crate::outputs::{logistic, most_likely, softmax};
use tally::{Sums, ratio};

/// Most classes of a confusion matrix; larger ones would swell every report.
const MAX_MATRIX_CLASSES: usize = 1_000;

/// How a network's outputs are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// One output per class.
    Classes,
    /// One output, which stands for the second of two classes.
    Binary,
    /// One output per label, each of which applies or not.
    Labels,
    /// Numbers, each measured on its own.
    Values,
    /// Numbers that are measured together: there may be very many.
    Pooled,
}

/// What is to be measured.
#[derive(Debug, Clone)]
pub(super) struct Measures {
    metrics: Vec<Metric>,
    /// Classes, labels or values.
    names: usize,
    reading: Reading,
    /// Whether softmax or the logistic function is still to be applied.
    logits: bool,
}

impl Measures {
    pub(super) fn new(metrics: &[Metric], names: usize, reading: Reading, logits: bool) -> Self {
        Self {
            metrics: metrics.to_vec(),
            names,
            reading,
            logits,
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
        let width = (outputs.len() / n.max(1)).max(1);
        match targets {
            BatchTargets::Class(targets) => {
                let matrix = matrix && self.wants_matrix();
                for (row, &target) in outputs.chunks_exact(width).zip(targets) {
                    self.add_class(tally, row, target as usize, matrix);
                }
            }
            BatchTargets::Value(targets) => self.add_values(tally, outputs, targets, 1),
            BatchTargets::Many { values, .. } if self.reading == Reading::Labels => {
                let rows = outputs.chunks_exact(width);
                for (row, targets) in rows.zip(values.chunks_exact(width)) {
                    self.add_labels(tally, row, targets);
                }
            }
            BatchTargets::Many { values, width } => {
                self.add_values(tally, outputs, values, *width);
            }
        }
    }

    fn wants_matrix(&self) -> bool {
        self.metrics.contains(&Metric::ConfusionMatrix {}) && self.names <= MAX_MATRIX_CLASSES
    }

    fn wants_auc(&self) -> bool {
        self.metrics.contains(&Metric::Auc {})
    }

    /// ROC curves that are measured.
    fn curves(&self) -> usize {
        match self.reading {
            _ if !self.wants_auc() => 0,
            Reading::Binary => 1,
            Reading::Classes | Reading::Labels => self.names,
            Reading::Values | Reading::Pooled => 0,
        }
    }

    /// Sums of values that are measured.
    fn sums(&self) -> usize {
        match self.reading {
            Reading::Values => self.names,
            Reading::Pooled => 1,
            _ => 0,
        }
    }

    fn is_on(&self, output: f32) -> bool {
        output > if self.logits { 0.0 } else { 0.5 }
    }

    fn probability(&self, output: f32) -> f32 {
        if self.logits {
            logistic(output)
        } else {
            output
        }
    }

    fn add_class(&self, tally: &mut Tally, row: &[f32], target: usize, matrix: bool) {
        let binary = self.reading == Reading::Binary;
        let predicted = if binary {
            usize::from(self.is_on(row[0]))
        } else {
            most_likely(row)
        };
        tally.resize(self.names);
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
            let hit = if binary {
                *k >= 2 || predicted == target
            } else {
                row.iter().filter(|&&y| y > row[target]).count() < *k
            };
            *tally.top.entry(*k).or_default() += u64::from(hit);
        }
        if matrix {
            tally.matrix.resize(self.names * self.names, 0);
            tally.matrix[target * self.names + predicted] += 1;
        }
        if self.wants_auc() && binary {
            let p = self.probability(row[0]);
            auc::add(&mut tally.curves, (0, 1), p, target == 1);
        } else if self.wants_auc() {
            let mut row = row.to_vec();
            softmax(&mut row, self.logits);
            for (i, &p) in row.iter().enumerate() {
                auc::add(&mut tally.curves, (i, self.names), p, target == i);
            }
        }
    }

    fn add_labels(&self, tally: &mut Tally, row: &[f32], targets: &[f32]) {
        tally.resize(self.names);
        for (i, (&y, &target)) in row.iter().zip(targets).enumerate() {
            let (predicted, actual) = (self.is_on(y), target > 0.5);
            tally.actual[i] += u64::from(actual);
            tally.predicted[i] += u64::from(predicted);
            tally.hits[i] += u64::from(predicted && actual);
            tally.correct += u64::from(predicted == actual);
            if self.wants_auc() {
                let p = self.probability(y);
                auc::add(&mut tally.curves, (i, self.names), p, actual);
            }
        }
    }

    fn add_values(&self, tally: &mut Tally, outputs: &[f32], targets: &[f32], width: usize) {
        let sums = self.sums().max(1);
        tally.values.resize(sums, Sums::default());
        for (i, (&y, &t)) in outputs.iter().zip(targets).enumerate() {
            let y = if self.reading == Reading::Pooled {
                self.probability(y)
            } else {
                y
            };
            tally.values[(i % width.max(1)) % sums].add(f64::from(y), f64::from(t));
        }
    }

    /// Returns loss and metrics by name, each with `prefix`.
    pub(super) fn values(&self, tally: &Tally, prefix: &str) -> BTreeMap<String, f64> {
        #[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]
        let n = tally.samples.max(1) as f64;
        let mut values = BTreeMap::from([(format!("{prefix}loss"), tally.loss / n)]);
        for metric in &self.metrics {
            if let Some(value) = self.value(metric, tally) {
                values.insert(format!("{prefix}{}", metric.key()), value);
            }
        }
        values
    }

    fn value(&self, metric: &Metric, tally: &Tally) -> Option<f64> {
        let answers = match self.reading {
            Reading::Labels => tally.samples * self.names as u64,
            _ => tally.samples,
        };
        let mean = |of: fn(&Sums) -> f64| tally.mean_of_values(of);
        Some(match metric {
            Metric::Accuracy {} | Metric::BinaryAccuracy {} => ratio(tally.correct, answers),
            Metric::HammingLoss {} => ratio(answers.saturating_sub(tally.correct), answers),
            Metric::TopKAccuracy { k } => {
                ratio(tally.top.get(k).copied().unwrap_or(0), tally.samples)
            }
            Metric::Precision { average } => {
                tally.average(*average, |hits, _, predicted| ratio(hits, predicted))
            }
            Metric::Recall { average } => {
                tally.average(*average, |hits, actual, _| ratio(hits, actual))
            }
            Metric::F1 { average } => tally.average(*average, |hits, actual, predicted| {
                ratio(2 * hits, actual + predicted)
            }),
            Metric::Auc {} => auc::mean(&tally.curves, self.curves()),
            Metric::MatthewsCorrelation {} => tally.matthews(),
            Metric::ConfusionMatrix {} => return None,
            Metric::Mae {} => mean(|s| s.absolute),
            Metric::Mse {} => mean(|s| s.squares),
            Metric::Rmse {} => mean(|s| s.squares).sqrt(),
            Metric::Mape {} => mean(|s| s.relative) * 100.0,
            Metric::R2 {} => tally.r2(),
        })
    }

    /// Returns the metrics that are no single number.
    pub(super) fn reports(&self, tally: &Tally, classes: &[String]) -> BTreeMap<String, Value> {
        if tally.matrix.is_empty() {
            return BTreeMap::new();
        }
        let counts: Vec<&[u64]> = tally.matrix.chunks(self.names).collect();
        let report = json!({ "classes": classes, "counts": counts });
        BTreeMap::from([("confusion_matrix".to_owned(), report)])
    }

    /// Tells whether counts read from a file are possible in an epoch of so many rows.
    pub(super) fn fits(&self, tally: &Tally, rows: usize) -> bool {
        let answers = (rows as u64).saturating_mul(self.names.max(1) as u64);
        let counts = [&tally.actual, &tally.predicted, &tally.hits];
        let sized = |n: usize, wanted: usize| n == 0 || n == wanted;
        tally.samples <= rows as u64
            && tally.correct <= answers
            && tally.top.values().all(|&n| n <= rows as u64)
            && tally.matrix.is_empty()
            && counts.iter().all(|v| sized(v.len(), self.names))
            && counts.iter().all(|v| v.iter().all(|&n| n <= rows as u64))
            && sized(tally.curves.len(), auc::size(self.curves()))
            && tally.curves.iter().all(|&n| n <= rows as u64)
            && sized(tally.values.len(), self.sums().max(1))
    }
}

/// Returns the mean that `average` asks for over classes or labels.
fn averaged(tally: &Tally, average: Average, of: impl Fn(u64, u64, u64) -> f64) -> f64 {
    let counts = || {
        let counts = tally.hits.iter().zip(&tally.actual).zip(&tally.predicted);
        counts.map(|((&hits, &actual), &predicted)| (hits, actual, predicted))
    };
    let all = counts().fold((0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2));
    if average == Average::Micro {
        return of(all.0, all.1, all.2);
    }
    let (mut sum, mut weights) = (0.0, 0.0);
    for (hits, actual, predicted) in counts() {
        #[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]
        let weight = match average {
            Average::Weighted => actual as f64,
            // Those that neither occur nor are predicted say nothing.
            _ => f64::from(u8::from(actual + predicted > 0)),
        };
        sum += of(hits, actual, predicted) * weight;
        weights += weight;
    }
    if weights == 0.0 { 0.0 } else { sum / weights }
}
