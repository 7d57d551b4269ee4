//! Convolutions of channels-last images: product, bias and ReLU at once.

use std::sync::Arc;

use burn::tensor::Tensor;
use nereid_kernels::{Conv, Windows, column_sums};

use super::{
    dense::{through_relu, weights},
    graph::{self, Derivative, Gradient, Input, Values},
};

/// Convolves images, adds the bias and applies ReLU if asked to.
///
/// Takes rows of one image each and a kernel of (height, width, in, out); gives the images back
/// if they are not the processor's.
pub(in crate::network) fn convolve(
    images: Tensor<2>,
    windows: Windows,
    kernel: &Tensor<1>,
    bias: Option<&Tensor<1>>,
    relu: bool,
) -> Result<Tensor<2>, Tensor<2>> {
    let images = Input::take(images)?;
    let Some((kernel, bias)) = weights(kernel, bias) else {
        return Err(images.into_tensor());
    };
    let (x, k) = (images.values(), kernel.values());
    let place = windows.size[0] * windows.size[1] * windows.channels;
    let filters = k.as_slice().len() / place.max(1);
    let b = bias.as_ref().map(Input::values);
    let conv = Conv::new(windows, filters);
    let [height, width] = windows.output();
    let (y, padded) = {
        let padded = conv.pad(x.as_slice());
        let b = b.as_ref().map(Values::as_slice);
        let y = conv.forward(&padded, k.as_slice(), b, relu);
        let padded = match padded {
            std::borrow::Cow::Owned(padded) => Some(padded),
            std::borrow::Cow::Borrowed(_) => None,
        };
        (y, padded)
    };
    let shape = [windows.batch, height * width * filters];
    let saved = |y: &Values| Saved {
        conv,
        windows,
        filters,
        x: padded.map_or(Images::Plain(x), Images::Padded),
        kernel: k,
        y: relu.then(|| y.clone()),
    };
    Ok(match bias {
        Some(bias) => graph::finish([images, kernel, bias], y, shape, |y| Arc::new(saved(y))),
        None => graph::finish([images, kernel], y, shape, |y| Arc::new(saved(y))),
    })
}

/// Images as they were convolved.
#[derive(Debug)]
enum Images {
    Plain(Values),
    Padded(Vec<f32>),
}

#[derive(Debug)]
struct Saved {
    conv: Conv,
    windows: Windows,
    filters: usize,
    x: Images,
    kernel: Values,
    /// The result, if ReLU was applied.
    y: Option<Values>,
}

impl Saved {
    fn both(&self, dy: &[f32], [x, kernel]: [bool; 2]) -> [Option<Gradient>; 2] {
        let images = match &self.x {
            Images::Plain(values) => values.as_slice(),
            Images::Padded(values) => values,
        };
        let Windows {
            batch,
            input: [height, width],
            channels,
            size,
            ..
        } = self.windows;
        let weights = size[0] * size[1] * channels * self.filters;
        let dx = x.then(|| self.conv.input_gradient(dy, self.kernel.as_slice()));
        let dw = kernel.then(|| self.conv.kernel_gradient(images, dy));
        [
            dx.map(|values| (values, vec![batch, height * width * channels])),
            dw.map(|values| (values, vec![weights])),
        ]
    }
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
        let filters = self.filters;
        let db = bias.then(|| (column_sums(dy.as_slice(), filters), vec![filters]));
        [dx, dw, db]
    }
}
