//! Weights: flat, in Keras' order.

use burn::tensor::{Device, Tensor, TensorData};
use nereid_core::{engine::EngineError, spec::regularizers::Regularizer};

/// A named weight.
#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    /// Layer and role: `dense/kernel`.
    pub(crate) name: String,
    /// Shape in Keras.
    pub(crate) shape: Vec<usize>,
    /// Whether the optimiser changes it.
    pub(crate) trainable: bool,
    /// What is added to the loss for it.
    pub(crate) regularizer: Option<Regularizer>,
    /// All values, flat, without gradients.
    pub(crate) value: Tensor<1>,
}

impl Parameter {
    /// Makes a weight of values in Keras' order.
    pub(crate) fn new(
        name: String,
        shape: Vec<usize>,
        trainable: bool,
        values: Vec<f32>,
        device: &Device,
    ) -> Self {
        Self {
            value: flat(values, device),
            name,
            shape,
            trainable,
            regularizer: None,
        }
    }

    /// Returns the name of the layer that it belongs to.
    pub(crate) fn layer(&self) -> &str {
        self.name
            .split_once('/')
            .map_or(&*self.name, |(layer, _)| layer)
    }

    /// Returns the values in Keras' order.
    pub(crate) fn to_keras(&self) -> Result<Vec<f32>, EngineError> {
        host(self.value.clone())
    }

    /// Replaces the values, given in Keras' order.
    pub(crate) fn set_keras(&mut self, values: &[f32]) {
        let device = self.value.device();
        self.value = flat(values.to_vec(), &device);
    }
}

/// Puts values onto a device.
pub(crate) fn flat(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

/// Fetches values from their device.
pub(crate) fn host<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, EngineError> {
    tensor
        .try_into_vec_as::<f32>()
        .map_err(|e| EngineError::Internal(format!("reading a tensor: {e}")))
}
