//! Batch and layer normalisation.

use burn::tensor::{Tensor, module};

use super::{Act, Mode};

/// Batch normalisation over the last axis; parameters by index.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BatchNorm {
    pub(crate) gamma: usize,
    pub(crate) beta: usize,
    pub(crate) mean: usize,
    pub(crate) variance: usize,
    pub(crate) momentum: f64,
    pub(crate) epsilon: f64,
}

impl BatchNorm {
    pub(super) fn run(&self, act: Act, weights: &[Tensor<1>], mode: &mut Mode<'_>) -> Act {
        let (n, rank, shape) = (act.rows(), act.rank(), act.shape.clone());
        if act.is_planar() {
            return Act::from_planes(self.normalise(act.planes(), weights, mode), rank);
        }
        let size = act.size();
        let normalised = self.normalise(act.vectors(), weights, mode);
        Act::new(normalised.reshape([n, size]), shape)
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
        let batch = module::batch_norm_train(x, gamma, beta, self.epsilon);
        for (index, new) in [(self.mean, batch.mean), (self.variance, batch.variance)] {
            let kept = weight(index).inner() * self.momentum;
            pass.moving
                .push((index, kept + new.inner() * (1.0 - self.momentum)));
        }
        batch.output
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
        let x = act.vectors();
        let centred = x.clone() - x.mean_dim(1);
        let variance = (centred.clone() * centred.clone()).mean_dim(1);
        let gamma = weights[self.gamma].clone().reshape([1, c]);
        let beta = weights[self.beta].clone().reshape([1, c]);
        let y = centred / (variance + self.epsilon).sqrt() * gamma + beta;
        Act::new(y.reshape([n, size]), shape)
    }
}
