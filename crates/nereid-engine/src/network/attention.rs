//! Multi-head attention, as Keras computes it.

#![expect(
    clippy::many_single_char_names,
    reason = "axes and gates by their usual letters"
)]

use burn::tensor::{Tensor, activation};

use super::{Act, Mode, half, kernels, noise::constant};
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
        let keys = key.shape[0];
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "at most 2^20"
        )]
        let scale = (1.0 / (self.key_dim as f64).sqrt()) as f32;
        let layer = kernels::AttentionShape {
            batch: n,
            heads: self.heads,
            steps: [steps, keys],
            sizes: [self.key_dim, self.value_dim],
            scale,
            causal: self.causal,
        };
        let q = linear(
            query.vectors(),
            self.query,
            self.heads * self.key_dim,
            weights,
        );
        let k = linear(key.vectors(), self.key, self.heads * self.key_dim, weights);
        let v = linear(
            value.vectors(),
            self.value,
            self.heads * self.value_dim,
            weights,
        );
        let mask = || self.mask([n, self.heads, steps, keys], index, mode);
        let in_half = !half::is_single(&weights[self.query.kernel]);
        let joined = if in_half {
            Err([q, k, v])
        } else {
            kernels::attend([q, k, v], layer, mask)
        };
        let joined = joined.unwrap_or_else(|inputs| attend(inputs, layer, mask(), in_half));
        let y = linear(joined, self.output, width, weights);
        Act::new(y.reshape([n, steps * width]), shape)
    }

    /// Returns the factors of the shares, if some of them are dropped.
    fn mask(&self, dims: [usize; 4], index: usize, mode: &Mode<'_>) -> Option<Vec<f32>> {
        let Mode::Training(pass) = mode else {
            return None;
        };
        if self.dropout == 0.0 {
            return None;
        }
        let position = [pass.step, index as u64];
        let mut rng = random::generator(pass.seed, Purpose::Dropout, position);
        Some(random::dropout_mask(
            &mut rng,
            dims.iter().product(),
            self.dropout,
        ))
    }
}

/// Attends by the framework's operations, on any device, perhaps with products in half precision.
pub(super) fn attend(
    inputs: [Tensor<2>; 3],
    by: kernels::AttentionShape,
    mask: Option<Vec<f32>>,
    in_half: bool,
) -> Tensor<2> {
    let ([queries, keys], [d, size]) = (by.steps, by.sizes);
    let [q, k, v] = inputs;
    let heads = |x: Tensor<2>, steps: usize, size: usize| -> Tensor<4> {
        x.reshape([by.batch, steps, by.heads, size]).swap_dims(1, 2)
    };
    let q = heads(q, queries, d) * by.scale;
    let k = heads(k, keys, d).swap_dims(2, 3);
    let mut scores = half::product(q, k, in_half);
    if by.causal {
        scores = scores.clone() + causal_bias(&scores);
    }
    let mut shares = activation::softmax(scores, 3);
    if let Some(mask) = mask {
        shares = shares.clone() * constant(mask, shares.dims(), &shares);
    }
    let joined = half::product(shares, heads(v, keys, size), in_half);
    joined
        .swap_dims(1, 2)
        .reshape([by.batch * queries, by.heads * size])
}

fn linear(x: Tensor<2>, by: Projection, outputs: usize, weights: &[Tensor<1>]) -> Tensor<2> {
    let (kernel, bias) = (&weights[by.kernel], by.bias.map(|bias| &weights[bias]));
    kernels::dense(x, kernel, bias, false).unwrap_or_else(|x| {
        let inputs = x.dims()[1];
        let y = half::matmul(x, kernel.clone().reshape([inputs, outputs]));
        match bias {
            Some(bias) => y + bias.clone().reshape([1, outputs]),
            None => y,
        }
    })
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
