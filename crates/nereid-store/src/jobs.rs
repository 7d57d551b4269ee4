//! Jobs as clients see them: submission, reading, stopping, retrying.

use chrono::{DateTime, Utc};
use nereid_core::{
    Name,
    events::EventKind,
    ids::{JobId, ProjectId},
    jobs::{Attempt, Job, JobKind, JobOptions, JobSpec, JobStatus, NewJob, TerminationReason},
};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Page, PageRequest, ResourceKind, Store, StoreError, WriteTx,
    events::append_event,
    notify::Wake,
    rows::{self, Row},
};

mod inputs;
pub(crate) mod transitions;

use transitions::{Change, transition};

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only jobs that stand there.
    pub status: Option<JobStatus>,
    /// Only jobs of that kind.
    pub kind: Option<JobKind>,
    /// Only jobs about that model.
    pub model: Option<Name>,
    /// All must match.
    pub labels: Vec<(String, String)>,
    /// Newest first unless true.
    pub oldest_first: bool,
}

struct JobRow {
    id: Uuid,
    project_id: Uuid,
    kind: String,
    spec: Value,
    labels: Value,
    priority: i32,
    max_attempts: i32,
    status: String,
    phase: Option<String>,
    stop_requested: bool,
    attempts: i32,
    progress: Option<Value>,
    result: Option<Value>,
    error: Option<Value>,
    termination_reason: Option<String>,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

impl TryFrom<JobRow> for Job {
    type Error = StoreError;

    fn try_from(r: JobRow) -> Result<Self, StoreError> {
        let row = Row::new("jobs", &r.id);
        let reason = r.termination_reason.as_deref();
        Ok(Self {
            id: r.id.into(),
            project_id: r.project_id.into(),
            spec: read_spec(row, &r.kind, r.spec)?,
            options: JobOptions {
                labels: row.json("labels", r.labels)?,
                priority: row.number("priority", r.priority)?,
                max_attempts: row.number("max_attempts", r.max_attempts)?,
            },
            status: row.word("status", &r.status)?,
            phase: row.word_opt("phase", r.phase.as_deref())?,
            stop_requested: r.stop_requested,
            attempts: row.number("attempts", r.attempts)?,
            progress: row.json_opt("progress", r.progress)?,
            result: row.json_opt("result", r.result)?,
            error: row.json_opt("error", r.error)?,
            termination_reason: row.word_opt("termination_reason", reason)?,
            created_at: r.created_at,
            started_at: r.started_at,
            finished_at: r.finished_at,
        })
    }
}

/// Reads a spec of the kind that the row names.
pub(crate) fn read_spec(row: Row<'_>, kind: &str, spec: Value) -> Result<JobSpec, StoreError> {
    Ok(match row.word("kind", kind)? {
        JobKind::Train => JobSpec::Train(row.json("spec", spec)?),
        JobKind::Deploy => JobSpec::Deploy(row.json("spec", spec)?),
    })
}

impl WriteTx {
    /// Accepts a job: cold row, queue row, event, in one transaction. Versions in the spec are already resolved.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if a dataset or model version of the spec is gone;
    /// [`StoreError::Conflict`] `unresolved_version` if a dataset is named without one.
    pub async fn submit_job(&mut self, new: &NewJob) -> Result<Job, StoreError> {
        let id = JobId::generate();
        let inputs = inputs::lock(&mut self.tx, self.project, &new.spec).await?;
        let (kind, model) = (new.spec.kind(), new.spec.model());
        let spec = match &new.spec {
            JobSpec::Train(spec) => rows::json(spec)?,
            JobSpec::Deploy(spec) => rows::json(spec)?,
        };
        sqlx::query_file!(
            "queries/jobs/submit.sql",
            id.0,
            self.project.0,
            kind.as_str(),
            rows::bind::<_, i32>(nereid_core::spec::train::SPEC_VERSION)?,
            spec,
            model.as_str(),
            inputs.model_version,
            inputs.datasets.first().copied(),
            rows::json(&new.options.labels)?,
            i32::from(new.options.priority),
            rows::bind::<_, i32>(new.options.max_attempts)?,
            &inputs.datasets,
            json!({"kind": kind, "model": model})
        )
        .execute(&mut *self.tx)
        .await?;
        self.audit("submit", &format!("job/{id}")).await?;
        self.wake(Wake::Queue);
        self.wake(Wake::Job(id));
        read_job(&mut self.tx, self.project, id).await
    }

