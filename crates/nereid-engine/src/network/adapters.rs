//! Low-rank adaptation (Hu et al., 2021): weights that change by a product of two thin matrices.
//!
//! The framework's own works on its modules, which draw from its process-wide generator; here the
//! matrices are parameters like all others, so that optimiser, averages and snapshots know them.

use std::borrow::Cow;

use burn::tensor::Tensor;

use super::{Network, Parameter};
use crate::random::{self, Purpose};

/// A weight W that is used as W + scale · A · B; parameters by index.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Adapter {
    weight: usize,
    a: usize,
    b: usize,
    rows: usize,
    rank: usize,
    columns: usize,
    scale: f64,
}

/// How a weight is adapted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Adaptation {
    /// Rows and columns of the weight as a matrix.
    pub(crate) matrix: [usize; 2],
    pub(crate) rank: usize,
    pub(crate) scale: f64,
}

impl Adapter {
    /// Returns the weight as it is used.
    fn apply(&self, weights: &[Tensor<1>]) -> Tensor<1> {
        let a: Tensor<2> = weights[self.a].clone().reshape([self.rows, self.rank]);
        let b: Tensor<2> = weights[self.b].clone().reshape([self.rank, self.columns]);
        let product = a.matmul(b).reshape([self.rows * self.columns]);
        weights[self.weight].clone() + product * self.scale
    }
}

impl Network {
    /// Keeps all weights of a layer as they are.
    pub(crate) fn freeze(&mut self, layer: &str) {
        for parameter in &mut self.parameters {
            parameter.trainable &= parameter.layer() != layer;
        }
        for node in &mut self.nodes {
            if node.name == layer {
                node.freeze();
            }
        }
    }

    /// Trains a change of low rank in a weight's place.
    ///
    /// A is drawn from a normal distribution, whose variance is He's, and B is 0, so that nothing
    /// changes at first.
    pub(crate) fn adapt(&mut self, weight: usize, how: Adaptation, seed: u64) {
        let Adaptation {
            matrix: [rows, columns],
            rank,
            scale,
        } = how;
        let parameter = &mut self.parameters[weight];
        parameter.trainable = false;
        let stem = parameter.name.rsplit_once('/').map_or("", |(stem, _)| stem);
        let [name_a, name_b] = ["lora_a", "lora_b"].map(|part| format!("{stem}/{part}"));
        #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
        let deviation = (2.0 / rows.max(1) as f64).sqrt();
        let mut rng = random::generator(seed, Purpose::Adapters, [weight as u64, 0]);
        let drawn = random::normal(&mut rng, rows * rank, 0.0, deviation);
        let a = self.parameters.len();
        let device = &self.device;
        let parts = [
            Parameter::new(name_a, vec![rows, rank], true, drawn, device),
            Parameter::new(
                name_b,
                vec![rank, columns],
                true,
                vec![0.0; rank * columns],
                device,
            ),
        ];
        self.parameters.extend(parts);
        self.adapters.push(Adapter {
            weight,
            a,
            b: a + 1,
            rows,
            rank,
            columns,
            scale,
        });
    }

    /// Returns the weights as a forward pass takes them, given those of all parameters.
    pub(crate) fn adapted<'a>(&self, weights: &'a [Tensor<1>]) -> Cow<'a, [Tensor<1>]> {
        if self.adapters.is_empty() {
            return Cow::Borrowed(weights);
        }
        let mut adapted = weights.to_vec();
        for adapter in &self.adapters {
            adapted[adapter.weight] = adapter.apply(weights);
        }
        Cow::Owned(adapted)
    }

    /// Makes the changes part of the weights, which leaves the network as it was built.
    pub(crate) fn merge_adapters(&mut self) {
        let values: Vec<_> = self.parameters.iter().map(|p| p.value.clone()).collect();
        let merged = self.adapted(&values).into_owned();
        for (parameter, value) in self.parameters.iter_mut().zip(merged) {
            parameter.value = value;
        }
        if let Some(first) = self.adapters.first() {
            self.parameters.truncate(first.a);
        }
        self.adapters.clear();
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::network::{flat, host};

    #[test]
    fn a_merged_weight_is_the_base_and_the_scaled_product() {
        let device = Device::flex();
        let mut network = Network {
            device: device.clone(),
            input: vec![2],
            nodes: Vec::new(),
            parameters: vec![Parameter::new(
                "dense/kernel".to_owned(),
                vec![2, 3],
                true,
                vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
                &device,
            )],
            half: false,
            adapters: Vec::new(),
        };
        let how = Adaptation {
            matrix: [2, 3],
            rank: 1,
            scale: 0.5,
        };
        network.adapt(0, how, 1);
        let names: Vec<_> = network.parameters.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["dense/kernel", "dense/lora_a", "dense/lora_b"]);
        let trained = network.parameters.iter().map(|p| p.trainable);
        assert_eq!(trained.collect::<Vec<_>>(), [false, true, true]);

        let before: Vec<_> = network.parameters.iter().map(|p| p.value.clone()).collect();
        let unchanged = host(network.adapted(&before)[0].clone()).unwrap();
        assert_eq!(unchanged, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);

        network.parameters[1].value = flat(vec![2.0, 4.0], &device);
        network.parameters[2].value = flat(vec![1.0, 0.0, -1.0], &device);
        network.merge_adapters();
        assert_eq!(network.parameters.len(), 1);
        let merged = host(network.parameters[0].value.clone()).unwrap();
        assert_eq!(merged, [2.0, 2.0, 2.0, 6.0, 5.0, 4.0]);
    }
}
