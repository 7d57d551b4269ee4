//! Element types of the protocol.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Element type of an input; all are computed with as FP32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = InputType)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Datatype {
    /// 16-bit float.
    Fp16,
    /// 16-bit float with the exponent of a 32-bit one.
    Bf16,
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

impl Datatype {
    /// All types.
    pub(crate) const ALL: [Self; 14] = [
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Bool,
        Self::Bytes,
    ];

    /// Returns the protocol's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Bool => "BOOL",
            Self::Bytes => "BYTES",
        }
    }

    /// Finds the type of a name.
    ///
    /// # Errors
    /// A sentence that lists the names.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|t| t.name() == name);
        found.ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|t| t.name()).collect();
            let shown: String = name.chars().take(32).collect();
            format!("{shown:?} is no datatype; known are {}", known.join(", "))
        })
    }

    /// Smallest and largest value, of a type that has narrower bounds than FP32.
    #[expect(
        clippy::cast_precision_loss,
        reason = "bounds of wide types need not be exact in FP32"
    )]
    pub(crate) fn bounds(self) -> Option<(f32, f32)> {
        Some(match self {
            // FP64 is held to FP32's bounds where numbers are read, BF16 has nearly the same.
            Self::Bf16 | Self::Fp32 | Self::Fp64 | Self::Bytes => return None,
            Self::Fp16 => (half::f16::MIN.to_f32(), half::f16::MAX.to_f32()),
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

    /// Tells whether values have no fraction.
    pub(crate) const fn is_whole(self) -> bool {
        !matches!(
            self,
            Self::Fp16 | Self::Bf16 | Self::Fp32 | Self::Fp64 | Self::Bytes
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_protocol() {
        for datatype in Datatype::ALL {
            assert_eq!(serde_json::to_value(datatype).unwrap(), datatype.name());
            assert_eq!(Datatype::parse(datatype.name()), Ok(datatype));
        }
        assert!(Datatype::parse("fp32").unwrap_err().contains("FP32"));
    }
}
