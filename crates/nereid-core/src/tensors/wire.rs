//! Tensors in bytes, as they travel between processes of one installation.
//!
//! A count, then for each tensor: name, type, shape and values; all numbers little-endian, all
//! lengths 32 bits. Both ends are of the same version or one apart, so there is nothing to
//! negotiate; what comes from outside is the Open Inference Protocol's business.

use super::{DataType, Tensor, TensorValues};

/// Most tensors, dimensions or bytes of a name that are believed.
const MAX_COUNT: usize = 4_096;

/// Number of bytes that [`encode`] writes, or a little more.
#[must_use]
pub fn encoded_len(tensors: &[Tensor]) -> usize {
    let of = |t: &Tensor| {
        let values = match &t.values {
            TensorValues::Fp32(v) => v.len() * 4,
            TensorValues::Int64(v) => v.len() * 8,
            TensorValues::Bytes(v) => v.iter().map(|s| s.len() + 4).sum(),
        };
        16 + t.name.len() + t.shape.len() * 4 + values
    };
    4 + tensors.iter().map(of).sum::<usize>()
}

/// Appends `tensors` to `bytes`.
pub fn encode(tensors: &[Tensor], bytes: &mut Vec<u8>) {
    put(tensors.len(), bytes);
    for tensor in tensors {
        text(&tensor.name, bytes);
        bytes.push(tag(tensor.values.datatype()));
        put(tensor.shape.len(), bytes);
        for &dim in &tensor.shape {
            put(dim, bytes);
        }
        match &tensor.values {
            TensorValues::Fp32(values) => {
                put(values.len(), bytes);
                for value in values {
                    bytes.extend_from_slice(&value.to_le_bytes());
                }
            }
            TensorValues::Int64(values) => {
                put(values.len(), bytes);
                for value in values {
                    bytes.extend_from_slice(&value.to_le_bytes());
                }
            }
            TensorValues::Bytes(values) => {
                put(values.len(), bytes);
                for value in values {
                    text(value, bytes);
                }
            }
        }
    }
}

/// Reads what [`encode`] wrote; `None` if it is damaged.
#[must_use]
pub fn decode(mut bytes: &[u8]) -> Option<Vec<Tensor>> {
    let count = believable(take(&mut bytes)?)?;
    let mut tensors = Vec::with_capacity(count);
    for _ in 0..count {
        let name = take_text(&mut bytes)?;
        let (&datatype, rest) = bytes.split_first()?;
        bytes = rest;
        let rank = believable(take(&mut bytes)?)?;
        let shape = (0..rank).map(|_| take(&mut bytes)).collect::<Option<_>>()?;
        let length = take(&mut bytes)?;
        let values = match datatype {
            0 => TensorValues::Fp32(numbers(&mut bytes, length, f32::from_le_bytes)?),
            1 => TensorValues::Int64(numbers(&mut bytes, length, i64::from_le_bytes)?),
            2 => {
                let texts = (0..length).map(|_| take_text(&mut bytes));
                TensorValues::Bytes(texts.collect::<Option<_>>()?)
            }
            _ => return None,
        };
        tensors.push(Tensor {
            name,
            shape,
            values,
        });
    }
    bytes.is_empty().then_some(tensors)
}

const fn tag(datatype: DataType) -> u8 {
    match datatype {
        DataType::Fp32 => 0,
        DataType::Int64 => 1,
        DataType::Bytes => 2,
    }
}

fn believable(count: usize) -> Option<usize> {
    (count <= MAX_COUNT).then_some(count)
}

/// Writes a length; outputs are bounded by the size of requests, far below what fits.
fn put(length: usize, bytes: &mut Vec<u8>) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    bytes.extend(length.to_le_bytes());
}

fn take(bytes: &mut &[u8]) -> Option<usize> {
    let (length, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    usize::try_from(u32::from_le_bytes(*length)).ok()
}

fn text(text: &str, bytes: &mut Vec<u8>) {
    put(text.len(), bytes);
    bytes.extend(text.as_bytes());
}

fn take_text(bytes: &mut &[u8]) -> Option<String> {
    let length = take(bytes)?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

fn numbers<const N: usize, T>(
    bytes: &mut &[u8],
    length: usize,
    read: impl Fn([u8; N]) -> T,
) -> Option<Vec<T>> {
    let (raw, rest) = bytes.split_at_checked(length.checked_mul(N)?)?;
    *bytes = rest;
    Some(raw.as_chunks().0.iter().map(|&b| read(b)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_come_back_and_damage_is_seen() {
        let tensor = |name: &str, shape: &[usize], values| Tensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            values,
        };
        let tensors = vec![
            tensor(
                "p",
                &[2, 2],
                TensorValues::Fp32(vec![0.5, -0.0, 1e-40, 2.0]),
            ),
            tensor("class", &[2], TensorValues::Int64(vec![i64::MIN, 7])),
            tensor(
                "label",
                &[1],
                TensorValues::Bytes(vec!["größer".to_owned()]),
            ),
            tensor("none", &[0, 3], TensorValues::Fp32(vec![])),
        ];
        let mut bytes = Vec::new();
        encode(&tensors, &mut bytes);
        assert!(bytes.len() <= encoded_len(&tensors));
        assert_eq!(decode(&bytes).unwrap(), tensors);
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None, "{cut}");
        }
        bytes.push(0);
        assert_eq!(decode(&bytes), None);
        assert_eq!(decode(&[0xff; 64]), None);
    }
}
