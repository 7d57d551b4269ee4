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
        let values = match layout {
            Layout::Same => values,
            Layout::Kernel => transpose(&values, spots(&shape)),
        };
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
        Ok(match self.layout {
            Layout::Same => values,
            Layout::Kernel => {
                let [spots, inputs, outputs] = spots(&self.shape);
                transpose(&values, [outputs, inputs, spots])
            }
        })
    }

    /// Replaces the values, given in Keras' order.
    pub(crate) fn set_keras(&mut self, values: &[f32]) {
        let device = self.value.device();
        let values = match self.layout {
            Layout::Same => values.to_vec(),
            Layout::Kernel => transpose(values, spots(&self.shape)),
        };
        self.value = flat(values, &device);
    }
}

/// Kernel positions, inputs and outputs of a kernel in Keras' order.
fn spots(shape: &[usize]) -> [usize; 3] {
    match shape {
        [window @ .., inputs, outputs] => [window.iter().product(), *inputs, *outputs],
        _ => [1, 1, shape.iter().product()],
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
