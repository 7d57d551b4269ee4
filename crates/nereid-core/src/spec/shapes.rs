//! Shape inference: what each layer makes of its input, and which inputs it refuses.
//!
//! Shapes are channels-last, without the batch dimension. Formulas are those of Keras 3.

use super::layers::{Conv1D, Conv2D, Layer, Padding, Pooling1D, Pooling2D};
use crate::limits;

/// Shape of one sample, without the batch dimension.
pub type Shape = Vec<usize>;

/// What a layer yields and how many numbers it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerShape {
    /// Shape of its output.
    pub output: Shape,
    /// Numbers that training changes.
    pub trainable: u64,
    /// Numbers kept beside (moving averages).
    pub non_trainable: u64,
}

/// A mistake in one layer: which field, what kind, and the sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerError {
    /// Field of the layer, or empty for the layer as a whole.
    pub field: &'static str,
    /// Stable code.
    pub code: &'static str,
    /// What is wrong and what would be right.
    pub detail: String,
}

impl LayerError {
    fn shape(detail: String) -> Self {
        Self {
            field: "",
            code: "shape_mismatch",
            detail,
        }
    }

    fn range(field: &'static str, detail: String) -> Self {
        Self {
            field,
            code: "out_of_range",
            detail,
        }
    }
}

/// Formats a shape as Keras prints it: `(8, 8, 1)`.
#[must_use]
pub fn show(shape: &[usize]) -> String {
    let dims: Vec<_> = shape.iter().map(ToString::to_string).collect();
    format!("({})", dims.join(", "))
}

/// Number of values in a shape, `u64::MAX` on overflow.
#[must_use]
pub fn size(shape: &[usize]) -> u64 {
    shape.iter().fold(1_u64, |n, &d| n.saturating_mul(d as u64))
}

