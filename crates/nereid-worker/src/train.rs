//! Runs a training job: reads its input, trains on a thread of its own, uploads the result.

use std::{path::PathBuf, sync::Arc};

use nereid_core::{
    datasets::DatasetVersion,
    engine::{DataInput, DataResources, EngineError, TrainTask, Trainer},
    events::LogLevel,
    ids::ProjectId,
    jobs::{Claim, JobPhase},
    models::{ModelVersion, TrainedModel},
    spec::{InitializeFrom, TrainSpec, train::DatasetRef},
    workers::DeviceKind,
};
use nereid_store::queue::NewModelVersion;
use tempfile::TempDir;

use crate::{
    attempt::{Attempt, Order},
    checkpoints::Checkpoints,
    data::{self, Fault},
    deploy::fetch_version,
    error::RunError,
    monitor::ThreadMonitor,
    publish::{self, Origin},
    restore::{Candidates, Restored},
    threads::on_thread,
    worker::Context,
};

/// What a spec names.
struct Inputs {
    train: DatasetVersion,
    validation: Option<DatasetVersion>,
    test: Option<DatasetVersion>,
    base: Option<Box<Base>>,
}

/// The version that a training starts from, and the folder with its files.
struct Base {
    version: ModelVersion,
    folder: PathBuf,
}

/// Everything that a training needs, owned by its thread.
struct Training {
    trainer: Arc<dyn Trainer>,
    spec: TrainSpec,
    train: DataInput,
    validation: Option<DataInput>,
    test: Option<DataInput>,
    device: DeviceKind,
    resources: DataResources,
    base: Option<PathBuf>,
    resume: Option<PathBuf>,
    folders: Arc<Folders>,
}

/// Scratch folders, shared with the thread so that they are not removed under its feet.
struct Folders {
    snapshots: TempDir,
    output: TempDir,
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
    let inputs = attempt.unless(Order::Pause, Box::pin(inputs)).await?;
    let run = Run {
        ctx,
        attempt,
        claim,
        spec,
        inputs: &inputs,
    };
    let trained = Box::pin(run.resume_and_train()).await?;
    attempt.outbox.phase(JobPhase::Uploading);
    let output = trained.folders.output.path();
    let origin = Origin {
        dataset: &inputs.train,
        base: inputs.base.as_ref().map(|base| &base.version),
    };
    let upload = publish::upload_version(ctx, claim, spec, origin, trained.model, output);
    // A worker that drains finishes what is this close to its end, if there is time.
    let mut version = attempt.unless(Order::Expire, Box::pin(upload)).await?;
    version.stopped_early = trained.ended_early;
    Ok(version)
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
    let base = match &spec.initialize_from {
        Some(from) => Some(Box::pin(find_base(ctx, attempt, project, from)).await?),
        None => None,
    };
    Ok(Inputs {
        train,
        validation,
        test,
        base,
    })
}

/// Brings the version that a training starts from here; its files are checked by their digests.
async fn find_base(
    ctx: &Context,
    attempt: &Attempt,
    project: ProjectId,
    from: &InitializeFrom,
) -> Result<Box<Base>, RunError> {
    let pinned = from.version.ok_or_else(|| {
        let name = &from.model;
        RunError::Internal(format!("model {name} is named without a version"))
    })?;
    let version = attempt
        .insist(|| ctx.store.model_version(project, &from.model, pinned))
        .await?;
    let fetch = ctx.patiently("fetching a version", || fetch_version(ctx, &version));
    let folder = Box::pin(fetch).await?;
    Ok(Box::new(Base { version, folder }))
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

/// A trained model whose files are still on the local disk only.
struct Trained {
    model: TrainedModel,
    ended_early: bool,
    folders: Arc<Folders>,
}

/// What a training job consists of, while it runs.
struct Run<'a> {
    ctx: &'a Arc<Context>,
    attempt: &'a Arc<Attempt>,
    claim: &'a Claim,
    spec: &'a TrainSpec,
    inputs: &'a Inputs,
}

