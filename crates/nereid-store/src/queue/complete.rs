//! The ends of jobs that are done, written together: many short jobs end at the same time.

use std::collections::HashSet;

use nereid_core::jobs::{Fence, JobResult, JobStatus, TerminationReason};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    StoreError,
    connection::Pool,
    group::GroupWrite,
    jobs::transitions::{Change, sources},
    rows,
};

/// Ends attempts whose jobs are done, in one fenced statement for all of them.
#[derive(Debug)]
pub(crate) struct Completions(pub(crate) Pool);

/// An attempt whose job is done.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(super) fence: Fence,
    pub(super) result: JobResult,
}

impl GroupWrite for Completions {
    type Call = Completion;
    /// Whether it was ended; if not, its lease is not current, or has expired, or the job was
    /// cancelled, or somebody is at it.
    type Answer = bool;

    async fn write(&self, calls: &[Completion]) -> Result<Vec<bool>, StoreError> {
        let jobs: Vec<Uuid> = calls.iter().map(|c| c.fence.job.0).collect();
        let epochs: Vec<i64> = calls.iter().map(|c| c.fence.epoch).collect();
        let claims: Vec<Uuid> = calls.iter().map(|c| c.fence.claim.0).collect();
        let results = calls.iter().map(|c| rows::json(&c.result));
        let results = results.collect::<Result<Vec<Value>, _>>()?;
        let reason = TerminationReason::Completed;
        let ended = sqlx::query_file_scalar!(
            "queries/queue/complete.sql",
            &jobs,
            &epochs,
            &claims,
            &results,
            JobStatus::Succeeded.as_str(),
            reason.as_str(),
            &sources(JobStatus::Succeeded),
            Change::done(reason, JobResult::Noop {}).data()
        )
        .fetch_all(&self.0)
        .await?;
        let ended: HashSet<Uuid> = ended.into_iter().collect();
        Ok(calls
            .iter()
            .map(|c| ended.contains(&c.fence.claim.0))
            .collect())
    }
}
