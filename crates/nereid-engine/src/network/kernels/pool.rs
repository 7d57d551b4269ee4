//! Pools of channels-last images, and zeros around them.

use std::sync::Arc;

use burn::tensor::Tensor;
use nereid_kernels::Windows;

use super::graph::{self, Derivative, Gradient, Input, Values};

/// Takes the maximum of each window; gives the images back if they are not the processor's.
pub(in crate::network) fn maximum(
    images: Tensor<2>,
    windows: Windows,
) -> Result<Tensor<2>, Tensor<2>> {
    let images = Input::take(images)?;
    let x = images.values();
    let y = nereid_kernels::maximum(&windows, x.as_slice());
    Ok(graph::finish([images], y, shape(&windows), |y| {
        let y = y.clone();
        Arc::new(Maximum { windows, x, y })
    }))
}

/// Takes the mean of each window; gives the images back if they are not the processor's.
pub(in crate::network) fn mean(
    images: Tensor<2>,
    windows: Windows,
) -> Result<Tensor<2>, Tensor<2>> {
    let images = Input::take(images)?;
    let y = nereid_kernels::average(&windows, images.values().as_slice());
    Ok(graph::finish([images], y, shape(&windows), |_| {
        Arc::new(Mean { windows })
    }))
}

/// Puts the windows' padding around images; gives them back if they are not the processor's.
pub(in crate::network) fn zero_pad(
    images: Tensor<2>,
    windows: Windows,
) -> Result<Tensor<2>, Tensor<2>> {
    let images = Input::take(images)?;
    let y = windows.with_padding(images.values().as_slice());
    let shape = [windows.batch, y.len() / windows.batch.max(1)];
    Ok(graph::finish([images], y, shape, |_| {
        Arc::new(Margins { windows })
    }))
}

fn shape(windows: &Windows) -> [usize; 2] {
    let [height, width] = windows.output();
    [windows.batch, height * width * windows.channels]
}

fn images(windows: &Windows, values: Vec<f32>) -> Gradient {
    let [height, width] = windows.input;
    (
        values,
        vec![windows.batch, height * width * windows.channels],
    )
}

#[derive(Debug)]
struct Maximum {
    windows: Windows,
    x: Values,
    y: Values,
}

impl Derivative<1> for Maximum {
    fn gradients(&self, dy: Values, _wanted: [bool; 1]) -> [Option<Gradient>; 1] {
        let (x, y) = (self.x.as_slice(), self.y.as_slice());
        let dx = nereid_kernels::maximum_gradient(&self.windows, x, y, dy.as_slice());
        [Some(images(&self.windows, dx))]
    }
}

#[derive(Debug)]
struct Mean {
    windows: Windows,
}

impl Derivative<1> for Mean {
    fn gradients(&self, dy: Values, _wanted: [bool; 1]) -> [Option<Gradient>; 1] {
        let dx = nereid_kernels::average_gradient(&self.windows, dy.as_slice());
        [Some(images(&self.windows, dx))]
    }
}

#[derive(Debug)]
struct Margins {
    windows: Windows,
}

impl Derivative<1> for Margins {
    fn gradients(&self, dy: Values, _wanted: [bool; 1]) -> [Option<Gradient>; 1] {
        let dx = self.windows.without_padding(dy.as_slice());
        [Some(images(&self.windows, dx))]
    }
}
