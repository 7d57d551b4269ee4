//! Starts a training from a version: its weights and scaling, what is frozen, what is adapted.

use std::path::Path;

use nereid_core::{
    datasets::DatasetSchema,
    engine::{EngineError, Monitor, TrainTask},
    events::LogLevel,
    models::Preprocessing,
    spec::{
        Scaling, TrainSpec,
        finetune::{Base as BaseSpec, Transfer},
        network::Plan,
    },
};

use super::{invalid, session::Session};
use crate::{
    artifact::{self, Document},
    network::{Adaptation, Network},
};

/// Names listed in a line of the log.
const LISTED: usize = 8;

/// The version that a training starts from.
pub(super) struct Base<'a> {
    folder: &'a Path,
    document: Document,
    transfer: Transfer,
}

impl<'a> Base<'a> {
    /// Reads what the version is, if the spec names one; not its weights yet.
    pub(super) fn read(task: &TrainTask<'a>, plan: &Plan) -> Result<Option<Self>, EngineError> {
        if task.spec.initialize_from.is_none() {
            return Ok(None);
        }
        let folder = task.base.ok_or_else(|| {
            let detail = "the files of the version to start from are not here".to_owned();
            EngineError::Internal(detail)
        })?;
        let document = Document::read(folder)?;
        let base = BaseSpec {
            network: &document.network,
            signature: &document.signature,
        };
        let transfer = task.spec.transfer(plan, base, &task.train.schema, "");
        let transfer = transfer.map_err(invalid)?;
        Ok(Some(Self {
            folder,
            document,
            transfer,
        }))
    }

    /// Returns how the version scales features, if that is to stay so.
    pub(super) fn scaling(&self, spec: &TrainSpec) -> Option<&Preprocessing> {
        let from = spec.initialize_from.as_ref()?;
        let kept = from.preprocessing == Scaling::Version;
        kept.then_some(&self.document.signature.preprocessing)
    }

    /// Puts the weights that are taken over into the network.
    fn fill(&self, network: &mut Network) -> Result<(), EngineError> {
        let mut weights = artifact::read_weights(self.folder, &self.document.plan()?)?;
        for parameter in &mut network.parameters {
            if self.transfer.takes(parameter.layer()) {
                let values = weights.take(&parameter.name, &parameter.shape)?;
                parameter.set_keras(&values);
            }
        }
        Ok(())
    }

    /// Tells the log what was taken over and what is trained.
    pub(super) fn announce(
        &self,
        session: &Session<'_>,
        schema: &DatasetSchema,
        monitor: &mut dyn Monitor,
    ) {
        let Some(from) = &session.spec.initialize_from else {
            return;
        };
        let Transfer { taken, fresh } = &self.transfer;
        let more = if fresh.len() > LISTED { ", …" } else { "" };
        let names = match fresh.as_slice() {
            [] => String::new(),
            some => format!(" ({}{more})", some[..some.len().min(LISTED)].join(", ")),
        };
        let parameters = &session.network.parameters;
        let trained = parameters.iter().filter(|p| p.trainable);
        let trained: usize = trained.map(|p| p.shape.iter().product::<usize>()).sum();
        let message = format!(
            "starts from {}: {} layers are taken over, {} start anew{names}; {trained} parameters are trained",
            from.reference(),
            taken.len(),
            fresh.len(),
        );
        monitor.log(LogLevel::Info, message);
        let theirs = self.document.signature.classes.as_deref();
        let kept = session.network.head();
        let kept = kept.is_some_and(|head| self.transfer.takes(head));
        if let (true, Some(ours), Some(theirs)) = (kept, schema.classes(), theirs)
            && ours != theirs
        {
            let detail = "the outputs taken over stood for other classes than the dataset has";
            monitor.log(LogLevel::Warn, detail.to_owned());
        }
    }
}

/// Fills weights in, unless a snapshot will, keeps frozen layers from training and adapts others.
pub(super) fn prepare(
    network: &mut Network,
    plan: &Plan,
    task: &TrainTask<'_>,
    base: Option<&Base<'_>>,
) -> Result<(), EngineError> {
    if let (Some(base), None) = (base, task.resume) {
        base.fill(network)?;
    }
    let mut index = 0;
    for layer in &plan.layers {
        let taken = base.is_some_and(|base| base.transfer.takes(&layer.name));
        if !task.spec.trains(&layer.name, taken) {
            network.freeze(&layer.name);
        }
        for weight in &layer.weights {
            let matrix = task.spec.adapts(layer, weight).filter(|_| taken);
            if let (Some(matrix), Some(lora)) = (matrix, &task.spec.fit.lora) {
                let how = Adaptation {
                    matrix,
                    rank: lora.rank as usize,
                    scale: lora.scale(),
                };
                network.adapt(index, how, task.spec.fit.seed);
            }
            index += 1;
        }
    }
    Ok(())
}
