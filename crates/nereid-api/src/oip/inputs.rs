//! From the inputs of a request to a batch: numbers of any type in, the model's own out.

use std::fmt;

use bytes::Bytes;
use nereid_core::{
    datasets::encoding::{Cell, TableEncoder},
    limits,
    models::Signature,
    spec::shapes,
    tensors::Batch,
};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};

use super::{datatype::Datatype, parameters::Parameters, raw};
use crate::numbers::{Numbers, exact, shortest};

/// Most dimensions of an input: those of a batch of the samples of highest rank, and some room.
const MAX_DIMENSIONS: usize = 8;

/// An input tensor.
#[derive(Debug, Deserialize)]
pub(crate) struct Input {
    pub(crate) name: String,
    #[serde(deserialize_with = "dimensions")]
    pub(crate) shape: Vec<usize>,
    pub(crate) datatype: Datatype,
    #[serde(default)]
    pub(crate) parameters: Option<Parameters>,
    /// The elements; none while they are bytes elsewhere.
    #[serde(default, deserialize_with = "exact")]
    pub(crate) data: Option<Numbers>,
}

/// Reads a shape without taking in more dimensions than any tensor has.
fn dimensions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
    struct Dimensions;
    impl<'de> Visitor<'de> for Dimensions {
        type Value = Vec<usize>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "up to {MAX_DIMENSIONS} dimensions, none negative")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<usize>, A::Error> {
            let mut shape = Vec::new();
            while shape.len() < MAX_DIMENSIONS {
                let Some(next) = seq.next_element()? else {
                    return Ok(shape);
                };
                shape.push(next);
            }
            match seq.next_element::<IgnoredAny>()? {
                None => Ok(shape),
                Some(_) => Err(serde::de::Error::invalid_length(MAX_DIMENSIONS + 1, &self)),
            }
        }
    }
    deserializer.deserialize_seq(Dimensions)
}

/// Gives inputs without data theirs out of the bytes that follow the JSON, in order.
///
/// # Errors
/// Sizes that do not fit the bytes, or bytes that do not fit the type, as a sentence.
pub(crate) fn fill_from(inputs: &mut [Input], mut binary: Bytes) -> Result<(), String> {
    for (at, input) in inputs.iter_mut().enumerate() {
        let parameters = input.parameters.as_ref();
        parameters.map_or(Ok(()), Parameters::refuse_shared_memory)?;
        let size = parameters.map_or(Ok(None), Parameters::binary_data_size)?;
        let Some(size) = size else {
            continue;
        };
        if input.data.is_some() {
            return Err(format!(
                "/inputs/{at}: it has both data and binary_data_size"
            ));
        }
        if size > binary.len() {
            let left = binary.len();
            return Err(format!(
                "/inputs/{at}: binary_data_size is {size}, but only {left} bytes are left after the JSON, whose length Inference-Header-Content-Length tells"
            ));
        }
        input.fill(at, &binary.split_to(size))?;
    }
    if !binary.is_empty() {
        let left = binary.len();
        return Err(format!("{left} bytes at the end belong to no input"));
    }
    Ok(())
}

/// Makes the one input of a model out of a request that is nothing but its bytes.
///
/// # Errors
/// A model of several inputs, or bytes that are no whole number of samples, as a sentence.
pub(crate) fn whole(bytes: &[u8], signature: &Signature) -> Result<Input, String> {
    let [tensor] = signature.inputs.as_slice() else {
        return Err("a request of bytes alone is for models of one input".to_owned());
    };
    let sample = signature.sample_shape();
    let mut input = Input {
        name: tensor.name.clone(),
        shape: Vec::new(),
        datatype: Datatype::parse(tensor.datatype.as_str())?,
        parameters: None,
        data: None,
    };
    input.fill(0, bytes)?;
    let given = input.data.as_ref().map_or(0, |data| data.values.len());
    let size = sample.iter().product::<usize>().max(1);
    if !given.is_multiple_of(size) {
        return Err(format!(
            "{given} values are no whole number of samples of {size}"
        ));
    }
    input.shape = [&[given / size], &sample[..]].concat();
    Ok(input)
}

