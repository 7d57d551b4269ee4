//! Activations, value by value.

use std::sync::Arc;

use burn::tensor::Tensor;
use nereid_kernels::Curve;

use super::graph::{self, Derivative, Gradient, Input, Values};

/// Applies a function to each value; gives the values back if they are not the processor's.
pub(in crate::network) fn activate(x: Tensor<2>, curve: Curve) -> Result<Tensor<2>, Tensor<2>> {
    let shape = x.dims();
    let x = Input::take(x)?;
    let xs = x.values();
    let y = curve.apply(xs.as_slice());
    Ok(graph::finish([x], y, shape, |y| {
        let at = if curve.follows_from_result() {
            y.clone()
        } else {
            xs
        };
        Arc::new(Saved { curve, at, shape })
    }))
}

#[derive(Debug)]
struct Saved {
    curve: Curve,
    /// Results, or what they are of.
    at: Values,
    shape: [usize; 2],
}

impl Derivative<1> for Saved {
    fn gradients(&self, dy: Values, _wanted: [bool; 1]) -> [Option<Gradient>; 1] {
        let mut dx = dy.as_slice().to_vec();
        self.curve.gradient(&mut dx, self.at.as_slice());
        [Some((dx, self.shape.to_vec()))]
    }
}
