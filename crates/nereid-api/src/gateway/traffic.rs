//! What a variant's traffic was like, beside its times: counted without a lock, read once a second.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nereid_core::{
    ids::VariantId,
    models::Signature,
    tensors::{Tensor, TensorValues},
    traffic::{Scores, VariantWindow, Window},
};

use super::routes::Variant;

/// Largest difference of two numbers that count as the same answer, relative to them beyond 1.
const SAME: f32 = 1e-2;

/// A sum of numbers that many threads add to.
#[derive(Debug, Default)]
struct Sum(AtomicU64);

impl Sum {
    fn add(&self, value: f64) {
        let added = |bits: u64| Some((f64::from_bits(bits) + value).to_bits());
        // Never refuses.
        let _ = self.0.fetch_update(Relaxed, Relaxed, added);
    }

    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

/// Scores of a variant's answers, and how it did as a shadow.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    count: AtomicU64,
    sum: Sum,
    squares: Sum,
    mirrored: AtomicU64,
    mismatched: AtomicU64,
}

/// [`Traffic`] and statistics of a variant at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    counted: nereid_core::statistics::Snapshot,
    scores: Scores,
    mirrored: u64,
    mismatched: u64,
}

impl Traffic {
    /// Counts the scores of an answer.
    pub(super) fn score(&self, outputs: &[Tensor]) {
        let mut scores = Scores::default();
        for_each_score(outputs, |score| scores.add(score));
        self.count.fetch_add(scores.count, Relaxed);
        self.sum.add(scores.sum);
        self.squares.add(scores.squares);
    }

    /// Counts a request that a shadow got a copy of.
    pub(super) fn mirrored(&self, same: bool) {
        self.mirrored.fetch_add(1, Relaxed);
        if !same {
            self.mismatched.fetch_add(1, Relaxed);
        }
    }
}

impl Reading {
    pub(super) fn of(variant: &Variant) -> Self {
        let traffic = &variant.traffic;
        Self {
            counted: variant.statistics.snapshot(),
            scores: Scores {
                count: traffic.count.load(Relaxed),
                sum: traffic.sum.get(),
                squares: traffic.squares.get(),
            },
            mirrored: traffic.mirrored.load(Relaxed),
            mismatched: traffic.mismatched.load(Relaxed),
        }
    }

    /// Tells whether counting began anew after `earlier`: a variant that was away for a moment has
    /// counters of its own again.
    fn began_after(&self, earlier: &Self) -> bool {
        self.counted.requests < earlier.counted.requests
            || self.counted.failures < earlier.counted.failures
            || self.scores.count < earlier.scores.count
            || self.mirrored < earlier.mirrored
            || self.mismatched < earlier.mismatched
    }

    /// What happened since `earlier`.
    pub(super) fn since(&self, earlier: &Self, variant: VariantId) -> VariantWindow {
        let nothing = Self::default();
        let anew = self.began_after(earlier);
        let earlier = if anew { &nothing } else { earlier };
        let counted = self.counted.since(&earlier.counted);
        let errors = counted.failures + counted.expired;
        let window = Window {
            requests: counted.requests + errors,
            errors,
            rejected: counted.rejected,
            queue_us: counted.queue.sum,
            latency: counted.latency,
            scores: Scores {
                count: self.scores.count - earlier.scores.count,
                sum: self.scores.sum - earlier.scores.sum,
                squares: self.scores.squares - earlier.scores.squares,
            },
            mirrored: self.mirrored - earlier.mirrored,
            mismatched: self.mismatched - earlier.mismatched,
        };
        VariantWindow { variant, window }
    }
}

