//! Normalisation: of columns with the statistics of the batch, and of rows.

use std::sync::Arc;

use burn::tensor::Tensor;
use nereid_kernels::{LayerNormalised, NormGradients, Normalised};

use super::{
    super::flat,
    graph::{self, Derivative, Gradient, Input, Values},
};

/// Rows normalised, and mean and variance of each column.
type Batch = (Tensor<2>, [Tensor<1>; 2]);

/// Normalises each column, then scales and shifts it; gives the rows back if they are not the
/// processor's.
pub(in crate::network) fn batch_norm(
    x: Tensor<2>,
    gamma: &Tensor<1>,
    beta: &Tensor<1>,
    epsilon: f64,
) -> Result<Batch, Tensor<2>> {
    let (shape, device) = (x.dims(), x.device().without_autodiff());
    let x = Input::take(x)?;
    let (Ok(gamma), Ok(beta)) = (Input::take(gamma.clone()), Input::take(beta.clone())) else {
        return Err(x.into_tensor());
    };
    let epsilon = narrow(epsilon);
    let (xs, gs) = (x.values(), gamma.values());
    let Normalised { y, mean, variance } = nereid_kernels::batch_norm(
        xs.as_slice(),
        gs.as_slice(),
        beta.values().as_slice(),
        epsilon,
    );
    let statistics = [&mean, &variance].map(|values| flat(values.clone(), &device));
    let y = graph::finish([x, gamma, beta], y, shape, |_| {
        Arc::new(Saved {
            shape,
            x: xs,
            gamma: gs,
            mean,
            variance,
            epsilon,
        })
    });
    Ok((y, statistics))
}

#[derive(Debug)]
struct Saved {
    shape: [usize; 2],
    x: Values,
    gamma: Values,
    mean: Vec<f32>,
    variance: Vec<f32>,
    epsilon: f32,
}

impl Derivative<3> for Saved {
    fn gradients(&self, dy: Values, _wanted: [bool; 3]) -> [Option<Gradient>; 3] {
        let statistics = (self.mean.as_slice(), self.variance.as_slice());
        let NormGradients { x, gamma, beta } = nereid_kernels::batch_norm_gradients(
            self.x.as_slice(),
            dy.as_slice(),
            self.gamma.as_slice(),
            statistics,
            self.epsilon,
        );
        let channels = vec![self.shape[1]];
        [
            Some((x, self.shape.to_vec())),
            Some((gamma, channels.clone())),
            Some((beta, channels)),
        ]
    }
}

/// Normalises each row, then scales and shifts it; gives the rows back if they are not the
/// processor's.
pub(in crate::network) fn layer_norm(
    x: Tensor<2>,
    gamma: &Tensor<1>,
    beta: &Tensor<1>,
    epsilon: f64,
) -> Result<Tensor<2>, Tensor<2>> {
    let shape = x.dims();
    let x = Input::take(x)?;
    let (Ok(gamma), Ok(beta)) = (Input::take(gamma.clone()), Input::take(beta.clone())) else {
        return Err(x.into_tensor());
    };
    let (xs, gs) = (x.values(), gamma.values());
    let LayerNormalised { y, statistics } = nereid_kernels::layer_norm(
        xs.as_slice(),
        gs.as_slice(),
        beta.values().as_slice(),
        narrow(epsilon),
    );
    Ok(graph::finish([x, gamma, beta], y, shape, |_| {
        Arc::new(SavedRows {
            shape,
            x: xs,
            gamma: gs,
            statistics,
        })
    }))
}

#[derive(Debug)]
struct SavedRows {
    shape: [usize; 2],
    x: Values,
    gamma: Values,
    statistics: Vec<[f32; 2]>,
}

impl Derivative<3> for SavedRows {
    fn gradients(&self, dy: Values, _wanted: [bool; 3]) -> [Option<Gradient>; 3] {
        let [x, gamma, beta] = nereid_kernels::layer_norm_gradients(
            self.x.as_slice(),
            dy.as_slice(),
            self.gamma.as_slice(),
            &self.statistics,
        );
        let width = vec![self.shape[1]];
        [
            Some((x, self.shape.to_vec())),
            Some((gamma, width.clone())),
            Some((beta, width)),
        ]
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "it is added to 32-bit floats"
)]
fn narrow(epsilon: f64) -> f32 {
    epsilon as f32
}
