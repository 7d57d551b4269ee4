//! Shapes of convolutions, pools and other layers over steps or planes.

use super::{LayerError, Shape, need_rank};
use crate::spec::layers::{Layer, Padding, Pair, StepPadding};

/// Shape of the output of a layer with windows; `None` if the layer is another one.
pub(super) fn infer(layer: &Layer, input: &[usize]) -> Result<Option<Shape>, LayerError> {
    let shape = match layer {
        Layer::Conv1D(l) => {
            need_rank(layer, 2, input)?;
            check_groups(l.groups, input[1], l.filters)?;
            let window = [l.kernel_size, l.strides, l.dilation_rate];
            let steps = fit(layer, "kernel_size", input[0], window, l.padding)?;
            vec![steps, l.filters]
        }
        Layer::Conv2D(l) => {
            let window = [l.kernel_size, l.strides, l.dilation_rate].map(Pair::get);
            let [h, w] = planes(layer, "kernel_size", input, window, l.padding)?;
            check_groups(l.groups, input[2], l.filters)?;
            vec![h, w, l.filters]
        }
        Layer::DepthwiseConv2D(l) => {
            let window = [l.kernel_size, l.strides, l.dilation_rate].map(Pair::get);
            let [h, w] = planes(layer, "kernel_size", input, window, l.padding)?;
            vec![h, w, input[2].saturating_mul(l.depth_multiplier)]
        }
        Layer::SeparableConv2D(l) => {
            let window = [l.kernel_size, l.strides, l.dilation_rate].map(Pair::get);
            let [h, w] = planes(layer, "kernel_size", input, window, l.padding)?;
            super::check_size(layer, &[h, w, input[2].saturating_mul(l.depth_multiplier)])?;
            vec![h, w, l.filters]
        }
        Layer::Conv2DTranspose(l) => {
            need_rank(layer, 3, input)?;
            let window = [l.kernel_size, l.strides, l.dilation_rate].map(Pair::get);
            let [h, w] = [0, 1].map(|i| grown(input[i], window.map(|p| p[i]), l.padding));
            vec![h, w, l.filters]
        }
        Layer::MaxPooling1D(l) | Layer::AveragePooling1D(l) => {
            need_rank(layer, 2, input)?;
            let window = [l.pool_size, l.strides.unwrap_or(l.pool_size), 1];
            let steps = fit(layer, "pool_size", input[0], window, l.padding)?;
            vec![steps, input[1]]
        }
        Layer::MaxPooling2D(l) | Layer::AveragePooling2D(l) => {
            let size = l.pool_size.get();
            let window = [size, l.strides.map_or(size, Pair::get), [1, 1]];
            let [h, w] = planes(layer, "pool_size", input, window, l.padding)?;
            vec![h, w, input[2]]
        }
        Layer::ZeroPadding2D(l) => {
            need_rank(layer, 3, input)?;
            let [[top, bottom], [left, right]] = l.padding.get();
            vec![input[0] + top + bottom, input[1] + left + right, input[2]]
        }
        Layer::UpSampling2D(l) => {
            need_rank(layer, 3, input)?;
            let [h, w] = l.size.get();
            vec![
                input[0].saturating_mul(h),
                input[1].saturating_mul(w),
                input[2],
            ]
        }
        _ => return Ok(None),
    };
    Ok(Some(shape))
}

fn check_groups(groups: usize, inputs: usize, filters: usize) -> Result<(), LayerError> {
    if inputs.is_multiple_of(groups) && filters.is_multiple_of(groups) {
        return Ok(());
    }
    let detail = format!(
        "{groups} does not divide both the {inputs} channels of the input and the {filters} filters"
    );
    Err(LayerError::range("groups", detail))
}

/// Number of window positions along one axis, `None` if the window does not fit.
#[must_use]
pub fn positions(
    input: usize,
    window: usize,
    stride: usize,
    dilation: usize,
    padding: impl Into<StepPadding>,
) -> Option<usize> {
    let extent = (window - 1).checked_mul(dilation)?.checked_add(1)?;
    match padding.into() {
        StepPadding::Same | StepPadding::Causal => Some(input.div_ceil(stride)),
        StepPadding::Valid => input.checked_sub(extent).map(|room| room / stride + 1),
    }
}

/// Positions along one axis after a transposed convolution.
fn grown(input: usize, [size, stride, dilation]: [usize; 3], padding: Padding) -> usize {
    let extent = (size - 1).saturating_mul(dilation).saturating_add(1);
    let least = input.saturating_mul(stride);
    match padding {
        Padding::Same => least,
        Padding::Valid => least.saturating_add(extent.saturating_sub(stride)),
    }
}

fn fit(
    layer: &Layer,
    field: &'static str,
    input: usize,
    window: [usize; 3],
    padding: impl Into<StepPadding>,
) -> Result<usize, LayerError> {
    let [size, stride, dilation] = window;
    positions(input, size, stride, dilation, padding).ok_or_else(|| LayerError {
        field,
        code: "shape_mismatch",
        detail: format!(
            "a window of {size} does not fit into {input} positions of {}'s input; use a smaller one or padding \"same\"",
            layer.type_name()
        ),
    })
}

/// Positions along both axes of windows of a size, stride and dilation.
fn planes(
    layer: &Layer,
    field: &'static str,
    input: &[usize],
    [size, stride, dilation]: [[usize; 2]; 3],
    padding: Padding,
) -> Result<[usize; 2], LayerError> {
    need_rank(layer, 3, input)?;
    let axis = |i: usize| {
        let window = [size[i], stride[i], dilation[i]];
        fit(layer, field, input[i], window, padding)
    };
    Ok([axis(0)?, axis(1)?])
}
