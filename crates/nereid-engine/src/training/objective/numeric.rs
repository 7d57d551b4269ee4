//! Losses that compare numbers with numbers.

use burn::tensor::{Tensor, activation};
use nereid_core::spec::Loss;

use super::{EPSILON, mean_of_row};

/// Returns the loss of each sample, in a column.
pub(super) fn losses(loss: &Loss, outputs: Tensor<2>, targets: Tensor<2>) -> Tensor<2> {
    let each = match loss {
        Loss::KlDivergence {} => return kl_divergence(outputs, targets),
        Loss::CosineSimilarity {} => return cosine(outputs, targets).neg(),
        Loss::Mae {} => (outputs - targets).abs(),
        Loss::Huber { delta } => huber(outputs - targets, *delta),
        Loss::LogCosh {} => {
            let error = outputs - targets;
            let tail = activation::softplus(error.clone() * -2.0, 1.0);
            error + tail - std::f64::consts::LN_2
        }
        Loss::Mape {} => {
            let scale = targets.clone().abs().clamp_min(EPSILON);
            ((targets - outputs) / scale).abs() * 100.0
        }
        Loss::Msle {} => {
            let log = |x: Tensor<2>| (x.clamp_min(EPSILON) + 1.0).log();
            let error = log(outputs) - log(targets);
            error.clone() * error
        }
        Loss::Poisson {} => outputs.clone() - targets * (outputs + EPSILON).log(),
        _ => {
            let error = outputs - targets;
            error.clone() * error
        }
    };
    mean_of_row(each)
}

fn huber(error: Tensor<2>, delta: f64) -> Tensor<2> {
    let size = error.abs();
    let inner = size.clone().clamp_max(delta);
    inner.clone() * inner.clone() * 0.5 + (size - inner) * delta
}

fn kl_divergence(outputs: Tensor<2>, targets: Tensor<2>) -> Tensor<2> {
    let outputs = outputs.clamp(EPSILON, 1.0);
    let targets = targets.clamp(EPSILON, 1.0);
    (targets.clone() * (targets / outputs).log()).sum_dim(1)
}

fn cosine(outputs: Tensor<2>, targets: Tensor<2>) -> Tensor<2> {
    let unit = |x: Tensor<2>| {
        let length = (x.clone() * x.clone()).sum_dim(1).sqrt();
        x / length.clamp_min(EPSILON)
    };
    (unit(outputs) * unit(targets)).sum_dim(1)
}
