//! Safetensors files: named 32-bit floats with text beside them.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
};

use burn::tensor::Tensor;
use nereid_core::engine::EngineError;
use safetensors::{
    Dtype,
    tensor::{Metadata, SafeTensors, TensorInfo, TensorView},
};

use crate::network::host;

/// Values written at once, by [`stream`].
const CHUNK_VALUES: usize = 64 << 10;

/// Named tensors of a file; ordered, so that equal content gives equal bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TensorsFile {
    pub(crate) tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    pub(crate) metadata: BTreeMap<String, String>,
    /// How tensors are stored that are not stored as they are; their values are those that come
    /// back.
    pub(crate) packed: BTreeMap<String, Packing>,
}

/// A smaller form of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Packing {
    /// 16-bit floats.
    Half,
    /// 8-bit integers, times a scale; scales have the tensor's shape, with 1 for each axis along
    /// which they are the same.
    Integers { shape: Vec<usize>, scales: Vec<f32> },
}

/// What the name of a tensor's scales ends in.
const SCALE: &str = ":scale";

/// Position of the scale of each value of a tensor.
pub(crate) fn scale_of(shape: &[usize], scales: &[usize]) -> Vec<usize> {
    let n = shape.iter().product();
    let mut positions = vec![0; n];
    let (mut inner, mut step) = (1, 1);
    for (&size, &scale) in shape.iter().zip(scales).rev() {
        if scale > 1 {
            for (i, position) in positions.iter_mut().enumerate() {
                *position += i / inner % size * step;
            }
        }
        inner *= size;
        step *= scale;
    }
    positions
}

impl TensorsFile {
    /// Adds a tensor.
    pub(crate) fn push(&mut self, name: impl Into<String>, shape: Vec<usize>, values: Vec<f32>) {
        self.tensors.insert(name.into(), (shape, values));
    }

    /// Takes a tensor of the given shape out.
    pub(crate) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, EngineError> {
        let (found, values) = self
            .tensors
            .remove(name)
            .ok_or_else(|| EngineError::InvalidInput(format!("tensor {name:?} is missing")))?;
        if found == shape {
            return Ok(values);
        }
        Err(EngineError::InvalidInput(format!(
            "tensor {name:?} has shape {found:?}, not {shape:?}"
        )))
    }

    /// Demands that all tensors were taken.
    pub(crate) fn expect_empty(&self) -> Result<(), EngineError> {
        match self.tensors.keys().next() {
            None => Ok(()),
            Some(name) => Err(EngineError::InvalidInput(format!(
                "tensor {name:?} belongs to no layer"
            ))),
        }
    }

    /// Size of the stored values in bytes, without names.
    pub(crate) fn bytes(&self) -> u64 {
        let of = |(name, (_, values)): (&String, &(Vec<usize>, Vec<f32>))| {
            let n = values.len() as u64;
            match self.packed.get(name) {
                None => 4 * n,
                Some(Packing::Half) => 2 * n,
                Some(Packing::Integers { scales, .. }) => n + 4 * scales.len() as u64,
            }
        };
        self.tensors.iter().map(of).sum()
    }

