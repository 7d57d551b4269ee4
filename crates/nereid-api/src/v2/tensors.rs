//! Tensors as JSON: numbers of any type in, the model's own types out.

use nereid_core::{
    datasets::encoding::{Cell, TableEncoder},
    limits,
    models::Signature,
    spec::shapes,
    tensors::{Batch, DataType, Tensor, TensorValues},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::numbers::Numbers;

/// Element type of an input; all are computed with as FP32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum InputType {
    /// 32-bit float.
    Fp32,
    /// 64-bit float.
    Fp64,
    /// 8-bit signed integer.
    Int8,
    /// 16-bit signed integer.
    Int16,
    /// 32-bit signed integer.
    Int32,
    /// 64-bit signed integer.
    Int64,
    /// 8-bit unsigned integer.
    Uint8,
    /// 16-bit unsigned integer.
    Uint16,
    /// 32-bit unsigned integer.
    Uint32,
    /// 64-bit unsigned integer.
    Uint64,
    /// Boolean.
    Bool,
    /// Text, for a column that takes it.
    Bytes,
}

impl InputType {
    /// Returns the protocol's name.
    fn name(self) -> String {
        format!("{self:?}").to_uppercase()
    }

    /// Smallest and largest value of an integer type.
    #[expect(
        clippy::cast_precision_loss,
        reason = "bounds of wide types need not be exact in FP32"
    )]
    fn bounds(self) -> Option<(f32, f32)> {
        Some(match self {
            Self::Fp32 | Self::Fp64 | Self::Bytes => return None,
            Self::Int8 => (f32::from(i8::MIN), f32::from(i8::MAX)),
            Self::Int16 => (f32::from(i16::MIN), f32::from(i16::MAX)),
            Self::Int32 => (i32::MIN as f32, i32::MAX as f32),
            Self::Int64 => (i64::MIN as f32, i64::MAX as f32),
            Self::Uint8 => (0.0, f32::from(u8::MAX)),
            Self::Uint16 => (0.0, f32::from(u16::MAX)),
            Self::Uint32 => (0.0, u32::MAX as f32),
            Self::Uint64 => (0.0, u64::MAX as f32),
            Self::Bool => (0.0, 1.0),
        })
    }
}

/// An input tensor.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OipInput {
    name: String,
    shape: Vec<usize>,
    datatype: InputType,
    #[serde(default, rename = "parameters")]
    _parameters: Option<Value>,
    data: Numbers,
}

/// An input tensor.
#[derive(ToSchema)]
#[schema(as = OipInput)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "for the document only")]
pub(crate) struct OipInputSchema {
    /// Name of the input.
    #[schema(example = "input")]
    name: String,
    /// Shape with the batch dimension.
    #[schema(max_items = 8, example = json!([1, 4]))]
    shape: Vec<usize>,
    /// Element type.
    datatype: InputType,
    /// Ignored.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Value>,
    /// Values, row-major: flat or nested by the shape.
    #[schema(example = json!([5.1, 3.5, 1.4, 0.2]))]
    data: Vec<Value>,
}

/// An output tensor.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OipOutput {
    /// Name of the output.
    name: String,
    /// Shape with the batch dimension.
    shape: Vec<usize>,
    /// Element type.
    datatype: DataType,
    /// Values, row-major: numbers, or strings of type `BYTES`.
    #[schema(value_type = Vec<Value>)]
    data: OutputData,
}

/// Values of an output.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum OutputData {
    Fp32(Vec<f32>),
    Int64(Vec<i64>),
    Bytes(Vec<String>),
}

impl From<Tensor> for OipOutput {
    fn from(tensor: Tensor) -> Self {
        let datatype = tensor.values.datatype();
        let data = match tensor.values {
            TensorValues::Fp32(v) => OutputData::Fp32(v),
            TensorValues::Int64(v) => OutputData::Int64(v),
            TensorValues::Bytes(v) => OutputData::Bytes(v),
        };
        Self {
            name: tensor.name,
            shape: tensor.shape,
            datatype,
            data,
        }
    }
}

