//! What clients ask of jobs: pause, stop, cancel, resume, retry.

use nereid_core::{
    events::EventKind,
    ids::JobId,
    jobs::{Job, JobKind, JobRequest, JobStatus, TerminationReason},
};
use serde_json::json;

use super::{
    inputs, read_job,
    transitions::{Change, Used, transition},
};
use crate::{StoreError, WriteTx, events::append_event, notify::Wake, queue::checkpoints};

impl WriteTx {
    /// Asks something of a job. A running one is told by its worker's next heartbeat, any other changes at once: queued
    /// becomes paused or stopped, paused becomes stopped; but one that is to be stopped and has a checkpoint is queued, to
    /// run once more and publish. Only a training that has a checkpoint, or runs, has something to keep: a stop of any
    /// other job is a cancel.
    ///
    /// Asking the same again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] `job_final`, or `already_requested` if something more final
    /// was asked before.
    pub async fn request_job(&mut self, id: JobId, request: JobRequest) -> Result<Job, StoreError> {
        let job = self.lock_job(id).await?;
        if job.status.is_final() {
            let what = format!("job {id} has ended already: it is {}", job.status);
            return Err(StoreError::conflict("job_final", what));
        }
        let request = self.effective(&job, request).await?;
        match job.requested {
            Some(before) if before == request => return Ok(job),
            Some(before) if before > request => {
                let what = format!("job {id} has been asked to {before} already");
                return Err(StoreError::conflict("already_requested", what));
            }
            _ if job.status == JobStatus::Paused && request == JobRequest::Pause => return Ok(job),
            _ => {}
        }
        self.audit(request.as_str(), &format!("job/{id}")).await?;
        match (job.status, request) {
            (JobStatus::Running, _) => self.tell(id, request).await?,
            (_, JobRequest::Cancel) => self.rest(id, TerminationReason::Cancelled).await?,
            (_, JobRequest::Pause) => self.rest(id, TerminationReason::Paused).await?,
            (JobStatus::Paused, JobRequest::Stop) => self.enqueue(id, Some(request)).await?,
            (_, JobRequest::Stop) => {
                self.tell(id, request).await?;
                // A client waits for it: no backoff holds it up.
                sqlx::query!(
                    "UPDATE job_leases SET available_at = LEAST(available_at, now()) WHERE job_id = $1",
                    id.0
                )
                .execute(&mut self.tx)
                .await?;
                self.wake(Wake::Queue);
            }
        }
        self.wake(Wake::Job(id));
        read_job(&mut self.tx, self.project, id).await
    }

    /// Queues a paused job again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also if a dataset or model version of the job has been deleted;
    /// [`StoreError::Conflict`] `job_not_paused`, also while it is only about to pause.
    pub async fn resume_job(&mut self, id: JobId) -> Result<Job, StoreError> {
        let job = self.lock_job(id).await?;
        if job.status != JobStatus::Paused {
            let what = format!("job {id} is not paused: it is {}", job.status);
            return Err(StoreError::conflict("job_not_paused", what));
        }
        inputs::lock(&mut self.tx, self.project, &job.spec).await?;
        self.audit("resume", &format!("job/{id}")).await?;
        self.enqueue(id, None).await?;
        read_job(&mut self.tx, self.project, id).await
    }

    /// Queues a failed or stopped job again with fresh budgets; its epoch goes on rising, its checkpoints are kept.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also if a dataset or model version of the job has been deleted;
    /// [`StoreError::Conflict`] `job_not_final`, or `job_succeeded` if it has a result, a model of a stopped training
    /// included: no job publishes twice.
    pub async fn retry_job(&mut self, id: JobId) -> Result<Job, StoreError> {
        let job = self.lock_job(id).await?;
        if job.result.is_some() {
            let what = format!("job {id} has a result; submit it anew to repeat it");
            return Err(StoreError::conflict("job_succeeded", what));
        }
        if !job.status.is_final() {
            let what = format!("job {id} has not ended: it is {}", job.status);
            return Err(StoreError::conflict("job_not_final", what));
        }
        inputs::lock(&mut self.tx, self.project, &job.spec).await?;
        self.audit("retry", &format!("job/{id}")).await?;
        transition(&mut self.tx, id, &Change::retried()).await?;
        self.insert_lease(id).await?;
        read_job(&mut self.tx, self.project, id).await
    }

