//! Jobs as clients see them: submission and reading; what is asked of them is in `requests`.

use chrono::{DateTime, Utc};
use nereid_core::{
    Name,
    ids::{JobId, ProjectId},
    jobs::{Attempt, Job, JobKind, JobOptions, JobSpec, JobStatus, NewJob},
    workers::DeviceKind,
};
use serde_json::{Value, json};
use sqlx::PgExecutor;
use uuid::Uuid;

use crate::{
    Page, PageRequest, ResourceKind, Store, StoreError, WriteTx,
    notify::Wake,
    rows::{self, Row},
};

mod inputs;
mod requests;
pub(crate) mod submit;
pub(crate) mod transitions;
mod waiting;

pub use submit::Submitted;

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
    device: Option<String>,
    worker_labels: Value,
    max_runtime_seconds: Option<i32>,
    max_queue_seconds: Option<i32>,
    status: String,
    phase: Option<String>,
    requested: Option<String>,
    attempts: i32,
    lease_losses: i32,
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
                device: row.word_opt("device", r.device.as_deref())?,
                worker_labels: row.json("worker_labels", r.worker_labels)?,
                max_runtime_seconds: row
                    .number_opt("max_runtime_seconds", r.max_runtime_seconds)?,
                max_queue_seconds: row.number_opt("max_queue_seconds", r.max_queue_seconds)?,
            },
            status: row.word("status", &r.status)?,
            phase: row.word_opt("phase", r.phase.as_deref())?,
            requested: row.word_opt("requested", r.requested.as_deref())?,
            waiting: None,
            attempts: row.number("attempts", r.attempts)?,
            lease_losses: row.number("lease_losses", r.lease_losses)?,
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
        JobKind::BatchPredict => JobSpec::BatchPredict(row.json("spec", spec)?),
        JobKind::Noop => JobSpec::Noop(row.json("spec", spec)?),
    })
}

/// Writes a spec, whose kind has a column of its own.
fn spec_document(spec: &JobSpec) -> Result<Value, StoreError> {
    match spec {
        JobSpec::Train(spec) => rows::json(spec),
        JobSpec::Deploy(spec) => rows::json(spec),
        JobSpec::BatchPredict(spec) => rows::json(spec),
        JobSpec::Noop(spec) => rows::json(spec),
    }
}

impl WriteTx {
    /// Accepts a job: cold row, queue row, event, in one transaction. Versions in the spec are already resolved.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if a dataset or model version of the spec is gone;
    /// [`StoreError::Conflict`] `unresolved_version` if a dataset or a version to start from is named without one.
    pub async fn submit_job(&mut self, new: &NewJob) -> Result<Job, StoreError> {
        let id = JobId::generate();
        let inputs = inputs::lock(&mut self.tx, self.project, &new.spec).await?;
        let (kind, model) = (new.spec.kind(), new.spec.model());
        let mut submitted = json!({"kind": kind});
        if let Some(model) = model {
            submitted["model"] = json!(model);
        }
        let seconds = |limit: Option<u32>| limit.map(rows::bind::<_, i32>).transpose();
        let options = &new.options;
        sqlx::query_file!(
            "queries/jobs/submit.sql",
            id.0,
            self.project.0,
            kind.as_str(),
            rows::bind::<_, i32>(nereid_core::spec::train::SPEC_VERSION)?,
            spec_document(&new.spec)?,
            model.map(Name::as_str),
            inputs.model_version,
            inputs.datasets.first().copied(),
            rows::json(&options.labels)?,
            i32::from(options.priority),
            rows::bind::<_, i32>(options.max_attempts)?,
            options.device.map(DeviceKind::as_str),
            rows::json(&options.worker_labels)?,
            seconds(options.max_runtime_seconds)?,
            seconds(options.max_queue_seconds)?,
            &inputs.datasets,
            submitted
        )
        .execute(&mut self.tx)
        .await?;
        self.audit("submit", &format!("job/{id}")).await?;
        self.wake(Wake::Queue);
        self.wake(Wake::Job(id));
        read_job(&mut self.tx, self.project, id).await
    }
}

pub(crate) async fn read_job(
    conn: impl PgExecutor<'_>,
    project: ProjectId,
    id: JobId,
) -> Result<Job, StoreError> {
    let row = sqlx::query_as!(
        JobRow,
        "SELECT id, project_id, kind, spec, labels, priority, max_attempts, device, worker_labels,
             max_runtime_seconds, max_queue_seconds, status, phase, requested, attempts,
             lease_losses, progress, result, error, termination_reason,
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
            "SELECT id, project_id, kind, spec, labels, priority, max_attempts, device, worker_labels,
                 max_runtime_seconds, max_queue_seconds, status, phase, requested, attempts,
                 lease_losses, progress, result, error, termination_reason,
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
    /// Reads a job; of a queued one also why it waits.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn job(&self, project: ProjectId, id: JobId) -> Result<Job, StoreError> {
        let mut job = read_job(&self.pool, project, id).await?;
        if job.status == JobStatus::Queued {
            job.waiting = self.waiting(&job).await?;
        }
        Ok(job)
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
