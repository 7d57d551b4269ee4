//! An ONNX graph under construction, and the values between its nodes.

use std::collections::HashMap;

use super::proto::{
    AttributeProto, Dimension, Extent, FLOAT, GraphProto, INT64, NodeProto, TensorProto,
    TensorShapeProto, TensorType, TypeProto, ValueInfoProto,
};

/// Name of the batch dimension.
const BATCH: &str = "N";

/// A batch between two nodes.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub(super) name: String,
    /// Shape of a sample, channels last whatever `planar` says.
    pub(super) shape: Vec<usize>,
    /// Whether channels come first, as convolutions have them.
    pub(super) planar: bool,
}

impl Value {
    pub(super) fn channels(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    pub(super) fn size(&self) -> usize {
        self.shape.iter().product()
    }

    /// Tells whether channels can come first: of steps and of planes.
    pub(super) fn has_planes(&self) -> bool {
        matches!(self.shape.len(), 2 | 3)
    }

    /// The same values under another name.
    pub(super) fn renamed(&self, name: String) -> Self {
        Self {
            name,
            ..self.clone()
        }
    }

    /// Values of another shape, channels last.
    pub(super) fn last(name: String, shape: Vec<usize>) -> Self {
        Self {
            name,
            shape,
            planar: false,
        }
    }

    /// Values of another shape, channels first.
    pub(super) fn planes(name: String, shape: Vec<usize>) -> Self {
        Self {
            name,
            shape,
            planar: true,
        }
    }
}

/// Nodes and constants so far.
#[derive(Default)]
pub(super) struct Graph {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    /// The other layout of values that were turned before, by name.
    turned: HashMap<String, String>,
    count: usize,
}

impl Graph {
    /// Adds a node of one output and returns its name.
    pub(super) fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        self.outputs(op, inputs, attributes, 1).remove(0)
    }

    /// Adds a node of several outputs.
    pub(super) fn outputs(
        &mut self,
        op: &str,
        inputs: &[&str],
        attribute: Vec<AttributeProto>,
        n: usize,
    ) -> Vec<String> {
        self.count += 1;
        let name = format!("{}_{}", op.to_lowercase(), self.count);
        let output: Vec<_> = (0..n)
            .map(|i| {
                if i == 0 {
                    name.clone()
                } else {
                    format!("{name}_{i}")
                }
            })
            .collect();
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|&i| i.to_owned()).collect(),
            output: output.clone(),
            name,
            op_type: op.to_owned(),
            attribute,
        });
        output
    }

    /// Adds floats that do not change.
    pub(super) fn floats(&mut self, shape: &[usize], values: &[f32]) -> String {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(shape, FLOAT, bytes)
    }

    /// Adds one number.
    pub(super) fn scalar(&mut self, value: f32) -> String {
        self.floats(&[], &[value])
    }

    /// Adds whole numbers, of an axis each.
    pub(super) fn integers(&mut self, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(&[values.len()], INT64, bytes)
    }

    fn constant(&mut self, shape: &[usize], data_type: i32, raw_data: Vec<u8>) -> String {
        self.count += 1;
        let name = format!("constant_{}", self.count);
        self.constants.push(TensorProto {
            dims: dims(shape),
            data_type,
            name: name.clone(),
            raw_data,
        });
        name
    }

    /// Gives samples another shape.
    pub(super) fn reshape(&mut self, from: &str, shape: &[usize]) -> String {
        let shape: Vec<i64> = std::iter::once(-1).chain(dims(shape)).collect();
        let shape = self.integers(&shape);
        self.node("Reshape", &[from, &shape], vec![])
    }

    pub(super) fn transpose(&mut self, from: &str, axes: &[i64]) -> String {
        self.node("Transpose", &[from], vec![ints("perm", axes)])
    }

    /// Puts channels first; a value that was turned before is not turned again.
    pub(super) fn planes_of(&mut self, value: &Value) -> Value {
        if value.planar || !value.has_planes() {
            return value.clone();
        }
        let axes: &[i64] = if value.shape.len() == 3 {
            &[0, 3, 1, 2]
        } else {
            &[0, 2, 1]
        };
        let spatial = &value.shape[..value.shape.len() - 1];
        let moved: Vec<_> = [&[value.channels()], spatial].concat();
        let name = self.turn(value, axes, &moved);
        Value::planes(name, value.shape.clone())
    }

    /// Puts channels last.
    pub(super) fn last_of(&mut self, value: &Value) -> Value {
        if !value.planar {
            return value.clone();
        }
        let axes: &[i64] = if value.shape.len() == 3 {
            &[0, 2, 3, 1]
        } else {
            &[0, 2, 1]
        };
        let name = self.turn(value, axes, &value.shape.clone());
        Value::last(name, value.shape.clone())
    }

    fn turn(&mut self, value: &Value, axes: &[i64], moved: &[usize]) -> String {
        if let Some(known) = self.turned.get(&value.name) {
            return known.clone();
        }
        // Values of one channel, or of one position, lie in the same order either way.
        let same = value.channels() == 1 || value.channels() == value.size();
        let name = if same {
            self.reshape(&value.name, moved)
        } else {
            self.transpose(&value.name, axes)
        };
        self.turned.insert(value.name.clone(), name.clone());
        self.turned.insert(name.clone(), value.name.clone());
        name
    }

    /// Names the result and finishes the graph.
    pub(super) fn finish(
        mut self,
        input: (&str, &[usize]),
        result: &str,
        output: (&str, &[usize]),
    ) -> GraphProto {
        self.nodes.push(NodeProto {
            input: vec![result.to_owned()],
            output: vec![output.0.to_owned()],
            name: output.0.to_owned(),
            op_type: "Identity".to_owned(),
            attribute: vec![],
        });
        GraphProto {
            node: self.nodes,
            name: "network".to_owned(),
            initializer: self.constants,
            input: vec![info(input.0, input.1)],
            output: vec![info(output.0, output.1)],
        }
    }
}

fn info(name: &str, shape: &[usize]) -> ValueInfoProto {
    let fixed = dims(shape).into_iter().map(Extent::Fixed);
    let extents = std::iter::once(Extent::Symbol(BATCH.to_owned())).chain(fixed);
    let dim = extents.map(|e| Dimension { value: Some(e) }).collect();
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorType {
                elem_type: FLOAT,
                shape: Some(TensorShapeProto { dim }),
            }),
        }),
    }
}

/// Sizes as ONNX has them.
pub(super) fn dims(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&d| int(d)).collect()
}

pub(super) fn int(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn float_attribute(name: &str, f: f32) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        f,
        r#type: 1,
        ..AttributeProto::default()
    }
}

pub(super) fn int_attribute(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        i,
        r#type: 2,
        ..AttributeProto::default()
    }
}

pub(super) fn text(name: &str, s: &str) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        s: s.as_bytes().to_vec(),
        r#type: 3,
        ..AttributeProto::default()
    }
}

pub(super) fn floats(name: &str, floats: Vec<f32>) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        floats,
        r#type: 6,
        ..AttributeProto::default()
    }
}

pub(super) fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        ints: ints.to_vec(),
        r#type: 7,
        ..AttributeProto::default()
    }
}

pub(super) fn texts(name: &str, texts: &[&str]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        strings: texts.iter().map(|s| s.as_bytes().to_vec()).collect(),
        r#type: 8,
        ..AttributeProto::default()
    }
}
