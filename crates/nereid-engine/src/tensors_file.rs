//! Safetensors files: named 32-bit floats with text beside them.

use std::collections::{BTreeMap, HashMap};

use nereid_core::engine::EngineError;
use safetensors::{
    Dtype,
    tensor::{SafeTensors, TensorView},
};

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
