//! The framework that networks are trained with, with our own kernels.

use burn::tensor::{Tensor, TensorData};
use nereid_core::engine::EngineError;

use super::Engine;
use crate::network::{Network, host};

/// A network run as it was trained.
pub(crate) struct Framework {
    network: Network,
    size: usize,
}

impl Framework {
    pub(crate) fn new(network: Network) -> Self {
        let size = network.input.iter().product();
        Self { network, size }
    }
}

impl Engine for Framework {
    fn infer(&self, values: Vec<f32>, rows: usize) -> Result<Vec<f32>, EngineError> {
        let data = TensorData::new(values, [rows, self.size]);
        let input: Tensor<2> = Tensor::from_data(data, &self.network.device);
        host(self.network.infer(input))
    }
}
