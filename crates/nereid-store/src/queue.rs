//! The job queue as workers see it: claim, heartbeat, fenced writes, end of an attempt.
//!
//! Every method that takes a [`Fence`] changes nothing and returns [`StoreError::LeaseLost`] once
//! the attempt is no longer current. Leases expire by the database's clock.

use std::{collections::HashMap, time::Duration};
use nereid_core::{events::*, ids::*, jobs::*, models::*, workers::*};
use serde_json::Value;
use crate::{Store, StoreError};

/// What a worker can take.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    pub worker: WorkerId,
    pub device: DeviceKind,
    /// Free slots: at most so many jobs are claimed.
    pub limit: u32,
    pub lease: Duration,
}

/// One running attempt in a heartbeat.
#[derive(Debug, Clone)]
pub struct Beat {
    pub fence: Fence,
    /// Newest phase and progress, if changed since the last heartbeat.
    pub phase: Option<JobPhase>,
    pub progress: Option<Progress>,
}

/// How an attempt that did not succeed ended.
#[derive(Debug, Clone)]
pub struct AttemptEnd {
    pub reason: TerminationReason,
    pub message: String,
    /// Seconds before the job may be claimed again, if it is tried again.
    pub retry_delay: Duration,
}

/// A trained version to publish.
#[derive(Debug, Clone)]
pub struct NewModelVersion {
    pub manifest_uri: String,
    pub manifest_sha256: String,
    pub bytes: u64,
    pub manifest: Manifest,
    pub reports: std::collections::BTreeMap<String, Value>,
}

impl Store {
    /// Claims up to `limit` jobs: raises epoch, draws claim id, records attempt and events.
    pub async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>, StoreError> { todo!() }
    /// Renews all leases of a worker in one statement; also keeps the worker and its replicas alive. Stores progress.
    /// Every fence of the request is answered: `Lost` for those no longer current.
    pub async fn heartbeat(&self, worker: WorkerId, lease: Duration, beats: &[Beat]) -> Result<HashMap<JobId, Directive>, StoreError> { todo!() }
    /// Records phase (with an event), and/or progress (with a `progress` event) at once.
    pub async fn report(&self, beat: &Beat) -> Result<(), StoreError> { todo!() }
    pub async fn append_metrics(&self, fence: &Fence, points: &[MetricPoint]) -> Result<(), StoreError> { todo!() }
    pub async fn append_logs(&self, fence: &Fence, lines: &[NewLogLine]) -> Result<(), StoreError> { todo!() }
    /// Points the job at a newer checkpoint.
    pub async fn set_checkpoint(&self, fence: &Fence, checkpoint: &CheckpointRef) -> Result<(), StoreError> { todo!() }
    /// Publishes a version and ends the job as succeeded, in one transaction; needs an unexpired lease. Creates the
    /// model with its first version. Deletes of versions never give numbers back.
    pub async fn publish_version(&self, fence: &Fence, new: &NewModelVersion) -> Result<Published, StoreError> { todo!() }
    /// Stores the serving artifact of the version and makes the endpoint's next generation serve it with one variant
    /// named "main", creating the endpoint if needed; the job stays running (phase warming). Returns the generation.
    /// Idempotent per job: a second attempt of the same job finds the generation the first one made.
    pub async fn roll_out(&self, fence: &Fence, version: ModelVersionId, endpoint: &nereid_core::Name, replicas: u32, artifact: &ServingArtifact) -> Result<u32, StoreError> { todo!() }
    /// Ends a deploy job as succeeded.
    pub async fn complete_deploy(&self, fence: &Fence, result: &JobResult) -> Result<(), StoreError> { todo!() }
    /// Ends an attempt that did not succeed; returns the job's new status (queued again, failed or stopped), decided by
    /// reason, stop_requested and the attempt budget.
    pub async fn end_attempt(&self, fence: &Fence, end: &AttemptEnd) -> Result<JobStatus, StoreError> { todo!() }
    /// Hands expired leases back to the queue (or fails jobs whose budget is used up), marks silent workers gone and
    /// their replicas failed. Safe to run from every process. Returns the number of jobs touched.
    pub async fn reap(&self, grace: Duration) -> Result<u64, StoreError> { todo!() }
    /// Jobs waiting and running, by kind and status, for metrics.
    pub async fn queue_depth(&self) -> Result<Vec<(JobKind, JobStatus, u64)>, StoreError> { todo!() }
}
