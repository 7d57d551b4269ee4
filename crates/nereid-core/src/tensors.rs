//! Tensors as they cross the inference protocol: typed values with a shape.

pub mod wire;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Element type, by Open Inference Protocol name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum DataType {
    /// 32-bit float.
    #[serde(rename = "FP32")]
    Fp32,
    /// 64-bit signed integer.
    #[serde(rename = "INT64")]
    Int64,
    /// Text.
    #[serde(rename = "BYTES")]
    Bytes,
}

impl DataType {
    /// Returns the protocol's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fp32 => "FP32",
            Self::Int64 => "INT64",
            Self::Bytes => "BYTES",
        }
    }
}

/// Name, type and shape of an input or output; -1 is the batch dimension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TensorSpec {
    /// Name.
    #[schema(example = "input")]
    pub name: String,
    /// Element type.
    pub datatype: DataType,
    /// Shape; -1 is the batch dimension.
    #[schema(example = json!([-1, 8, 8, 1]))]
    pub shape: Vec<i64>,
}

/// Values of a tensor, row-major.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "datatype", content = "data")]
pub enum TensorValues {
    /// 32-bit floats.
    #[serde(rename = "FP32")]
    Fp32(Vec<f32>),
    /// 64-bit signed integers.
    #[serde(rename = "INT64")]
    Int64(Vec<i64>),
    /// Text.
    #[serde(rename = "BYTES")]
    Bytes(Vec<String>),
}

impl TensorValues {
    /// Returns the element type.
    #[must_use]
    pub const fn datatype(&self) -> DataType {
        match self {
            Self::Fp32(_) => DataType::Fp32,
            Self::Int64(_) => DataType::Int64,
            Self::Bytes(_) => DataType::Bytes,
        }
    }
}

/// A named tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    /// Name.
    pub name: String,
    /// Shape with the batch dimension.
    pub shape: Vec<usize>,
    /// Values, row-major.
    #[serde(flatten)]
    pub values: TensorValues,
}

/// A batch of samples for a model: raw features, before any normalisation.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Number of samples.
    pub rows: usize,
    /// `rows` × sample size values, row-major, channels last.
    pub values: Vec<f32>,
}

impl Batch {
    /// Bytes of the values, little-endian, as they travel from the gateway to a replica elsewhere.
    #[must_use]
    pub fn to_le_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.values.len() * 4];
        // Compiled to one copy, which an iterator over single bytes is not.
        for (to, value) in bytes.as_chunks_mut().0.iter_mut().zip(&self.values) {
            *to = value.to_le_bytes();
        }
        bytes
    }

    /// Reads what [`Batch::to_le_bytes`] wrote; `None` if the length is no whole number of rows.
    #[must_use]
    pub fn from_le_bytes(rows: usize, bytes: &[u8]) -> Option<Self> {
        if rows == 0 || !bytes.len().is_multiple_of(rows.checked_mul(4)?) {
            return None;
        }
        let (chunks, _) = bytes.as_chunks::<4>();
        let values = chunks.iter().map(|&b| f32::from_le_bytes(b)).collect();
        Some(Self { rows, values })
    }
}