    /// What a request comes to: a stop is a cancel where there is nothing to keep.
    async fn effective(
        &mut self,
        job: &Job,
        request: JobRequest,
    ) -> Result<JobRequest, StoreError> {
        if request != JobRequest::Stop {
            return Ok(request);
        }
        let keeps = job.spec.kind() == JobKind::Train
            && (job.status == JobStatus::Running || checkpoints::any(&mut self.tx, job.id).await?);
        Ok(if keeps { request } else { JobRequest::Cancel })
    }

    /// Notes a request for the job's attempt, the one under way or the next one.
    async fn tell(&mut self, id: JobId, request: JobRequest) -> Result<(), StoreError> {
        sqlx::query!(
            "WITH job AS (UPDATE jobs SET requested = $2 WHERE id = $1)
             UPDATE job_leases SET requested = $2 WHERE job_id = $1",
            id.0,
            request.as_str()
        )
        .execute(&mut self.tx)
        .await?;
        let data = json!({"request": request});
        append_event(&mut self.tx, id, EventKind::Requested, &data).await
    }

    /// Pauses or ends a job that no worker holds.
    async fn rest(&mut self, id: JobId, reason: TerminationReason) -> Result<(), StoreError> {
        let change = Change::rest(reason, None, Used::default());
        transition(&mut self.tx, id, &change).await?;
        sqlx::query!("DELETE FROM job_leases WHERE job_id = $1", id.0)
            .execute(&mut self.tx)
            .await?;
        Ok(())
    }

    /// Queues a paused job.
    async fn enqueue(&mut self, id: JobId, request: Option<JobRequest>) -> Result<(), StoreError> {
        transition(&mut self.tx, id, &Change::resumed(request)).await?;
        if let Some(request) = request {
            let data = json!({"request": request});
            append_event(&mut self.tx, id, EventKind::Requested, &data).await?;
        }
        self.insert_lease(id).await
    }

    async fn insert_lease(&mut self, id: JobId) -> Result<(), StoreError> {
        sqlx::query_file!("queries/jobs/enqueue.sql", id.0)
            .execute(&mut self.tx)
            .await?;
        self.wake(Wake::Queue);
        self.wake(Wake::Job(id));
        Ok(())
    }

    /// Locks a job for a transition, its queue row first as everybody does.
    async fn lock_job(&mut self, id: JobId) -> Result<Job, StoreError> {
        loop {
            let queue_row = sqlx::query!(
                "SELECT job_id FROM job_leases WHERE job_id = $1 FOR UPDATE",
                id.0
            )
            .fetch_optional(&mut self.tx)
            .await?;
            sqlx::query!("SAVEPOINT in_order")
                .execute(&mut self.tx)
                .await?;
            sqlx::query!(
                "SELECT id FROM jobs WHERE id = $1 AND project_id = $2 FOR UPDATE",
                id.0,
                self.project.0
            )
            .fetch_optional(&mut self.tx)
            .await?;
            // Somebody may have queued it while this waited for its row: then all over again, in order.
            let queued_since = sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT FROM job_leases WHERE job_id = $1) AS "exists!""#,
                id.0
            );
            if queue_row.is_none() && queued_since.fetch_one(&mut self.tx).await? {
                sqlx::query!("ROLLBACK TO SAVEPOINT in_order")
                    .execute(&mut self.tx)
                    .await?;
                continue;
            }
            return read_job(&mut self.tx, self.project, id).await;
        }
    }
}
