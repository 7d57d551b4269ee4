//! From rows to a batch, and from a model's tensors to predictions.
//!
//! What answers a client's rows also answers those of a batch prediction: there is one way from
//! a row to its prediction.

mod input;
pub mod numbers;

use std::collections::HashMap;

pub use self::{
    input::{InputRow, RowReading},
    numbers::{Given, Numbers, Row},
};
use crate::{
    Violations,
    datasets::encoding::{Cell, TableEncoder},
    endpoints::Prediction,
    limits,
    models::Signature,
    spec::shapes,
    tensors::{Batch, Tensor, TensorValues},
    validation::escape,
};

/// Makes a batch of rows that fit the signature, whose columns of mixed kind `encoder` encodes.
///
/// # Errors
/// Every row that does not, with a pointer to the exact spot.
pub fn batch(
    rows: &[Row],
    signature: &Signature,
    encoder: Option<&TableEncoder>,
) -> Result<Batch, Violations> {
    let mut violations = Violations::default();
    let count = rows.len();
    violations.check(
        (1..=limits::MAX_PREDICT_ROWS).contains(&count),
        "/rows",
        "out_of_range",
        || {
            format!(
                "{count} rows are not between 1 and {}",
                limits::MAX_PREDICT_ROWS
            )
        },
    );
    if !violations.is_empty() {
        return Err(violations);
    }
    let shape = signature.sample_shape();
    let mut values = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let at = format!("/rows/{i}");
        match (row, encoder) {
            (Row::Columns(columns), Some(encoder)) => {
                push_cells(
                    columns,
                    signature,
                    encoder,
                    &at,
                    &mut values,
                    &mut violations,
                );
            }
            (Row::Values(_), Some(_)) => violations.push(
                at,
                "wrong_type",
                "this model takes columns of mixed kind; send an object by column name",
            ),
            (Row::Values(numbers), None) => {
                push_values(numbers, &shape, &at, &mut values, &mut violations);
            }
            (Row::Columns(columns), None) => {
                push_columns(columns, signature, &at, &mut values, &mut violations);
            }
        }
    }
    violations.into_result(Batch {
        rows: count,
        values,
    })
}

fn push_values(
    numbers: &Numbers,
    shape: &[usize],
    at: &str,
    values: &mut Vec<f32>,
    v: &mut Violations,
) {
    if let Some((pointer, code, detail)) = mistake(numbers) {
        v.push(format!("{at}{pointer}"), code, detail);
        return;
    }
    let size = numbers.values.len();
    let fits =
        numbers.shape == shape || (numbers.shape.len() == 1 && shapes::size(shape) == size as u64);
    if fits {
        values.extend_from_slice(&numbers.values);
    } else {
        let (got, want) = (shapes::show(&numbers.shape), shapes::show(shape));
        let total = shapes::size(shape);
        let detail =
            format!("expected an array of shape {want} or {total} flat numbers, got {got}");
        v.push(at, "shape_mismatch", detail);
    }
}

fn push_columns(
    columns: &[(String, Given)],
    signature: &Signature,
    at: &str,
    values: &mut Vec<f32>,
    v: &mut Violations,
) {
    let Some(names) = &signature.columns else {
        v.push(
            at,
            "wrong_type",
            "this model's features have no names; send an array",
        );
        return;
    };
    let mut given = by_name(columns);
    for name in names {
        let pointer = format!("{at}/{}", escape(name));
        match given.remove(name.as_str()) {
            None => v.push(pointer, "missing", format!("column {name:?} is required")),
            Some(Given::Number(value)) => {
                #[expect(clippy::cast_possible_truncation, reason = "infinity is refused")]
                let value = *value as f32;
                let detail = || "the number does not fit into FP32".to_owned();
                v.check(value.is_finite(), &pointer, "not_finite", detail);
                values.push(value);
            }
            Some(other) => {
                let detail = format!("expected a number, got {}", other.what());
                v.push(pointer, "not_a_number", detail);
            }
        }
    }
    refuse_unknown(&given, at, v);
}

fn by_name(columns: &[(String, Given)]) -> HashMap<&str, &Given> {
    columns.iter().map(|(name, g)| (name.as_str(), g)).collect()
}

fn refuse_unknown(given: &HashMap<&str, &Given>, at: &str, v: &mut Violations) {
    for name in given.keys() {
        let pointer = format!("{at}/{}", escape(name));
        v.push(
            pointer,
            "unknown_field",
            format!("{name:?} is no column of this model"),
        );
    }
}

