//! Claiming: a batch of jobs becomes running in one short transaction.

use std::collections::HashMap;

use nereid_core::{
    ids::ProjectId,
    jobs::{Claim, Fence, JobStatus, TerminationReason},
};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{ClaimRequest, finish, lease::Lease};
use crate::{
    Store, StoreError,
    jobs::{
        read_spec,
        transitions::{Change, sources},
    },
    notify::Wake,
    rows::Row,
};

impl Store {
    /// Claims up to `limit` jobs: raises epoch, draws claim id, records attempt and events.
    ///
    /// A worker that is not active gets none.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>, StoreError> {
        if request.limit == 0 {
            return Ok(Vec::new());
        }
        let mut tx = self.pool.begin().await?;
        let fences = pick(&mut tx, request).await?;
        if fences.is_empty() {
            return Ok(Vec::new());
        }
        let claims = start(&mut tx, request.worker.0, &fences).await?;
        tx.commit().await?;
        for fence in fences {
            self.notify(Wake::Job(fence.job));
        }
        Ok(claims)
    }
}

/// Takes leases, in the order in which the jobs are to run.
async fn pick(conn: &mut PgConnection, request: &ClaimRequest) -> Result<Vec<Fence>, StoreError> {
    let mut rows = sqlx::query_file!(
        "queries/queue/claim.sql",
        request.worker.0,
        request.device.as_str(),
        i64::from(request.limit),
        request.lease.as_secs_f64()
    )
    .fetch_all(conn)
    .await?;
    rows.sort_by_key(|r| (r.turn, r.sort_key, r.job_id));
    Ok(rows
        .into_iter()
        .map(|r| Fence {
            job: r.job_id.into(),
            epoch: r.epoch,
            claim: r.claim_id.into(),
        })
        .collect())
}

/// Marks the jobs of new leases running and reads what their worker needs.
async fn start(
    conn: &mut PgConnection,
    worker: Uuid,
    fences: &[Fence],
) -> Result<Vec<Claim>, StoreError> {
    let ids: Vec<Uuid> = fences.iter().map(|f| f.job.0).collect();
    let epochs: Vec<i64> = fences.iter().map(|f| f.epoch).collect();
    let claims: Vec<Uuid> = fences.iter().map(|f| f.claim.0).collect();
    let rows = sqlx::query_file_as!(
        StartedRow,
        "queries/queue/start.sql",
        &ids,
        &epochs,
        &claims,
        worker,
        &sources(JobStatus::Running)
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut started: HashMap<Uuid, StartedRow> = rows.into_iter().map(|r| (r.id, r)).collect();
    let mut claimed = Vec::with_capacity(fences.len());
    for fence in fences {
        let Some(row) = started.remove(&fence.job.0) else {
            let what = "a lease was queued, but its job was not";
            return Err(Row::new("jobs", &fence.job).corrupt("status", what));
        };
        let project = ProjectId(row.project_id);
        match row.claim(fence) {
            Ok(claim) => claimed.push(claim),
            Err(e) => refuse(conn, fence, project, &e).await?,
        }
    }
    Ok(claimed)
}

struct StartedRow {
    id: Uuid,
    project_id: Uuid,
    kind: String,
    spec: Value,
    attempts: i32,
    checkpoint: Option<Value>,
}

impl StartedRow {
    fn claim(self, fence: &Fence) -> Result<Claim, StoreError> {
        let row = Row::new("jobs", &fence.job);
        Ok(Claim {
            fence: *fence,
            project: self.project_id.into(),
            spec: read_spec(row, &self.kind, self.spec)?,
            attempts: row.number("attempts", self.attempts)?,
            checkpoint: row.json_opt("checkpoint", self.checkpoint)?,
        })
    }
}

/// Fails a job that cannot be read: rolling back would leave it at the head of the queue for ever.
async fn refuse(
    conn: &mut PgConnection,
    fence: &Fence,
    project: ProjectId,
    error: &StoreError,
) -> Result<(), StoreError> {
    tracing::error!(job = %fence.job, %error, "job cannot be read");
    let message = "this version of Nereid cannot read the stored job; see its log";
    let lease = Lease {
        fence: *fence,
        project,
        stop_requested: false,
    };
    let reason = TerminationReason::InvalidInput;
    let failed = Change::ended(reason, Some(message), 1);
    finish::close(conn, &lease, &failed, reason, Some(message), None).await
}
