//! Windows of convolutions and pools: where they lie and how borders are padded.

use burn::tensor::{
    Device, Tensor, TensorData, module,
    ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions, PadMode},
};
use nereid_core::spec::{layers::StepPadding, shapes};
use nereid_kernels::Windows;

use super::{Act, half, kernels};

/// Windows over height and width.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Window {
    pub(crate) size: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
    pub(crate) padding: StepPadding,
}

impl Window {
    /// Padding before and after each axis: TensorFlow's, an odd surplus goes to the end.
    pub(crate) fn pads(&self, input: [usize; 2]) -> [(usize, usize); 2] {
        [0, 1].map(|axis| {
            let extent = (self.size[axis] - 1) * self.dilation[axis] + 1;
            match self.padding {
                StepPadding::Valid => return (0, 0),
                StepPadding::Causal => return (extent - 1, 0),
                StepPadding::Same => {}
            }
            let positions = input[axis].div_ceil(self.stride[axis]);
            let needed = (positions - 1) * self.stride[axis] + extent;
            let total = needed.saturating_sub(input[axis]);
            (total / 2, total - total / 2)
        })
    }

    /// Runs a convolution: with its ReLU, or as `Err` without any activation.
    pub(super) fn layer(
        &self,
        act: Act,
        kernel: &Tensor<1>,
        bias: Option<&Tensor<1>>,
        filters: usize,
        relu: bool,
    ) -> Result<Act, Act> {
        let (rank, windows) = (act.rank(), self.windows(&act));
        let planes = match channels_last(act) {
            Ok(x) => match kernels::convolve(x, windows, kernel, bias, relu) {
                Ok(y) => {
                    let act = images(y, &windows, filters, rank);
                    return if relu { Ok(act) } else { Err(act) };
                }
                Err(x) => planes(x, &windows, rank),
            },
            Err(act) => act.planes(),
        };
        let [h, w] = self.size;
        let kernel = kernel.clone().reshape([h, w, windows.channels, filters]);
        let kernel = kernel.permute([3, 2, 0, 1]);
        let y = self.convolve(planes, kernel, bias.cloned());
        Err(Act::from_planes(y, rank))
    }

    /// Runs a layer that takes the maximum of each window.
    pub(super) fn maximum_layer(&self, act: Act) -> Act {
        let (rank, windows) = (act.rank(), self.windows(&act));
        let planes = match channels_last(act) {
            Ok(x) => match kernels::maximum(x, windows) {
                Ok(y) => return images(y, &windows, windows.channels, rank),
                Err(x) => planes(x, &windows, rank),
            },
            Err(act) => act.planes(),
        };
        Act::from_planes(self.maximum(planes), rank)
    }

    /// Runs a layer that takes the mean of each window.
    pub(super) fn mean_layer(&self, act: Act) -> Act {
        let (rank, windows) = (act.rank(), self.windows(&act));
        let planes = match channels_last(act) {
            Ok(x) => match kernels::mean(x, windows) {
                Ok(y) => return images(y, &windows, windows.channels, rank),
                Err(x) => planes(x, &windows, rank),
            },
            Err(act) => act.planes(),
        };
        Act::from_planes(self.mean(planes), rank)
    }

    /// These windows on a batch.
    fn windows(&self, act: &Act) -> Windows {
        let [height, width, channels] = act.plane_shape();
        Windows {
            batch: act.rows(),
            input: [height, width],
            channels,
            size: self.size,
            stride: self.stride,
            dilation: self.dilation,
            pads: self.pads([height, width]),
        }
    }

    /// Convolves planes.
    pub(crate) fn convolve(
        &self,
        input: Tensor<4>,
        kernel: Tensor<4>,
        bias: Option<Tensor<1>>,
    ) -> Tensor<4> {
        let [_, _, h, w] = input.dims();
        let pads = self.pads([h, w]);
        let (input, inner) = if pads.iter().all(|(before, after)| before == after) {
            (input, pads.map(|(before, _)| before))
        } else {
            (input.pad(pads, PadMode::Constant(0.0)), [0, 0])
        };
        let options = ConvOptions::new(self.stride, inner, self.dilation, 1);
        half::convolve(input, kernel, bias, options)
    }

    /// Takes the maximum of each window.
    pub(crate) fn maximum(&self, input: Tensor<4>) -> Tensor<4> {
        let [_, _, h, w] = input.dims();
        let input = pad(input, self.pads([h, w]), f32::NEG_INFINITY);
        let options = MaxPoolOptions::new(self.size).with_stride(self.stride);
        module::max_pool2d(input, options)
    }

    /// Takes the mean of each window; padding does not count.
    pub(crate) fn mean(&self, input: Tensor<4>) -> Tensor<4> {
        let ([_, _, h, w], device) = (input.dims(), input.device());
        let pads = self.pads([h, w]);
        let padded = pad(input, pads, 0.0);
        let options = AvgPoolOptions::new(self.size).with_stride(self.stride);
        let mean = module::avg_pool2d(padded, options);
        if pads == [(0, 0); 2] {
            return mean;
        }
        mean * self.correction([h, w], pads, &device.without_autodiff())
    }

    /// Window size by number of positions inside the input, for each window.
    #[expect(clippy::cast_precision_loss, reason = "windows are small")]
    fn correction(
        &self,
        input: [usize; 2],
        pads: [(usize, usize); 2],
        device: &Device,
    ) -> Tensor<4> {
        let inside = |axis: usize| -> Vec<usize> {
            let (before, end) = (pads[axis].0, pads[axis].0 + input[axis]);
            let n = shapes::positions(
                input[axis],
                self.size[axis],
                self.stride[axis],
                1,
                self.padding,
            );
            (0..n.unwrap_or(0))
                .map(|i| i * self.stride[axis])
                .map(|at| {
                    (at + self.size[axis])
                        .min(end)
                        .saturating_sub(at.max(before))
                })
                .collect()
        };
        let (rows, columns) = (inside(0), inside(1));
        let whole = (self.size[0] * self.size[1]) as f32;
        let mut factors = Vec::with_capacity(rows.len() * columns.len());
        for r in &rows {
            factors.extend(columns.iter().map(|c| whole / (r * c).max(1) as f32));
        }
        let shape = [1, 1, rows.len(), columns.len()];
        Tensor::from_data(TensorData::new(factors, shape), device)
    }
}

/// Wraps images with `channels`; they have a height only if `rank` is 3.
fn images(y: Tensor<2>, windows: &Windows, channels: usize, rank: usize) -> Act {
    Act::new(y, shape(windows.output(), channels, rank))
}

/// Takes rows of channels-last images out of a batch, unless another device holds it in planes:
/// there batches stay in planes from window to window.
fn channels_last(act: Act) -> Result<Tensor<2>, Act> {
    if act.is_planar() && !act.is_in_memory() {
        Err(act)
    } else {
        Ok(act.flat())
    }
}

/// Turns rows of channels-last images into planes.
fn planes(x: Tensor<2>, windows: &Windows, rank: usize) -> Tensor<4> {
    Act::new(x, shape(windows.input, windows.channels, rank)).planes()
}

fn shape([height, width]: [usize; 2], channels: usize, rank: usize) -> Vec<usize> {
    if rank == 3 {
        vec![height, width, channels]
    } else {
        vec![width, channels]
    }
}

fn pad(input: Tensor<4>, pads: [(usize, usize); 2], value: f32) -> Tensor<4> {
    if pads == [(0, 0); 2] {
        input
    } else {
        input.pad(pads, PadMode::Constant(value))
    }
}
