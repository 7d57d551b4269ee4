//! Dense layers: product, bias and ReLU at once.

use std::sync::Arc;

use burn::tensor::Tensor;
use nereid_kernels::{Dense, column_sums, relu_gradient};

use super::graph::{self, Derivative, Gradient, Input, Values};

/// Multiplies rows by a kernel, adds the bias and applies ReLU if asked to.
///
/// Gives its inputs back if they are not the processor's.
pub(in crate::network) fn dense(
    x: Tensor<2>,
    kernel: &Tensor<1>,
    bias: Option<&Tensor<1>>,
    relu: bool,
) -> Result<Tensor<2>, Tensor<2>> {
    let [rows, inputs] = x.dims();
    let x = Input::take(x)?;
    let Some((kernel, bias)) = weights(kernel, bias) else {
        return Err(x.into_tensor());
    };
    let layer = Dense {
        rows,
        inputs,
        units: kernel.values().as_slice().len() / inputs.max(1),
    };
    let (xs, ks) = (x.values(), kernel.values());
    let bs = bias.as_ref().map(Input::values);
    let y = layer.forward(
        xs.as_slice(),
        ks.as_slice(),
        bs.as_ref().map(Values::as_slice),
        relu,
    );
    let shape = [rows, layer.units];
    let saved = |y: &Values| Saved {
        layer,
        x: xs,
        kernel: ks,
        y: relu.then(|| y.clone()),
    };
    Ok(match bias {
        Some(bias) => graph::finish([x, kernel, bias], y, shape, |y| Arc::new(saved(y))),
        None => graph::finish([x, kernel], y, shape, |y| Arc::new(saved(y))),
    })
}

type Weights = (Input, Option<Input>);

/// Takes a kernel and perhaps a bias if both are the processor's.
pub(super) fn weights(kernel: &Tensor<1>, bias: Option<&Tensor<1>>) -> Option<Weights> {
    let kernel = Input::take(kernel.clone()).ok()?;
    let bias = match bias {
        Some(bias) => Some(Input::take(bias.clone()).ok()?),
        None => None,
    };
    Some((kernel, bias))
}

#[derive(Debug)]
struct Saved {
    layer: Dense,
    x: Values,
    kernel: Values,
    /// The result, if ReLU was applied.
    y: Option<Values>,
}

impl Saved {
    fn both(&self, dy: &[f32], [x, kernel]: [bool; 2]) -> [Option<Gradient>; 2] {
        let Dense {
            rows,
            inputs,
            units,
        } = self.layer;
        let dx = x.then(|| self.layer.input_gradient(dy, self.kernel.as_slice()));
        let dw = kernel.then(|| self.layer.kernel_gradient(self.x.as_slice(), dy));
        [
            dx.map(|values| (values, vec![rows, inputs])),
            dw.map(|values| (values, vec![inputs * units])),
        ]
    }
}

/// Sets gradients to 0 where ReLU made the result 0.
pub(super) fn through_relu(dy: Values, y: Option<&Values>) -> Values {
    let Some(y) = y else {
        return dy;
    };
    let mut dy = dy.into_mut();
    relu_gradient(dy.as_mut(), y.as_slice());
    dy.freeze()
}

impl Derivative<2> for Saved {
    fn gradients(&self, dy: Values, wanted: [bool; 2]) -> [Option<Gradient>; 2] {
        let dy = through_relu(dy, self.y.as_ref());
        self.both(dy.as_slice(), wanted)
    }
}

impl Derivative<3> for Saved {
    fn gradients(&self, dy: Values, [x, kernel, bias]: [bool; 3]) -> [Option<Gradient>; 3] {
        let dy = through_relu(dy, self.y.as_ref());
        let [dx, dw] = self.both(dy.as_slice(), [x, kernel]);
        let units = self.layer.units;
        let db = bias.then(|| (column_sums(dy.as_slice(), units), vec![units]));
        [dx, dw, db]
    }
}
