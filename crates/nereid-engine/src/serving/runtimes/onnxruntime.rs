//! ONNX Runtime, from a library that is loaded when it is first asked for, if there is one.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use nereid_core::{engine::EngineError, models::Runtime};
use ort::{
    environment::Environment,
    session::{Session, builder::GraphOptimizationLevel},
    value::TensorRef,
};

use super::{Engine, Settings, failed, shape, slots::Slots};
use crate::{
    artifact::Artifact,
    guard,
    onnx::{Dialect, Export},
};

/// Where the loader looks for the library unless a path is given.
const NAMES: [&str; 2] = ["libonnxruntime.so", "libonnxruntime.so.1"];

/// The library, once it is loaded; a process has but one.
static LIBRARY: OnceLock<Environment> = OnceLock::new();
/// Held while it is loaded.
static LOADING: Mutex<()> = Mutex::new(());

/// A network with a session for each caller: sessions are not to be used by two at once.
pub(crate) struct Onnxruntime {
    graph: Vec<u8>,
    sessions: Slots<Session>,
    input: Vec<usize>,
}

impl Onnxruntime {
    pub(super) fn new(artifact: &Artifact, settings: &Settings) -> Result<Self, EngineError> {
        library(settings)?;
        let plan = artifact.document.plan()?;
        let graph = Export::network(&plan, &artifact.weights, Dialect::Standard).bytes()?;
        Self::load(graph, plan.input)
    }

    /// Prepares a graph that takes samples of a shape; the library must have been loaded.
    fn load(graph: Vec<u8>, input: Vec<usize>) -> Result<Self, EngineError> {
        let model = Self {
            graph,
            sessions: Slots::new(),
            input,
        };
        // The first session shows whether it takes the network.
        model.sessions.with(|| model.session(), |_| Ok(()))?;
        Ok(model)
    }

    /// As [`Self::load`], for a library that is found by settings.
    #[cfg(test)]
    pub(crate) fn of_graph(
        graph: Vec<u8>,
        input: Vec<usize>,
        settings: &Settings,
    ) -> Result<Self, EngineError> {
        library(settings)?;
        Self::load(graph, input)
    }

    fn session(&self) -> Result<Session, EngineError> {
        let library = LIBRARY
            .get()
            .ok_or_else(|| failed(Runtime::Onnxruntime, "is gone", "no library"))?;
        let refused = |e: String| failed(Runtime::Onnxruntime, "cannot prepare the network", e);
        let builder = Session::builder(library).map_err(|e| refused(e.to_string()))?;
        // One thread each: requests run beside each other, not each on all cores.
        let builder = builder
            .with_intra_threads(1)
            .and_then(|b| b.with_inter_threads(1))
            .and_then(|b| b.with_optimization_level(GraphOptimizationLevel::All));
        let mut builder = builder.map_err(|e| refused(e.to_string()))?;
        let session = builder.commit_from_memory(&self.graph);
        session.map_err(|e| refused(e.to_string()))
    }
}

impl Engine for Onnxruntime {
    fn infer(&self, values: Vec<f32>, rows: usize) -> Result<Vec<f32>, EngineError> {
        let wrong = |e: ort::Error| failed(Runtime::Onnxruntime, "failed", e);
        self.sessions.with(
            || self.session(),
            |session| {
                let shape = shape(rows, &self.input);
                let input = TensorRef::from_array_view((shape, &values[..])).map_err(wrong)?;
                let outputs = session.run(ort::inputs![input]).map_err(wrong)?;
                let (_, output) = outputs[0].try_extract_tensor::<f32>().map_err(wrong)?;
                Ok(output.to_vec())
            },
        )
    }
}

/// Loads the library, unless it is loaded.
fn library(settings: &Settings) -> Result<(), EngineError> {
    let _alone = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if LIBRARY.get().is_some() {
        return Ok(());
    }
    let paths = match &settings.onnxruntime {
        Some(path) => vec![path.clone()],
        None => NAMES.map(PathBuf::from).to_vec(),
    };
    let mut reason = String::new();
    for path in paths {
        // A library of another version makes the binding panic.
        let loaded = guard::panics("loading ONNX Runtime", || open(&path));
        match loaded {
            Ok(library) => {
                let _ = LIBRARY.set(library);
                return Ok(());
            }
            Err(e) => reason = e.to_string(),
        }
    }
    Err(EngineError::InvalidInput(format!(
        "no library of ONNX Runtime was found: {reason}"
    )))
}

fn open(path: &Path) -> Result<Environment, EngineError> {
    let builder = ort::init_from(path).map_err(|e| EngineError::InvalidInput(e.to_string()))?;
    let built = builder.with_name("nereid").with_telemetry(false).build();
    built.map_err(|e| EngineError::InvalidInput(e.to_string()))
}
