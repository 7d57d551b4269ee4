//! How attempts end: by publishing, by a finished deployment, or without success.

use std::time::Duration;

use nereid_core::{
    Name,
    events::EventKind,
    ids::{ModelId, ModelVersionId},
    jobs::{Fence, JobResult, JobStatus, Published, TerminationReason},
};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    AttemptEnd, NewModelVersion,
    lease::{self, Lease, Require},
};
use crate::{
    Store, StoreError,
    events::append_event,
    jobs::transitions::{Change, transition},
    notify::Wake,
    rows::{self, Row},
};

impl Store {
    /// Publishes a version and ends the job as succeeded, in one transaction; needs an unexpired lease. Creates the
    /// model with its first version. Deletes of versions never give numbers back.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn publish_version(
        &self,
        fence: &Fence,
        new: &NewModelVersion,
    ) -> Result<Published, StoreError> {
        let mut tx = self.pool.begin().await?;
        let lease = lease::lock(&mut tx, fence, Require::Unexpired).await?;
        let (published, model) = insert_version(&mut tx, &lease, new).await?;
        let data = json!({"model": model, "version": published.version});
        append_event(&mut tx, fence.job, EventKind::Published, &data).await?;
        let done = Change::succeeded(JobResult::Train {
            model,
            version: published.version,
            metrics: rows::finite(&new.manifest.metrics),
        });
        let reason = TerminationReason::Completed;
        close(&mut tx, &lease, &done, reason, None, None).await?;
        tx.commit().await?;
        self.notify(Wake::Job(fence.job));
        Ok(published)
    }

    /// Ends a deploy job as succeeded.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn complete_deploy(
        &self,
        fence: &Fence,
        result: &JobResult,
    ) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        let lease = lease::lock(&mut tx, fence, Require::Unexpired).await?;
        let done = Change::succeeded(result.clone());
        let reason = TerminationReason::Completed;
        close(&mut tx, &lease, &done, reason, None, None).await?;
        tx.commit().await?;
        self.notify(Wake::Job(fence.job));
        Ok(())
    }

    /// Ends an attempt that did not succeed; returns the job's new status (queued again, failed or stopped), decided by
    /// reason, `stop_requested` and the attempt budget.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Conflict`] `invalid_transition` for reason `completed`.
    pub async fn end_attempt(
        &self,
        fence: &Fence,
        end: &AttemptEnd,
    ) -> Result<JobStatus, StoreError> {
        if end.reason == TerminationReason::Completed {
            let what = "an attempt that completed ends by publishing or completing its deployment";
            return Err(StoreError::conflict("invalid_transition", what));
        }
        let mut tx = self.pool.begin().await?;
        let lease = lease::lock(&mut tx, fence, Require::Current).await?;
        let status = end_without_success(&mut tx, &lease, end).await?;
        tx.commit().await?;
        self.notify(Wake::Job(fence.job));
        if status == JobStatus::Queued {
            self.notify(Wake::Queue);
        }
        Ok(status)
    }
}

/// Ends the attempt of a locked lease and decides whether the job is tried again.
pub(super) async fn end_without_success(
    conn: &mut PgConnection,
    lease: &Lease,
    end: &AttemptEnd,
) -> Result<JobStatus, StoreError> {
    let job = lease.fence.job;
    let budget = sqlx::query!(
        "SELECT attempts, max_attempts FROM jobs WHERE id = $1",
        job.0
    )
    .fetch_one(&mut *conn)
    .await?;
    let used = i32::from(end.reason.uses_up_attempt());
    let left = budget.attempts + used < budget.max_attempts;
    let message = rows::clean(&end.message);
    let next = next_status(end.reason, lease.stop_requested, left);
    let (change, delay) = match next {
        JobStatus::Queued => {
            let drained = end.reason == TerminationReason::WorkerDrained;
            let delay = if drained {
                Duration::ZERO
            } else {
                end.retry_delay
            };
            (Change::requeued(end.reason, &message, used), Some(delay))
        }
        JobStatus::Stopped => (
            Change::ended(TerminationReason::Cancelled, Some(&message), used),
            None,
        ),
        _ => (Change::ended(end.reason, Some(&message), used), None),
    };
    close(conn, lease, &change, end.reason, Some(&message), delay).await?;
    Ok(next)
}

/// Where a job stands after an attempt that did not succeed.
fn next_status(reason: TerminationReason, stop_requested: bool, budget_left: bool) -> JobStatus {
    if stop_requested {
        JobStatus::Stopped
    } else if reason.is_retryable() && budget_left {
        JobStatus::Queued
    } else {
        reason.final_status()
    }
}

/// Changes the job's status, closes the attempt, and gives the lease up or back to the queue.
pub(super) async fn close(
    conn: &mut PgConnection,
    lease: &Lease,
    change: &Change,
    reason: TerminationReason,
    message: Option<&str>,
    requeue: Option<Duration>,
) -> Result<(), StoreError> {
    let Fence { job, epoch, .. } = lease.fence;
    transition(conn, job, change).await?;
    sqlx::query!(
        "UPDATE job_attempts SET ended_at = clock_timestamp(), reason = $3, message = $4 WHERE job_id = $1 AND epoch = $2",
        job.0,
        epoch,
        reason.as_str(),
        message
    )
    .execute(&mut *conn)
    .await?;
    if let Some(delay) = requeue {
        sqlx::query!(
            "UPDATE job_leases SET state = 'queued', claim_id = NULL, worker_id = NULL, expires_at = NULL,
                 available_at = clock_timestamp() + make_interval(secs => $2)
             WHERE job_id = $1",
            job.0,
            delay.as_secs_f64()
        )
        .execute(conn)
        .await?;
    } else {
        sqlx::query!("DELETE FROM job_leases WHERE job_id = $1", job.0)
            .execute(conn)
            .await?;
    }
    Ok(())
}

async fn insert_version(
    conn: &mut PgConnection,
    lease: &Lease,
    new: &NewModelVersion,
) -> Result<(Published, Name), StoreError> {
    let id = ModelVersionId::generate();
    let manifest = &new.manifest;
    let row = sqlx::query_file!(
        "queries/queue/publish.sql",
        lease.fence.job.0,
        ModelId::generate().0,
        lease.project.0,
        id.0,
        new.manifest_uri,
        new.manifest_sha256,
        rows::bind::<_, i64>(new.bytes)?,
        rows::json(&manifest.spec)?,
        rows::json(&manifest.signature)?,
        rows::json(&rows::finite(&manifest.metrics))?,
        rows::json(&new.reports)?,
        rows::json(&manifest.lineage)?
    )
    .fetch_one(conn)
    .await?;
    let version = Row::new("models", &row.model).number("next_version", row.version)?;
    let model = Row::new("jobs", &lease.fence.job).name("model", row.model)?;
    Ok((Published { id, version }, model))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_tried_again_only_if_that_may_help_and_nobody_wants_it_stopped() {
        use TerminationReason::{Cancelled, Diverged, LeaseLost, Unavailable};
        let next = |reason, stop, left| next_status(reason, stop, left);
        assert_eq!(next(Unavailable, false, true), JobStatus::Queued);
        assert_eq!(next(LeaseLost, false, false), JobStatus::Failed);
        assert_eq!(next(Unavailable, true, true), JobStatus::Stopped);
        assert_eq!(next(Diverged, false, true), JobStatus::Failed);
        assert_eq!(next(Diverged, true, true), JobStatus::Stopped);
        assert_eq!(next(Cancelled, false, true), JobStatus::Stopped);
    }
}
