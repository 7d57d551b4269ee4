//! Heartbeats: leases renewed, progress carried up, clients' requests carried down.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use nereid_core::{
    ids::{JobId, WorkerId},
    jobs::{JobPhase, Progress, Standing},
};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::{
    Beat,
    lease::{self, Require},
};
use crate::{
    ResourceKind, Store, StoreError,
    connection::{Tx, late},
    notify::Wake,
    rows::{self, Row},
};

/// Pauses before leases that others hold locked are tried again.
const TRIES: [Duration; 3] = [
    Duration::from_millis(20),
    Duration::from_millis(80),
    Duration::from_millis(200),
];

impl Store {
    /// Renews all leases of a worker in one statement; also keeps the worker and its replicas alive. Stores progress.
    ///
    /// A fence that the answer lacks was neither renewed nor lost: somebody holds its lease locked for the moment. The
    /// worker goes on as long as its last renewal allows.
    ///
    /// A worker that was taken for gone, but did not retire, is active again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the worker never registered; [`StoreError::Database`], also if there is no answer
    /// within half a lease.
    pub async fn heartbeat(
        &self,
        worker: WorkerId,
        lease: Duration,
        beats: &[Beat],
    ) -> Result<HashMap<JobId, Standing>, StoreError> {
        // Later, the answer would be of little use, and another connection may do better.
        let patience = (lease / 2).max(Duration::from_secs(1));
        match timeout(patience, self.beat_all(worker, lease, beats)).await {
            Ok(answers) => answers,
            Err(_) => Err(late().into()),
        }
    }

    async fn beat_all(
        &self,
        worker: WorkerId,
        lease: Duration,
        beats: &[Beat],
    ) -> Result<HashMap<JobId, Standing>, StoreError> {
        let mut answers = self.beat(worker, lease, beats).await?;
        for pause in TRIES {
            let open = |b: &&Beat| !answers.contains_key(&b.fence.job);
            let beats: Vec<Beat> = beats.iter().filter(open).cloned().collect();
            if beats.is_empty() {
                break;
            }
            sleep(pause).await;
            answers.extend(self.beat(worker, lease, &beats).await?);
        }
        Ok(answers)
    }

    async fn beat(
        &self,
        worker: WorkerId,
        lease: Duration,
        beats: &[Beat],
    ) -> Result<HashMap<JobId, Standing>, StoreError> {
        let mut tx = self.pool.begin().await?;
        let answers = renew(&mut tx, worker, lease, beats).await?;
        let touched = record(&mut tx, &current(beats, &answers)).await?;
        // Last, so that the worker's row is locked for as short as can be.
        keep_alive(&mut tx, worker, lease).await?;
        tx.commit().await?;
        for job in touched {
            self.notify(Wake::Job(job));
        }
        Ok(answers)
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
fn current<'a>(beats: &'a [Beat], answers: &HashMap<JobId, Standing>) -> Vec<&'a Beat> {
    let mut current = BTreeMap::new();
    for beat in beats {
        if let Some(Standing::Current(_)) = answers.get(&beat.fence.job) {
            current.insert(beat.fence.job, beat);
        }
    }
    current.into_values().collect()
}

/// Renews the leases that are current; of those that others hold locked, says nothing.
async fn renew(
    conn: &mut Tx,
    worker: WorkerId,
    lease: Duration,
    beats: &[Beat],
) -> Result<HashMap<JobId, Standing>, StoreError> {
    if beats.is_empty() {
        return Ok(HashMap::new());
    }
    let jobs: Vec<Uuid> = beats.iter().map(|b| b.fence.job.0).collect();
    let epochs: Vec<i64> = beats.iter().map(|b| b.fence.epoch).collect();
    let claims: Vec<Uuid> = beats.iter().map(|b| b.fence.claim.0).collect();
    let rows = sqlx::query_file!(
        "queries/queue/renew.sql",
        worker.0,
        &jobs,
        &epochs,
        &claims,
        lease.as_secs_f64()
    )
    .fetch_all(conn)
    .await?;
    let lost = beats.iter().map(|b| (b.fence.job, Standing::Lost));
    let mut answers: HashMap<JobId, Standing> = lost.collect();
    for row in rows {
        let job = JobId(row.job_id);
        if row.renewed {
            let cell = Row::new("job_leases", &job);
            let requested = cell.word_opt("requested", row.requested.as_deref())?;
            answers.insert(job, Standing::Current(requested));
        } else {
            answers.remove(&job);
        }
    }
    Ok(answers)
}

async fn keep_alive(conn: &mut Tx, worker: WorkerId, lease: Duration) -> Result<(), StoreError> {
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
pub(super) async fn record(conn: &mut Tx, beats: &[&Beat]) -> Result<Vec<JobId>, StoreError> {
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
