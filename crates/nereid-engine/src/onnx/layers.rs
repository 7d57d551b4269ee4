//! Layers without windows: dense, normalisation, look-ups, joins and changes of shape.

use super::{
    Layers, Unsupported,
    functions::single,
    graph::{Value, dims, float_attribute, int, int_attribute, ints},
    proto::INT64,
};
use crate::network::{Join, Kind, Node};

impl Layers<'_> {
    /// Emits a layer without windows.
    pub(super) fn plain(&mut self, node: &Node, inputs: &[Value]) -> Result<Value, Unsupported> {
        let value = &inputs[0];
        Ok(match &node.kind {
            Kind::Dense { kernel, bias, .. } => self.dense(value, *kernel, *bias),
            Kind::Reshape => {
                let x = self.graph.last_of(value);
                let name = self.graph.reshape(&x.name, &node.output);
                Value::last(name, node.output.clone())
            }
            Kind::Repeat(steps) => {
                let x = self.graph.last_of(value);
                let one = self.graph.reshape(&x.name, &[1, x.size()]);
                let times = self.graph.integers(&[1, int(*steps), 1]);
                let name = self.graph.node("Tile", &[&one, &times], vec![]);
                Value::last(name, node.output.clone())
            }
            Kind::Noise(_) | Kind::Activation => value.clone(),
            Kind::BatchNorm(norm) => {
                let weights = [norm.gamma, norm.beta, norm.mean, norm.variance];
                self.batch_norm(value, weights, norm.epsilon)
            }
            Kind::LayerNorm(norm) => self.layer_norm(value, [norm.gamma, norm.beta], norm.epsilon),
            Kind::RmsNorm(norm) => self.rms_norm(value, norm.scale, norm.epsilon),
            Kind::GroupNorm(norm) => {
                let weights = [norm.gamma, norm.beta];
                self.group_norm(value, norm.groups, weights, norm.epsilon)
            }
            Kind::Slopes(slopes) => self.slopes(value, slopes.alpha, &slopes.shape),
            Kind::Embedding { table, rows, size } => {
                let values = self.weight(*table).1;
                let table = self.graph.floats(&[*rows, *size], &values);
                let to = vec![int_attribute("to", i64::from(INT64))];
                let indices = self.graph.node("Cast", &[&value.name], to);
                let name = self.graph.node("Gather", &[&table, &indices], vec![]);
                Value::last(name, node.output.clone())
            }
            Kind::Positions(table) => self.positions(value, *table),
            Kind::Recurrent(layer) => self.recurrent(node, value, layer)?,
            Kind::Bidirectional(layer) => self.bidirectional(node, value, layer)?,
            Kind::Attention(attention) => self.attention(inputs, attention),
            Kind::Join(join) => self.join(node, inputs, *join),
            Kind::Concatenate(axis) => self.concatenate(node, inputs, *axis),
            _ => return Err(Unsupported(format!("layer {}", node.name))),
        })
    }

    fn dense(&mut self, value: &Value, kernel: usize, bias: Option<usize>) -> Value {
        let x = self.graph.last_of(value);
        let values = self.weight(kernel).1;
        let (inputs, mut shape) = (x.channels(), x.shape.clone());
        let units = values.len() / inputs.max(1);
        let kernel = self.graph.floats(&[inputs, units], &values);
        let bias = bias.map(|b| {
            let bias = self.weight(b).1;
            self.graph.floats(&[units], &bias)
        });
        let name = match (bias, shape.len()) {
            (Some(bias), 1) => self.graph.node("Gemm", &[&x.name, &kernel, &bias], vec![]),
            (bias, _) => {
                let product = self.graph.node("MatMul", &[&x.name, &kernel], vec![]);
                match bias {
                    Some(bias) => self.graph.node("Add", &[&product, &bias], vec![]),
                    None => product,
                }
            }
        };
        if let Some(last) = shape.last_mut() {
            *last = units;
        }
        Value::last(name, shape)
    }

    /// Adds numbers of each channel that fit a layout.
    fn channels(&mut self, value: &Value, values: &[f32]) -> String {
        let spatial = if value.planar {
            value.shape.len() - 1
        } else {
            0
        };
        let shape = [vec![values.len()], vec![1; spatial]].concat();
        self.graph.floats(&shape, values)
    }

    fn batch_norm(&mut self, value: &Value, weights: [usize; 4], epsilon: f64) -> Value {
        let [gamma, beta, mean, variance] = weights.map(|w| self.weight(w).1);
        let scale: Vec<f64> = gamma
            .iter()
            .zip(&variance)
            .map(|(&g, &v)| f64::from(g) / (f64::from(v) + epsilon).sqrt())
            .collect();
        let shift: Vec<f32> = scale
            .iter()
            .zip(beta.iter().zip(&mean))
            .map(|(s, (&b, &m))| single(f64::from(b) - f64::from(m) * s))
            .collect();
        let scale: Vec<f32> = scale.into_iter().map(single).collect();
        let (scale, shift) = (self.channels(value, &scale), self.channels(value, &shift));
        let scaled = self.graph.node("Mul", &[&value.name, &scale], vec![]);
        value.renamed(self.graph.node("Add", &[&scaled, &shift], vec![]))
    }

    fn layer_norm(&mut self, value: &Value, weights: [usize; 2], epsilon: f64) -> Value {
        let x = self.graph.last_of(value);
        let [gamma, beta] = weights.map(|w| self.weight(w).1);
        let (gamma, beta) = (self.channels(&x, &gamma), self.channels(&x, &beta));
        let attributes = vec![
            int_attribute("axis", -1),
            float_attribute("epsilon", single(epsilon)),
        ];
        let name = self
            .graph
            .node("LayerNormalization", &[&x.name, &gamma, &beta], attributes);
        x.renamed(name)
    }

    fn rms_norm(&mut self, value: &Value, scale: usize, epsilon: f64) -> Value {
        let x = self.graph.last_of(value);
        let scale = self.weight(scale).1;
        let scale = self.channels(&x, &scale);
        let axis = x.shape.len();
        let root = self.root_mean_square(&x.name, axis, epsilon);
        let normal = self.graph.node("Div", &[&x.name, &root], vec![]);
        x.renamed(self.graph.node("Mul", &[&normal, &scale], vec![]))
    }

    fn mean(&mut self, x: &str, axis: usize) -> String {
        let over = vec![ints("axes", &[int(axis)]), int_attribute("keepdims", 1)];
        self.graph.node("ReduceMean", &[x], over)
    }

    fn root_mean_square(&mut self, x: &str, axis: usize, epsilon: f64) -> String {
        let square = self.graph.node("Mul", &[x, x], vec![]);
        let mean = self.mean(&square, axis);
        let epsilon = self.graph.scalar(single(epsilon));
        let sum = self.graph.node("Add", &[&mean, &epsilon], vec![]);
        self.graph.node("Sqrt", &[&sum], vec![])
    }

    fn group_norm(
        &mut self,
        value: &Value,
        groups: usize,
        weights: [usize; 2],
        epsilon: f64,
    ) -> Value {
        let [gamma, beta] = weights.map(|w| self.weight(w).1);
        let (c, positions) = (value.channels(), value.size() / value.channels().max(1));
        // Samples of other ranks than planes have are seen as steps.
        let steps = if value.has_planes() {
            value.clone()
        } else {
            let name = self.graph.reshape(&value.name, &[positions, c]);
            Value::last(name, vec![positions, c])
        };
        let x = self.graph.planes_of(&steps);
        let apart = [groups, value.size() / groups];
        let grouped = self.graph.reshape(&x.name, &apart);
        let mean = self.mean(&grouped, 2);
        let centred = self.graph.node("Sub", &[&grouped, &mean], vec![]);
        let root = self.root_mean_square(&centred, 2, epsilon);
        let normal = self.graph.node("Div", &[&centred, &root], vec![]);
        let spatial = &x.shape[..x.shape.len() - 1];
        let back = self.graph.reshape(&normal, &[&[c], spatial].concat());
        let (gamma, beta) = (self.channels(&x, &gamma), self.channels(&x, &beta));
        let scaled = self.graph.node("Mul", &[&back, &gamma], vec![]);
        let shifted = x.renamed(self.graph.node("Add", &[&scaled, &beta], vec![]));
        if value.has_planes() {
            return shifted;
        }
        let last = self.graph.last_of(&shifted);
        let name = self.graph.reshape(&last.name, &value.shape);
        Value::last(name, value.shape.clone())
    }

    fn slopes(&mut self, value: &Value, alpha: usize, shape: &[usize]) -> Value {
        let x = self.graph.last_of(value);
        let values = self.weight(alpha).1;
        let alpha = self.graph.floats(shape, &values);
        let above = self.graph.node("Relu", &[&x.name], vec![]);
        let turned = self.graph.node("Neg", &[&x.name], vec![]);
        let below = self.graph.node("Relu", &[&turned], vec![]);
        let below = self.graph.node("Mul", &[&below, &alpha], vec![]);
        x.renamed(self.graph.node("Sub", &[&above, &below], vec![]))
    }

    fn positions(&mut self, value: &Value, table: usize) -> Value {
        let x = self.graph.last_of(value);
        let values = self.weight(table).1;
        let shape = [&[1], x.shape.as_slice()].concat();
        let rows = self.graph.floats(&shape, &values[..x.size()]);
        let like = self.graph.node("Shape", &[&x.name], vec![]);
        x.renamed(self.graph.node("Expand", &[&rows, &like], vec![]))
    }

    /// Brings inputs into one layout: planes if any is in planes.
    fn alike(&mut self, inputs: &[Value]) -> Vec<Value> {
        let planar = inputs.iter().any(|v| v.planar);
        let turn = |v: &Value| {
            if planar {
                self.graph.planes_of(v)
            } else {
                self.graph.last_of(v)
            }
        };
        inputs.iter().map(turn).collect()
    }

    fn join(&mut self, node: &Node, inputs: &[Value], join: Join) -> Value {
        let op = match join {
            Join::Add | Join::Average => "Add",
            Join::Subtract => "Sub",
            Join::Multiply => "Mul",
            Join::Maximum => "Max",
            Join::Minimum => "Min",
        };
        let inputs = self.alike(inputs);
        let mut sum = inputs[0].name.clone();
        for input in &inputs[1..] {
            sum = self.graph.node(op, &[&sum, &input.name], vec![]);
        }
        if join == Join::Average {
            #[expect(clippy::cast_precision_loss, reason = "at most 64 inputs")]
            let n = self.graph.scalar(inputs.len() as f32);
            sum = self.graph.node("Div", &[&sum, &n], vec![]);
        }
        Value {
            name: sum,
            shape: node.output.clone(),
            planar: inputs[0].planar,
        }
    }

    fn concatenate(&mut self, node: &Node, inputs: &[Value], axis: usize) -> Value {
        let inputs = self.alike(inputs);
        let planar = inputs[0].planar;
        let rank = node.output.len();
        let axis = match (planar, axis + 1 == rank) {
            (true, true) => 1,
            (true, false) => axis + 2,
            (false, _) => axis + 1,
        };
        let names: Vec<_> = inputs.iter().map(|v| v.name.as_str()).collect();
        let axis = vec![int_attribute("axis", int(axis))];
        let name = self.graph.node("Concat", &names, axis);
        Value {
            name,
            shape: node.output.clone(),
            planar,
        }
    }

    /// Splits vectors into heads and turns them to the given axes.
    pub(super) fn heads(&mut self, x: &str, shape: [usize; 3], axes: &[i64]) -> String {
        let shape: Vec<i64> = [vec![0], dims(&shape)].concat();
        let shape = self.graph.integers(&shape);
        let apart = self.graph.node("Reshape", &[x, &shape], vec![]);
        self.graph.transpose(&apart, axes)
    }
}