impl Run<'_> {
    /// Trains from the newest checkpoint that can be restored, or from the start.
    async fn resume_and_train(&self) -> Result<Trained, RunError> {
        let dataset = &self.inputs.train;
        let message = format!("trains on {}@{}", dataset.dataset, dataset.version);
        self.attempt.log(LogLevel::Info, message);
        let restored = self.ctx.scratch.folder("restore")?;
        let mut candidates = Candidates::new(self.ctx, self.attempt, self.claim, restored.path());
        loop {
            let next = self.attempt.unless(Order::Pause, candidates.next());
            let from = next.await?;
            let step = from.as_ref().map(|r| r.step);
            self.rewind(step.unwrap_or_default()).await?;
            match (self.train(from).await, step) {
                (Err(RunError::Engine(EngineError::BadState(defect))), Some(step)) => {
                    candidates.reject(step, &defect);
                }
                (result, _) => return result,
            }
        }
    }

    /// Forgets what an earlier attempt measured beyond the step that this one goes on from: the
    /// model would otherwise end with metrics of steps that it was never trained for.
    async fn rewind(&self, step: u64) -> Result<(), RunError> {
        let fence = &self.claim.fence;
        if fence.epoch <= 1 {
            return Ok(());
        }
        let store = &self.ctx.store;
        self.attempt
            .insist(|| store.rewind_metrics(fence, step))
            .await
    }

    async fn train(&self, from: Option<Restored>) -> Result<Trained, RunError> {
        let Self { ctx, attempt, .. } = *self;
        let step = from.as_ref().map(|r| r.step);
        let checkpoints = Checkpoints::start(ctx, attempt, self.claim, step);
        let monitor = ThreadMonitor::new(Arc::clone(attempt), Some(checkpoints.slot()));
        let (course, fault) = (monitor.course(), Fault::default());
        let folders = Arc::new(Folders {
            snapshots: ctx.scratch.folder("snapshots")?,
            output: ctx.scratch.folder("train")?,
        });
        let training = self.training(from, &fault, &folders);
        let name = format!("train-{}", self.claim.fence.job);
        let result = on_thread(&name, "training thread", move || training.run(monitor)).await;
        match result.and_then(|trained| trained.map_err(RunError::from)) {
            Ok(model) => Ok(Trained {
                model,
                ended_early: course.ended_early(),
                folders,
            }),
            Err(error) => {
                // Halted or failed: the next attempt goes on from the last state there is.
                checkpoints.finish().await;
                let cause = fault
                    .take()
                    .filter(|_| matches!(error, RunError::Engine(_)));
                Err(cause.map_or(error, RunError::Input))
            }
        }
    }

    fn training(&self, from: Option<Restored>, fault: &Fault, folders: &Arc<Folders>) -> Training {
        let input = |version: &DatasetVersion| data::input(&self.ctx.objects, version, fault);
        Training {
            trainer: Arc::clone(&self.ctx.engine.trainer),
            spec: self.spec.clone(),
            train: input(&self.inputs.train),
            validation: self.inputs.validation.as_ref().map(input),
            test: self.inputs.test.as_ref().map(input),
            device: self.ctx.config.device,
            resources: self.ctx.config.data_resources(),
            base: self.inputs.base.as_ref().map(|base| base.folder.clone()),
            resume: from.map(|r| r.path),
            folders: Arc::clone(folders),
        }
    }
}

impl Training {
    fn run(self, mut monitor: ThreadMonitor) -> Result<TrainedModel, EngineError> {
        let task = TrainTask {
            spec: &self.spec,
            train: self.train,
            validation: self.validation,
            test: self.test,
            device: self.device,
            base: self.base.as_deref(),
            resume: self.resume.as_deref(),
            resources: &self.resources,
            scratch: self.folders.snapshots.path(),
            output: self.folders.output.path(),
        };
        self.trainer.train(&task, &mut monitor)
    }
}
