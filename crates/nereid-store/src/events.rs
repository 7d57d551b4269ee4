//! What can be watched of a job.
//!
//! `data` of an event by kind: `submitted` {kind, model?}; `status_changed` {status, reason?,
//! message?, epoch? and `worker_id`? (running)}; `phase_changed` {phase}; `progress` as
//! [`Progress`](nereid_core::jobs::Progress); `requested` {request}; `checkpointed` {step, bytes};
//! `published` {model, version}; `rule_triggered` as
//! [`RuleReport`](nereid_core::events::RuleReport).

use chrono::{DateTime, Utc};
use nereid_core::{
    events::{EventKind, JobEvent, LogLevel, LogLine, MetricPoint},
    ids::{JobId, ProjectId},
};
use serde_json::Value;

use crate::{Page, PageRequest, ResourceKind, Store, StoreError, connection::Tx, rows::Row};

/// Appends an event to a job, whose row stays locked so that numbers have no gaps.
pub(crate) async fn append_event(
    conn: &mut Tx,
    job: JobId,
    kind: EventKind,
    data: &Value,
) -> Result<(), StoreError> {
    sqlx::query!(
        "WITH job AS (
             UPDATE jobs SET last_event_seq = last_event_seq + 1 WHERE id = $1 RETURNING last_event_seq
         )
         INSERT INTO job_events (job_id, seq, kind, data, at)
         SELECT $1, last_event_seq, $2, $3, clock_timestamp() FROM job",
        job.0,
        kind.as_str(),
        data
    )
    .execute(conn)
    .await?;
    Ok(())
}

impl Store {
    /// Events after `after` in order, at most `limit`. `NotFound` if the job is not in the project.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn job_events(
        &self,
        project: ProjectId,
        id: JobId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<JobEvent>, StoreError> {
        let created_at = self.job_created_at(project, id).await?;
        let rows = sqlx::query!(
            "SELECT seq, kind, data, at FROM job_events
             WHERE job_id = $1 AND at >= $2 AND seq > $3 ORDER BY seq LIMIT $4",
            id.0,
            created_at,
            i64::try_from(after).unwrap_or(i64::MAX),
            i64::from(limit)
        )
        .fetch_all(&self.pool)
        .await?;
        let row = Row::new("job_events", &id);
        rows.into_iter()
            .map(|r| {
                Ok(JobEvent {
                    job_id: id,
                    seq: row.number("seq", r.seq)?,
                    kind: row.word("kind", &r.kind)?,
                    data: r.data,
                    at: r.at,
                })
            })
            .collect()
    }

    /// Log lines in order, after the page's position; optionally only of `level` and above.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] `invalid_page_token`.
    pub async fn job_logs(
        &self,
        project: ProjectId,
        id: JobId,
        level: Option<LogLevel>,
        page: &PageRequest,
    ) -> Result<Page<LogLine>, StoreError> {
        let created_at = self.job_created_at(project, id).await?;
        let least = level.unwrap_or(LogLevel::Debug);
        let levels = LogLevel::ALL.iter().filter(|l| **l >= least);
        let levels: Vec<String> = levels.map(ToString::to_string).collect();
        let rows = sqlx::query!(
            "SELECT seq, epoch, level, message, at FROM job_logs
             WHERE job_id = $1 AND stored_at >= $2 AND seq > $3 AND level = ANY ($4) ORDER BY seq LIMIT $5",
            id.0,
            created_at,
            page.position::<i64>()?.unwrap_or(0),
            &levels,
            page.limit()
        )
        .fetch_all(&self.pool)
        .await?;
        let row = Row::new("job_logs", &id);
        page.page(
            rows,
            |r| r.seq,
            |r| {
                Ok(LogLine {
                    seq: row.number("seq", r.seq)?,
                    epoch: row.number("epoch", r.epoch)?,
                    level: row.word("level", &r.level)?,
                    message: r.message,
                    at: r.at,
                })
            },
        )
    }

    /// Metric points of the job in step order (each step once), at most `limit` (thinned evenly if there are more).
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn job_metrics(
        &self,
        project: ProjectId,
        id: JobId,
        limit: u32,
    ) -> Result<Vec<MetricPoint>, StoreError> {
        self.job_created_at(project, id).await?;
        let rows = sqlx::query_file!("queries/jobs/metrics.sql", id.0, i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        let row = Row::new("job_metrics", &id);
        rows.into_iter()
            .map(|r| {
                Ok(MetricPoint {
                    step: row.number("step", r.step)?,
                    epoch: r.epoch,
                    values: row.json("values", r.values)?,
                    at: r.at,
                })
            })
            .collect()
    }

    /// When the job was accepted: nothing of it lies in the partitions of earlier months.
    async fn job_created_at(
        &self,
        project: ProjectId,
        id: JobId,
    ) -> Result<DateTime<Utc>, StoreError> {
        let created_at = sqlx::query_scalar!(
            "SELECT created_at FROM jobs WHERE project_id = $1 AND id = $2",
            project.0,
            id.0
        );
        created_at
            .fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| StoreError::not_found(ResourceKind::Job, &id))
    }
}
