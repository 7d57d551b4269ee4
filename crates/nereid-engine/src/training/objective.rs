//! Losses, with Keras' definitions.

use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use nereid_core::spec::{Loss, TrainSpec, fit::ClassWeight, layers::Activation};

use super::batches::BatchTargets;
use crate::network::{Ending, Network, flat};

/// Keras' `backend.epsilon()`, by which probabilities keep off 0 and 1.
const EPSILON: f32 = 1e-7;

/// What training minimises, and how the network's output is read for it.
#[derive(Debug, Clone)]
pub(super) struct Objective {
    loss: Loss,
    /// Whether a final softmax or sigmoid is left out, since the loss includes it.
    pub(super) ending: Ending,
    /// Whether outputs, with that ending, are logits.
    pub(super) logits: bool,
    weights: Option<Vec<f32>>,
}

impl Objective {
    /// Reads the loss of a spec; `counts` are the rows of each class in the training split.
    pub(super) fn new(
        spec: &TrainSpec,
        network: &Network,
        classes: &[String],
        counts: &[u64],
    ) -> Self {
        let last = match spec.loss {
            Loss::BinaryCrossentropy { .. } => Activation::Sigmoid,
            _ => Activation::Softmax,
        };
        let logits = spec.outputs_logits();
        let skips = spec.loss.is_classification() && !logits && network.ends_in(last);
        Self {
            loss: spec.loss.clone(),
            ending: if skips { Ending::Logits } else { Ending::Whole },
            logits: logits || skips,
            weights: class_weights(spec.fit.class_weight.as_ref(), classes, counts),
        }
    }

    /// Tells whether one output stands for two classes.
    pub(super) fn is_binary(&self) -> bool {
        matches!(self.loss, Loss::BinaryCrossentropy { .. })
    }

    /// Returns the mean loss of a batch, a single number.
    ///
    /// As in Keras, class weights scale each sample's loss and the mean is over samples, not
    /// over weights. They count in training only.
    pub(super) fn loss(
        &self,
        outputs: Tensor<2>,
        targets: &BatchTargets,
        weighted: bool,
    ) -> Tensor<1> {
        self.losses(outputs, targets, weighted).mean()
    }

    /// Returns the loss of each sample of a batch, in a column.
    pub(super) fn losses(
        &self,
        outputs: Tensor<2>,
        targets: &BatchTargets,
        weighted: bool,
    ) -> Tensor<2> {
        let device = outputs.device().without_autodiff();
        let [n, width] = outputs.dims();
        let losses: Tensor<2> = match (&self.loss, targets) {
            (Loss::BinaryCrossentropy { .. }, BatchTargets::Class(t)) => {
                #[expect(clippy::cast_precision_loss, reason = "0 or 1")]
                let t: Vec<f32> = t.iter().map(|&t| t as f32).collect();
                self.binary(outputs, column(t, &device))
            }
            (loss, BatchTargets::Class(t)) => {
                let smoothing = match loss {
                    Loss::CategoricalCrossentropy {
                        label_smoothing, ..
                    } => *label_smoothing,
                    _ => 0.0,
                };
                let indices: Vec<i64> = t.iter().map(|&t| i64::from(t)).collect();
                let indices = TensorData::new(indices, [n, 1]);
                let indices: Tensor<2, Int> = Tensor::from_data(indices, &device);
                let log_p = self.log_probabilities(outputs);
                categorical(log_p, indices, smoothing, width)
            }
            (loss, BatchTargets::Value(t)) => {
                let error = outputs - column(t.clone(), &device);
                match loss {
                    Loss::Mae {} => error.abs(),
                    Loss::Huber { delta } => huber(error, *delta),
                    _ => error.clone() * error,
                }
            }
        };
        match (&self.weights, targets) {
            (Some(weights), BatchTargets::Class(t)) if weighted => {
                let weights = t.iter().map(|&t| weights[t as usize]).collect();
                losses * column(weights, &device)
            }
            _ => losses,
        }
    }

    fn log_probabilities(&self, outputs: Tensor<2>) -> Tensor<2> {
        if self.logits {
            return activation::log_softmax(outputs, 1);
        }
        let sum = outputs.clone().sum_dim(1);
        (outputs / sum).clamp(EPSILON, 1.0 - EPSILON).log()
    }

    fn binary(&self, outputs: Tensor<2>, targets: Tensor<2>) -> Tensor<2> {
        let (positive, negative) = if self.logits {
            let negative = activation::log_sigmoid(outputs.clone().neg());
            (activation::log_sigmoid(outputs), negative)
        } else {
            let p = outputs.clamp(EPSILON, 1.0 - EPSILON);
            (p.clone().log(), (p.neg() + 1.0).log())
        };
        (targets.clone() * positive + (targets.neg() + 1.0) * negative).neg()
    }
}

