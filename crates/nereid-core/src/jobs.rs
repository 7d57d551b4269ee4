//! Jobs: what clients submit, how they progress, and how they end.

mod attempt;
mod status;
mod submission;
mod waiting;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::{
    attempt::{Attempt, CheckpointRef, Claim, Directive, Fence, Standing},
    status::{
        JobKind, JobPhase, JobRequest, JobStatus, Outcome, TerminationReason, after_attempt,
        retry_delay,
    },
    submission::{JobOptions, JobSpec, NewJob, check_tags},
    waiting::{WaitReason, Waiting},
};
pub use crate::words::UnknownWord;
use crate::{
    Name,
    ids::{DatasetVersionId, JobId, ModelVersionId, ProjectId},
};

/// How far a running job has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// Epoch under way, from 1.
    pub epoch: u32,
    /// Epochs in all.
    pub epochs: u32,
    /// Steps done since the start of training.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Newest value of each metric.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
}

/// Why a job or attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobError {
    /// Kind of failure.
    pub reason: TerminationReason,
    /// What happened and, where known, what to do.
    pub message: String,
}

/// What a succeeded job made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobResult {
    /// A published model version.
    Train {
        /// Name of the model.
        model: Name,
        /// Number of the version.
        version: u32,
        /// Its final metrics.
        metrics: BTreeMap<String, f64>,
    },
    /// A version that is served.
    Deploy {
        /// Endpoint that serves it.
        endpoint: Name,
        /// Name of the model.
        model: Name,
        /// Number of the version.
        version: u32,
    },
    /// Predictions in S3.
    BatchPredict {
        /// Name of the model.
        model: Name,
        /// Number of the version.
        version: u32,
        /// Rows that were predicted.
        rows: u64,
        /// Rows that were passed over because they do not fit the model.
        rejected: u64,
        /// S3 prefix below which the predictions are.
        output: String,
        /// S3 URI of the manifest, which lists all files with their digests.
        manifest: String,
        /// SHA-256 of the manifest, hexadecimal.
        manifest_sha256: String,
        /// Time that reading, predicting and writing took, all attempts together, in seconds.
        seconds: f64,
        /// Rows predicted or passed over per second of it.
        rows_per_second: f64,
    },
    /// Nothing.
    Noop {},
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Identifier.
    pub id: JobId,
    /// Project it belongs to.
    pub project_id: ProjectId,
    /// Kind and spec, dataset versions resolved.
    #[serde(flatten)]
    pub spec: JobSpec,
    /// How it is queued.
    #[serde(flatten)]
    pub options: JobOptions,
    /// Where it stands.
    pub status: JobStatus,
    /// What it is doing, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<JobPhase>,
    /// What a client has asked of it and its worker has not done yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested: Option<JobRequest>,
    /// Why it waits; in the answer about a single queued job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Attempts used up so far.
    pub attempts: u32,
    /// Attempts lost with their worker; they count against a limit of their own.
    pub lease_losses: u32,
    /// How far it has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<JobResult>,
    /// Why it (or its last attempt) failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<JobError>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub termination_reason: Option<TerminationReason>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When its first attempt started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
}

/// Lineage of a model version: what it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Lineage {
    /// Job that trained it.
    pub job_id: JobId,
    /// Training data.
    pub dataset: Name,
    /// Its version.
    pub dataset_version: u32,
    /// Identifier of that version.
    pub dataset_version_id: DatasetVersionId,
    /// SHA-256 of the training data's declaration and bytes.
    pub dataset_digest: String,
    /// The version that it started from, if it was fine-tuned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initialized_from: Option<BaseVersion>,
    /// Version of Nereid that trained it.
    pub nereid_version: String,
    /// Version of the framework that trained it.
    pub framework_version: String,
    /// Seed of the training.
    pub seed: u64,
}

/// The model version that another one started from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BaseVersion {
    /// Name of the model.
    pub model: Name,
    /// Its version.
    pub version: u32,
    /// Identifier of that version.
    pub version_id: ModelVersionId,
    /// SHA-256 of its manifest, which holds those of its files, hexadecimal.
    pub manifest_sha256: String,
}

/// Names a published version in events and results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Identifier of the version.
    pub id: ModelVersionId,
    /// Its number.
    pub version: u32,
}