/// Encodes a row of columns of mixed kind, as training did.
fn push_cells(
    columns: &[(String, Given)],
    signature: &Signature,
    encoder: &TableEncoder,
    at: &str,
    values: &mut Vec<f32>,
    v: &mut Violations,
) {
    let mut given = by_name(columns);
    for (i, column) in signature.preprocessing.columns.iter().enumerate() {
        let name = &column.name;
        let pointer = format!("{at}/{}", escape(name));
        let cell = match given.remove(name.as_str()) {
            // What training data lacked too may be left out.
            None if column.missing > 0 => Some(Cell::Missing),
            None => {
                let detail = format!("column {name:?} is required; null says that it is missing");
                v.push(pointer, "missing", detail);
                continue;
            }
            Some(given) => given.cell(),
        };
        match cell.map(|cell| encoder.encode(i, cell, values)) {
            Some(Ok(())) => {}
            Some(Err(fault)) => v.push(pointer, fault.code, fault.detail),
            None => v.push(pointer, "wrong_type", "a column takes no nested value"),
        }
    }
    refuse_unknown(&given, at, v);
}

fn mistake(numbers: &Numbers) -> Option<(&str, &'static str, &str)> {
    if let Some(fault) = &numbers.fault {
        return Some((&fault.pointer, fault.code, &fault.detail));
    }
    if let Some(pointer) = numbers.null.as_deref() {
        return Some((pointer, "not_a_number", "expected a number, got null"));
    }
    let pointer = numbers.boolean.as_deref()?;
    Some((pointer, "not_a_number", "expected a number, got a boolean"))
}

/// Makes one prediction per row of a model's outputs; `None` if they are not what its kind gives.
#[must_use]
pub fn predictions(
    rows: usize,
    outputs: &[Tensor],
    signature: &Signature,
) -> Option<Vec<Prediction>> {
    let find = |name: &str| outputs.iter().find(|t| t.name == name).map(|t| &t.values);
    let floats = |name: &str| match find(name) {
        Some(TensorValues::Fp32(values)) => Some(values.as_slice()),
        _ => None,
    };
    let width = |n: usize| {
        let width = n.checked_div(rows)?;
        (width > 0 && width * rows == n).then_some(width)
    };
    if let Some(values) = floats("prediction") {
        let of = |row: &[f32]| match row {
            [value] => Prediction {
                value: Some(*value),
                ..Prediction::default()
            },
            several => Prediction {
                values: Some(several.to_vec()),
                ..Prediction::default()
            },
        };
        return Some(values.chunks(width(values.len())?).map(of).collect());
    }
    if let Some(found) = floats("reconstruction") {
        let scores = floats("anomaly_score").filter(|s| s.len() == rows)?;
        let of = |(row, &score): (&[f32], &f32)| Prediction {
            reconstruction: Some(row.to_vec()),
            anomaly_score: Some(score),
            ..Prediction::default()
        };
        let found = found.chunks(width(found.len())?);
        return Some(found.zip(scores).map(of).collect());
    }
    let probabilities = floats("probabilities")?;
    let classes = probabilities.chunks(width(probabilities.len())?);
    if let Some(TensorValues::Int64(on)) = find("labels") {
        let names = signature.classes.as_deref().unwrap_or_default();
        if on.len() != probabilities.len() || names.len() * rows != on.len() {
            return None;
        }
        let of = |(row, p): (&[i64], &[f32])| Prediction {
            labels: Some(applying(names, row)),
            probabilities: Some(p.to_vec()),
            ..Prediction::default()
        };
        return Some(on.chunks(names.len().max(1)).zip(classes).map(of).collect());
    }
    let labels = labels(find("class")?, signature)?;
    if labels.len() != rows {
        return None;
    }
    let of = |(label, p): (String, &[f32])| Prediction {
        label: Some(label),
        probabilities: Some(p.to_vec()),
        ..Prediction::default()
    };
    Some(labels.into_iter().zip(classes).map(of).collect())
}

/// Returns the names of the labels that apply.
fn applying(names: &[String], on: &[i64]) -> Vec<String> {
    let pairs = names.iter().zip(on).filter(|(_, on)| **on != 0);
    pairs.map(|(name, _)| name.clone()).collect()
}

/// Returns the class names; models answer their positions in the signature's list.
fn labels(classes: &TensorValues, signature: &Signature) -> Option<Vec<String>> {
    let names = signature.classes.as_deref().unwrap_or_default();
    match classes {
        TensorValues::Bytes(labels) => Some(labels.clone()),
        TensorValues::Int64(positions) => {
            let name = |&i: &i64| names.get(usize::try_from(i).ok()?).cloned();
            positions.iter().map(name).collect()
        }
        TensorValues::Fp32(_) => None,
    }
}
