//! From a client's rows to a batch, and from a model's tensors to predictions.

pub(crate) mod csv;
pub(crate) mod images;
pub(crate) mod multipart;
pub(crate) mod options;

use std::collections::HashMap;

use nereid_core::{
    Violations,
    datasets::encoding::{Cell, TableEncoder},
    endpoints::{ClassScore, Prediction},
    limits,
    models::Signature,
    spec::shapes,
    tensors::{Batch, Tensor, TensorValues},
    validation::escape,
};

use crate::{
    numbers::{Given, Numbers, Row},
    oip::outputs::largest,
};

/// Makes a batch of rows that fit the signature, whose columns of mixed kind `encoder` encodes.
///
/// # Errors
/// Every row that does not, with a pointer to the exact spot.
pub(crate) fn batch(
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
pub(crate) fn predictions(
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

/// Replaces the probabilities of all classes by the names of the likeliest ones.
pub(crate) fn keep_top(predictions: &mut [Prediction], count: usize, classes: &[String]) {
    for prediction in predictions {
        let Some(probabilities) = prediction.probabilities.take() else {
            continue;
        };
        let score = |i: usize| {
            let label = classes.get(i)?.clone();
            let probability = probabilities[i];
            Some(ClassScore { label, probability })
        };
        let top = largest(&probabilities, count);
        prediction.top = Some(top.into_iter().filter_map(score).collect());
    }
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

#[cfg(test)]
pub(crate) mod tests {
    use nereid_core::{
        models::Preprocessing,
        spec::Normalization,
        tensors::{DataType, TensorSpec},
    };

    use super::*;

    pub(crate) fn signature(shape: &[i64], columns: Option<&[&str]>) -> Signature {
        let tensor = |name: &str, shape: Vec<i64>| TensorSpec {
            name: name.to_owned(),
            datatype: DataType::Fp32,
            shape,
        };
        Signature {
            inputs: vec![tensor("input", [&[-1], shape].concat())],
            outputs: vec![tensor("prediction", vec![-1])],
            classes: None,
            columns: columns.map(|c| c.iter().map(|&s| s.to_owned()).collect()),
            preprocessing: Preprocessing {
                normalization: Normalization::None,
                offset: vec![0.0],
                scale: vec![1.0],
                impute: Vec::new(),
                columns: Vec::new(),
            },
        }
    }

    fn rows(json: &str) -> Vec<Row> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn takes_nested_flat_and_named_rows() {
        let image = signature(&[2, 2], None);
        let nested = batch(&rows("[[[1,2],[3,4]], [5,6,7,8]]"), &image, None).unwrap();
        assert_eq!((nested.rows, nested.values.len()), (2, 8));
        let table = signature(&[2], Some(&["a", "b"]));
        let named = batch(&rows(r#"[{"b": 2, "a": 1}, [3, 4]]"#), &table, None).unwrap();
        assert_eq!(named.values, [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn points_at_each_mistake() {
        let table = signature(&[3], Some(&["a", "b", "c"]));
        let pointers = |json| -> Vec<String> {
            let violations = batch(&rows(json), &table, None).unwrap_err();
            violations
                .into_vec()
                .into_iter()
                .map(|v| v.pointer)
                .collect()
        };
        assert_eq!(
            pointers(r#"[[1,2,3],[1,2],[1,"x",3]]"#),
            ["/rows/1", "/rows/2/1"]
        );
        assert_eq!(
            pointers(r#"[{"a":1,"b":true}]"#),
            ["/rows/0/b", "/rows/0/c"]
        );
        assert_eq!(
            pointers(r#"[{"a":1,"b":2,"c":[3],"d":4}]"#),
            ["/rows/0/c", "/rows/0/d"]
        );
        assert_eq!(pointers("[]"), ["/rows"]);
        assert_eq!(pointers("[[[1,2,3]]]"), ["/rows/0"]);
    }

    /// A model of a number that may be missing, a category and a flag.
    pub(crate) fn mixed() -> Signature {
        let mut signed = signature(&[1], Some(&["age", "town", "flag"]));
        let input = signed.inputs.remove(0);
        for name in ["age", "town", "flag"] {
            let name = name.to_owned();
            signed.inputs.push(TensorSpec {
                name,
                ..input.clone()
            });
        }
        signed.preprocessing.columns = serde_json::from_value(serde_json::json!([
            {"name": "age", "kind": "number", "indicator": true, "missing": 3},
            {"name": "town", "kind": "category", "encoding": "one_hot", "categories": ["x", "y"]},
            {"name": "flag", "kind": "boolean"},
        ]))
        .unwrap();
        signed.preprocessing.impute = vec![30.0, 0.0, 0.0, 0.0, 0.0];
        signed
    }

    #[test]
    fn columns_of_mixed_kind_are_encoded_as_in_training() {
        let signed = mixed();
        let encoder = TableEncoder::new(&signed.preprocessing.columns);
        let encode = |json| batch(&rows(json), &signed, Some(&encoder));
        let good = r#"[{"flag": true, "town": "y", "age": 4}, {"town": "new", "flag": "no"}]"#;
        let values = encode(good).unwrap().values;
        assert_eq!(values[..5], [4.0, 0.0, 0.0, 1.0, 1.0]);
        assert!(values[5].is_nan());
        assert_eq!(values[6..], [1.0, 0.0, 0.0, 0.0]);
        let bad = r#"[[1, 2, 3], {"age": "old", "town": ["x"], "job": 1}]"#;
        let pointers: Vec<_> = encode(bad)
            .unwrap_err()
            .into_vec()
            .into_iter()
            .map(|v| v.pointer)
            .collect();
        assert_eq!(
            pointers,
            [
                "/rows/0",
                "/rows/1/age",
                "/rows/1/town",
                "/rows/1/flag",
                "/rows/1/job"
            ]
        );
    }

    #[test]
    fn reads_both_kinds_of_outputs() {
        let plain = signature(&[2], None);
        let signed = Signature {
            classes: Some(vec!["x".to_owned(), "y".to_owned()]),
            ..plain.clone()
        };
        let tensor = |name: &str, shape: Vec<usize>, values| Tensor {
            name: name.to_owned(),
            shape,
            values,
        };
        let regression = [tensor(
            "prediction",
            vec![2],
            TensorValues::Fp32(vec![0.5, 1.5]),
        )];
        assert_eq!(
            predictions(2, &regression, &plain).unwrap()[1].value,
            Some(1.5)
        );
        assert!(predictions(3, &regression, &plain).is_none());
        let classes = TensorValues::Int64(vec![0, 1]);
        let classifier = [
            tensor(
                "probabilities",
                vec![2, 2],
                TensorValues::Fp32(vec![0.9, 0.1, 0.2, 0.8]),
            ),
            tensor("class", vec![2], classes),
        ];
        let found = predictions(2, &classifier, &signed).unwrap();
        assert_eq!(found[1].label.as_deref(), Some("y"));
        assert!(predictions(2, &classifier, &plain).is_none());
        assert_eq!(found[1].probabilities.as_deref(), Some(&[0.2, 0.8][..]));
    }

    #[test]
    fn reads_outputs_of_several_labels_numbers_and_samples() {
        let plain = signature(&[2], None);
        let signed = Signature {
            classes: Some(vec!["x".to_owned(), "y".to_owned()]),
            ..plain.clone()
        };
        let tensor = |name: &str, shape: Vec<usize>, values| Tensor {
            name: name.to_owned(),
            shape,
            values,
        };
        let four = || TensorValues::Fp32(vec![0.9, 0.6, 0.2, 0.8]);
        let labels = TensorValues::Int64(vec![1, 1, 0, 1]);
        let outputs = [
            tensor("probabilities", vec![2, 2], four()),
            tensor("labels", vec![2, 2], labels),
        ];
        let found = predictions(2, &outputs, &signed).unwrap();
        assert_eq!(found[0].labels.as_deref().unwrap(), ["x", "y"]);
        assert_eq!(found[1].labels.as_deref().unwrap(), ["y"]);
        assert!(predictions(2, &outputs, &plain).is_none());
        let several = [tensor("prediction", vec![2, 2], four())];
        let found = predictions(2, &several, &plain).unwrap();
        assert_eq!(found[1].values.as_deref().unwrap(), [0.2, 0.8]);
        let outputs = [
            tensor("reconstruction", vec![2, 2], four()),
            tensor("anomaly_score", vec![2], TensorValues::Fp32(vec![0.1, 7.0])),
        ];
        let found = predictions(2, &outputs, &plain).unwrap();
        assert_eq!(found[1].anomaly_score, Some(7.0));
        assert_eq!(found[1].reconstruction.as_deref().unwrap(), [0.2, 0.8]);
    }
}
