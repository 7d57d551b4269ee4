//! The job queue as workers see it: claim, heartbeat, fenced writes, end of an attempt.
//!
//! Every method that takes a [`Fence`] changes nothing and returns [`StoreError::LeaseLost`] once
//! the attempt is no longer current. Leases expire by the database's clock. Whoever changes a job
//! locks its row in `job_leases` first, then the one in `jobs`: no deadlocks, and under that lock
//! nothing else about the job moves. What other processes depend on (claiming, renewing, reaping)
//! is one statement each: a process that stands still between two would go on holding its locks.

use std::{collections::BTreeMap, time::Duration};

use nereid_core::{
    ids::WorkerId,
    jobs::{Fence, JobKind, JobPhase, JobStatus, Progress, TerminationReason},
    models::Manifest,
    workers::DeviceKind,
};
use serde_json::Value;

use crate::{Store, StoreError, rows::Row};

mod batch;
pub(crate) mod checkpoints;
mod claim;
pub(crate) mod complete;
mod finish;
mod heartbeat;
mod lease;
mod publish;
mod reap;
mod reaper;
mod rollout;
mod sweep;
mod watch;

pub use batch::BatchState;
pub use reaper::IDEMPOTENCY_WINDOW;

/// What a worker can take.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// Who claims.
    pub worker: WorkerId,
    /// What it computes on.
    pub device: DeviceKind,
    /// Free slots: at most so many jobs are claimed.
    pub limit: u32,
    /// How long the claim holds without a heartbeat.
    pub lease: Duration,
    /// Kinds of jobs it knows: an older worker never gets a newer kind.
    pub kinds: Vec<JobKind>,
}

/// One running attempt in a heartbeat.
#[derive(Debug, Clone)]
pub struct Beat {
    /// The attempt.
    pub fence: Fence,
    /// Newest phase, if changed since the last heartbeat.
    pub phase: Option<JobPhase>,
    /// Newest progress, if changed since the last heartbeat.
    pub progress: Option<Progress>,
}

/// How an attempt that did not succeed ended.
#[derive(Debug, Clone)]
pub struct AttemptEnd {
    /// Why.
    pub reason: TerminationReason,
    /// What happened and, where known, what to do.
    pub message: String,
    /// How long the job waits before it may be claimed again, if it is tried again. Ignored where nothing is wrong
    /// with the job: after a drain, a pause, and the first lost lease.
    pub retry_delay: Duration,
}

/// A trained version to publish.
#[derive(Debug, Clone)]
pub struct NewModelVersion {
    /// S3 URI of the manifest.
    pub manifest_uri: String,
    /// SHA-256 of the manifest, hexadecimal.
    pub manifest_sha256: String,
    /// Size of all files in bytes.
    pub bytes: u64,
    /// The manifest itself.
    pub manifest: Manifest,
    /// Metrics that are no single number.
    pub reports: BTreeMap<String, Value>,
    /// A client ended the training early: the job ends stopped, with this version as its result.
    pub stopped_early: bool,
}

impl Store {
    /// Jobs waiting and running, by kind and status, for metrics.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn queue_depth(&self) -> Result<Vec<(JobKind, JobStatus, u64)>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT kind, state, count(*) AS "jobs!" FROM job_leases GROUP BY kind, state ORDER BY kind, state"#
        )
        .fetch_all(&self.pool)
        .await?;
        let row = Row::new("job_leases", &"*");
        rows.into_iter()
            .map(|r| {
                Ok((
                    row.word("kind", &r.kind)?,
                    row.word("state", &r.state)?,
                    row.number("jobs", r.jobs)?,
                ))
            })
            .collect()
    }
}