/// Makes a batch of the one input that models take, or of one per column of mixed kind, which
/// `encoder` encodes.
///
/// # Errors
/// What does not fit the signature, as a sentence.
pub(super) fn batch(
    inputs: &[OipInput],
    signature: &Signature,
    encoder: Option<&TableEncoder>,
) -> Result<Batch, String> {
    if let Some(encoder) = encoder {
        return columns(inputs, signature, encoder);
    }
    let name = signature.inputs.first().map_or("", |t| t.name.as_str());
    let [input] = inputs else {
        return Err(format!(
            "{} inputs given, the model takes one: {name:?}",
            inputs.len()
        ));
    };
    if input.name != name {
        return Err(format!(
            "there is no input {:?}; the model takes {name:?}",
            input.name
        ));
    }
    if input.datatype == InputType::Bytes {
        return Err(format!("input {name:?} takes numbers, not BYTES"));
    }
    let rows = check_shape(input, &signature.sample_shape())?;
    check_data(0, input)?;
    if let Some(pointer) = &input.data.null {
        return Err(format!(
            "/inputs/0/data{pointer}: expected a number, got null"
        ));
    }
    Ok(Batch {
        rows,
        values: input.data.values.clone(),
    })
}

/// Makes a batch of one input per column; null, NaN in FP32, and empty text are missing values.
fn columns(
    inputs: &[OipInput],
    signature: &Signature,
    encoder: &TableEncoder,
) -> Result<Batch, String> {
    let columns = &signature.preprocessing.columns;
    let position = |input: &OipInput| columns.iter().position(|c| c.name == input.name);
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

impl OipInput {
    /// Returns the value of a row of an input that was checked to hold one per row.
    fn cell(&self, row: usize) -> Cell<'_> {
        if self.datatype == InputType::Bytes {
            return self
                .data
                .texts
                .get(row)
                .map_or(Cell::Missing, |t| Cell::Text(t));
        }
        match self.data.values.get(row) {
            Some(value) if value.is_nan() => Cell::Missing,
            Some(value) if self.datatype == InputType::Bool => Cell::Boolean(*value > 0.5),
            Some(value) => Cell::Number(f64::from(*value)),
            None => Cell::Missing,
        }
    }
}

/// Returns the number of rows of an input that has the right shape.
fn check_shape(input: &OipInput, sample: &[usize]) -> Result<usize, String> {
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

fn check_data(position: usize, input: &OipInput) -> Result<(), String> {
    let data = &input.data;
    let at = |pointer: &str, detail: &str| format!("/inputs/{position}/data{pointer}: {detail}");
    if input.datatype == InputType::Bytes {
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
    if let (Some(pointer), true) = (&data.boolean, input.datatype != InputType::Bool) {
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
    let outside = |v: &f32| !v.is_nan() && (v.fract() != 0.0 || *v < min || *v > max);
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
    use serde_json::json;

    use super::*;
    use crate::predict::tests::{mixed, signature};

    fn read(shape: &Value, datatype: &str, data: &Value) -> Result<Batch, String> {
        let input = json!({"name": "input", "shape": shape, "datatype": datatype, "data": data});
        let input: OipInput = serde_json::from_str(&input.to_string()).unwrap();
        batch(&[input], &signature(&[2, 2], None), None)
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
            let inputs: Vec<OipInput> = serde_json::from_str(&inputs.to_string()).unwrap();
            batch(&inputs, &signed, Some(&encoder))
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
        let error = batch(&[], &signature(&[2], None), None).unwrap_err();
        assert!(error.contains("\"input\""), "{error}");
    }

    #[test]
    fn outputs_read_like_the_protocol_has_them() {
        let values = TensorValues::Bytes(vec!["x".to_owned()]);
        let tensor = Tensor {
            name: "class".to_owned(),
            shape: vec![1],
            values,
        };
        let json = serde_json::to_value(OipOutput::from(tensor)).unwrap();
        assert_eq!(
            json,
            json!({"name": "class", "shape": [1], "datatype": "BYTES", "data": ["x"]})
        );
    }
}