    /// Asks a job to stop: queued → stopped at once; running → its worker is told by its next heartbeat. Idempotent on a
    /// job already asked; Conflict `job_final` on a final one.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] `job_final`.
    pub async fn stop_job(&mut self, id: JobId) -> Result<Job, StoreError> {
        let job = self.lock_job(id).await?;
        if job.status.is_final() {
            let what = format!("job {id} has ended already: it is {}", job.status);
            return Err(StoreError::conflict("job_final", what));
        }
        if job.stop_requested {
            return Ok(job);
        }
        self.audit("stop", &format!("job/{id}")).await?;
        sqlx::query!("UPDATE jobs SET stop_requested = true WHERE id = $1", id.0)
            .execute(&mut *self.tx)
            .await?;
        if job.status == JobStatus::Queued {
            let stopped = Change::ended(TerminationReason::Cancelled, None, 0);
            transition(&mut self.tx, id, &stopped).await?;
            sqlx::query!("DELETE FROM job_leases WHERE job_id = $1", id.0)
                .execute(&mut *self.tx)
                .await?;
        } else {
            sqlx::query!(
                "UPDATE job_leases SET stop_requested = true WHERE job_id = $1",
                id.0
            )
            .execute(&mut *self.tx)
            .await?;
            append_event(&mut self.tx, id, EventKind::StopRequested, &json!({})).await?;
        }
        self.wake(Wake::Job(id));
        read_job(&mut self.tx, self.project, id).await
    }

    /// Queues a failed or stopped job again with a fresh attempt budget; epoch goes on rising, checkpoint is kept.
    /// Conflict `job_not_final` otherwise (succeeded: `job_succeeded`).
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also if a dataset or model version of the job has been deleted;
    /// [`StoreError::Conflict`] `job_not_final`, `job_succeeded`.
    pub async fn retry_job(&mut self, id: JobId) -> Result<Job, StoreError> {
        let job = self.lock_job(id).await?;
        if job.status == JobStatus::Succeeded {
            let what = format!("job {id} has succeeded; submit it anew to repeat it");
            return Err(StoreError::conflict("job_succeeded", what));
        }
        if !job.status.is_final() {
            let what = format!("job {id} has not ended: it is {}", job.status);
            return Err(StoreError::conflict("job_not_final", what));
        }
        inputs::lock(&mut self.tx, self.project, &job.spec).await?;
        transition(&mut self.tx, id, &Change::retried()).await?;
        sqlx::query!(
            "INSERT INTO job_leases (job_id, project_id, kind, state, sort_key, available_at, epoch)
             SELECT id, project_id, kind, 'queued', now() - priority * interval '10 minutes', now(), epoch
             FROM jobs WHERE id = $1",
            id.0
        )
        .execute(&mut *self.tx)
        .await?;
        self.audit("retry", &format!("job/{id}")).await?;
        self.wake(Wake::Queue);
        self.wake(Wake::Job(id));
        read_job(&mut self.tx, self.project, id).await
    }

