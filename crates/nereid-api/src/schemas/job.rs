//! A job as the document shows it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use nereid_core::{
    ids::{JobId, ProjectId},
    jobs::{
        JobError, JobKind, JobPhase, JobRequest, JobResult, JobStatus, Progress, TerminationReason,
        Waiting,
    },
    spec::{BatchPredictSpec, DeploySpec, NoopSpec, TrainSpec},
    workers::DeviceKind,
};
use utoipa::ToSchema;

/// Spec of a job, by its kind.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum AnyJobSpec {
    /// That of a train job.
    Train(TrainSpec),
    /// That of a deploy job.
    Deploy(DeploySpec),
    /// That of a batch prediction.
    BatchPredict(BatchPredictSpec),
    /// That of a no-op job.
    Noop(NoopSpec),
}

/// A job.
#[derive(ToSchema)]
#[schema(as = Job)]
pub(crate) struct JobSchema {
    /// Identifier.
    id: JobId,
    /// Project it belongs to.
    project_id: ProjectId,
    /// What it does.
    kind: JobKind,
    /// What it was asked to do, dataset versions resolved.
    spec: AnyJobSpec,
    /// Free key-value pairs to find the job by.
    labels: BTreeMap<String, String>,
    /// 0 (last) to 100 (first).
    #[schema(minimum = 0, maximum = 100)]
    priority: u8,
    /// Most attempts before the job fails.
    #[schema(minimum = 1, maximum = 20)]
    max_attempts: u32,
    /// What it has to be computed on; on anything if absent.
    #[schema(value_type = DeviceKind, required = false)]
    device: Option<DeviceKind>,
    /// Labels that a worker must have to take it.
    #[schema(required = false)]
    worker_labels: BTreeMap<String, String>,
    /// Longest time it may run, all attempts together, in seconds.
    #[schema(value_type = u32, required = false, minimum = 1, maximum = 31_536_000)]
    max_runtime_seconds: Option<u32>,
    /// Longest time it may wait for a worker each time it is queued, in seconds.
    #[schema(value_type = u32, required = false, minimum = 1, maximum = 31_536_000)]
    max_queue_seconds: Option<u32>,
    /// Where it stands.
    status: JobStatus,
    /// What it is doing, while it runs.
    #[schema(value_type = JobPhase, required = false)]
    phase: Option<JobPhase>,
    /// What a client has asked of it and its worker has not done yet.
    #[schema(value_type = JobRequest, required = false)]
    requested: Option<JobRequest>,
    /// Why it waits; in the answer about a single queued job.
    #[schema(value_type = Waiting, required = false)]
    waiting: Option<Waiting>,
    /// Attempts used up so far.
    attempts: u32,
    /// Attempts lost with their worker; they count against a limit of their own.
    lease_losses: u32,
    /// How far it has come.
    #[schema(value_type = Progress, required = false)]
    progress: Option<Progress>,
    /// What it made.
    #[schema(value_type = JobResult, required = false)]
    result: Option<JobResult>,
    /// Why it (or its last attempt) failed.
    #[schema(value_type = JobError, required = false)]
    error: Option<JobError>,
    /// Why it ended.
    #[schema(value_type = TerminationReason, required = false)]
    termination_reason: Option<TerminationReason>,
    /// When it was accepted.
    created_at: DateTime<Utc>,
    /// When its first attempt started.
    started_at: Option<DateTime<Utc>>,
    /// When it ended.
    finished_at: Option<DateTime<Utc>>,
}
