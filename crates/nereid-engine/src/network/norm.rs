//! Normalisation of batches, layers and groups, and learned slopes.

#![expect(
    clippy::many_single_char_names,
    reason = "axes and gates by their usual letters"
)]

use burn::tensor::{Tensor, activation, module};

use super::{
    Act, Mode, TrainingPass, kernels,
    merge::{boxed, padded, unboxed},
};

/// Batch normalisation over the last axis; parameters by index.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BatchNorm {
    pub(crate) gamma: usize,
    pub(crate) beta: usize,
    pub(crate) mean: usize,
    pub(crate) variance: usize,
    pub(crate) momentum: f64,
    pub(crate) epsilon: f64,
    /// Whether the moving variance is that of a sample, as in PyTorch.
    pub(crate) unbiased: bool,
    /// Whether it is not trained: it then runs as in inference, as in Keras.
    pub(crate) frozen: bool,
}

impl BatchNorm {
    pub(super) fn run(&self, act: Act, weights: &[Tensor<1>], mode: &mut Mode<'_>) -> Act {
        let (n, rank, shape) = (act.rows(), act.rank(), act.shape.clone());
        let mut inference = Mode::Inference;
        let mode = if self.frozen { &mut inference } else { mode };
        if act.is_planar() && !act.is_in_memory() {
            return Act::from_planes(self.normalise(act.planes(), weights, mode), rank);
        }
        let size = act.size();
        let normalised = self.rows(act.vectors(), weights, mode);
        Act::new(normalised.reshape([n, size]), shape)
    }

    /// Normalises columns: by our own kernel in training on the processor.
    fn rows(&self, x: Tensor<2>, weights: &[Tensor<1>], mode: &mut Mode<'_>) -> Tensor<2> {
        let Mode::Training(pass) = mode else {
            return self.normalise(x, weights, mode);
        };
        let (gamma, beta) = (&weights[self.gamma], &weights[self.beta]);
        let values = x.dims()[0];
        match kernels::batch_norm(x, gamma, beta, self.epsilon) {
            Ok((y, statistics)) => {
                self.follow(pass, weights, statistics, values);
                y
            }
            Err(x) => self.normalise(x, weights, mode),
        }
    }

    /// Normalises over the second axis.
    fn normalise<const D: usize>(
        &self,
        x: Tensor<D>,
        weights: &[Tensor<1>],
        mode: &mut Mode<'_>,
    ) -> Tensor<D> {
        let weight = |i: usize| weights[i].clone();
        let (gamma, beta) = (weight(self.gamma), weight(self.beta));
        let Mode::Training(pass) = mode else {
            let (mean, variance) = (weight(self.mean), weight(self.variance));
            return module::batch_norm(x, gamma, beta, mean, variance, self.epsilon);
        };
        let values = x.dims().iter().product::<usize>() / x.dims()[1];
        let batch = module::batch_norm_train(x, gamma, beta, self.epsilon);
        self.follow(pass, weights, [batch.mean, batch.variance], values);
        batch.output
    }

    /// Moves the averages towards mean and variance of a batch of so many values a channel.
    fn follow(
        &self,
        pass: &mut TrainingPass,
        weights: &[Tensor<1>],
        [mean, mut variance]: [Tensor<1>; 2],
        values: usize,
    ) {
        if self.unbiased && values > 1 {
            #[expect(clippy::cast_precision_loss, reason = "batches are far below 2^52")]
            let correction = values as f64 / (values - 1) as f64;
            variance = variance * correction;
        }
        for (index, new) in [(self.mean, mean), (self.variance, variance)] {
            let kept = weights[index].clone().inner() * self.momentum;
            pass.moving
                .push((index, kept + new.inner() * (1.0 - self.momentum)));
        }
    }
}

/// Layer normalisation over the last axis; parameters by index.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerNorm {
    pub(crate) gamma: usize,
    pub(crate) beta: usize,
    pub(crate) epsilon: f64,
}

impl LayerNorm {
    pub(super) fn run(&self, act: Act, weights: &[Tensor<1>]) -> Act {
        let (n, c, size, shape) = (act.rows(), act.channels(), act.size(), act.shape.clone());
        let (gamma, beta) = (&weights[self.gamma], &weights[self.beta]);
        let y = kernels::layer_norm(act.vectors(), gamma, beta, self.epsilon).unwrap_or_else(|x| {
            let centred = x.clone() - x.mean_dim(1);
            let variance = (centred.clone() * centred.clone()).mean_dim(1);
            let (gamma, beta) = (gamma.clone().reshape([1, c]), beta.clone().reshape([1, c]));
            centred / (variance + self.epsilon).sqrt() * gamma + beta
        });
        Act::new(y.reshape([n, size]), shape)
    }
}

/// Division by the root of the mean square over the last axis; parameters by index.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RmsNorm {
    pub(crate) scale: usize,
    pub(crate) epsilon: f64,
}

impl RmsNorm {
    pub(super) fn run(&self, act: Act, weights: &[Tensor<1>]) -> Act {
        let (n, c, size, shape) = (act.rows(), act.channels(), act.size(), act.shape.clone());
        let x = act.vectors();
        let square = (x.clone() * x.clone()).mean_dim(1);
        let scale = weights[self.scale].clone().reshape([1, c]);
        let y = x / (square + self.epsilon).sqrt() * scale;
        Act::new(y.reshape([n, size]), shape)
    }
}

/// Normalisation of groups of channels over all positions; parameters by index.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GroupNorm {
    pub(crate) gamma: usize,
    pub(crate) beta: usize,
    pub(crate) groups: usize,
    pub(crate) epsilon: f64,
}

impl GroupNorm {
    pub(super) fn run(&self, act: Act, weights: &[Tensor<1>]) -> Act {
        let (n, c, size, shape) = (act.rows(), act.channels(), act.size(), act.shape.clone());
        let planes = act.planes();
        let [_, _, h, w] = planes.dims();
        let grouped: Tensor<3> = planes.reshape([n, self.groups, size / self.groups]);
        let centred = grouped.clone() - grouped.mean_dim(2);
        let variance = (centred.clone() * centred.clone()).mean_dim(2);
        let normal: Tensor<4> = (centred / (variance + self.epsilon).sqrt()).reshape([n, c, h, w]);
        let gamma = weights[self.gamma].clone().reshape([1, c, 1, 1]);
        let beta = weights[self.beta].clone().reshape([1, c, 1, 1]);
        let y = normal * gamma + beta;
        if matches!(shape.len(), 2 | 3) {
            return Act::from_planes(y, shape.len());
        }
        Act::new(y.permute([0, 2, 3, 1]).reshape([n, size]), shape)
    }
}

/// Learned slopes of negative values, by index, and their shape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Slopes {
    pub(crate) alpha: usize,
    pub(crate) shape: Vec<usize>,
}

impl Slopes {
    pub(super) fn run(&self, act: Act, weights: &[Tensor<1>]) -> Act {
        let shape = act.shape.clone();
        let [a, b, c, d] = padded(&self.shape);
        let alpha: Tensor<5> = weights[self.alpha].clone().reshape([1, a, b, c, d]);
        let x = boxed(act);
        let below = activation::relu(x.clone().neg()) * alpha;
        unboxed(activation::relu(x) - below, &shape)
    }
}