    /// Locks a job for a transition, its queue row first as everybody does.
    async fn lock_job(&mut self, id: JobId) -> Result<Job, StoreError> {
        sqlx::query!(
            "SELECT job_id FROM job_leases WHERE job_id = $1 FOR UPDATE",
            id.0
        )
        .fetch_optional(&mut *self.tx)
        .await?;
        sqlx::query!(
            "SELECT id FROM jobs WHERE id = $1 AND project_id = $2 FOR UPDATE",
            id.0,
            self.project.0
        )
        .fetch_optional(&mut *self.tx)
        .await?;
        read_job(&mut self.tx, self.project, id).await
    }
}

pub(crate) async fn read_job(
    conn: &mut PgConnection,
    project: ProjectId,
    id: JobId,
) -> Result<Job, StoreError> {
    let row = sqlx::query_as!(
        JobRow,
        "SELECT id, project_id, kind, spec, labels, priority, max_attempts, status, phase,
             stop_requested, attempts, progress, result, error, termination_reason,
             created_at, started_at, finished_at
         FROM jobs WHERE project_id = $1 AND id = $2",
        project.0,
        id.0
    );
    row.fetch_optional(conn)
        .await?
        .ok_or_else(|| StoreError::not_found(ResourceKind::Job, &id))?
        .try_into()
}

/// Lists jobs; identifiers sort by creation, so they are the key. `$order` is a comparison and a
/// direction that go together.
macro_rules! list_jobs {
    ($after:literal, $order:literal, $pool:expr, $($arg:expr),+ $(,)?) => {
        sqlx::query_as!(
            JobRow,
            "SELECT id, project_id, kind, spec, labels, priority, max_attempts, status, phase,
                 stop_requested, attempts, progress, result, error, termination_reason,
                 created_at, started_at, finished_at
             FROM jobs
             WHERE project_id = $1
               AND ($2::text IS NULL OR status = $2)
               AND ($3::text IS NULL OR kind = $3)
               AND ($4::text IS NULL OR model = $4)
               AND NOT EXISTS (
                   SELECT FROM unnest($5::text[], $6::text[]) AS l (key, value)
                   WHERE labels ->> l.key IS DISTINCT FROM l.value)
               AND ($7::uuid IS NULL OR id " + $after + " $7)
             ORDER BY id " + $order + " LIMIT $8",
            $($arg),+
        )
        .fetch_all($pool)
        .await?
    };
}

impl Store {
    /// Reads a job.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn job(&self, project: ProjectId, id: JobId) -> Result<Job, StoreError> {
        read_job(&mut *self.pool.acquire().await?, project, id).await
    }

    /// Lists the jobs of a project that match the filter.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `invalid_page_token`.
    pub async fn jobs(
        &self,
        project: ProjectId,
        filter: &JobFilter,
        page: &PageRequest,
    ) -> Result<Page<Job>, StoreError> {
        let (project, after, limit) = (project.0, page.position::<Uuid>()?, page.limit());
        let status = filter.status.map(JobStatus::as_str);
        let kind = filter.kind.map(JobKind::as_str);
        let model = filter.model.as_ref().map(Name::as_str);
        let (keys, values): (Vec<String>, Vec<String>) = filter.labels.iter().cloned().unzip();
        let rows = if filter.oldest_first {
            list_jobs!(
                ">", "ASC", &self.pool, project, status, kind, model, &keys, &values, after, limit
            )
        } else {
            list_jobs!(
                "<", "DESC", &self.pool, project, status, kind, model, &keys, &values, after, limit
            )
        };
        page.page(rows, |r| r.id, TryInto::try_into)
    }

    /// Lists the attempts of a job, oldest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn job_attempts(
        &self,
        project: ProjectId,
        id: JobId,
    ) -> Result<Vec<Attempt>, StoreError> {
        self.job(project, id).await?;
        let rows = sqlx::query!(
            "SELECT epoch, worker_id, started_at, ended_at, reason, message
             FROM job_attempts WHERE job_id = $1 ORDER BY epoch",
            id.0
        )
        .fetch_all(&self.pool)
        .await?;
        let row = Row::new("job_attempts", &id);
        rows.into_iter()
            .map(|r| {
                Ok(Attempt {
                    epoch: row.number("epoch", r.epoch)?,
                    worker_id: r.worker_id.into(),
                    started_at: r.started_at,
                    ended_at: r.ended_at,
                    reason: row.word_opt("reason", r.reason.as_deref())?,
                    message: r.message,
                })
            })
            .collect()
    }
}
