//! Shape inference: what each layer makes of its input, and which inputs it refuses.
//!
//! Shapes are channels-last, without the batch dimension. Formulas are those of Keras 3.

mod check;
mod merge;
mod windows;

use super::layers::{Layer, MultiHeadAttention, Recurrent};
use crate::limits;

pub use check::check_params;
pub use merge::axis;
pub use windows::positions;

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
    pub(crate) fn shape(detail: String) -> Self {
        Self {
            field: "",
            code: "shape_mismatch",
            detail,
        }
    }

    pub(crate) fn range(field: &'static str, detail: String) -> Self {
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

/// Infers a layer's output shape from the shapes of its inputs.
///
/// # Errors
/// A [`LayerError`] that says what input the layer needs.
pub fn infer(layer: &Layer, inputs: &[Shape]) -> Result<Shape, LayerError> {
    check_count(layer, inputs.len())?;
    let input = inputs.first().map_or(&[][..], Vec::as_slice);
    let output = match layer {
        Layer::Add(_)
        | Layer::Subtract(_)
        | Layer::Multiply(_)
        | Layer::Average(_)
        | Layer::Maximum(_)
        | Layer::Minimum(_) => merge::broadcast(layer, inputs)?,
        Layer::Concatenate(l) => merge::concatenate(l, inputs)?,
        Layer::MultiHeadAttention(l) => attention(layer, l, inputs)?,
        Layer::SimpleRNN(_) | Layer::LSTM(_) | Layer::GRU(_) | Layer::Bidirectional(_) => {
            recurrent(layer, input)?
        }
        _ => single(layer, input)?,
    };
    check_size(layer, &output)?;
    Ok(output)
}

/// Shape of a layer of one input.
fn single(layer: &Layer, input: &[usize]) -> Result<Shape, LayerError> {
    let last = input.last().copied().unwrap_or(1);
    Ok(match layer {
        Layer::Dense(l) => {
            let mut output = input.to_vec();
            *output.last_mut().ok_or_else(|| wants(layer, 1, input))? = l.units;
            output
        }
        Layer::GlobalAveragePooling1D(_) | Layer::GlobalMaxPooling1D(_) => {
            need_rank(layer, 2, input)?;
            vec![last]
        }
        Layer::GlobalAveragePooling2D(_) | Layer::GlobalMaxPooling2D(_) => {
            need_rank(layer, 3, input)?;
            vec![last]
        }
        Layer::Flatten(_) => vec![size(input).try_into().unwrap_or(usize::MAX)],
        Layer::Reshape(l) => reshape(&l.target_shape, input)?,
        Layer::RepeatVector(l) => {
            need_rank(layer, 1, input)?;
            vec![l.n, last]
        }
        Layer::SpatialDropout1D(_) => {
            need_rank(layer, 2, input)?;
            input.to_vec()
        }
        Layer::SpatialDropout2D(_) => {
            need_rank(layer, 3, input)?;
            input.to_vec()
        }
        Layer::Embedding(l) => [input, &[l.output_dim]].concat(),
        Layer::PositionEmbedding(l) => {
            need_rank(layer, 2, input)?;
            if input[0] > l.sequence_length {
                let detail = format!(
                    "{} is less than the {} steps of its input",
                    l.sequence_length, input[0]
                );
                return Err(LayerError::range("sequence_length", detail));
            }
            input.to_vec()
        }
        Layer::GroupNormalization(l) => {
            if last % l.groups != 0 {
                let detail = format!("{} does not divide the {last} channels", l.groups);
                return Err(LayerError::range("groups", detail));
            }
            input.to_vec()
        }
        Layer::PReLU(l) => {
            if let Some(axis) = l
                .shared_axes
                .iter()
                .find(|a| !(1..=input.len()).contains(a))
            {
                let detail = format!("{axis} is not between 1 and {}", input.len());
                return Err(LayerError::range("shared_axes", detail));
            }
            input.to_vec()
        }
        _ => windows::infer(layer, input)?.unwrap_or_else(|| input.to_vec()),
    })
}

/// Checks how many inputs a layer takes.
fn check_count(layer: &Layer, n: usize) -> Result<(), LayerError> {
    let (least, most) = match layer {
        Layer::Subtract(_) => (2, 2),
        Layer::Add(_)
        | Layer::Multiply(_)
        | Layer::Average(_)
        | Layer::Maximum(_)
        | Layer::Minimum(_)
        | Layer::Concatenate(_) => (2, limits::MAX_LAYER_INPUTS),
        Layer::MultiHeadAttention(_) => (1, 3),
        _ => (1, 1),
    };
    if (least..=most).contains(&n) {
        return Ok(());
    }
    let kind = layer.type_name();
    let wanted = match (least, most) {
        (1, 1) => "one input".to_owned(),
        (2, 2) => "two inputs".to_owned(),
        _ => format!("{least} to {most} inputs"),
    };
    Err(LayerError {
        field: "inputs",
        code: "out_of_range",
        detail: format!("{kind} takes {wanted}, not {n}; name them in \"inputs\""),
    })
}

fn recurrent(layer: &Layer, input: &[usize]) -> Result<Shape, LayerError> {
    need_rank(layer, 2, input)?;
    let (gates, units, sequences, factor) = match layer {
        Layer::SimpleRNN(l) => (1, l.units, l.return_sequences, 1),
        Layer::LSTM(l) => (4, l.units, l.return_sequences, 1),
        Layer::GRU(l) => (3, l.units, l.return_sequences, 1),
        Layer::Bidirectional(l) => {
            let factor = if l.merge_mode == super::layers::MergeMode::Concat {
                2
            } else {
                1
            };
            match &l.layer {
                Recurrent::SimpleRNN(l) => (1, l.units, l.return_sequences, factor),
                Recurrent::LSTM(l) => (4, l.units, l.return_sequences, factor),
                Recurrent::GRU(l) => (3, l.units, l.return_sequences, factor),
            }
        }
        _ => return Ok(input.to_vec()),
    };
    let max = limits::MAX_STEPS;
    if input[0] > max {
        let detail = format!(
            "{} takes at most {max} steps, not {}",
            layer.type_name(),
            input[0]
        );
        return Err(LayerError::shape(detail));
    }
    check_size(layer, &[input[0], gates * units])?;
    let width = units * factor;
    Ok(if sequences {
        vec![input[0], width]
    } else {
        vec![width]
    })
}

fn attention(layer: &Layer, l: &MultiHeadAttention, inputs: &[Shape]) -> Result<Shape, LayerError> {
    for input in inputs {
        need_rank(layer, 2, input)?;
    }
    let query = &inputs[0];
    let value = inputs.get(1).unwrap_or(query);
    let key = inputs.get(2).unwrap_or(value);
    if key[0] != value[0] {
        let (key, value) = (show(key), show(value));
        return Err(LayerError::shape(format!(
            "MultiHeadAttention needs as many keys as values, got {key} and {value}"
        )));
    }
    // The scores, and the longest of the projections.
    check_size(layer, &[l.num_heads, query[0], key[0]])?;
    let widest = l.key_dim.max(l.value_dim.unwrap_or(0));
    check_size(layer, &[query[0].max(key[0]), l.num_heads, widest])?;
    Ok(query.clone())
}

fn check_size(layer: &Layer, output: &[usize]) -> Result<(), LayerError> {
    let (kind, out) = (layer.type_name(), show(output));
    if output.len() > limits::MAX_RANK {
        let max = limits::MAX_RANK;
        return Err(LayerError::shape(format!(
            "{kind} yields {out}, more than {max} dimensions"
        )));
    }
    let values = size(output);
    if values == 0 || values > limits::MAX_ACTIVATION {
        let max = limits::MAX_ACTIVATION;
        return Err(LayerError::shape(format!(
            "{kind} yields {values} values a sample, not between 1 and {max}"
        )));
    }
    Ok(())
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
