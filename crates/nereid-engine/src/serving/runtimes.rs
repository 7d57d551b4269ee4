//! What computes a network when it serves: the framework, tract or ONNX Runtime.
//!
//! Artifacts hold the network and its weights alone; what another runtime needs is made of them
//! when they are loaded. Which runtime is fastest was measured when the artifact was made, and
//! each load compares its outputs with the golden ones.

mod framework;
mod onnxruntime;
mod slots;
mod tract;

use std::path::PathBuf;

use nereid_core::{engine::EngineError, models::Runtime};

use crate::{artifact::Artifact, network::Network};

pub(crate) use framework::Framework;
pub(crate) use onnxruntime::Onnxruntime;
pub(crate) use tract::Tract;

/// A network ready to run.
pub(crate) trait Engine: Send + Sync {
    /// Runs preprocessed samples, one after the other, and returns one row for each.
    ///
    /// # Errors
    /// Whatever the runtime reports.
    fn infer(&self, values: Vec<f32>, rows: usize) -> Result<Vec<f32>, EngineError>;
}

/// Where runtimes find what is not linked into this program.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The library of ONNX Runtime; the loader's standard places unless given.
    pub onnxruntime: Option<PathBuf>,
    /// How a runtime that may abort is first tried in a process of its own.
    pub probe: Option<super::probe::Probe>,
}

/// Prepares a network for a runtime.
///
/// # Errors
/// [`EngineError::InvalidInput`] if the runtime cannot compute it or is not there.
pub(crate) fn prepare(
    runtime: Runtime,
    artifact: &Artifact,
    network: Network,
    settings: &Settings,
) -> Result<Box<dyn Engine>, EngineError> {
    Ok(match runtime {
        Runtime::Burn => Box::new(Framework::new(network)),
        Runtime::Tract => Box::new(Tract::new(artifact)?),
        Runtime::Onnxruntime => Box::new(Onnxruntime::new(artifact, settings)?),
    })
}

/// A runtime that may take the whole process down with it, on one machine and not on another.
///
/// tract is part of this program: what it does with a network, even that it optimises it for ever,
/// was found when the artifact was made.
pub(crate) fn may_abort(runtime: Runtime) -> bool {
    runtime == Runtime::Onnxruntime
}

fn failed(runtime: Runtime, what: &str, error: impl std::fmt::Display) -> EngineError {
    EngineError::Internal(format!("{} {what}: {error}", runtime.as_str()))
}

/// A batch's shape.
fn shape(rows: usize, sample: &[usize]) -> Vec<usize> {
    [&[rows], sample].concat()
}
