//! Convolutions of groups of channels, of each channel by itself, and transposed.

use burn::tensor::{
    Tensor,
    ops::{ConvOptions, ConvTransposeOptions, PadMode},
};
use nereid_core::spec::layers::StepPadding;

use super::{half, window::Window};

/// Convolves planes, each group of channels by itself.
///
/// The kernel has shape (out, in / groups, height, width).
pub(super) fn grouped(
    window: &Window,
    input: Tensor<4>,
    kernel: Tensor<4>,
    bias: Option<Tensor<1>>,
    groups: usize,
) -> Tensor<4> {
    if groups == 1 {
        return window.convolve(input, kernel, bias);
    }
    let [_, _, h, w] = input.dims();
    let pads = window.pads([h, w]);
    let (input, inner) = if pads.iter().all(|(before, after)| before == after) {
        (input, pads.map(|(before, _)| before))
    } else {
        (input.pad(pads, PadMode::Constant(0.0)), [0, 0])
    };
    let options = ConvOptions::new(window.stride, inner, window.dilation, groups);
    half::convolve(input, kernel, bias, options)
}

/// Windows of one position.
pub(crate) const POINT: Window = Window {
    size: [1, 1],
    stride: [1, 1],
    dilation: [1, 1],
    padding: StepPadding::Valid,
};

/// Convolves planes the other way round, as TensorFlow's `conv2d_transpose` does.
///
/// The kernel has shape (in, out, height, width).
pub(super) fn transposed(
    window: &Window,
    input: Tensor<4>,
    kernel: Tensor<4>,
    bias: Option<Tensor<1>>,
) -> Tensor<4> {
    let [_, _, h, w] = input.dims();
    let options = ConvTransposeOptions::new(window.stride, [0, 0], [0, 0], window.dilation, 1);
    let whole = half::convolve_transposed(input, kernel, options);
    let [n, c, whole_h, whole_w] = whole.dims();
    let [(top, rows), (left, columns)] =
        [(h, 0), (w, 1)].map(|(size, axis)| kept(window, size, axis));
    // What reaches over the border is cut off; where windows leave gaps, zeros fill the end.
    let (below, right) = (
        (top + rows).saturating_sub(whole_h),
        (left + columns).saturating_sub(whole_w),
    );
    let whole = if (below, right) == (0, 0) {
        whole
    } else {
        whole.pad([(0, below), (0, right)], PadMode::Constant(0.0))
    };
    let cut = if [whole_h + below, whole_w + right] == [rows, columns] {
        whole
    } else {
        whole.slice([0..n, 0..c, top..top + rows, left..left + columns])
    };
    match bias {
        Some(bias) => cut + bias.reshape([1, c, 1, 1]),
        None => cut,
    }
}

/// First position and number of positions that stay of a transposed convolution.
pub(crate) fn kept(window: &Window, input: usize, axis: usize) -> (usize, usize) {
    let stride = window.stride[axis];
    let extent = (window.size[axis] - 1) * window.dilation[axis] + 1;
    let surplus = extent.saturating_sub(stride);
    match window.padding {
        StepPadding::Same => (surplus / 2, input * stride),
        // Only convolutions over steps are causal.
        StepPadding::Valid | StepPadding::Causal => (0, input * stride + surplus),
    }
}