/// Checks a layer's own parameters, whatever its input.
///
/// # Errors
/// Every parameter outside its range.
pub fn check_params(layer: &Layer) -> Result<(), Vec<LayerError>> {
    let mut errors = Vec::new();
    let mut positive = |field: &'static str, values: &[usize]| {
        for &n in values {
            if n == 0 || n > limits::MAX_FEATURES {
                let max = limits::MAX_FEATURES;
                errors.push(LayerError::range(
                    field,
                    format!("{n} is not between 1 and {max}"),
                ));
            }
        }
    };
    match layer {
        Layer::Dense(l) => positive("units", &[l.units]),
        Layer::Conv1D(l) => {
            positive("filters", &[l.filters]);
            positive("kernel_size", &[l.kernel_size]);
            positive("strides", &[l.strides]);
            positive("dilation_rate", &[l.dilation_rate]);
            if l.strides > 1 && l.dilation_rate > 1 {
                errors.push(stride_and_dilation());
            }
        }
        Layer::Conv2D(l) => {
            positive("filters", &[l.filters]);
            positive("kernel_size", &l.kernel_size.get());
            positive("strides", &l.strides.get());
            positive("dilation_rate", &l.dilation_rate.get());
            if l.strides.get() != [1, 1] && l.dilation_rate.get() != [1, 1] {
                errors.push(stride_and_dilation());
            }
        }
        Layer::MaxPooling1D(l) | Layer::AveragePooling1D(l) => {
            positive("pool_size", &[l.pool_size]);
            positive("strides", &[l.strides.unwrap_or(1)]);
        }
        Layer::MaxPooling2D(l) | Layer::AveragePooling2D(l) => {
            positive("pool_size", &l.pool_size.get());
            positive(
                "strides",
                &l.strides.map_or([1, 1], super::layers::Pair::get),
            );
        }
        Layer::Embedding(l) => {
            positive("input_dim", &[l.input_dim]);
            positive("output_dim", &[l.output_dim]);
        }
        Layer::Dropout(l) if !(0.0..1.0).contains(&l.rate) => {
            let detail = format!("{} is not from 0 to below 1", l.rate);
            errors.push(LayerError::range("rate", detail));
        }
        Layer::BatchNormalization(l) => {
            if !(0.0..1.0).contains(&l.momentum) {
                let detail = format!("{} is not from 0 to below 1", l.momentum);
                errors.push(LayerError::range("momentum", detail));
            }
            check_epsilon(l.epsilon, &mut errors);
        }
        Layer::LayerNormalization(l) => check_epsilon(l.epsilon, &mut errors),
        _ => {}
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

fn stride_and_dilation() -> LayerError {
    let detail = "strides and dilation_rate cannot both be above 1".to_owned();
    LayerError {
        field: "dilation_rate",
        code: "conflict",
        detail,
    }
}

fn check_epsilon(epsilon: f64, errors: &mut Vec<LayerError>) {
    if !(epsilon > 0.0 && epsilon <= 1.0) {
        let detail = format!("{epsilon} is not above 0 and at most 1");
        errors.push(LayerError::range("epsilon", detail));
    }
}

/// Infers a layer's output shape and parameter counts from its input shape.
///
/// # Errors
/// A [`LayerError`] that says what input the layer needs.
pub fn infer(layer: &Layer, input: &[usize]) -> Result<LayerShape, LayerError> {
    let last = input.last().copied().unwrap_or(1);
    let plain = |output: Shape| LayerShape {
        output,
        trainable: 0,
        non_trainable: 0,
    };
    let shape = match layer {
        Layer::Dense(l) => {
            let mut output = input.to_vec();
            *output.last_mut().ok_or_else(|| wants(layer, 1, input))? = l.units;
            let trainable = weights(last, l.units, l.use_bias);
            LayerShape {
                output,
                trainable,
                non_trainable: 0,
            }
        }
        Layer::Conv1D(l) => conv1d(layer, l, input)?,
        Layer::Conv2D(l) => conv2d(layer, l, input)?,
        Layer::MaxPooling1D(l) | Layer::AveragePooling1D(l) => plain(pool1d(layer, l, input)?),
        Layer::MaxPooling2D(l) | Layer::AveragePooling2D(l) => plain(pool2d(layer, l, input)?),
        Layer::GlobalAveragePooling1D(_) => {
            need_rank(layer, 2, input)?;
            plain(vec![last])
        }
        Layer::GlobalAveragePooling2D(_) => {
            need_rank(layer, 3, input)?;
            plain(vec![last])
        }
        Layer::Flatten(_) => plain(vec![size(input).try_into().unwrap_or(usize::MAX)]),
        Layer::Reshape(l) => plain(reshape(&l.target_shape, input)?),
        Layer::Dropout(_) | Layer::Activation(_) => plain(input.to_vec()),
        Layer::BatchNormalization(_) => LayerShape {
            output: input.to_vec(),
            trainable: 2 * last as u64,
            non_trainable: 2 * last as u64,
        },
        Layer::LayerNormalization(_) => LayerShape {
            output: input.to_vec(),
            trainable: 2 * last as u64,
            non_trainable: 0,
        },
        Layer::Embedding(l) => {
            let mut output = input.to_vec();
            output.push(l.output_dim);
            LayerShape {
                output,
                trainable: weights(l.input_dim, l.output_dim, false),
                non_trainable: 0,
            }
        }
    };
    check_size(layer, &shape)?;
    Ok(shape)
}

fn check_size(layer: &Layer, shape: &LayerShape) -> Result<(), LayerError> {
    let (kind, out) = (layer.type_name(), show(&shape.output));
    if shape.output.len() > limits::MAX_RANK {
        let max = limits::MAX_RANK;
        return Err(LayerError::shape(format!(
            "{kind} yields {out}, more than {max} dimensions"
        )));
    }
    let values = size(&shape.output);
    if values > limits::MAX_ACTIVATION {
        let max = limits::MAX_ACTIVATION;
        return Err(LayerError::shape(format!(
            "{kind} yields {values} values a sample, above {max}"
        )));
    }
    Ok(())
}

fn weights(inputs: usize, outputs: usize, bias: bool) -> u64 {
    let kernel = (inputs as u64).saturating_mul(outputs as u64);
    kernel.saturating_add(if bias { outputs as u64 } else { 0 })
}

fn wants(layer: &Layer, rank: usize, input: &[usize]) -> LayerError {
    let (kind, got) = (layer.type_name(), show(input));
    let expected = match rank {
        2 => "(steps, channels)",
        3 => "(height, width, channels)",
        _ => "(features)",
    };
    LayerError::shape(format!(
        "{kind} needs an input of shape {expected}, got {got}; a Reshape or Flatten before it may be missing"
    ))
}

fn need_rank(layer: &Layer, rank: usize, input: &[usize]) -> Result<(), LayerError> {
    if input.len() == rank {
        Ok(())
    } else {
        Err(wants(layer, rank, input))
    }
}

/// Number of window positions along one axis, `None` if the window does not fit.
#[must_use]
pub fn positions(
    input: usize,
    window: usize,
    stride: usize,
    dilation: usize,
    padding: Padding,
) -> Option<usize> {
    let extent = (window - 1).checked_mul(dilation)?.checked_add(1)?;
    match padding {
        Padding::Same => Some(input.div_ceil(stride)),
        Padding::Valid => input.checked_sub(extent).map(|room| room / stride + 1),
    }
}

fn fit(
    layer: &Layer,
    field: &'static str,
    input: usize,
    window: [usize; 3],
    padding: Padding,
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

fn conv1d(layer: &Layer, l: &Conv1D, input: &[usize]) -> Result<LayerShape, LayerError> {
    need_rank(layer, 2, input)?;
    let window = [l.kernel_size, l.strides, l.dilation_rate];
    let steps = fit(layer, "kernel_size", input[0], window, l.padding)?;
    let fan_in = l.kernel_size.saturating_mul(input[1]);
    let trainable = weights(fan_in, l.filters, l.use_bias);
    Ok(LayerShape {
        output: vec![steps, l.filters],
        trainable,
        non_trainable: 0,
    })
}

fn conv2d(layer: &Layer, l: &Conv2D, input: &[usize]) -> Result<LayerShape, LayerError> {
    need_rank(layer, 3, input)?;
    let (k, s, d) = (l.kernel_size.get(), l.strides.get(), l.dilation_rate.get());
    let height = fit(
        layer,
        "kernel_size",
        input[0],
        [k[0], s[0], d[0]],
        l.padding,
    )?;
    let width = fit(
        layer,
        "kernel_size",
        input[1],
        [k[1], s[1], d[1]],
        l.padding,
    )?;
    let fan_in = k[0].saturating_mul(k[1]).saturating_mul(input[2]);
    let trainable = weights(fan_in, l.filters, l.use_bias);
    Ok(LayerShape {
        output: vec![height, width, l.filters],
        trainable,
        non_trainable: 0,
    })
}

fn pool1d(layer: &Layer, l: &Pooling1D, input: &[usize]) -> Result<Shape, LayerError> {
    need_rank(layer, 2, input)?;
    let window = [l.pool_size, l.strides.unwrap_or(l.pool_size), 1];
    Ok(vec![
        fit(layer, "pool_size", input[0], window, l.padding)?,
        input[1],
    ])
}

fn pool2d(layer: &Layer, l: &Pooling2D, input: &[usize]) -> Result<Shape, LayerError> {
    need_rank(layer, 3, input)?;
    let p = l.pool_size.get();
    let s = l.strides.map_or(p, super::layers::Pair::get);
    let height = fit(layer, "pool_size", input[0], [p[0], s[0], 1], l.padding)?;
    let width = fit(layer, "pool_size", input[1], [p[1], s[1], 1], l.padding)?;
    Ok(vec![height, width, input[2]])
}

fn reshape(target: &[i64], input: &[usize]) -> Result<Shape, LayerError> {
    let error = |detail| LayerError {
        field: "target_shape",
        code: "shape_mismatch",
        detail,
    };
    let total = size(input);
    let inferred = target.iter().filter(|&&d| d == -1).count();
    let dims: Option<Vec<u64>> = target
        .iter()
        .filter(|&&d| d != -1)
        .map(|&d| u64::try_from(d).ok().filter(|&d| d > 0))
        .collect();
    let Some(dims) = dims else {
        return Err(error(format!(
            "{target:?} has an entry that is neither positive nor -1"
        )));
    };
    if inferred > 1 || target.is_empty() || target.len() > limits::MAX_RANK {
        let max = limits::MAX_RANK;
        return Err(error(format!(
            "{target:?} needs 1 to {max} entries, at most one of them -1"
        )));
    }
    let known = dims.iter().fold(1_u64, |n, &d| n.saturating_mul(d));
    let fits = if inferred == 1 {
        total.is_multiple_of(known)
    } else {
        total == known
    };
    if !fits {
        let shape = show(input);
        return Err(error(format!(
            "{target:?} does not hold the {total} values of {shape}"
        )));
    }
    let missing = total / known;
    let dim =
        |&d: &i64| usize::try_from(d).unwrap_or(usize::try_from(missing).unwrap_or(usize::MAX));
    Ok(target.iter().map(dim).collect())
}
