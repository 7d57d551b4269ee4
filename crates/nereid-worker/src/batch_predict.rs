//! Runs a batch prediction: rows of files in S3 through a model, predictions to S3, part by part.
//!
//! A part counts once it is written down under the fence, and the next attempt goes on behind the
//! last one that counts. No object is ever overwritten, so whatever an attempt that has lost its
//! job still writes lies beside what its successor wrote and no manifest names it.

mod begin;
mod compute;
mod files;
mod lines;
mod output;

use std::{path::PathBuf, sync::Arc};

use nereid_core::{
    batch_predictions::{BatchPart, BatchPlan, BatchTotals},
    datasets::DatasetSource,
    engine::{DataFiles, EngineError, Loader, RowReader},
    events::LogLevel,
    jobs::{Claim, JobPhase, JobResult},
    models::ModelVersion,
    spec::BatchPredictSpec,
};
use nereid_objects::S3Uri;
use nereid_store::queue::BatchState;
use tokio::sync::mpsc;

use self::{compute::Task, output::Output};
use crate::{
    attempt::{Attempt, Order},
    data::{self, Fault},
    deploy::{fetch_files, fetch_version},
    error::RunError,
    threads::on_thread,
    worker::Context,
};

/// Predicts all rows that no earlier attempt has predicted, and writes the manifest.
pub(crate) async fn run(
    ctx: &Arc<Context>,
    attempt: &Arc<Attempt>,
    claim: &Claim,
    spec: &BatchPredictSpec,
) -> Result<JobResult, RunError> {
    attempt.outbox.phase(JobPhase::Downloading);
    let pinned = spec.version.ok_or_else(|| {
        let name = &spec.model;
        RunError::Internal(format!("model {name} is named without a version"))
    })?;
    let (store, project) = (&ctx.store, claim.project);
    let version = attempt.insist(|| store.model_version(project, &spec.model, pinned));
    let version = attempt.unless(Order::Pause, version).await?;
    let prefix: S3Uri = spec.output.uri.parse()?;
    let output = Output::new(ctx, attempt, claim, spec, prefix);
    let first = begin::begin(ctx, attempt, claim, spec, &version, &output);
    let BatchState { plan, parts } = attempt.unless(Order::Pause, Box::pin(first)).await?;
    let fetch = ctx.patiently("fetching a model", || fetch_model(ctx, &plan, &version));
    let model = attempt.unless(Order::Pause, Box::pin(fetch)).await?;
    let begun = BatchState { plan, parts };
    let predict = predict(ctx, attempt, claim, spec, &begun, model, &output);
    let parts = Box::pin(predict).await?;
    let plan = begun.plan;
    attempt.outbox.phase(JobPhase::Uploading);
    let manifest = output.finish(&plan, &parts, pinned);
    let (manifest, manifest_sha256) = attempt.unless(Order::Expire, Box::pin(manifest)).await?;
    let totals = BatchTotals::of(&parts);
    Ok(JobResult::BatchPredict {
        model: spec.model.clone(),
        version: pinned,
        rows: totals.rows - totals.rejected,
        rejected: totals.rejected,
        output: spec.output.uri.clone(),
        manifest: manifest.to_string(),
        manifest_sha256,
        seconds: totals.seconds,
        rows_per_second: totals.rows_per_second(),
    })
}

/// Predicts the rows behind those that are done; returns all parts there are then.
async fn predict(
    ctx: &Arc<Context>,
    attempt: &Arc<Attempt>,
    claim: &Claim,
    spec: &BatchPredictSpec,
    begun: &BatchState,
    model: PathBuf,
    output: &Output<'_>,
) -> Result<Vec<BatchPart>, RunError> {
    let (plan, mut parts) = (&begun.plan, begun.parts.clone());
    let done = BatchTotals::of(&parts);
    if !parts.is_empty() {
        let message = format!("goes on behind part {}, row {}", parts.len() - 1, done.rows);
        attempt.log(LogLevel::Info, message);
    }
    attempt.outbox.phase(JobPhase::Predicting);
    let fault = Fault::default();
    let (sender, mut finished) = mpsc::channel(1);
    let scratch = Arc::new(ctx.scratch.folder("predict")?);
    let task = Task {
        attempt: Arc::clone(attempt),
        model: Model {
            loader: Arc::clone(&ctx.engine.loader),
            folder: model,
        },
        input: Input {
            reader: Arc::clone(&ctx.engine.rows),
            files: data::files(&ctx.objects, plan.files.clone(), &fault),
            source: plan.source.clone(),
        },
        spec: spec.clone(),
        scratch: Arc::clone(&scratch),
        done,
        rows: plan.rows,
        next_part: u32::try_from(parts.len()).unwrap_or(u32::MAX),
        parts: sender,
    };
    let name = format!("predict-{}", claim.fence.job);
    let computing = on_thread(&name, "prediction thread", move || task.run());
    // Owns the receiver: the thread learns by a closed channel that nobody takes parts any more.
    let writing = async move {
        while let Some(part) = finished.recv().await {
            parts.push(output.keep(part).await?);
        }
        Ok::<_, RunError>(parts)
    };
    let (computed, written) = tokio::join!(computing, Box::pin(writing));
    // The last part is uploaded after the thread has ended, and lies there.
    drop(scratch);
    let parts = written?;
    computed?.map_err(|error| explain(error, &fault))?;
    Ok(parts)
}

/// What to load, and by what.
struct Model {
    loader: Arc<dyn Loader>,
    folder: PathBuf,
}

/// What to read, and by what.
struct Input {
    reader: Arc<dyn RowReader>,
    files: Arc<dyn DataFiles>,
    source: DatasetSource,
}

/// Brings the model's files here, those that all attempts use.
async fn fetch_model(
    ctx: &Context,
    plan: &BatchPlan,
    version: &ModelVersion,
) -> Result<PathBuf, RunError> {
    match &plan.serving {
        Some(serving) => fetch_files(ctx, &serving.prefix, &serving.files).await,
        None => fetch_version(ctx, version).await,
    }
}

/// Prefers what is known to be beyond mending to the failed read that it showed as.
fn explain(error: RunError, fault: &Fault) -> RunError {
    match &error {
        RunError::Engine(EngineError::Stopped) => error,
        RunError::Engine(_) => fault.take().map_or(error, RunError::Input),
        _ => error,
    }
}
