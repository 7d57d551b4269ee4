//! tract, in 32-bit floats: its quantised form was found to answer wrongly without a word.

use nereid_core::{engine::EngineError, models::Runtime};
use tract::prelude::*;

use super::{Engine, failed, shape, slots::Slots};
use crate::{
    artifact::Artifact,
    onnx::{Dialect, Export},
};

/// Name of the batch dimension in exported graphs.
const BATCH: &str = "N";

/// A network prepared for single samples, and for batches of any size.
pub(crate) struct Tract {
    single: Plan,
    any: Plan,
    input: Vec<usize>,
}

/// A prepared graph with the states of its callers.
struct Plan {
    runnable: Runnable,
    states: Slots<State>,
}

impl Tract {
    pub(super) fn new(artifact: &Artifact) -> Result<Self, EngineError> {
        let plan = artifact.document.plan()?;
        let graph = Export::network(&plan, &artifact.weights, Dialect::Tract).bytes()?;
        Self::load(&graph, plan.input)
    }

    /// Prepares a graph that takes samples of a shape.
    pub(crate) fn load(graph: &[u8], input: Vec<usize>) -> Result<Self, EngineError> {
        let graph = onnx().and_then(|onnx| onnx.load_buffer(graph));
        let graph = graph
            .and_then(InferenceModel::into_model)
            .map_err(refused)?;
        let mut single = graph.clone();
        let one = SetSymbols::new().value(BATCH, 1);
        single.transform(one).map_err(refused)?;
        Ok(Self {
            single: Plan::new(single)?,
            any: Plan::new(graph)?,
            input,
        })
    }
}

impl Plan {
    fn new(model: Model) -> Result<Self, EngineError> {
        let runnable = model.into_runnable().map_err(refused)?;
        Ok(Self {
            runnable,
            states: Slots::new(),
        })
    }
}

/// The library's errors have a type of a crate that is not ours.
fn refused(error: impl std::fmt::Display) -> EngineError {
    failed(
        Runtime::Tract,
        "cannot prepare the network",
        format!("{error:#}"),
    )
}

fn wrong(error: impl std::fmt::Display) -> EngineError {
    failed(Runtime::Tract, "failed", format!("{error:#}"))
}

impl Engine for Tract {
    fn infer(&self, values: Vec<f32>, rows: usize) -> Result<Vec<f32>, EngineError> {
        let plan = if rows == 1 { &self.single } else { &self.any };
        let input = Tensor::from_slice(&shape(rows, &self.input), &values).map_err(wrong)?;
        plan.states.with(
            || plan.runnable.spawn_state().map_err(wrong),
            |state| {
                let outputs = state.run([input]).map_err(wrong)?;
                let output = outputs.first().map(|t| t.as_slice::<f32>());
                match output {
                    Some(values) => Ok(values.map_err(wrong)?.to_vec()),
                    None => Err(failed(Runtime::Tract, "failed", "it gave no output")),
                }
            },
        )
    }
}
