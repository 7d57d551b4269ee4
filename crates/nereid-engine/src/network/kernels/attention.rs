//! Scaled dot-product attention of several heads at once.

use std::sync::Arc;

use burn::tensor::Tensor;
use nereid_kernels::Attention;

use super::graph::{self, Derivative, Gradient, Input, Values};

/// Attends from queries to keys and values, whose rows are steps with all heads beside each other.
///
/// `mask` holds factors of the shares: (samples, heads, queries, keys). Gives queries, keys and
/// values back if they are not the processor's.
pub(in crate::network) fn attend(
    inputs: [Tensor<2>; 3],
    layer: Attention,
    mask: impl FnOnce() -> Option<Vec<f32>>,
) -> Result<Tensor<2>, [Tensor<2>; 3]> {
    if !inputs.iter().all(graph::in_memory) {
        return Err(inputs);
    }
    let dims = inputs.each_ref().map(Tensor::dims);
    let [q, k, v] = inputs.map(Input::take::<2>);
    let (Ok(q), Ok(k), Ok(v)) = (q, k, v) else {
        unreachable!("all three are the processor's, as was just looked up");
    };
    let held = [&q, &k, &v].map(Input::values);
    let [query, key, value] = held.each_ref().map(Values::as_slice);
    let (shares, mask) = (layer.shares(query, key), mask());
    let weighed = mask.as_ref().map(|mask| product(&shares, mask));
    let y = layer.forward(weighed.as_ref().unwrap_or(&shares), value);
    let shape = [dims[0][0], layer.heads * layer.sizes[1]];
    Ok(graph::finish([q, k, v], y, shape, |_| {
        Arc::new(Saved {
            layer,
            values: held,
            dims,
            shares,
            mask,
        })
    }))
}

fn product(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a * b).collect()
}

#[derive(Debug)]
struct Saved {
    layer: Attention,
    values: [Values; 3],
    dims: [[usize; 2]; 3],
    shares: Vec<f32>,
    mask: Option<Vec<f32>>,
}

impl Derivative<3> for Saved {
    fn gradients(&self, dy: Values, _wanted: [bool; 3]) -> [Option<Gradient>; 3] {
        let inputs = self.values.each_ref().map(Values::as_slice);
        let mask = self.mask.as_deref();
        let [dq, dk, dv] = self
            .layer
            .gradients(inputs, &self.shares, mask, dy.as_slice());
        let [q, k, v] = self.dims.map(|shape| shape.to_vec());
        [Some((dq, q)), Some((dk, k)), Some((dv, v))]
    }
}
