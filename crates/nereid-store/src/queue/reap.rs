//! Reaping: what silent workers left behind goes back to the queue.

use std::time::Duration;

use nereid_core::jobs::{Fence, JobStatus, TerminationReason, retry_delay};
use sqlx::PgConnection;

use super::{AttemptEnd, finish, lease::Lease};
use crate::{Store, StoreError, notify::Wake, rows::Row};

/// Leases handed back in one transaction.
const BATCH: i64 = 50;

impl Store {
    /// Hands expired leases back to the queue (or fails jobs whose budget is used up), marks silent workers gone and
    /// removes their replicas. Safe to run from every process. Returns the number of jobs touched.
    ///
    /// Does nothing until `grace` after a start of Postgres: while it was away nobody could renew.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn reap(&self, grace: Duration) -> Result<u64, StoreError> {
        let mut touched = 0;
        loop {
            let mut tx = self.pool.begin().await?;
            let leases = expired(&mut tx, grace).await?;
            if leases.is_empty() {
                break;
            }
            let mut wakes = Vec::new();
            for lease in leases {
                let status = hand_back(&mut tx, &lease).await?;
                wakes.push(Wake::Job(lease.fence.job));
                if status == JobStatus::Queued {
                    wakes.push(Wake::Queue);
                }
                touched += 1;
            }
            tx.commit().await?;
            for wake in wakes {
                self.notify(wake);
            }
        }
        self.reap_workers(grace).await?;
        Ok(touched)
    }

    async fn reap_workers(&self, grace: Duration) -> Result<(), StoreError> {
        let gone = sqlx::query!(
            "UPDATE workers SET status = 'gone' WHERE id IN (
                 SELECT id FROM workers
                 WHERE status <> 'gone'
                   AND expires_at < clock_timestamp() - make_interval(secs => $1)
                   AND pg_postmaster_start_time() <= clock_timestamp() - make_interval(secs => $1)
                 FOR UPDATE SKIP LOCKED)",
            grace.as_secs_f64()
        )
        .execute(&self.pool)
        .await?;
        // Of all that are gone: one may have taken a replica on while it was marked.
        let replicas = sqlx::query!(
            "DELETE FROM replicas WHERE id IN (
                 SELECT r.id FROM replicas r JOIN workers w ON w.id = r.worker_id
                 WHERE w.status = 'gone' FOR UPDATE OF r SKIP LOCKED)"
        )
        .execute(&self.pool)
        .await?;
        if gone.rows_affected() + replicas.rows_affected() > 0 {
            self.notify(Wake::Endpoints);
        }
        Ok(())
    }
}

async fn expired(conn: &mut PgConnection, grace: Duration) -> Result<Vec<Lease>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT job_id, project_id, epoch, claim_id AS "claim_id!", stop_requested FROM job_leases
         WHERE state = 'running'
           AND expires_at < clock_timestamp() - make_interval(secs => $1)
           AND pg_postmaster_start_time() <= clock_timestamp() - make_interval(secs => $1)
         LIMIT $2 FOR UPDATE SKIP LOCKED"#,
        grace.as_secs_f64(),
        BATCH
    )
    .fetch_all(conn)
    .await?;
    let lease = rows.into_iter().map(|r| Lease {
        fence: Fence {
            job: r.job_id.into(),
            epoch: r.epoch,
            claim: r.claim_id.into(),
        },
        project: r.project_id.into(),
        stop_requested: r.stop_requested,
    });
    Ok(lease.collect())
}

async fn hand_back(conn: &mut PgConnection, lease: &Lease) -> Result<JobStatus, StoreError> {
    let attempts =
        sqlx::query_scalar!("SELECT attempts FROM jobs WHERE id = $1", lease.fence.job.0)
            .fetch_one(&mut *conn)
            .await?;
    let attempts = Row::new("jobs", &lease.fence.job).number("attempts", attempts)?;
    let end = AttemptEnd {
        reason: TerminationReason::LeaseLost,
        message: "the worker stopped renewing its lease".to_owned(),
        retry_delay: Duration::from_secs_f64(retry_delay(attempts, rand::random())),
    };
    finish::end_without_success(conn, lease, &end).await
}
