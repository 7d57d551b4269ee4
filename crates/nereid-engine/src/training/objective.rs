//! Losses, with Keras' definitions.

mod numeric;
#[cfg(test)]
mod tests;

use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use nereid_core::spec::{
    Loss, TrainSpec, fit::ClassWeight, layers::Activation, objective::LossKind,
};

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
        let last = match spec.loss.kind() {
            LossKind::Binary => Activation::Sigmoid,
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
        let losses: Tensor<2> = match (self.loss.kind(), targets) {
            (LossKind::Binary, BatchTargets::Class(t)) => {
                #[expect(clippy::cast_precision_loss, reason = "0 or 1")]
                let t: Vec<f32> = t.iter().map(|&t| t as f32).collect();
                self.binary(outputs, column(t, &device))
            }
            (_, BatchTargets::Class(t)) => {
                let indices: Vec<i64> = t.iter().map(|&t| i64::from(t)).collect();
                let indices = TensorData::new(indices, [n, 1]);
                let indices: Tensor<2, Int> = Tensor::from_data(indices, &device);
                self.categorical(outputs, indices, width)
            }
            (kind, BatchTargets::Value(_) | BatchTargets::Many { .. }) => {
                let targets = targets.values(&device);
                if kind == LossKind::Binary {
                    mean_of_row(self.binary(outputs, targets))
                } else {
                    numeric::losses(&self.loss, outputs, targets)
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

    /// Cross-entropy of each output with a target from 0 to 1.
    fn binary(&self, outputs: Tensor<2>, targets: Tensor<2>) -> Tensor<2> {
        let smoothing = self.loss.label_smoothing();
        let targets = if smoothing == 0.0 {
            targets
        } else {
            targets * (1.0 - smoothing) + 0.5 * smoothing
        };
        let (positive, negative) = if self.logits {
            let negative = activation::log_sigmoid(outputs.clone().neg());
            (activation::log_sigmoid(outputs.clone()), negative)
        } else {
            let p = outputs.clone().clamp(EPSILON, 1.0 - EPSILON);
            (p.clone().log(), (p.neg() + 1.0).log())
        };
        let absent = targets.clone().neg() + 1.0;
        let entropy = (targets.clone() * positive + absent.clone() * negative).neg();
        let Loss::BinaryFocalCrossentropy {
            alpha,
            gamma,
            apply_class_balancing,
            ..
        } = &self.loss
        else {
            return entropy;
        };
        let p = if self.logits {
            activation::sigmoid(outputs)
        } else {
            outputs
        };
        let wrong = targets.clone() * (p.clone().neg() + 1.0) + absent.clone() * p;
        let focal = entropy * power(wrong, *gamma);
        if *apply_class_balancing {
            focal * (targets * *alpha + absent * (1.0 - alpha))
        } else {
            focal
        }
    }

    /// Cross-entropy of each sample with its class.
    fn categorical(
        &self,
        outputs: Tensor<2>,
        indices: Tensor<2, Int>,
        classes: usize,
    ) -> Tensor<2> {
        let mut logs = self.log_probabilities(outputs);
        if let Loss::CategoricalFocalCrossentropy { alpha, gamma, .. } = &self.loss {
            let wrong = logs.clone().exp().neg() + 1.0;
            logs = logs * power(wrong, *gamma) * *alpha;
        }
        let smoothing = self.loss.label_smoothing();
        let right = logs.clone().gather(1, indices);
        if smoothing == 0.0 {
            return right.neg();
        }
        #[expect(clippy::cast_precision_loss, reason = "at most 10,000 classes")]
        let spread = smoothing / classes as f64;
        (right * (1.0 - smoothing) + logs.sum_dim(1) * spread).neg()
    }
}

/// Powers of probabilities, which keep off 0, where the slope may be infinite.
fn power(p: Tensor<2>, exponent: f64) -> Tensor<2> {
    let p = p.clamp(EPSILON, 1.0);
    if (exponent - 2.0).abs() < f64::EPSILON {
        p.clone() * p
    } else {
        p.powf_scalar(exponent)
    }
}

/// Mean over the outputs of each sample.
fn mean_of_row(losses: Tensor<2>) -> Tensor<2> {
    if losses.dims()[1] == 1 {
        losses
    } else {
        losses.mean_dim(1)
    }
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
