//! Shapes of layers that join their inputs.

use super::{LayerError, Shape, show};
use crate::spec::layers::{Concatenate, Layer};

/// Shape of element-wise joins: inputs have the same shape but for axes of length 1, which are
/// repeated, as in Keras.
pub(super) fn broadcast(layer: &Layer, inputs: &[Shape]) -> Result<Shape, LayerError> {
    let mut output = inputs.first().cloned().unwrap_or_default();
    for input in inputs.iter().skip(1) {
        let fits = |(&a, &b): (&usize, &usize)| a == b || a == 1 || b == 1;
        if input.len() != output.len() || !input.iter().zip(&output).all(fits) {
            return Err(differ(layer, inputs));
        }
        for (o, &i) in output.iter_mut().zip(input) {
            *o = (*o).max(i);
        }
    }
    Ok(output)
}

/// Position of an axis, as Keras counts them, in a shape without batch.
#[must_use]
pub fn axis(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let at = if axis < 0 { rank + axis } else { axis - 1 };
    (0..rank).contains(&at).then(|| usize::try_from(at).ok())?
}

pub(super) fn concatenate(l: &Concatenate, inputs: &[Shape]) -> Result<Shape, LayerError> {
    let mut output = inputs.first().cloned().unwrap_or_default();
    let Some(axis) = axis(l.axis, output.len()) else {
        let rank = output.len();
        let detail = format!(
            "{} is no axis of {}; axes are 1 to {rank} (0 is the batch) or -{rank} to -1",
            l.axis,
            show(&output)
        );
        return Err(LayerError::range("axis", detail));
    };
    for input in inputs.iter().skip(1) {
        let same = |i: usize| i == axis || input.get(i) == output.get(i);
        if input.len() != output.len() || !(0..output.len()).all(same) {
            return Err(differ(&Layer::Concatenate(l.clone()), inputs));
        }
        output[axis] = output[axis].saturating_add(input[axis]);
    }
    Ok(output)
}

fn differ(layer: &Layer, inputs: &[Shape]) -> LayerError {
    let shapes: Vec<_> = inputs.iter().map(|s| show(s)).collect();
    LayerError {
        field: "inputs",
        code: "shape_mismatch",
        detail: format!(
            "{} cannot join shapes {}",
            layer.type_name(),
            shapes.join(" and ")
        ),
    }
}
