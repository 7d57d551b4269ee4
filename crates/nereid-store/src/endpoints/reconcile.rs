//! Reconciliation: a worker takes on what is missing, lets go of what is not wanted any more.

use nereid_core::{endpoints::Assignment, ids::WorkerId, workers::WorkerStatus};
use uuid::Uuid;

use super::rollouts;
use crate::{ResourceKind, Store, StoreError, connection::Tx, notify::Wake, rows::Row};

impl Store {
    /// Takes on missing replicas for this worker (guarded, at most one replica of a variant per worker unless no other
    /// active worker could hold it; in a single-worker cluster all replicas land on it), advances endpoints
    /// whose newest generation is all ready (`serving_generation` = generation; older generations' replicas become draining;
    /// replica rows of deleted endpoints too), and returns what this worker is to hold now. One call = the worker's whole reconcile read.
    ///
    /// Replicas that failed to load are not returned: the worker does not hold them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the worker never registered.
    pub async fn reconcile(&self, worker: WorkerId) -> Result<Vec<Assignment>, StoreError> {
        let status = self.worker_status(worker).await?;
        let mut tx = self.pool.begin().await?;
        let mut changed = 0;
        // Locks that never wait, taken before any replica's: see set_replica_status.
        let endpoints = lock_unfinished(&mut tx).await?;
        if !endpoints.is_empty() {
            if status == WorkerStatus::Active {
                changed += take_on(&mut tx, worker, &endpoints).await?;
            }
            changed += rollouts::advance(&mut tx, &endpoints).await?;
            changed += shed(&mut tx, &endpoints).await?;
        }
        changed += let_go(&mut tx, worker).await?;
        let assignments = assignments(&mut tx, worker).await?;
        tx.commit().await?;
        if changed > 0 {
            self.notify(Wake::Endpoints);
        }
        Ok(assignments)
    }

    async fn worker_status(&self, worker: WorkerId) -> Result<WorkerStatus, StoreError> {
        let status = sqlx::query_scalar!("SELECT status FROM workers WHERE id = $1", worker.0)
            .fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| StoreError::not_found(ResourceKind::Worker, &worker))?;
        Row::new("workers", &worker).word("status", &status)
    }
}

/// Locks the endpoints that lack replicas, have them on too few workers or are to advance, and that
/// nobody else is busy with.
async fn lock_unfinished(conn: &mut Tx) -> Result<Vec<Uuid>, StoreError> {
    let ids = sqlx::query_scalar!(
        "SELECT e.id FROM endpoints e
         WHERE e.deleted_at IS NULL AND e.unloaded_at IS NULL AND (
             e.serving_generation IS DISTINCT FROM e.generation
             OR EXISTS (
                 SELECT FROM endpoint_rollouts o
                 WHERE o.endpoint_id = e.id AND o.status IN ('warming', 'shifting', 'baking'))
             OR EXISTS (
                 SELECT FROM endpoint_variants v LEFT JOIN variant_scaling s ON s.variant_id = v.id
                 WHERE v.endpoint_id = e.id AND v.generation = e.generation AND COALESCE(s.desired, v.replicas) > (
                     SELECT count(*) FROM replicas r JOIN workers w ON w.id = r.worker_id
                     WHERE r.variant_id = v.id AND r.status IN ('loading', 'ready') AND w.status = 'active'))
             OR EXISTS (
                 SELECT FROM endpoint_variants v LEFT JOIN variant_scaling s ON s.variant_id = v.id
                 WHERE v.endpoint_id = e.id AND v.generation = e.generation AND (
                     SELECT max(c.n) FROM (
                         SELECT count(*) AS n FROM replicas r JOIN workers w ON w.id = r.worker_id
                         WHERE r.variant_id = v.id AND r.status IN ('loading', 'ready') AND w.status = 'active'
                         GROUP BY w.id
                     ) c
                 ) > ceil(COALESCE(s.desired, v.replicas)::float8 / GREATEST(
                     (SELECT count(*) FROM workers WHERE status = 'active'), 1))))
         ORDER BY e.id FOR UPDATE OF e SKIP LOCKED"
    );
    Ok(ids.fetch_all(conn).await?)
}

/// Takes on this worker's share of what the locked endpoints lack.
async fn take_on(conn: &mut Tx, worker: WorkerId, endpoints: &[Uuid]) -> Result<u64, StoreError> {
    let taken = sqlx::query_file!("queries/endpoints/take_on.sql", worker.0, endpoints)
        .execute(conn)
        .await?;
    Ok(taken.rows_affected())
}

/// Drains what the locked endpoints have beyond the number wanted, from the fullest workers.
async fn shed(conn: &mut Tx, endpoints: &[Uuid]) -> Result<u64, StoreError> {
    let shed = sqlx::query_file!("queries/endpoints/shed.sql", endpoints)
        .execute(conn)
        .await?;
    Ok(shed.rows_affected())
}

/// Drains this worker's replicas that nothing needs, and forgets its failures of the past.
async fn let_go(conn: &mut Tx, worker: WorkerId) -> Result<u64, StoreError> {
    let drained = sqlx::query_file!("queries/endpoints/drain.sql", worker.0)
        .execute(&mut *conn)
        .await?;
    let forgotten = sqlx::query!(
        "DELETE FROM replicas r USING endpoint_variants v, endpoints e
         WHERE r.worker_id = $1 AND r.status = 'failed' AND v.id = r.variant_id AND e.id = v.endpoint_id
           AND (e.deleted_at IS NOT NULL
                OR (v.generation <> e.generation AND v.generation IS DISTINCT FROM e.serving_generation))",
        worker.0
    )
    .execute(conn)
    .await?;
    Ok(drained.rows_affected() + forgotten.rows_affected())
}

async fn assignments(conn: &mut Tx, worker: WorkerId) -> Result<Vec<Assignment>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT r.id, r.variant_id, r.status, v.settings, m.id AS version, COALESCE(v.artifact, m.serving) AS "serving?"
         FROM replicas r
         JOIN endpoint_variants v ON v.id = r.variant_id
         JOIN model_versions m ON m.id = v.model_version_id
         WHERE r.worker_id = $1 AND r.status <> 'failed' ORDER BY r.created_at, r.id"#,
        worker.0
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|r| {
            let version = Row::new("model_versions", &r.version);
            let serving = r.serving.unwrap_or_default();
            Ok(Assignment {
                replica: r.id.into(),
                variant: r.variant_id.into(),
                version: r.version.into(),
                status: Row::new("replicas", &r.id).word("status", &r.status)?,
                artifact: version.json("serving", serving)?,
                settings: Row::new("endpoint_variants", &r.variant_id)
                    .json("settings", r.settings)?,
            })
        })
        .collect()
}
