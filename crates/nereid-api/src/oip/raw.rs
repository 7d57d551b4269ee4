//! Tensors as bytes: Triton's binary tensor extension, and the raw contents of gRPC.
//!
//! Elements are little-endian and row-major; those of `BYTES` each follow their length in 32 bits.

use half::{bf16, f16};
use nereid_core::tensors::TensorValues;

use super::datatype::Datatype;
use crate::numbers::{Fault, Numbers};

/// Reads the elements of a tensor; values that are not finite are noted as JSON's would be.
///
/// # Errors
/// Bytes that are no whole number of elements, or text that is not UTF-8, as a sentence.
pub(crate) fn decode(datatype: Datatype, bytes: &[u8]) -> Result<Numbers, String> {
    let exact = |values: Vec<f32>| numbers(values, Vec::new());
    #[expect(
        clippy::cast_precision_loss,
        reason = "models compute in FP32; columns of tables are read from the wide values"
    )]
    Ok(match datatype {
        Datatype::Bool => {
            if let Some(at) = bytes.iter().position(|&b| b > 1) {
                return Err(format!("value {at} is {}, not 0 or 1", bytes[at]));
            }
            exact(bytes.iter().map(|&b| f32::from(b)).collect())
        }
        Datatype::Uint8 => exact(bytes.iter().map(|&b| f32::from(b)).collect()),
        Datatype::Int8 => exact(elements(bytes, |b| f32::from(i8::from_le_bytes(b)))?),
        Datatype::Int16 => exact(elements(bytes, |b| f32::from(i16::from_le_bytes(b)))?),
        Datatype::Uint16 => exact(elements(bytes, |b| f32::from(u16::from_le_bytes(b)))?),
        Datatype::Fp16 => exact(elements(bytes, |b| f16::from_le_bytes(b).to_f32())?),
        Datatype::Bf16 => exact(elements(bytes, |b| bf16::from_le_bytes(b).to_f32())?),
        Datatype::Fp32 => exact(elements(bytes, f32::from_le_bytes)?),
        Datatype::Int32 => wide(elements(bytes, |b| f64::from(i32::from_le_bytes(b)))?),
        Datatype::Uint32 => wide(elements(bytes, |b| f64::from(u32::from_le_bytes(b)))?),
        Datatype::Int64 => wide(elements(bytes, |b| i64::from_le_bytes(b) as f64)?),
        Datatype::Uint64 => wide(elements(bytes, |b| u64::from_le_bytes(b) as f64)?),
        Datatype::Fp64 => wide(elements(bytes, f64::from_le_bytes)?),
        Datatype::Bytes => texts(bytes)?,
    })
}

fn elements<const N: usize, T>(
    bytes: &[u8],
    read: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, String> {
    let (elements, rest) = bytes.as_chunks::<N>();
    if rest.is_empty() {
        Ok(elements.iter().map(|&e| read(e)).collect())
    } else {
        let given = bytes.len();
        Err(format!(
            "{given} bytes are no whole number of elements of {N}"
        ))
    }
}

/// Makes numbers of values of a type that FP32 does not hold all of.
pub(crate) fn wide(wide: Vec<f64>) -> Numbers {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "models compute in FP32; infinity is noted"
    )]
    let values = wide.iter().map(|&v| v as f32).collect();
    numbers(values, wide)
}

/// Makes numbers of values; NaN counts as missing, infinity as a mistake.
pub(crate) fn numbers(values: Vec<f32>, wide: Vec<f64>) -> Numbers {
    let place = |i: usize| format!("/{i}");
    let null = values.iter().position(|v| v.is_nan()).map(place);
    let fault = values.iter().position(|v| v.is_infinite()).map(|i| Fault {
        pointer: place(i),
        code: "not_finite",
        detail: "the number does not fit into FP32".to_owned(),
    });
    Numbers {
        shape: vec![values.len()],
        values,
        wide,
        null,
        fault,
        ..Numbers::default()
    }
}

fn texts(mut bytes: &[u8]) -> Result<Numbers, String> {
    let mut texts = Vec::new();
    while !bytes.is_empty() {
        let at = texts.len();
        let cut = || format!("string {at} is cut off");
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| cut())?;
        let (text, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        let text = std::str::from_utf8(text).map_err(|_| format!("string {at} is not UTF-8"))?;
        texts.push(text.to_owned());
        bytes = rest;
    }
    Ok(of_texts(texts))
}

/// Makes the elements of a tensor of type `BYTES`.
pub(crate) fn of_texts(texts: Vec<String>) -> Numbers {
    Numbers {
        shape: vec![texts.len()],
        texts,
        ..Numbers::default()
    }
}

