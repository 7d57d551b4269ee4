//! Jobs as clients see them: submission, reading, stopping, retrying.

use nereid_core::{Name, ids::*, jobs::*};
use crate::{Page, PageRequest, Store, StoreError, WriteTx};

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    pub status: Option<JobStatus>,
    pub kind: Option<JobKind>,
    pub model: Option<Name>,
    /// All must match.
    pub labels: Vec<(String, String)>,
    /// Newest first unless true.
    pub oldest_first: bool,
}

impl WriteTx {
    /// Accepts a job: cold row, queue row, event, in one transaction. Versions in the spec are already resolved.
    pub async fn submit_job(&mut self, new: &NewJob) -> Result<Job, StoreError> { todo!() }
    /// Asks a job to stop: queued → stopped at once; running → its worker is told by its next heartbeat. Idempotent on a
    /// job already asked; Conflict `job_final` on a final one.
    pub async fn stop_job(&mut self, id: JobId) -> Result<Job, StoreError> { todo!() }
    /// Queues a failed or stopped job again with a fresh attempt budget; epoch goes on rising, checkpoint is kept.
    /// Conflict `job_not_final` otherwise (succeeded: `job_succeeded`).
    pub async fn retry_job(&mut self, id: JobId) -> Result<Job, StoreError> { todo!() }
}

impl Store {
    pub async fn job(&self, project: ProjectId, id: JobId) -> Result<Job, StoreError> { todo!() }
    pub async fn jobs(&self, project: ProjectId, filter: &JobFilter, page: &PageRequest) -> Result<Page<Job>, StoreError> { todo!() }
    pub async fn job_attempts(&self, project: ProjectId, id: JobId) -> Result<Vec<Attempt>, StoreError> { todo!() }
}
