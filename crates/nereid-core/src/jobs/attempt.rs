//! Attempts at a job: the fence of their writes, what a worker gets, what it is told.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{JobRequest, JobSpec, TerminationReason};
use crate::ids::{ClaimId, JobId, ProjectId, WorkerId};

/// One try at a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    /// Fencing number: rises with each claim of the job and never repeats.
    pub epoch: u64,
    /// Worker that held the lease.
    pub worker_id: WorkerId,
    /// When it was claimed.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<TerminationReason>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The fence: what every write of an attempt must match to change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The job.
    pub job: JobId,
    /// Raised by each claim, never reset.
    pub epoch: i64,
    /// Drawn by each claim: an epoch may be given out again after a failover of Postgres.
    pub claim: ClaimId,
}

/// A claimed job: what a worker needs to run it.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The fence of this attempt.
    pub fence: Fence,
    /// Project it belongs to.
    pub project: ProjectId,
    /// Kind and spec, dataset versions resolved.
    pub spec: JobSpec,
    /// Attempts used up before this one.
    pub attempts: u32,
    /// What a client asked before the claim: a job to stop with its model runs once more.
    pub requested: Option<JobRequest>,
    /// Time the job may still run, if it is limited.
    pub runtime_left: Option<Duration>,
    /// Checkpoints of earlier attempts, the newest first.
    pub checkpoints: Vec<CheckpointRef>,
}

/// Where a checkpoint lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRef {
    /// S3 key in Nereid's bucket.
    pub key: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// Steps done when it was taken.
    pub step: u64,
}

/// What is wanted of work under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Directive {
    /// Go on.
    Continue,
    /// End the training here, then evaluate and write the model as if it were complete.
    Finish,
    /// Take a last snapshot and return: another attempt goes on from it.
    Suspend,
    /// Return at once, without a snapshot.
    Stop,
}

/// What a heartbeat brings back of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is current; this is what a client asks of the job.
    Current(Option<JobRequest>),
    /// It is no longer current: stop at once and write nothing.
    Lost,
}
