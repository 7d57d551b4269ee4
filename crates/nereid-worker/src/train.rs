//! Runs a training job: reads its input, trains on a thread of its own, uploads the result.

use std::sync::Arc;

use nereid_core::{
    datasets::DatasetVersion,
    engine::{DataInput, TrainTask, Trainer},
    events::LogLevel,
    ids::ProjectId,
    jobs::{Claim, JobPhase},
    models::TrainedModel,
    spec::{TrainSpec, train::DatasetRef},
    workers::DeviceKind,
};
use nereid_store::queue::NewModelVersion;
use tempfile::TempDir;

use crate::{
    attempt::{Attempt, Order},
    checkpoints::{self, Checkpoints},
    data::{self, Fault},
    error::RunError,
    monitor::ThreadMonitor,
    publish,
    threads::on_thread,
    worker::Context,
};

/// Dataset versions that a spec names.
struct Inputs {
    train: DatasetVersion,
    validation: Option<DatasetVersion>,
    test: Option<DatasetVersion>,
}

/// Everything that a training needs, owned by its thread.
struct Training {
    trainer: Arc<dyn Trainer>,
    spec: TrainSpec,
    train: DataInput,
    validation: Option<DataInput>,
    test: Option<DataInput>,
    device: DeviceKind,
    resume: Option<Vec<u8>>,
    /// Shared with the thread, so that it is not removed under its feet.
    output: Arc<TempDir>,
}

/// Trains and uploads; what is returned is complete, but not published yet.
pub(crate) async fn run(
    ctx: &Arc<Context>,
    attempt: &Arc<Attempt>,
    claim: &Claim,
    spec: &TrainSpec,
) -> Result<NewModelVersion, RunError> {
    attempt.outbox.phase(JobPhase::Downloading);
    let inputs = resolve(ctx, attempt, claim.project, spec);
    let inputs = attempt.unless(Order::Drain, inputs).await?;
    let restore = checkpoints::restore(ctx, attempt, claim);
    let resume = attempt.unless(Order::Drain, restore).await?;
    let output = Arc::new(ctx.scratch.folder("train")?);
    let model = train(ctx, attempt, claim, spec, &inputs, resume, &output).await?;
    attempt.outbox.phase(JobPhase::Uploading);
    let upload = publish::upload_version(ctx, claim, spec, &inputs.train, model, output.path());
    // A worker that drains finishes what is this close to its end, if there is time.
    attempt.unless(Order::Stop, Box::pin(upload)).await
}

async fn resolve(
    ctx: &Context,
    attempt: &Attempt,
    project: ProjectId,
    spec: &TrainSpec,
) -> Result<Inputs, RunError> {
    let train = find(ctx, attempt, project, &spec.dataset).await?;
    let validation = match &spec.validation_dataset {
        Some(dataset) => Some(find(ctx, attempt, project, dataset).await?),
        None => None,
    };
    let test = match &spec.test_dataset {
        Some(dataset) => Some(find(ctx, attempt, project, dataset).await?),
        None => None,
    };
    Ok(Inputs {
        train,
        validation,
        test,
    })
}

async fn find(
    ctx: &Context,
    attempt: &Attempt,
    project: ProjectId,
    dataset: &DatasetRef,
) -> Result<DatasetVersion, RunError> {
    let (name, version) = (&dataset.name, dataset.version);
    attempt
        .insist(|| ctx.store.dataset_version(project, name, version))
        .await
}

async fn train(
    ctx: &Arc<Context>,
    attempt: &Arc<Attempt>,
    claim: &Claim,
    spec: &TrainSpec,
    inputs: &Inputs,
    resume: Option<Vec<u8>>,
    output: &Arc<TempDir>,
) -> Result<TrainedModel, RunError> {
    let resumed = claim.checkpoint.clone().filter(|_| resume.is_some());
    let checkpoints = Checkpoints::start(ctx, attempt, claim, resumed);
    let monitor = ThreadMonitor::new(Arc::clone(attempt), Some(checkpoints.slot()));
    let fault = Fault::default();
    let input = |version: &DatasetVersion| data::input(&ctx.objects, version, &fault);
    let training = Training {
        trainer: Arc::clone(&ctx.engine.trainer),
        spec: spec.clone(),
        train: input(&inputs.train),
        validation: inputs.validation.as_ref().map(input),
        test: inputs.test.as_ref().map(input),
        device: ctx.config.device,
        resume,
        output: Arc::clone(output),
    };
    let dataset = &inputs.train;
    let message = format!("trains on {}@{}", dataset.dataset, dataset.version);
    attempt.log(LogLevel::Info, message);
    let name = format!("train-{}", claim.fence.job);
    let result = on_thread(&name, "training thread", move || training.run(monitor)).await;
    match result.and_then(|trained| trained.map_err(RunError::from)) {
        Ok(model) => Ok(model),
        Err(error) => {
            // Stopped or failed: the next attempt goes on from the last state there is.
            checkpoints.finish().await;
            let cause = fault
                .take()
                .filter(|_| matches!(error, RunError::Engine(_)));
            Err(cause.map_or(error, RunError::Input))
        }
    }
}

impl Training {
    fn run(
        self,
        mut monitor: ThreadMonitor,
    ) -> Result<TrainedModel, nereid_core::engine::EngineError> {
        let task = TrainTask {
            spec: &self.spec,
            train: self.train,
            validation: self.validation,
            test: self.test,
            device: self.device,
            resume: self.resume,
            output: self.output.path(),
        };
        self.trainer.train(&task, &mut monitor)
    }
}