/// Appends a tensor's elements to `out` and returns how many bytes they are.
pub(crate) fn encode(values: &TensorValues, out: &mut Vec<u8>) -> usize {
    let before = out.len();
    match values {
        TensorValues::Fp32(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        TensorValues::Int64(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        TensorValues::Bytes(v) => {
            for text in v {
                // Labels and class names are far below 4 GiB.
                let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                out.extend(length.to_le_bytes());
                out.extend(text.as_bytes());
            }
        }
    }
    out.len() - before
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_type_reads_its_own_bytes() {
        let read = |datatype, bytes: &[u8]| decode(datatype, bytes).unwrap().values;
        assert_eq!(read(Datatype::Bool, &[0, 1]), [0.0, 1.0]);
        assert_eq!(read(Datatype::Int8, &[0xff, 0x80]), [-1.0, -128.0]);
        assert_eq!(read(Datatype::Uint8, &[0xff]), [255.0]);
        assert_eq!(read(Datatype::Int16, &(-2_i16).to_le_bytes()), [-2.0]);
        assert_eq!(
            read(Datatype::Uint16, &65_535_u16.to_le_bytes()),
            [65_535.0]
        );
        assert_eq!(read(Datatype::Int32, &(-7_i32).to_le_bytes()), [-7.0]);
        assert_eq!(read(Datatype::Uint32, &7_u32.to_le_bytes()), [7.0]);
        assert_eq!(read(Datatype::Int64, &(-9_i64).to_le_bytes()), [-9.0]);
        assert_eq!(read(Datatype::Uint64, &9_u64.to_le_bytes()), [9.0]);
        assert_eq!(read(Datatype::Fp16, &[0x00, 0x3e]), [1.5]);
        assert_eq!(read(Datatype::Bf16, &[0xc0, 0x3f]), [1.5]);
        assert_eq!(read(Datatype::Fp32, &1.5_f32.to_le_bytes()), [1.5]);
        assert_eq!(read(Datatype::Fp64, &1.5_f64.to_le_bytes()), [1.5]);
        let text = decode(Datatype::Bytes, b"\x02\0\0\0ab\0\0\0\0").unwrap();
        assert_eq!(text.texts, ["ab", ""]);
    }

    #[test]
    fn what_is_no_number_is_noted_and_what_is_cut_off_refused() {
        let odd = decode(Datatype::Fp32, &f32::NAN.to_le_bytes()).unwrap();
        assert_eq!((odd.null.as_deref(), odd.fault), (Some("/0"), None));
        let large = decode(Datatype::Fp64, &1e300_f64.to_le_bytes()).unwrap();
        assert_eq!(large.fault.unwrap().code, "not_finite");
        assert!(decode(Datatype::Fp32, &[0, 0, 0]).is_err());
        assert!(decode(Datatype::Bool, &[2]).is_err());
        assert!(decode(Datatype::Bytes, b"\x05\0\0\0ab").is_err());
        assert!(decode(Datatype::Bytes, b"\x01\0\0\0\xff").is_err());
        assert!(decode(Datatype::Bytes, b"\xff\xff\xff\xff").is_err());
    }

    #[test]
    fn wide_integers_stay_exact_beside_the_narrow_ones() {
        let exact = decode(Datatype::Int64, &16_777_217_i64.to_le_bytes()).unwrap();
        assert_eq!(
            (exact.values[0], exact.wide[0]),
            (16_777_216.0, 16_777_217.0)
        );
        assert_eq!(crate::numbers::shortest(0.1).to_bits(), 0.1_f64.to_bits());
    }

    proptest! {
        /// Whatever bytes a client sends, each type either reads them whole or refuses them.
        #[test]
        fn any_bytes_are_read_or_refused(kind in 0_usize..14, bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let datatype = Datatype::ALL[kind];
            if let Ok(found) = decode(datatype, &bytes) {
                let size = match datatype {
                    Datatype::Bool | Datatype::Int8 | Datatype::Uint8 => 1,
                    Datatype::Fp16 | Datatype::Bf16 | Datatype::Int16 | Datatype::Uint16 => 2,
                    Datatype::Fp32 | Datatype::Int32 | Datatype::Uint32 => 4,
                    Datatype::Fp64 | Datatype::Int64 | Datatype::Uint64 => 8,
                    Datatype::Bytes => 0,
                };
                let text: usize = found.texts.iter().map(|t| t.len() + 4).sum();
                prop_assert_eq!(found.values.len() * size + text, bytes.len());
            }
        }

        /// Strings survive the way out and in again.
        #[test]
        fn text_comes_back_as_it_was(texts in prop::collection::vec(".{0,12}", 0..8)) {
            let mut bytes = Vec::new();
            let size = encode(&TensorValues::Bytes(texts.clone()), &mut bytes);
            prop_assert_eq!(size, bytes.len());
            prop_assert_eq!(decode(Datatype::Bytes, &bytes).unwrap().texts, texts);
        }
    }
}
