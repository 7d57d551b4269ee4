//! Weights: kept flat in the order that computing wants, exchanged in Keras' order.

use burn::tensor::{Device, Tensor, TensorData};
use nereid_core::engine::EngineError;

/// Order of a weight's values in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Keras' own.
    Same,
    /// Convolution kernels: Keras has (…, in, out), computing wants (out, in, …).
    Kernel,
    /// Depthwise kernels: Keras has (…, in, multiplier), computing wants (in · multiplier, 1, …).
    Depthwise,
}

impl Layout {
    /// Kernel positions, inputs and outputs of a weight of this layout in Keras' order.
    fn spots(self, shape: &[usize]) -> Option<[usize; 3]> {
        match (self, shape) {
            (Self::Same, _) => None,
            (Self::Kernel, [window @ .., inputs, outputs]) => {
                Some([window.iter().product(), *inputs, *outputs])
            }
            (Self::Depthwise, [window @ .., inputs, multiplier]) => {
                Some([window.iter().product(), 1, inputs * multiplier])
            }
            _ => Some([1, 1, shape.iter().product()]),
        }
    }

    /// Brings values from Keras' order into this one.
    fn of_keras(self, shape: &[usize], values: Vec<f32>) -> Vec<f32> {
        match self.spots(shape) {
            None => values,
            Some(spots) => transpose(&values, spots),
        }
    }
}

/// A named weight.
#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    /// Layer and role: `dense/kernel`.
    pub(crate) name: String,
    /// Shape in Keras.
    pub(crate) shape: Vec<usize>,
    pub(crate) layout: Layout,
    /// Whether the optimiser changes it.
    pub(crate) trainable: bool,
    /// All values, flat, without gradients.
    pub(crate) value: Tensor<1>,
}

impl Parameter {
    /// Makes a weight of values in Keras' order.
    pub(crate) fn new(
        name: String,
        shape: Vec<usize>,
        layout: Layout,
        trainable: bool,
        values: Vec<f32>,
        device: &Device,
    ) -> Self {
        let values = layout.of_keras(&shape, values);
        Self {
            value: flat(values, device),
            name,
            shape,
            layout,
            trainable,
        }
    }

    /// Returns the values in Keras' order.
    pub(crate) fn to_keras(&self) -> Result<Vec<f32>, EngineError> {
        let values = host(self.value.clone())?;
        Ok(match self.layout.spots(&self.shape) {
            None => values,
            Some([spots, inputs, outputs]) => transpose(&values, [outputs, inputs, spots]),
        })
    }

    /// Replaces the values, given in Keras' order.
    pub(crate) fn set_keras(&mut self, values: &[f32]) {
        let device = self.value.device();
        let values = self.layout.of_keras(&self.shape, values.to_vec());
        self.value = flat(values, &device);
    }
}

/// Reverses the three axes.
fn transpose(values: &[f32], [a, b, c]: [usize; 3]) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for k in 0..c {
        for j in 0..b {
            out.extend((0..a).map(|i| values[(i * b + j) * c + k]));
        }
    }
    out
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