    /// Encodes the file.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, EngineError> {
        let mut raw: Vec<(String, Dtype, &[usize], Vec<u8>)> = Vec::new();
        for (name, (shape, values)) in &self.tensors {
            let (dtype, bytes) = match self.packed.get(name) {
                None => (Dtype::F32, to_le_bytes(values)),
                Some(Packing::Half) => (Dtype::F16, to_halves(values)),
                Some(Packing::Integers {
                    shape: of_scales,
                    scales,
                }) => {
                    let name = format!("{name}{SCALE}");
                    raw.push((name, Dtype::F32, of_scales, to_le_bytes(scales)));
                    let positions = scale_of(shape, of_scales);
                    (Dtype::I8, to_integers(values, &positions, scales))
                }
            };
            raw.push((name.clone(), dtype, shape, bytes));
        }
        let internal = |e| EngineError::Internal(format!("encoding tensors: {e}"));
        let views = raw
            .iter()
            .map(|(name, dtype, shape, bytes)| {
                let view = TensorView::new(*dtype, shape.to_vec(), bytes);
                Ok((name.as_str(), view.map_err(internal)?))
            })
            .collect::<Result<Vec<_>, EngineError>>()?;
        let metadata: HashMap<String, String> = self.metadata.clone().into_iter().collect();
        let metadata = (!metadata.is_empty()).then_some(metadata);
        safetensors::serialize(views, metadata).map_err(internal)
    }

    /// Decodes a file.
    ///
    /// # Errors
    /// [`EngineError::InvalidInput`] if it is no safetensors file of floats, or of 8-bit integers
    /// with their scales.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, EngineError> {
        let invalid = |e| EngineError::InvalidInput(format!("not a safetensors file: {e}"));
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(invalid)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let mut file = Self {
            metadata: metadata.into_iter().collect(),
            ..Self::default()
        };
        let mut integers = Vec::new();
        for (name, view) in SafeTensors::deserialize(bytes).map_err(invalid)?.tensors() {
            let shape = view.shape().to_vec();
            match view.dtype() {
                Dtype::F32 => file.push(name, shape, from_le_bytes(view.data())),
                Dtype::F16 => {
                    file.packed.insert(name.clone(), Packing::Half);
                    file.push(name, shape, from_halves(view.data()));
                }
                Dtype::I8 => integers.push((name, shape, view.data().to_vec())),
                other => {
                    let detail = format!("tensor {name:?} is {other:?}, not F32, F16 or I8");
                    return Err(EngineError::InvalidInput(detail));
                }
            }
        }
        for (name, shape, values) in integers {
            file.unpack(name, shape, &values)?;
        }
        Ok(file)
    }

    /// Adds integers, whose scales have been read.
    fn unpack(
        &mut self,
        name: String,
        shape: Vec<usize>,
        values: &[u8],
    ) -> Result<(), EngineError> {
        let scales = self.tensors.remove(&format!("{name}{SCALE}"));
        let fits = |(of, _): &(Vec<usize>, Vec<f32>)| {
            let axis = |(&n, &s): (&usize, &usize)| s == 1 || s == n;
            of.len() == shape.len() && shape.iter().zip(of).all(axis)
        };
        let Some((of, scales)) = scales.filter(fits) else {
            let detail = format!("tensor {name:?} has no scales that fit");
            return Err(EngineError::InvalidInput(detail));
        };
        let positions = scale_of(&shape, &of);
        let value = |(&v, &at): (&u8, &usize)| f32::from(v.cast_signed()) * scales[at];
        let floats = values.iter().zip(&positions).map(value).collect();
        let packing = Packing::Integers { shape: of, scales };
        self.packed.insert(name.clone(), packing);
        self.push(name, shape, floats);
        Ok(())
    }
}

/// Writes flat tensors as a file without ever holding more than one of them as bytes.
///
/// Each tensor is dropped as soon as it is written.
pub(crate) fn stream(
    out: &mut impl Write,
    (key, text): (&str, String),
    tensors: Vec<(String, Tensor<1>)>,
) -> Result<(), EngineError> {
    let internal = |e| EngineError::Internal(format!("encoding tensors: {e}"));
    let failed = |source| EngineError::Io {
        context: "writing tensors".to_owned(),
        source,
    };
    let mut end = 0;
    let describe = |(name, tensor): &(String, Tensor<1>)| {
        let [n] = tensor.dims();
        let start = end;
        end += n * size_of::<f32>();
        let info = TensorInfo {
            dtype: Dtype::F32,
            shape: vec![n],
            data_offsets: (start, end),
        };
        (name.clone(), info)
    };
    let infos = tensors.iter().map(describe).collect();
    let metadata = HashMap::from([(key.to_owned(), text)]);
    let header = Metadata::new(Some(metadata), infos).map_err(internal)?;
    let mut header =
        serde_json::to_vec(&header).map_err(|e| EngineError::Internal(e.to_string()))?;
    // The format wants values aligned to eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = (header.len() as u64).to_le_bytes();
    out.write_all(&length).map_err(failed)?;
    out.write_all(&header).map_err(failed)?;
    for (_, tensor) in tensors {
        for chunk in host(tensor)?.chunks(CHUNK_VALUES) {
            out.write_all(&to_le_bytes(chunk)).map_err(failed)?;
        }
    }
    Ok(())
}

fn to_le_bytes(values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() * 4);
    for v in values {
        bytes.extend_from_slice(&v.to_le_bytes());
    }
    bytes
}

fn from_le_bytes(bytes: &[u8]) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<4>();
    chunks.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

fn to_halves(values: &[f32]) -> Vec<u8> {
    let half = |v: &f32| half::f16::from_f32(*v).to_le_bytes();
    values.iter().flat_map(half).collect()
}

fn from_halves(bytes: &[u8]) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<2>();
    let value = |&b: &[u8; 2]| half::f16::from_le_bytes(b).to_f32();
    chunks.iter().map(value).collect()
}

/// Finds the integers that values are multiples of their scales by.
fn to_integers(values: &[f32], positions: &[usize], scales: &[f32]) -> Vec<u8> {
    let integer = |(v, &at): (&f32, &usize)| nearest(*v, scales[at]).cast_unsigned();
    values.iter().zip(positions).map(integer).collect()
}

/// The integer from -127 to 127 that a value is nearest to, in units of a scale.
#[expect(clippy::cast_possible_truncation, reason = "clamped")]
pub(crate) fn nearest(value: f32, scale: f32) -> i8 {
    (value / scale).round().clamp(-127.0, 127.0) as i8
}