/// Makes a batch of the one input that models take, or of one per column of mixed kind, which
/// `encoder` encodes.
///
/// # Errors
/// What does not fit the signature, as a sentence.
pub(crate) fn batch(
    mut inputs: Vec<Input>,
    signature: &Signature,
    encoder: Option<&TableEncoder>,
) -> Result<Batch, String> {
    if let Some(encoder) = encoder {
        return columns(&inputs, signature, encoder);
    }
    let name = signature.inputs.first().map_or("", |t| t.name.as_str());
    let given = inputs.len();
    let Some(input) = inputs.pop().filter(|_| given == 1) else {
        return Err(format!(
            "{given} inputs given, the model takes one: {name:?}"
        ));
    };
    if input.name != name {
        return Err(format!(
            "there is no input {:?}; the model takes {name:?}",
            input.name
        ));
    }
    if input.datatype == Datatype::Bytes {
        return Err(format!("input {name:?} takes numbers, not BYTES"));
    }
    let rows = check_shape(&input, &signature.sample_shape())?;
    check_data(0, &input)?;
    let data = input.data.unwrap_or_default();
    if let Some(pointer) = &data.null {
        return Err(format!(
            "/inputs/0/data{pointer}: expected a number, got null or NaN"
        ));
    }
    Ok(Batch {
        rows,
        values: data.values,
    })
}

/// Makes a batch of one input per column; null, NaN in FP32, and empty text are missing values.
fn columns(
    inputs: &[Input],
    signature: &Signature,
    encoder: &TableEncoder,
) -> Result<Batch, String> {
    let columns = &signature.preprocessing.columns;
    let position = |input: &Input| columns.iter().position(|c| c.name == input.name);
    if let Some(unknown) = inputs.iter().find(|i| position(i).is_none()) {
        return Err(format!("there is no input {:?}", unknown.name));
    }
    let rows = inputs.first().and_then(|i| i.shape.first().copied());
    let mut found = Vec::with_capacity(columns.len());
    for column in columns {
        let mut named = inputs
            .iter()
            .enumerate()
            .filter(|(_, i)| i.name == column.name);
        match (named.next(), named.next()) {
            (Some((at, input)), None) => {
                let n = check_shape(input, &[1])?;
                if Some(n) != rows {
                    return Err(format!("/inputs/{at}: it has {n} rows, others have not"));
                }
                check_data(at, input)?;
                found.push((at, Some(input)));
            }
            (None, _) if column.missing > 0 => found.push((0, None)),
            (None, _) => return Err(format!("input {:?} is required", column.name)),
            (Some(_), Some((at, _))) => {
                return Err(format!("/inputs/{at}: {:?} is given twice", column.name));
            }
        }
    }
    let rows = rows.ok_or("no inputs are given")?;
    let mut values = Vec::with_capacity(rows.saturating_mul(encoder.width()));
    for row in 0..rows {
        for (i, (at, input)) in found.iter().enumerate() {
            let cell = input.map_or(Cell::Missing, |input| input.cell(row));
            encoder
                .encode(i, cell, &mut values)
                .map_err(|f| format!("/inputs/{at}/data/{row}: {}", f.detail))?;
        }
    }
    Ok(Batch { rows, values })
}

impl Input {
    /// Gives the input its elements from bytes.
    pub(crate) fn fill(&mut self, at: usize, bytes: &[u8]) -> Result<(), String> {
        let data = raw::decode(self.datatype, bytes).map_err(|e| format!("/inputs/{at}: {e}"))?;
        self.data = Some(data);
        Ok(())
    }

    /// Returns the value of a row of an input that was checked to hold one per row.
    fn cell(&self, row: usize) -> Cell<'_> {
        let Some(data) = &self.data else {
            return Cell::Missing;
        };
        if self.datatype == Datatype::Bytes {
            return data.texts.get(row).map_or(Cell::Missing, |t| Cell::Text(t));
        }
        match data.values.get(row) {
            Some(value) if value.is_nan() => Cell::Missing,
            Some(value) if self.datatype == Datatype::Bool => Cell::Boolean(*value > 0.5),
            Some(value) => {
                let wide = data.wide.get(row).copied();
                Cell::Number(wide.unwrap_or_else(|| shortest(*value)))
            }
            None => Cell::Missing,
        }
    }
}

