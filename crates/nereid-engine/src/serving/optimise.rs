//! Makes a published version fit for serving, keeping only what leaves outputs as they were.

use std::path::Path;

use nereid_core::{
    engine::{EngineError, Monitor, Optimizer},
    events::LogLevel,
    jobs::{Directive, JobPhase},
    models::{OptimisationReport, OptimisationStep},
    spec::Tolerance,
};

use super::{
    fold::{Rewrite, fold_batch_normalization, remove_dropout},
    latency,
};
use crate::{artifact::Artifact, guard, model::Model};

/// The [`Optimizer`] of this engine.
pub(crate) struct ModelOptimizer;

type Rewriter = fn(&Artifact) -> Result<Rewrite, EngineError>;
type Step = (&'static str, Rewriter);

const STEPS: [Step; 2] = [
    ("remove_dropout", remove_dropout),
    ("fold_batch_normalization", fold_batch_normalization),
];

impl Optimizer for ModelOptimizer {
    fn optimise(
        &self,
        model: &Path,
        output: &Path,
        tolerance: Tolerance,
        monitor: &mut dyn Monitor,
    ) -> Result<(OptimisationReport, Vec<String>), EngineError> {
        guard::panics("optimising", || optimise(model, output, tolerance, monitor))
    }
}

fn optimise(
    folder: &Path,
    output: &Path,
    tolerance: Tolerance,
    monitor: &mut dyn Monitor,
) -> Result<(OptimisationReport, Vec<String>), EngineError> {
    monitor.phase(JobPhase::Optimising);
    let original = Artifact::read(folder)?;
    let original_model = Model::new(&original)?;
    let parity = original_model.compare(&original.golden)?;
    if !parity.within(tolerance) {
        return Err(EngineError::Parity(format!(
            "even the unchanged model differs: agreement {}, largest difference {:e}",
            parity.agreement, parity.max_difference
        )));
    }
    let before = latency::measure(&original_model, &original.golden)?;
    let mut best = (original.clone(), original_model, parity);
    let mut steps = Vec::new();
    for (name, rewrite) in STEPS {
        obey(monitor)?;
        let step = attempt(&mut best, name, rewrite, tolerance)?;
        let verb = if step.kept { "kept" } else { "not applied" };
        let message = format!("{name} {verb}: {}", step.detail);
        monitor.log(LogLevel::Info, message);
        steps.push(step);
    }
    obey(monitor)?;
    let (mut artifact, model, parity) = best;
    let after = latency::measure(&model, &artifact.golden)?;
    // Loads compare with the original's outputs, from which rewrites may have strayed so far.
    let loads = &mut artifact.document.tolerance;
    loads.max_difference = loads.max_difference.max(parity.max_difference * 2.0);
    loads.agreement = loads.agreement.min(tolerance.agreement);
    let files = artifact.write(output)?;
    let report = OptimisationReport {
        steps,
        before,
        after,
        bytes_before: original.weight_bytes(),
        bytes_after: artifact.weight_bytes(),
        samples: u32::try_from(artifact.golden.rows).unwrap_or(u32::MAX),
        agreement: parity.agreement,
        max_difference: parity.max_difference,
    };
    Ok((report, files))
}

/// Tries one rewrite and keeps it if outputs stay within the tolerance.
fn attempt(
    best: &mut (Artifact, Model, crate::model::Parity),
    name: &str,
    rewrite: Rewriter,
    tolerance: Tolerance,
) -> Result<OptimisationStep, EngineError> {
    let Rewrite { artifact, detail } = rewrite(&best.0)?;
    let step = |kept, detail| OptimisationStep {
        name: name.to_owned(),
        kept,
        detail,
    };
    let Some(artifact) = artifact else {
        return Ok(step(false, detail));
    };
    let model = Model::new(&artifact)?;
    let parity = model.compare(&artifact.golden)?;
    if !parity.within(tolerance) {
        let detail = format!(
            "refused: agreement {} and largest difference {:e} are outside the tolerance ({detail})",
            parity.agreement, parity.max_difference
        );
        return Ok(step(false, detail));
    }
    *best = (artifact, model, parity);
    Ok(step(true, detail))
}

fn obey(monitor: &mut dyn Monitor) -> Result<(), EngineError> {
    match monitor.directive() {
        Directive::Continue | Directive::Finish => Ok(()),
        Directive::Suspend | Directive::Stop => Err(EngineError::Stopped),
    }
}
