//! Multi-head attention, as Keras computes it.

#![expect(
    clippy::many_single_char_names,
    reason = "axes and gates by their usual letters"
)]

use burn::tensor::{Tensor, activation};

use super::{Act, Mode, noise::constant};
use crate::random::{self, Purpose};

/// Kernel and bias of a projection, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Projection {
    pub(crate) kernel: usize,
    pub(crate) bias: Option<usize>,
}

/// Attention of a query to keys and values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attention {
    pub(crate) query: Projection,
    pub(crate) key: Projection,
    pub(crate) value: Projection,
    pub(crate) output: Projection,
    pub(crate) heads: usize,
    pub(crate) key_dim: usize,
    pub(crate) value_dim: usize,
    pub(crate) causal: bool,
    pub(crate) dropout: f64,
}

impl Attention {
    /// Runs on a query, and a value and a key unless they are the same.
    pub(super) fn run(
        &self,
        mut inputs: Vec<Act>,
        index: usize,
        weights: &[Tensor<1>],
        mode: &Mode<'_>,
    ) -> Act {
        let query = inputs.remove(0);
        let value = inputs.first().cloned().unwrap_or_else(|| query.clone());
        let key = inputs.get(1).cloned().unwrap_or_else(|| value.clone());
        let (shape, n, steps, width) = (
            query.shape.clone(),
            query.rows(),
            query.shape[0],
            query.channels(),
        );
        #[expect(clippy::cast_precision_loss, reason = "at most 2^20")]
        let scale = 1.0 / (self.key_dim as f64).sqrt();
        let q = self.project(query, self.query, self.key_dim, weights) * scale;
        let k = self.project(key, self.key, self.key_dim, weights);
        let v = self.project(value, self.value, self.value_dim, weights);
        let mut scores = q.matmul(k.swap_dims(2, 3));
        if self.causal {
            scores = scores.clone() + causal_bias(&scores);
        }
        let shares = self.drop(activation::softmax(scores, 3), index, mode);
        let columns = self.heads * self.value_dim;
        let joined: Tensor<2> = shares
            .matmul(v)
            .swap_dims(1, 2)
            .reshape([n * steps, columns]);
        let y = linear(joined, self.output, width, weights);
        Act::new(y.reshape([n, steps * width]), shape)
    }

    /// Projects to (samples, heads, steps, `dim`).
    fn project(&self, act: Act, by: Projection, dim: usize, weights: &[Tensor<1>]) -> Tensor<4> {
        let (n, steps) = (act.rows(), act.shape[0]);
        let y = linear(act.vectors(), by, self.heads * dim, weights);
        y.reshape([n, steps, self.heads, dim]).swap_dims(1, 2)
    }

    fn drop(&self, shares: Tensor<4>, index: usize, mode: &Mode<'_>) -> Tensor<4> {
        let Mode::Training(pass) = mode else {
            return shares;
        };
        if self.dropout == 0.0 {
            return shares;
        }
        let dims = shares.dims();
        let position = [pass.step, index as u64];
        let mut rng = random::generator(pass.seed, Purpose::Dropout, position);
        let mask = random::dropout_mask(&mut rng, dims.iter().product(), self.dropout);
        let mask = constant(mask, dims, &shares);
        shares * mask
    }
}

fn linear(x: Tensor<2>, by: Projection, outputs: usize, weights: &[Tensor<1>]) -> Tensor<2> {
    let inputs = x.dims()[1];
    let y = x.matmul(weights[by.kernel].clone().reshape([inputs, outputs]));
    match by.bias {
        Some(bias) => y + weights[bias].clone().reshape([1, outputs]),
        None => y,
    }
}

/// What takes later steps out of scores: so little that their share becomes 0.
fn causal_bias(scores: &Tensor<4>) -> Tensor<4> {
    let [_, _, queries, keys] = scores.dims();
    let bias = |i: usize| {
        if i % keys <= i / keys { 0.0 } else { -1e9 }
    };
    let values = (0..queries * keys).map(bias).collect();
    constant(values, [1, 1, queries, keys], scores)
}