/// Returns the number of rows of an input that has the right shape.
fn check_shape(input: &Input, sample: &[usize]) -> Result<usize, String> {
    let (rows, rest) = input
        .shape
        .split_first()
        .ok_or("the shape lacks the batch dimension")?;
    let flat =
        rest.len() == 1 && rest.iter().map(|&n| n as u64).sum::<u64>() == shapes::size(sample);
    // A single value per row needs no dimension of its own: pandas' columns come without.
    let column = rest.is_empty() && sample == [1];
    if rest != sample && !flat && !column {
        let (got, want) = (shapes::show(rest), shapes::show(sample));
        return Err(format!("samples have shape {want}, not {got}"));
    }
    if !(1..=limits::MAX_PREDICT_ROWS).contains(rows) {
        return Err(format!(
            "{rows} rows are not between 1 and {}",
            limits::MAX_PREDICT_ROWS
        ));
    }
    Ok(*rows)
}

fn check_data(position: usize, input: &Input) -> Result<(), String> {
    let at = |pointer: &str, detail: &str| format!("/inputs/{position}/data{pointer}: {detail}");
    let Some(data) = &input.data else {
        return Err(at("", "the input has no data"));
    };
    if input.datatype == Datatype::Bytes {
        // Strings are faults among numbers; here anything else is one.
        let (got, expected) = (data.texts.len() as u64, shapes::size(&input.shape));
        if !data.values.is_empty() || got != expected {
            let detail = format!("{got} strings given, the shape has {expected} and nothing else");
            return Err(at("", &detail));
        }
        return Ok(());
    }
    if let Some(fault) = &data.fault {
        return Err(at(&fault.pointer, &fault.detail));
    }
    if let (Some(pointer), true) = (&data.boolean, input.datatype != Datatype::Bool) {
        return Err(at(pointer, "a boolean is only for the type BOOL"));
    }
    let expected = shapes::size(&input.shape);
    if data.values.len() as u64 != expected {
        return Err(at(
            "",
            &format!(
                "{} values given, the shape has {expected}",
                data.values.len()
            ),
        ));
    }
    if data.shape.len() != 1 && data.shape != input.shape {
        let (got, want) = (shapes::show(&data.shape), shapes::show(&input.shape));
        return Err(at("", &format!("nested as {got}, the shape is {want}")));
    }
    let Some((min, max)) = input.datatype.bounds() else {
        return Ok(());
    };
    let whole = input.datatype.is_whole();
    let outside = |v: &f32| !v.is_nan() && (whole && v.fract() != 0.0 || *v < min || *v > max);
    match data.values.iter().position(outside) {
        Some(i) => Err(at(
            "",
            &format!("value {i} does not fit the type {}", input.datatype.name()),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::predict::tests::{mixed, signature};

    fn read(shape: &Value, datatype: &str, data: &Value) -> Result<Batch, String> {
        let input = json!({"name": "input", "shape": shape, "datatype": datatype, "data": data});
        let input: Input = serde_json::from_str(&input.to_string()).unwrap();
        batch(vec![input], &signature(&[2, 2], None), None)
    }

    #[test]
    fn takes_flat_and_nested_data_of_each_type() {
        let flat = read(&json!([1, 2, 2]), "FP32", &json!([1, 2, 3, 4.5])).unwrap();
        assert_eq!((flat.rows, flat.values), (1, vec![1.0, 2.0, 3.0, 4.5]));
        assert!(read(&json!([1, 2, 2]), "UINT8", &json!([[[1, 2], [3, 255]]])).is_ok());
        assert!(read(&json!([2, 4]), "INT64", &json!([1, 2, 3, 4, 5, 6, 7, 8])).is_ok());
        assert!(read(&json!([1, 4]), "BOOL", &json!([true, false, true, true])).is_ok());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        for (shape, datatype, data) in [
            (json!([1, 3]), "FP32", json!([1, 2, 3])),
            (json!([]), "FP32", json!([])),
            (json!([0, 2, 2]), "FP32", json!([])),
            (json!([5000, 4]), "FP32", json!([1])),
            (json!([1, 2, 2]), "FP32", json!([1, 2, 3])),
            (json!([1, 2, 2]), "FP32", json!([[1, 2], [3, 4]])),
            (json!([1, 2, 2]), "FP32", json!([1, 2, 3, "x"])),
            (json!([1, 2, 2]), "FP32", json!([1, 2, 3, true])),
            (json!([1, 2, 2]), "FP32", json!([1, 2, 3, null])),
            (json!([1, 2, 2]), "BYTES", json!(["a", "b", "c", "d"])),
            (json!([1, 2, 2]), "UINT8", json!([1, 2, 3, 256])),
            (json!([1, 2, 2]), "INT8", json!([1, 2, 3, 0.5])),
            (json!([1, 2, 2]), "BOOL", json!([1, 0, 2, 0])),
        ] {
            assert!(
                read(&shape, datatype, &data).is_err(),
                "{shape} {datatype} {data}"
            );
        }
    }

    #[test]
    fn columns_of_mixed_kind_come_as_one_input_each() {
        let signed = mixed();
        let encoder = TableEncoder::new(&signed.preprocessing.columns);
        let read = |inputs: Value| {
            let inputs: Vec<Input> = serde_json::from_str(&inputs.to_string()).unwrap();
            batch(inputs, &signed, Some(&encoder))
        };
        let input = |name: &str, datatype: &str, data: Value| {
            let shape = [data.as_array().unwrap().len(), 1];
            json!({"name": name, "shape": shape, "datatype": datatype, "data": data})
        };
        let town = input("town", "BYTES", json!(["x", "new"]));
        let flag = input("flag", "BOOL", json!([true, false]));
        let age = input("age", "INT64", json!([7, null]));
        let found = read(json!([flag, age, town])).unwrap();
        assert_eq!(found.rows, 2);
        assert_eq!(found.values[..5], [7.0, 0.0, 1.0, 0.0, 1.0]);
        assert!(found.values[5].is_nan());
        assert_eq!(found.values[6..], [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(read(json!([town, flag])).unwrap().values.len(), 10);
        let mut bare = town.clone();
        bare["shape"] = json!([2]);
        assert_eq!(read(json!([bare, flag])).unwrap().rows, 2);
        for wrong in [
            json!([]),
            json!([town]),
            json!([town, flag, flag]),
            json!([town, flag, input("job", "BYTES", json!(["a", "b"]))]),
            json!([town, flag, input("age", "INT64", json!([1]))]),
            json!([town, flag, input("age", "BYTES", json!(["old", "young"]))]),
            json!([town, flag, input("age", "BYTES", json!(["1", 2]))]),
            json!([input("town", "FP32", json!(["x", "y"])), flag]),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_the_input_it_wants() {
        let error = batch(Vec::new(), &signature(&[2], None), None).unwrap_err();
        assert!(error.contains("\"input\""), "{error}");
    }

    #[test]
    fn binary_inputs_take_their_bytes_in_order() {
        let inputs = |sizes: [usize; 2]| -> Vec<Input> {
            let input = |size: usize| json!({"name": "input", "shape": [1, 1], "datatype": "UINT8", "parameters": {"binary_data_size": size}});
            serde_json::from_str(&json!(sizes.map(input)).to_string()).unwrap()
        };
        let mut two = inputs([1, 2]);
        fill_from(&mut two, Bytes::from_static(&[7, 8, 9])).unwrap();
        assert_eq!(two[0].data.as_ref().unwrap().values, [7.0]);
        assert_eq!(two[1].data.as_ref().unwrap().values, [8.0, 9.0]);
        for (sizes, bytes) in [([1, 2], &[7, 8][..]), ([1, 1], &[7, 8, 9]), ([3, 0], &[])] {
            let refused = fill_from(&mut inputs(sizes), Bytes::copy_from_slice(bytes));
            assert!(refused.is_err(), "{sizes:?} {bytes:?}");
        }
    }

    #[test]
    fn a_shape_is_short_and_has_no_negative_dimension() {
        let read = |shape: &Value| {
            let input = json!({"name": "input", "shape": shape, "datatype": "FP32", "data": []});
            serde_json::from_str::<Input>(&input.to_string()).is_ok()
        };
        assert!(read(&json!([1, 2, 3, 4, 5, 6, 7, 8])));
        assert!(!read(&json!([1, 2, 3, 4, 5, 6, 7, 8, 9])));
        assert!(!read(&json!([-1, 4])));
    }
}
