//! Builds a network from a plan, with initial weights.

mod kinds;

use burn::tensor::Device;
use nereid_core::spec::network::{Plan, PlannedLayer};

use super::{Network, initial, parameters::Parameter};
use crate::random::{self, Purpose};
use kinds::Weights;

impl Network {
    /// Builds a network whose initial weights follow from `seed`.
    pub(crate) fn build(plan: &Plan, seed: u64, device: &Device) -> Self {
        Self::new(plan, Some(seed), device)
    }

    /// Builds a network whose weights are all 0, to be filled in.
    pub(crate) fn blank(plan: &Plan, device: &Device) -> Self {
        Self::new(plan, None, device)
    }

    fn new(plan: &Plan, seed: Option<u64>, device: &Device) -> Self {
        let device = device.clone().without_autodiff();
        let mut network = Self {
            device,
            input: plan.input.clone(),
            nodes: Vec::with_capacity(plan.layers.len()),
            parameters: Vec::new(),
            adapters: Vec::new(),
            half: false,
        };
        for layer in &plan.layers {
            let first = network.parameters.len();
            network.add_weights(layer, seed);
            network
                .nodes
                .push(Weights::new(layer, first, plan.defaults).node());
        }
        network
    }

    /// Adds a layer's weights, each drawn from a generator of its own.
    fn add_weights(&mut self, layer: &PlannedLayer, seed: Option<u64>) {
        for weight in &layer.weights {
            let index = self.parameters.len() as u64;
            let values = match seed {
                Some(seed) => {
                    let mut rng = random::generator(seed, Purpose::Weights, [index, 0]);
                    initial::values(weight, &mut rng)
                }
                None => vec![0.0; weight.shape.iter().product()],
            };
            let mut parameter = Parameter::new(
                format!("{}/{}", layer.name, weight.role),
                weight.shape.clone(),
                weight.trainable,
                values,
                &self.device,
            );
            parameter.regularizer = weight.regularizer;
            self.parameters.push(parameter);
        }
    }
}
