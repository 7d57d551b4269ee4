//! How attempts end without a version: by a finished deployment, or without success.

use std::time::Duration;

use nereid_core::jobs::{
    Fence, JobRequest, JobResult, JobStatus, Outcome, TerminationReason, after_attempt,
};
use nereid_core::limits::MAX_LEASE_LOSSES;

use super::{
    AttemptEnd, checkpoints,
    complete::Completion,
    lease::{self, Lease, Require},
};
use crate::{
    Store, StoreError,
    connection::Tx,
    jobs::transitions::{Change, Used, transition},
    notify::Wake,
    rows,
};

impl Store {
    /// Ends a job that publishes nothing (deploy, no-op) as succeeded; needs an unexpired lease.
    ///
    /// Repeated by the attempt that has done it, succeeds again: so it may be repeated when its answer was lost.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Conflict`] `cancel_requested` if a client has cancelled the job.
    pub async fn complete(&self, fence: &Fence, result: &JobResult) -> Result<(), StoreError> {
        let completion = Completion {
            fence: *fence,
            result: result.clone(),
        };
        if !self.groups.completions.call(completion).await? {
            self.complete_alone(fence, result).await?;
        }
        self.notify(Wake::Job(fence.job));
        Ok(())
    }

    /// The same, waiting for the lease and finding out why it may not.
    async fn complete_alone(&self, fence: &Fence, result: &JobResult) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        let lease = match lease::lock(&mut tx, fence, Require::Unexpired).await {
            Err(StoreError::LeaseLost) if has_completed(&mut tx, fence).await? => return Ok(()),
            lease => lease?,
        };
        lease.refuse_cancelled()?;
        let reason = TerminationReason::Completed;
        let done = Change::done(reason, result.clone());
        close(&mut tx, &lease, &done, reason, None, None).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Ends an attempt that made nothing; returns where the job stands now (queued again, paused, failed or stopped),
    /// decided by core's [`after_attempt`] from the reason, what a client asked, and the budgets.
    ///
    /// Repeated when its answer was lost, finds the lease gone: [`StoreError::LeaseLost`], with nothing left to do.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Conflict`] `invalid_transition` for a reason that comes with a result.
    pub async fn end_attempt(
        &self,
        fence: &Fence,
        end: &AttemptEnd,
    ) -> Result<JobStatus, StoreError> {
        use TerminationReason::{Completed, StoppedEarly};
        if matches!(end.reason, Completed | StoppedEarly) {
            let what = "an attempt that made something ends by publishing or completing it";
            return Err(StoreError::conflict("invalid_transition", what));
        }
        let mut tx = self.pool.begin().await?;
        let lease = lease::lock(&mut tx, fence, Require::Current).await?;
        let status = end_without_result(&mut tx, &lease, end).await?;
        tx.commit().await?;
        self.notify(Wake::Job(fence.job));
        if status == JobStatus::Queued {
            self.notify(Wake::Queue);
        }
        Ok(status)
    }
}

/// What becomes of a job whose attempt made nothing. `trained` tells whether there is a checkpoint.
pub(super) fn outcome(
    reason: TerminationReason,
    requested: Option<JobRequest>,
    left: bool,
    trained: bool,
) -> Outcome {
    match after_attempt(reason, requested, left) {
        // As of a stopped job that never ran: there is nothing to keep.
        Outcome::Requeue if requested == Some(JobRequest::Stop) && !trained => {
            Outcome::Rest(TerminationReason::Cancelled)
        }
        other => other,
    }
}

/// Whether this attempt ended its job with a result, which a repeated call may ask.
pub(super) async fn has_completed(conn: &mut Tx, fence: &Fence) -> Result<bool, StoreError> {
    let completed = sqlx::query_scalar!(
        r#"SELECT EXISTS (
             SELECT FROM job_attempts WHERE job_id = $1 AND epoch = $2 AND claim_id = $3
               AND reason IN ('completed', 'stopped_early')) AS "completed!""#,
        fence.job.0,
        fence.epoch,
        fence.claim.0
    );
    Ok(completed.fetch_one(conn).await?)
}

async fn end_without_result(
    conn: &mut Tx,
    lease: &Lease,
    end: &AttemptEnd,
) -> Result<JobStatus, StoreError> {
    let job = lease.fence.job;
    let budget = sqlx::query!(
        "SELECT attempts, max_attempts, lease_losses FROM jobs WHERE id = $1",
        job.0
    )
    .fetch_one(&mut *conn)
    .await?;
    let used = Used::by(end.reason);
    let losses = budget.lease_losses + used.lease_losses;
    let left = match end.reason {
        TerminationReason::LeaseLost => losses < rows::bind::<_, i32>(MAX_LEASE_LOSSES)?,
        _ => budget.attempts + used.attempts < budget.max_attempts,
    };
    let trained = checkpoints::any(&mut *conn, job).await?;
    let message = rows::clean(&end.message);
    let (change, delay) = match outcome(end.reason, lease.requested, left, trained) {
        Outcome::Rest(reason) => (Change::rest(reason, Some(&message), used), None),
        Outcome::Requeue => {
            let change = Change::requeued(end.reason, &message, used, lease.requested);
            (change, Some(delay(end, losses)))
        }
    };
    let status = change.to();
    close(conn, lease, &change, end.reason, Some(&message), delay).await?;
    Ok(status)
}

/// Nobody waits for what the job is not to blame for; a second lost lease may be its doing.
fn delay(end: &AttemptEnd, losses: i32) -> Duration {
    match end.reason {
        TerminationReason::WorkerDrained | TerminationReason::Paused => Duration::ZERO,
        TerminationReason::LeaseLost if losses <= 1 => Duration::ZERO,
        _ => end.retry_delay,
    }
}

/// Changes the job's status, closes the attempt, and gives the lease up or back to the queue.
pub(super) async fn close(
    conn: &mut Tx,
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
        sqlx::query_file!("queries/queue/requeue.sql", job.0, delay.as_secs_f64())
            .execute(conn)
            .await?;
    } else {
        sqlx::query!("DELETE FROM job_leases WHERE job_id = $1", job.0)
            .execute(conn)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_job_runs_once_more_only_for_a_model_it_has() {
        let stop = Some(JobRequest::Stop);
        let lost = TerminationReason::LeaseLost;
        assert_eq!(outcome(lost, stop, true, true), Outcome::Requeue);
        let cancelled = Outcome::Rest(TerminationReason::Cancelled);
        assert_eq!(outcome(lost, stop, true, false), cancelled);
        assert_eq!(outcome(lost, None, true, false), Outcome::Requeue);
        assert_eq!(outcome(lost, stop, false, false), Outcome::Rest(lost));
    }

    #[test]
    fn only_what_may_be_the_jobs_fault_waits() {
        let delay_after = |reason, losses| {
            let (message, retry_delay) = (String::new(), Duration::from_secs(3));
            let end = AttemptEnd {
                reason,
                message,
                retry_delay,
            };
            delay(&end, losses).as_secs()
        };
        assert_eq!(delay_after(TerminationReason::WorkerDrained, 0), 0);
        assert_eq!(delay_after(TerminationReason::LeaseLost, 1), 0);
        assert_eq!(delay_after(TerminationReason::LeaseLost, 2), 3);
        assert_eq!(delay_after(TerminationReason::Unavailable, 0), 3);
    }
}
