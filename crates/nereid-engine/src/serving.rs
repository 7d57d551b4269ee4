//! Serves: loads artifacts, checks them on this machine and answers batches.

mod fold;
mod judge;
mod latency;
mod machine;
mod optimise;
mod probe;
mod runtimes;
#[cfg(test)]
mod tests;
mod weights;

use std::{path::Path, sync::Arc};

use nereid_core::{
    engine::{EngineError, Loader, Predictor},
    models::{Runtime, Signature},
    tensors::{Batch, Tensor},
};

pub(crate) use optimise::ModelOptimizer;
pub use probe::{Probe, serve as serve_probe};
pub use runtimes::Settings;
pub(crate) use runtimes::{Engine, prepare};
#[cfg(test)]
pub(crate) use runtimes::{Framework, Onnxruntime, Tract};

use crate::{artifact::Artifact, guard, model::Model};

/// The [`Loader`] of this engine.
#[derive(Default)]
pub(crate) struct ModelLoader {
    pub(crate) settings: Settings,
}

impl ModelLoader {
    /// Prepares the model for a runtime and compares its golden outputs.
    fn on(
        &self,
        folder: &Path,
        artifact: &Artifact,
        runtime: Runtime,
    ) -> Result<Model, EngineError> {
        if runtimes::may_abort(runtime) {
            probe::check(folder, runtime, &self.settings)?;
        }
        let model = Model::on(artifact, runtime, &self.settings)?;
        // This run is also the warm-up: it allocates and touches every weight.
        let parity = model.compare(&artifact.golden)?;
        if parity.within(artifact.document.tolerance) {
            return Ok(model);
        }
        Err(EngineError::Parity(format!(
            "on {} golden samples, agreement is {} and the largest difference {:e}",
            artifact.golden.rows, parity.agreement, parity.max_difference
        )))
    }
}

impl Loader for ModelLoader {
    fn load(&self, folder: &Path) -> Result<Arc<dyn Predictor>, EngineError> {
        guard::panics("loading a model", || {
            let artifact = Artifact::read(folder)?;
            let wanted = artifact.document.runtime;
            if wanted != Runtime::Burn {
                let tried =
                    guard::panics("preparing a runtime", || self.on(folder, &artifact, wanted));
                match tried {
                    Ok(model) => return Ok(Arc::new(LoadedModel(model)) as Arc<dyn Predictor>),
                    Err(error) => tracing::warn!(
                        runtime = wanted.as_str(),
                        %error,
                        "the model is served by the framework in place of its runtime"
                    ),
                }
            }
            let model = self.on(folder, &artifact, Runtime::Burn)?;
            Ok(Arc::new(LoadedModel(model)) as Arc<dyn Predictor>)
        })
    }
}

struct LoadedModel(Model);

impl Predictor for LoadedModel {
    fn signature(&self) -> &Signature {
        &self.0.signature
    }

    fn predict(&self, batch: &Batch) -> Result<Vec<Tensor>, EngineError> {
        guard::panics("predicting", || {
            let outputs = self.0.run(batch.values.clone(), batch.rows)?;
            Ok(self.0.tensors(outputs, batch.rows))
        })
    }
}
