//! Serves: loads artifacts, checks them on this machine and answers batches.

mod fold;
mod latency;
mod optimise;

use std::{path::Path, sync::Arc};

use nereid_core::{
    engine::{EngineError, Loader, Predictor},
    models::Signature,
    tensors::{Batch, Tensor},
};

pub(crate) use optimise::ModelOptimizer;

use crate::{artifact::Artifact, guard, model::Model};

/// The [`Loader`] of this engine.
pub(crate) struct ModelLoader;

impl Loader for ModelLoader {
    fn load(&self, folder: &Path) -> Result<Arc<dyn Predictor>, EngineError> {
        guard::panics("loading a model", || {
            let artifact = Artifact::read(folder)?;
            let model = Model::new(&artifact)?;
            // This run is also the warm-up: it allocates and touches every weight.
            let parity = model.compare(&artifact.golden)?;
            if !parity.within(artifact.document.tolerance) {
                return Err(EngineError::Parity(format!(
                    "on {} golden samples, agreement is {} and the largest difference {:e}",
                    artifact.golden.rows, parity.agreement, parity.max_difference
                )));
            }
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
