//! Heartbeats: leases renewed, progress carried up, directives carried down.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use nereid_core::{
    ids::{JobId, WorkerId},
    jobs::{Directive, JobPhase, Progress},
};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Beat,
    lease::{self, Require},
};
use crate::{ResourceKind, Store, StoreError, notify::Wake, rows};

impl Store {
    /// Renews all leases of a worker in one statement; also keeps the worker and its replicas alive. Stores progress.
    /// Every fence of the request is answered: `Lost` for those no longer current.
    ///
    /// A worker that was taken for gone, but did not retire, is active again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the worker never registered.
    pub async fn heartbeat(
        &self,
        worker: WorkerId,
        lease: Duration,
        beats: &[Beat],
    ) -> Result<HashMap<JobId, Directive>, StoreError> {
        let mut tx = self.pool.begin().await?;
        let renewed = renew(&mut tx, worker, lease, beats).await?;
        let touched = record(&mut tx, &current(beats, &renewed)).await?;
        // Last, so that the worker's row is locked for as short as can be.
        keep_alive(&mut tx, worker, lease).await?;
        tx.commit().await?;
        for job in touched {
            self.notify(Wake::Job(job));
        }
        Ok(directives(beats, &renewed))
    }

    /// Records phase (with an event), and/or progress (with a `progress` event) at once.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn report(&self, beat: &Beat) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        lease::lock(&mut tx, &beat.fence, Require::Current).await?;
        record(&mut tx, &[beat]).await?;
        tx.commit().await?;
        self.notify(Wake::Job(beat.fence.job));
        Ok(())
    }
}

/// The beats whose leases were renewed, each job once: one statement may touch a row only once.
fn current<'a>(beats: &'a [Beat], renewed: &HashMap<JobId, bool>) -> Vec<&'a Beat> {
    let mut current = BTreeMap::new();
    for beat in beats {
        if renewed.contains_key(&beat.fence.job) {
            current.insert(beat.fence.job, beat);
        }
    }
    current.into_values().collect()
}

fn directives(beats: &[Beat], renewed: &HashMap<JobId, bool>) -> HashMap<JobId, Directive> {
    let directive = |job: JobId| match renewed.get(&job) {
        None => Directive::Lost,
        Some(true) => Directive::Stop,
        Some(false) => Directive::Continue,
    };
    let answer = |b: &Beat| (b.fence.job, directive(b.fence.job));
    beats.iter().map(answer).collect()
}

/// Renews the leases that are current; tells of each whether a stop was asked for.
async fn renew(
    conn: &mut PgConnection,
    worker: WorkerId,
    lease: Duration,
    beats: &[Beat],
) -> Result<HashMap<JobId, bool>, StoreError> {
    if beats.is_empty() {
        return Ok(HashMap::new());
    }
    let jobs: Vec<Uuid> = beats.iter().map(|b| b.fence.job.0).collect();
    let epochs: Vec<i64> = beats.iter().map(|b| b.fence.epoch).collect();
    let claims: Vec<Uuid> = beats.iter().map(|b| b.fence.claim.0).collect();
    let rows = sqlx::query!(
        "UPDATE job_leases l SET expires_at = clock_timestamp() + make_interval(secs => $5)
         FROM unnest($2::uuid[], $3::bigint[], $4::uuid[]) AS b (job_id, epoch, claim_id)
         WHERE l.job_id = b.job_id AND l.epoch = b.epoch AND l.claim_id = b.claim_id
           AND l.state = 'running' AND l.worker_id = $1
         RETURNING l.job_id, l.stop_requested",
        worker.0,
        &jobs,
        &epochs,
        &claims,
        lease.as_secs_f64()
    )
    .fetch_all(conn)
    .await?;
    let answers = rows.into_iter();
    Ok(answers
        .map(|r| (r.job_id.into(), r.stop_requested))
        .collect())
}

async fn keep_alive(
    conn: &mut PgConnection,
    worker: WorkerId,
    lease: Duration,
) -> Result<(), StoreError> {
    let seen = sqlx::query!(
        "UPDATE workers SET
             heartbeat_at = clock_timestamp(),
             expires_at = clock_timestamp() + make_interval(secs => $2),
             status = CASE WHEN status = 'gone' AND retired_at IS NULL THEN 'active' ELSE status END
         WHERE id = $1",
        worker.0,
        lease.as_secs_f64()
    )
    .execute(conn)
    .await?;
    if seen.rows_affected() == 0 {
        return Err(StoreError::not_found(ResourceKind::Worker, &worker));
    }
    Ok(())
}

/// Stores phase and progress of jobs whose leases are locked, with events for what is new.
pub(super) async fn record(
    conn: &mut PgConnection,
    beats: &[&Beat],
) -> Result<Vec<JobId>, StoreError> {
    let (mut jobs, mut phases, mut progress) = (Vec::new(), Vec::new(), Vec::new());
    for beat in beats {
        if beat.phase.is_some() || beat.progress.is_some() {
            jobs.push(beat.fence.job.0);
            phases.push(beat.phase.map(JobPhase::as_str));
            progress.push(beat.progress.as_ref().map(document).transpose()?);
        }
    }
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_file_scalar!(
        "queries/queue/record.sql",
        &jobs,
        &phases as &[Option<&str>],
        &progress as &[Option<Value>]
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(JobId).collect())
}

fn document(progress: &Progress) -> Result<Value, StoreError> {
    rows::json(&Progress {
        metrics: rows::finite(&progress.metrics),
        ..progress.clone()
    })
}
