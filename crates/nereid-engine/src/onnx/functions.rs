//! Activation functions as ONNX operators.

use nereid_core::spec::layers::Activation;

use super::graph::{Graph, Value, float_attribute, int, int_attribute};
use crate::network::Function;

impl Graph {
    /// Applies an activation to a batch, in whichever layout it is; softmax over channels.
    pub(super) fn activate(&mut self, value: &Value, by: Function) -> Value {
        let x = &*value.name;
        let name = match by {
            Function::Named(Activation::Linear) => return value.clone(),
            Function::Named(Activation::Softmax) => {
                let axis = if value.planar {
                    1
                } else {
                    int(value.shape.len())
                };
                self.node("Softmax", &[x], vec![int_attribute("axis", axis)])
            }
            Function::Named(activation) => self.named(x, activation),
            Function::LeakyRelu(slope) => self.node(
                "LeakyRelu",
                &[x],
                vec![float_attribute("alpha", single(slope))],
            ),
            Function::Elu(alpha) => {
                self.node("Elu", &[x], vec![float_attribute("alpha", single(alpha))])
            }
            Function::Relu {
                largest,
                slope,
                threshold,
            } => self.relu(x, largest, single(slope), single(threshold)),
        };
        value.renamed(name)
    }

    fn named(&mut self, x: &str, activation: Activation) -> String {
        match activation {
            Activation::Linear | Activation::Softmax => x.to_owned(),
            Activation::Relu => self.node("Relu", &[x], vec![]),
            Activation::Relu6 => self.clip(x, 0.0, 6.0),
            Activation::LeakyRelu => {
                self.node("LeakyRelu", &[x], vec![float_attribute("alpha", 0.2)])
            }
            Activation::Elu => self.node("Elu", &[x], vec![float_attribute("alpha", 1.0)]),
            Activation::Selu => {
                let attributes = vec![
                    float_attribute("alpha", 1.673_263_2),
                    float_attribute("gamma", 1.050_701),
                ];
                self.node("Selu", &[x], attributes)
            }
            Activation::Gelu => self.gelu(x),
            Activation::GeluApproximate => self.gelu_approximate(x),
            Activation::Silu => {
                let gate = self.node("Sigmoid", &[x], vec![]);
                self.node("Mul", &[x, &gate], vec![])
            }
            Activation::Mish => {
                let soft = self.node("Softplus", &[x], vec![]);
                let gate = self.node("Tanh", &[&soft], vec![]);
                self.node("Mul", &[x, &gate], vec![])
            }
            Activation::Sigmoid => self.node("Sigmoid", &[x], vec![]),
            Activation::HardSigmoid => self.hard_sigmoid(x),
            Activation::HardSilu => {
                let gate = self.hard_sigmoid(x);
                self.node("Mul", &[x, &gate], vec![])
            }
            Activation::Tanh => self.node("Tanh", &[x], vec![]),
            Activation::Softplus => self.node("Softplus", &[x], vec![]),
            Activation::Softsign => self.node("Softsign", &[x], vec![]),
        }
    }

    /// In the form that onnxruntime recognises and computes at once.
    fn gelu(&mut self, x: &str) -> String {
        let [root, one, half] = [std::f32::consts::SQRT_2, 1.0, 0.5].map(|n| self.scalar(n));
        let scaled = self.node("Div", &[x, &root], vec![]);
        let erf = self.node("Erf", &[&scaled], vec![]);
        let above = self.node("Add", &[&erf, &one], vec![]);
        let gated = self.node("Mul", &[x, &above], vec![]);
        self.node("Mul", &[&gated, &half], vec![])
    }

    fn gelu_approximate(&mut self, x: &str) -> String {
        let root = (2.0 / std::f32::consts::PI).sqrt();
        let [share, root, one, half] = [0.044_715, root, 1.0, 0.5].map(|n| self.scalar(n));
        let square = self.node("Mul", &[x, x], vec![]);
        let cube = self.node("Mul", &[&square, x], vec![]);
        let small = self.node("Mul", &[&cube, &share], vec![]);
        let sum = self.node("Add", &[x, &small], vec![]);
        let scaled = self.node("Mul", &[&sum, &root], vec![]);
        let tanh = self.node("Tanh", &[&scaled], vec![]);
        let above = self.node("Add", &[&tanh, &one], vec![]);
        let gated = self.node("Mul", &[x, &above], vec![]);
        self.node("Mul", &[&gated, &half], vec![])
    }

    fn hard_sigmoid(&mut self, x: &str) -> String {
        let attributes = vec![
            float_attribute("alpha", 1.0 / 6.0),
            float_attribute("beta", 0.5),
        ];
        self.node("HardSigmoid", &[x], attributes)
    }

    fn clip(&mut self, x: &str, least: f32, most: f32) -> String {
        let (least, most) = (self.scalar(least), self.scalar(most));
        self.node("Clip", &[x, &least, &most], vec![])
    }

    fn relu(&mut self, x: &str, largest: Option<f64>, slope: f32, threshold: f32) -> String {
        let zero = self.scalar(0.0);
        let limit = self.scalar(threshold);
        let above = if threshold == 0.0 {
            self.node("Relu", &[x], vec![])
        } else {
            let dropped = self.node("Less", &[x, &limit], vec![]);
            self.node("Where", &[&dropped, &zero, x], vec![])
        };
        let above = match largest {
            Some(largest) => {
                let largest = self.scalar(single(largest));
                self.node("Min", &[&above, &largest], vec![])
            }
            None => above,
        };
        if slope == 0.0 {
            return above;
        }
        let slope = self.scalar(slope);
        let distance = self.node("Sub", &[x, &limit], vec![]);
        let below = self.node("Min", &[&distance, &zero], vec![]);
        let below = self.node("Mul", &[&below, &slope], vec![]);
        self.node("Add", &[&above, &below], vec![])
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "networks compute in 32 bits"
)]
pub(super) fn single(n: f64) -> f32 {
    n as f32
}