fn categorical(
    logs: Tensor<2>,
    indices: Tensor<2, Int>,
    smoothing: f64,
    classes: usize,
) -> Tensor<2> {
    let right = logs.clone().gather(1, indices);
    if smoothing == 0.0 {
        return right.neg();
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 10,000 classes")]
    let spread = smoothing / classes as f64;
    (right * (1.0 - smoothing) + logs.sum_dim(1) * spread).neg()
}

fn huber(error: Tensor<2>, delta: f64) -> Tensor<2> {
    let size = error.abs();
    let inner = size.clone().clamp_max(delta);
    inner.clone() * inner.clone() * 0.5 + (size - inner) * delta
}

fn column(values: Vec<f32>, device: &Device) -> Tensor<2> {
    let n = values.len();
    flat(values, device).reshape([n, 1])
}

/// Weight of each class, in the order of the classes.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "row counts are far below 2^52 and weights are small"
)]
fn class_weights(
    wanted: Option<&ClassWeight>,
    classes: &[String],
    counts: &[u64],
) -> Option<Vec<f32>> {
    let rows = counts.iter().sum::<u64>() as f64;
    match wanted? {
        ClassWeight::Balanced(_) => {
            let weight = |&n: &u64| rows / (classes.len() as f64 * n.max(1) as f64);
            Some(counts.iter().map(|n| weight(n) as f32).collect())
        }
        ClassWeight::ByClass(weights) => {
            let weight = |c: &String| weights.get(c).copied().unwrap_or(1.0) as f32;
            Some(classes.iter().map(weight).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn loss(spec: Value, logits: bool, outputs: &[[f32; 2]], targets: &BatchTargets) -> f32 {
        let objective = Objective {
            loss: serde_json::from_value(spec).unwrap(),
            ending: Ending::Whole,
            logits,
            weights: Some(vec![1.0, 3.0]),
        };
        let single = matches!(targets, BatchTargets::Value(_)) || objective.is_binary();
        let width = if single { 1 } else { 2 };
        let values: Vec<f32> = outputs.iter().flat_map(|r| &r[..width]).copied().collect();
        let data = TensorData::new(values, [outputs.len(), width]);
        let outputs = Tensor::from_data(data, &Device::flex());
        objective.loss(outputs, targets, true).into_scalar::<f32>()
    }

    #[test]
    fn losses_are_keras_own() {
        let classes = BatchTargets::Class(vec![0, 1]);
        let numbers = BatchTargets::Value(vec![1.0, 0.0]);
        let probabilities = [[0.8, 0.2], [0.4, 0.6]];
        let logs = probabilities.map(|row| row.map(f32::ln));
        // Class 1 weighs 3, and the mean is over samples.
        let sparse = -(0.8_f32.ln() + 3.0 * 0.6_f32.ln()) / 2.0;
        let smooth = -((0.9 * 0.8_f32.ln() + 0.1 * 0.2_f32.ln())
            + 3.0 * (0.9 * 0.6_f32.ln() + 0.1 * 0.4_f32.ln()))
            / 2.0;
        let binary = -(0.2_f32.ln() + 3.0 * 0.4_f32.ln()) / 2.0;
        let logit = |p: f32| [(p / (1.0 - p)).ln(), 0.0];
        let smoothed = json!({"type": "categorical_crossentropy", "label_smoothing": 0.2});
        let kind = |name: &str| json!({ "type": name });
        for (spec, logits, outputs, targets, expected) in [
            (
                kind("sparse_categorical_crossentropy"),
                false,
                probabilities,
                &classes,
                sparse,
            ),
            (
                kind("sparse_categorical_crossentropy"),
                true,
                logs,
                &classes,
                sparse,
            ),
            (smoothed, true, logs, &classes, smooth),
            (
                kind("binary_crossentropy"),
                false,
                probabilities,
                &classes,
                binary,
            ),
            (
                kind("binary_crossentropy"),
                true,
                [logit(0.8), logit(0.4)],
                &classes,
                binary,
            ),
            (
                kind("mse"),
                false,
                [[3.0, 0.0], [-0.5, 0.0]],
                &numbers,
                2.125,
            ),
            (
                kind("mae"),
                false,
                [[3.0, 0.0], [-0.5, 0.0]],
                &numbers,
                1.25,
            ),
            (
                kind("huber"),
                false,
                [[3.0, 0.0], [-0.5, 0.0]],
                &numbers,
                0.8125,
            ),
        ] {
            let got = loss(spec.clone(), logits, &outputs, targets);
            assert!(
                (got - expected).abs() < 1e-5,
                "{spec}: {got} is not {expected}"
            );
        }
    }

    #[test]
    fn logits_far_out_give_finite_losses() {
        let classes = BatchTargets::Class(vec![0]);
        for name in ["binary_crossentropy", "sparse_categorical_crossentropy"] {
            let got = loss(json!({ "type": name }), true, &[[200.0, 500.0]], &classes);
            assert!(got.is_finite() && got > 100.0, "{name}: {got}");
        }
    }
}
