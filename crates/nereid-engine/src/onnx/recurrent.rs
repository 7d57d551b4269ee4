//! Recurrent layers and attention.

use nereid_core::spec::layers::{Activation, MergeMode};

use super::{
    Dialect, Layers, Unsupported,
    graph::{Value, floats, int, int_attribute, text, texts},
    proto::AttributeProto,
};
use crate::network::{Attention, Bidirectional, Cell, Function, Node, Projection, Recurrent};

/// What a recurrent layer gives: the states of all steps, and the last one.
type Outputs = [String; 2];

impl Layers<'_> {
    pub(super) fn recurrent(
        &mut self,
        node: &Node,
        value: &Value,
        layer: &Recurrent,
    ) -> Result<Value, Unsupported> {
        let x = self.graph.last_of(value);
        let [steps, last] = self.run(node, &x, layer)?;
        if !layer.sequences {
            return Ok(Value::last(last, node.output.clone()));
        }
        Ok(Value::last(steps, node.output.clone()))
    }

    pub(super) fn bidirectional(
        &mut self,
        node: &Node,
        value: &Value,
        layer: &Bidirectional,
    ) -> Result<Value, Unsupported> {
        let x = self.graph.last_of(value);
        let mut parts = Vec::new();
        for direction in [&layer.forward, &layer.backward] {
            let [steps, last] = self.run(node, &x, direction)?;
            parts.push(if direction.sequences { steps } else { last });
        }
        if layer.backward.sequences {
            // Outputs stand by the steps that they belong to.
            parts[1] = self.reversed(&parts[1], x.shape[0]);
        }
        let pair = [parts[0].as_str(), parts[1].as_str()];
        let name = match layer.merge {
            MergeMode::Sum => self.graph.node("Add", &pair, vec![]),
            MergeMode::Mul => self.graph.node("Mul", &pair, vec![]),
            MergeMode::Ave => {
                let sum = self.graph.node("Add", &pair, vec![]);
                let two = self.graph.scalar(2.0);
                self.graph.node("Div", &[&sum, &two], vec![])
            }
            MergeMode::Concat => {
                let axis = vec![int_attribute("axis", -1)];
                self.graph.node("Concat", &pair, axis)
            }
        };
        Ok(Value::last(name, node.output.clone()))
    }

    /// Puts steps into the opposite order.
    fn reversed(&mut self, x: &str, steps: usize) -> String {
        let turned: Vec<i64> = (0..steps).rev().map(int).collect();
        let turned = self.graph.integers(&turned);
        let axis = vec![int_attribute("axis", 1)];
        self.graph.node("Gather", &[x, &turned], axis)
    }

    /// Runs one direction; steps come in the order in which they are taken.
    ///
    /// Turning the input and not the operator is what all runtimes agree on: tract 0.23 gives the
    /// steps of `direction: reverse` in the opposite order.
    fn run(&mut self, node: &Node, x: &Value, layer: &Recurrent) -> Result<Outputs, Unsupported> {
        let (channels, units) = (x.channels(), layer.units);
        let (op, order, gate): (_, &[usize], _) = match layer.cell {
            Cell::Simple => ("RNN", &[0], None),
            // Keras has i, f, c, o, and ONNX i, o, f, c.
            Cell::Lstm(gate) => ("LSTM", &[0, 3, 1, 2], Some(gate)),
            Cell::Gru(gate, _) => ("GRU", &[0, 1, 2], Some(gate)),
        };
        let names: Vec<_> = match op {
            "LSTM" => [gate, Some(layer.function), Some(layer.function)]
                .into_iter()
                .flatten()
                .collect(),
            _ => gate.into_iter().chain([layer.function]).collect(),
        };
        let mut attributes = self.functions(node, &names)?;
        attributes.push(int_attribute("hidden_size", int(units)));
        attributes.push(text("direction", "forward"));
        if let Cell::Gru(_, after) = layer.cell {
            attributes.push(int_attribute("linear_before_reset", i64::from(after)));
        }
        let kernel = gates(&self.weight(layer.kernel).1, channels, units, order);
        let inner = gates(&self.weight(layer.inner).1, units, units, order);
        let rows = order.len() * units;
        let bias = self.biases(layer, order);
        let kernel = self.graph.floats(&[1, rows, channels], &kernel);
        let inner = self.graph.floats(&[1, rows, units], &inner);
        let bias = self.graph.floats(&[1, 2 * rows], &bias);
        let zeros = self.zeros(x, units);
        let given = if layer.backwards {
            self.reversed(&x.name, x.shape[0])
        } else {
            x.name.clone()
        };
        let time = self.graph.transpose(&given, &[1, 0, 2]);
        let mut inputs = vec![&*time, &*kernel, &*inner, &*bias, "", &*zeros];
        if op == "LSTM" {
            inputs.push(&zeros);
        }
        let outputs = self.graph.outputs(op, &inputs, attributes, 2);
        let axis = self.graph.integers(&[1]);
        let steps = self.graph.node("Squeeze", &[&outputs[0], &axis], vec![]);
        let steps = self.graph.transpose(&steps, &[1, 0, 2]);
        let axis = self.graph.integers(&[0]);
        let last = self.graph.node("Squeeze", &[&outputs[1], &axis], vec![]);
        Ok([steps, last])
    }

    /// A first state of zeros, as many as there are samples.
    fn zeros(&mut self, x: &Value, units: usize) -> String {
        let shape = self.graph.node("Shape", &[&x.name], vec![]);
        let first = self.graph.integers(&[0]);
        let samples = self.graph.node("Gather", &[&shape, &first], vec![]);
        let [one, units] = [1, int(units)].map(|n| self.graph.integers(&[n]));
        let axis = vec![int_attribute("axis", 0)];
        let shape = self.graph.node("Concat", &[&one, &samples, &units], axis);
        let zero = self.graph.floats(&[1, 1, 1], &[0.0]);
        self.graph.node("Expand", &[&zero, &shape], vec![])
    }

    /// Biases of inputs, then of states.
    fn biases(&self, layer: &Recurrent, order: &[usize]) -> Vec<f32> {
        let rows = order.len() * layer.units;
        let Some(bias) = layer.bias else {
            return vec![0.0; 2 * rows];
        };
        let bias = self.weight(bias).1;
        let mut both = Vec::with_capacity(2 * rows);
        for part in bias.chunks(rows) {
            both.extend(gates(part, 1, layer.units, order));
        }
        both.resize(2 * rows, 0.0);
        both
    }

    /// Names activations as recurrent operators know them.
    fn functions(
        &self,
        node: &Node,
        functions: &[Function],
    ) -> Result<Vec<AttributeProto>, Unsupported> {
        use Activation::{HardSigmoid, Linear, Relu, Sigmoid, Softplus, Softsign, Tanh};
        let (mut names, mut alphas, mut betas) = (Vec::new(), Vec::new(), Vec::new());
        let usual: &[Activation] = if functions.len() == 1 {
            &[Tanh]
        } else {
            &[Sigmoid, Tanh, Tanh]
        };
        for (i, function) in functions.iter().enumerate() {
            let (name, numbers) = match function {
                Function::Named(Tanh) => ("Tanh", [0.0, 0.0]),
                Function::Named(Sigmoid) => ("Sigmoid", [0.0, 0.0]),
                Function::Named(Relu) => ("Relu", [0.0, 0.0]),
                Function::Named(Softsign) => ("Softsign", [0.0, 0.0]),
                Function::Named(Softplus) => ("Softplus", [0.0, 0.0]),
                Function::Named(Linear) => ("Affine", [1.0, 0.0]),
                Function::Named(HardSigmoid) => ("HardSigmoid", [1.0 / 6.0, 0.5]),
                other => {
                    let name = &node.name;
                    return Err(Unsupported(format!("{other:?} inside of layer {name}")));
                }
            };
            // tract 0.23 takes no notice of these names: it would compute something else.
            if self.dialect == Dialect::Tract && *function != Function::Named(usual[i]) {
                let layer = &node.name;
                return Err(Unsupported(format!(
                    "{name} inside of layer {layer}, in place of which it would compute {:?}",
                    usual[i]
                )));
            }
            names.push(name);
            alphas.push(numbers[0]);
            betas.push(numbers[1]);
        }
        let mut attributes = vec![texts("activations", &names)];
        if alphas.iter().chain(&betas).any(|n| *n != 0.0) {
            attributes.push(floats("activation_alpha", alphas));
            attributes.push(floats("activation_beta", betas));
        }
        Ok(attributes)
    }

    /// Attends with a query to keys and values.
    pub(super) fn attention(&mut self, inputs: &[Value], by: &Attention) -> Value {
        let query = self.graph.last_of(&inputs[0]);
        let value = inputs.get(1).unwrap_or(&inputs[0]).clone();
        let key = inputs.get(2).unwrap_or(&value).clone();
        let (value, key) = (self.graph.last_of(&value), self.graph.last_of(&key));
        let (steps, keys) = (query.shape[0], key.shape[0]);
        let q = self.linear(&query.name, by.query, query.channels());
        let k = self.linear(&key.name, by.key, key.channels());
        let v = self.linear(&value.name, by.value, value.channels());
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "at most 2^20"
        )]
        let scale = self.graph.scalar((1.0 / (by.key_dim as f64).sqrt()) as f32);
        let q = self.graph.node("Mul", &[&q, &scale], vec![]);
        let q = self.heads(&q, [steps, by.heads, by.key_dim], &[0, 2, 1, 3]);
        let k = self.heads(&k, [keys, by.heads, by.key_dim], &[0, 2, 3, 1]);
        let v = self.heads(&v, [keys, by.heads, by.value_dim], &[0, 2, 1, 3]);
        let mut scores = self.graph.node("MatMul", &[&q, &k], vec![]);
        if by.causal {
            let later = |i: usize| {
                if i % keys <= i / keys { 0.0 } else { -1e9 }
            };
            let later: Vec<f32> = (0..steps * keys).map(later).collect();
            let later = self.graph.floats(&[steps, keys], &later);
            scores = self.graph.node("Add", &[&scores, &later], vec![]);
        }
        let axis = vec![int_attribute("axis", 3)];
        let shares = self.graph.node("Softmax", &[&scores], axis);
        let joined = self.graph.node("MatMul", &[&shares, &v], vec![]);
        let joined = self.graph.transpose(&joined, &[0, 2, 1, 3]);
        let width = by.heads * by.value_dim;
        let joined = self.graph.reshape(&joined, &[steps, width]);
        query.renamed(self.linear(&joined, by.output, width))
    }

    fn linear(&mut self, x: &str, by: Projection, inputs: usize) -> String {
        let values = self.weight(by.kernel).1;
        let outputs = values.len() / inputs.max(1);
        let kernel = self.graph.floats(&[inputs, outputs], &values);
        let product = self.graph.node("MatMul", &[x, &kernel], vec![]);
        let Some(bias) = by.bias else {
            return product;
        };
        let bias = self.weight(bias).1;
        let bias = self.graph.floats(&[outputs], &bias);
        self.graph.node("Add", &[&product, &bias], vec![])
    }
}

/// From Keras' columns of gates (rows, gates · units) to ONNX' rows (gates · units, rows).
fn gates(values: &[f32], rows: usize, units: usize, order: &[usize]) -> Vec<f32> {
    let columns = order.len() * units;
    let mut turned = Vec::with_capacity(values.len());
    for gate in order {
        for unit in 0..units {
            let column = gate * units + unit;
            turned.extend((0..rows).map(|row| values[row * columns + column]));
        }
    }
    turned
}
