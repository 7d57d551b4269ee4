//! Writes networks as ONNX, from the spec and the weights.
//!
//! The batch dimension is symbolic (`N`). Samples come in channels last, as the signature has
//! them; runs of convolutions are channels first, with a transposition only at their borders.

mod functions;
mod graph;
mod layers;
pub(crate) mod proto;
mod recurrent;
#[cfg(test)]
pub(crate) mod tests;
mod windows;

use burn::tensor::Device;
use nereid_core::{
    engine::EngineError,
    models::Preprocessing,
    spec::network::{Plan, Source},
};
use prost::Message;

use crate::{
    network::{Network, Node},
    outputs::Head,
    tensors_file::TensorsFile,
};
use graph::{Graph, Value, int_attribute};
use proto::{ModelProto, OperatorSetIdProto};

/// Version of the intermediate representation.
const IR_VERSION: i64 = 8;
/// Version of the operators.
const OPSET: i64 = 17;
/// Name of the graph's input.
pub(crate) const INPUT: &str = "input";
/// Name of the graph's output: one row a sample.
pub(crate) const OUTPUT: &str = "output";

/// For whom a graph is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Whoever follows the standard.
    Standard,
    /// tract, which passes over some attributes without a word.
    Tract,
}

/// What is to be written, for whom.
#[derive(Clone, Copy)]
pub(crate) struct Export<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) weights: &'a TensorsFile,
    pub(crate) dialect: Dialect,
    /// Given if raw features go in: missing ones are imputed, all scaled.
    pub(crate) preprocessing: Option<&'a Preprocessing>,
    /// Given if probabilities come out, where the network yields logits, and samples as they are
    /// raw; with the preprocessing that is undone for that.
    pub(crate) head: Option<(Head, &'a Preprocessing)>,
}

/// What of a network cannot be written as ONNX.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unsupported(pub(crate) String);

/// Layers on their way into a graph.
struct Layers<'a> {
    graph: Graph,
    network: &'a Network,
    weights: &'a TensorsFile,
    dialect: Dialect,
}

impl<'a> Export<'a> {
    /// The network alone, between preprocessing and head.
    pub(crate) fn network(plan: &'a Plan, weights: &'a TensorsFile, dialect: Dialect) -> Self {
        Self {
            plan,
            weights,
            dialect,
            preprocessing: None,
            head: None,
        }
    }

    /// Writes the model.
    ///
    /// # Errors
    /// [`EngineError::InvalidInput`] names what cannot be written.
    pub(crate) fn bytes(self) -> Result<Vec<u8>, EngineError> {
        Ok(self.message()?.encode_to_vec())
    }

    /// Builds the model's message.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub(crate) fn message(self) -> Result<ModelProto, EngineError> {
        let network = Network::blank(self.plan, &Device::flex());
        for parameter in &network.parameters {
            let found = self.weights.tensors.get(&parameter.name);
            if found.is_none_or(|(shape, _)| *shape != parameter.shape) {
                let name = &parameter.name;
                let detail = format!("tensor {name:?} is missing or has another shape");
                return Err(EngineError::InvalidInput(detail));
            }
        }
        let layers = Layers {
            graph: Graph::default(),
            network: &network,
            weights: self.weights,
            dialect: self.dialect,
        };
        let graph = layers.emit(self).map_err(|Unsupported(what)| {
            EngineError::InvalidInput(format!("this cannot be written as ONNX: {what}"))
        })?;
        Ok(ModelProto {
            ir_version: IR_VERSION,
            producer_name: "nereid".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(graph),
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: OPSET,
            }],
        })
    }
}