/// Hands out the score of each row: the probability of the most likely class, or what is predicted.
fn for_each_score(outputs: &[Tensor], mut take: impl FnMut(f64)) {
    let floats = |name: &str| {
        let tensor = outputs.iter().find(|t| t.name == name)?;
        match &tensor.values {
            TensorValues::Fp32(values) => Some((tensor.shape.as_slice(), values)),
            _ => None,
        }
    };
    if let Some((shape, values)) = floats("probabilities") {
        let width = shape.get(1).copied().unwrap_or(1).max(1);
        for row in values.chunks(width) {
            take(f64::from(row.iter().copied().fold(f32::MIN, f32::max)));
        }
    } else if let Some((_, values)) = floats("prediction").or_else(|| floats("anomaly_score")) {
        for &value in values {
            take(f64::from(value));
        }
    }
}

/// Tells whether a shadow's answer amounts to the same as the one that was given: the same classes,
/// and numbers that hardly differ.
///
/// Probabilities are left out where classes are: they need not agree to the last digit.
pub(super) fn is_same(given: &[Tensor], shadow: &[Tensor], signature: &Signature) -> bool {
    let classes = signature.classes.is_some();
    given.iter().all(|tensor| {
        let Some(other) = shadow.iter().find(|t| t.name == tensor.name) else {
            return false;
        };
        match (&tensor.values, &other.values) {
            (TensorValues::Fp32(_), TensorValues::Fp32(_)) if classes => true,
            (TensorValues::Fp32(a), TensorValues::Fp32(b)) => {
                let near = |(a, b): (&f32, &f32)| (a - b).abs() <= SAME * a.abs().max(1.0);
                a.len() == b.len() && a.iter().zip(b).all(near)
            }
            (a, b) => a == b,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::tests::signature;

    fn tensor(name: &str, shape: &[usize], values: TensorValues) -> Tensor {
        Tensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            values,
        }
    }

    /// Its routes were gone for a moment, and with them its counters.
    #[test]
    fn counting_that_began_anew_is_reported_from_its_beginning() {
        let reading = |requests, count, sum| {
            let mut reading = Reading::default();
            reading.counted.requests = requests;
            reading.scores = Scores {
                count,
                sum,
                squares: sum,
            };
            reading
        };
        let variant = VariantId::generate();
        let before = reading(10, 10, 5.0);
        let on = reading(12, 12, 6.0).since(&before, variant).window;
        assert_eq!((on.requests, on.scores.count), (2, 2));
        let anew = reading(3, 3, 1.5).since(&before, variant).window;
        assert_eq!((anew.requests, anew.scores.count), (3, 3));
        assert!((anew.scores.sum - 1.5).abs() < 1e-9);
    }

    #[test]
    fn scores_are_of_the_most_likely_class_or_the_number() {
        let traffic = Traffic::default();
        let values = TensorValues::Fp32(vec![0.1, 0.9, 0.6, 0.4]);
        traffic.score(&[tensor("probabilities", &[2, 2], values)]);
        traffic.score(&[tensor("prediction", &[1], TensorValues::Fp32(vec![3.0]))]);
        assert_eq!(traffic.count.load(Relaxed), 3);
        assert!((traffic.sum.get() - 4.5).abs() < 1e-6);
        assert!((traffic.squares.get() - (0.81 + 0.36 + 9.0)).abs() < 1e-6);
    }

    #[test]
    fn a_shadow_must_answer_the_same_classes_and_nearly_the_same_numbers() {
        let mut signed = signature(&[2], None);
        let number = |v| [tensor("prediction", &[1], TensorValues::Fp32(vec![v]))];
        assert!(is_same(&number(100.0), &number(100.9), &signed));
        assert!(!is_same(&number(100.0), &number(102.0), &signed));
        signed.classes = Some(vec!["x".to_owned(), "y".to_owned()]);
        let class = |p, class| {
            [
                tensor(
                    "probabilities",
                    &[1, 2],
                    TensorValues::Fp32(vec![p, 1.0 - p]),
                ),
                tensor("class", &[1], TensorValues::Int64(vec![class])),
            ]
        };
        assert!(is_same(&class(0.9, 0), &class(0.7, 0), &signed));
        assert!(!is_same(&class(0.51, 0), &class(0.49, 1), &signed));
    }
}
