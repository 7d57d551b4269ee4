//! Tensors as JSON: numbers of any type in, the model's own types out.

use nereid_core::{
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
            Self::Fp32 | Self::Fp64 => return None,
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

/// Makes a batch of the one input that models take.
///
/// # Errors
/// What does not fit the signature, as a sentence.
pub(super) fn batch(inputs: &[OipInput], signature: &Signature) -> Result<Batch, String> {
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
    let rows = check_shape(input, &signature.sample_shape())?;
    check_data(input)?;
    Ok(Batch {
        rows,
        values: input.data.values.clone(),
    })
}

/// Returns the number of rows of an input that has the right shape.
fn check_shape(input: &OipInput, sample: &[usize]) -> Result<usize, String> {
    let (rows, rest) = input
        .shape
        .split_first()
        .ok_or("the shape lacks the batch dimension")?;
    let flat =
        rest.len() == 1 && rest.iter().map(|&n| n as u64).sum::<u64>() == shapes::size(sample);
    if rest != sample && !flat {
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

fn check_data(input: &OipInput) -> Result<(), String> {
    let data = &input.data;
    let at = |pointer: &str, detail: &str| format!("/inputs/0/data{pointer}: {detail}");
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
    let outside = |v: &f32| v.fract() != 0.0 || *v < min || *v > max;
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
    use crate::predict::tests::signature;

    fn read(shape: &Value, datatype: &str, data: &Value) -> Result<Batch, String> {
        let input = json!({"name": "input", "shape": shape, "datatype": datatype, "data": data});
        let input: OipInput = serde_json::from_str(&input.to_string()).unwrap();
        batch(&[input], &signature(&[2, 2], None))
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
    fn names_the_input_it_wants() {
        let error = batch(&[], &signature(&[2], None)).unwrap_err();
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