impl Layers<'_> {
    fn emit(mut self, export: Export<'_>) -> Result<proto::GraphProto, Unsupported> {
        let plan = export.plan;
        let mut input = Value::last(INPUT.to_owned(), plan.input.clone());
        if let Some(preprocessing) = export.preprocessing {
            input = self.preprocess(&input, preprocessing);
        }
        let mut values = vec![input];
        let network = self.network;
        for node in &network.nodes {
            let inputs: Vec<_> = node
                .sources
                .iter()
                .map(|source| match source {
                    Source::Input => values[0].clone(),
                    Source::Layer(i) => values[i + 1].clone(),
                })
                .collect();
            let value = self.layer(node, &inputs)?;
            values.push(value);
        }
        let result = values.pop().unwrap_or_else(|| values[0].clone());
        let result = self.graph.last_of(&result);
        let mut width = result.size();
        let mut name = self.graph.reshape(&result.name, &[width]);
        if let Some((head, scaling)) = export.head {
            (name, width) = self.head(name, width, head, scaling);
        }
        let graph = self.graph;
        Ok(graph.finish((INPUT, &plan.input), &name, (OUTPUT, &[width])))
    }

    fn layer(&mut self, node: &Node, inputs: &[Value]) -> Result<Value, Unsupported> {
        let value = match self.windowed(node, &inputs[0]) {
            Some(value) => value,
            None => self.plain(node, inputs)?,
        };
        Ok(self.graph.activate(&value, node.activation))
    }

    /// Returns name and values of a weight, in Keras' order.
    fn weight(&self, index: usize) -> (String, Vec<f32>) {
        let name = &self.network.parameters[index].name;
        // Checked before the first layer.
        let values = self.weights.tensors.get(name).map(|(_, v)| v.clone());
        (name.clone(), values.unwrap_or_default())
    }

    fn preprocess(&mut self, value: &Value, by: &Preprocessing) -> Value {
        let mut name = value.name.clone();
        if !by.impute.is_empty() {
            let missing = self.graph.node("IsNaN", &[&name], vec![]);
            let instead = self.graph.floats(&[by.impute.len()], &by.impute);
            name = self
                .graph
                .node("Where", &[&missing, &instead, &name], vec![]);
        }
        if by.offset.iter().any(|&o| o != 0.0) {
            let offset = self.graph.floats(&[by.offset.len()], &by.offset);
            name = self.graph.node("Sub", &[&name, &offset], vec![]);
        }
        if by.scale.iter().any(|&s| (s - 1.0).abs() > 0.0) {
            let scale = self.graph.floats(&[by.scale.len()], &by.scale);
            name = self.graph.node("Div", &[&name, &scale], vec![]);
        }
        value.renamed(name)
    }

    /// Makes probabilities or samples of the network's outputs; returns their number too.
    fn head(
        &mut self,
        raw: String,
        width: usize,
        head: Head,
        scaling: &Preprocessing,
    ) -> (String, usize) {
        let logistic = |layers: &mut Self, x: String, from_logits: bool| {
            if from_logits {
                layers.graph.node("Sigmoid", &[&x], vec![])
            } else {
                x
            }
        };
        match head {
            Head::Classes { from_logits: true } => {
                let axis = vec![int_attribute("axis", 1)];
                (self.graph.node("Softmax", &[&raw], axis), width)
            }
            Head::Value | Head::Classes { from_logits: false } => (raw, width),
            Head::Labels { from_logits } => (logistic(self, raw, from_logits), width),
            Head::Binary { from_logits } => {
                let p = logistic(self, raw, from_logits);
                let one = self.graph.scalar(1.0);
                let other = self.graph.node("Sub", &[&one, &p], vec![]);
                let axis = vec![int_attribute("axis", 1)];
                (self.graph.node("Concat", &[&other, &p], axis), 2)
            }
            Head::Reconstruction { from_logits } => {
                let found = logistic(self, raw, from_logits);
                let n = scaling.scale.len().max(scaling.offset.len());
                let rows = self.graph.reshape(&found, &[width / n.max(1), n]);
                let scale = self.graph.floats(&[scaling.scale.len()], &scaling.scale);
                let offset = self.graph.floats(&[scaling.offset.len()], &scaling.offset);
                let scaled = self.graph.node("Mul", &[&rows, &scale], vec![]);
                let shifted = self.graph.node("Add", &[&scaled, &offset], vec![]);
                (self.graph.reshape(&shifted, &[width]), width)
            }
        }
    }
}
