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

    /// Encodes the file.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, EngineError> {
        let raw: Vec<(&String, &Vec<usize>, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| (name, shape, to_le_bytes(values)))
            .collect();
        let internal = |e| EngineError::Internal(format!("encoding tensors: {e}"));
        let views = raw
            .iter()
            .map(|(name, shape, bytes)| {
                let view = TensorView::new(Dtype::F32, (*shape).clone(), bytes);
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
    /// [`EngineError::InvalidInput`] if it is no safetensors file of 32-bit floats.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, EngineError> {
        let invalid = |e| EngineError::InvalidInput(format!("not a safetensors file: {e}"));
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(invalid)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let mut tensors = BTreeMap::new();
        for (name, view) in SafeTensors::deserialize(bytes).map_err(invalid)?.tensors() {
            if view.dtype() != Dtype::F32 {
                let detail = format!("tensor {name:?} is {:?}, not F32", view.dtype());
                return Err(EngineError::InvalidInput(detail));
            }
            let values = from_le_bytes(view.data());
            tensors.insert(name, (view.shape().to_vec(), values));
        }
        Ok(Self {
            tensors,
            metadata: metadata.into_iter().collect(),
        })
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
