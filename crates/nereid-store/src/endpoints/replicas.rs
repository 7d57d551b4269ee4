//! What workers report about the replicas they hold.

use nereid_core::{
    endpoints::ReplicaStatus,
    ids::{ReplicaId, WorkerId},
};
use uuid::Uuid;

use super::rollouts;
use crate::{Store, StoreError, connection::Tx, notify::Wake, rows};

impl Store {
    /// Ready → also advances the endpoint's serving generation if all variants are ready now. Failed → error kept, endpoint status failed.
    ///
    /// One that drains stays so, whatever its worker reports late. The endpoint does not become
    /// failed while its newest generation serves with another replica.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `replica_gone` if the worker is no longer to hold it.
    pub async fn set_replica_status(
        &self,
        replica: ReplicaId,
        worker: WorkerId,
        status: ReplicaStatus,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        let endpoint = lock_endpoint(&mut tx, replica, worker).await?;
        sqlx::query!(
            "UPDATE replicas SET status = $3, error = $4, updated_at = now()
             WHERE id = $1 AND worker_id = $2 AND (status <> 'draining' OR $3 NOT IN ('loading', 'ready'))",
            replica.0,
            worker.0,
            status.as_str(),
            error.map(rows::clean)
        )
        .execute(&mut tx)
        .await?;
        match status {
            ReplicaStatus::Ready => recover(&mut tx, endpoint).await?,
            ReplicaStatus::Failed => fail(&mut tx, endpoint, replica).await?,
            ReplicaStatus::Loading | ReplicaStatus::Draining => {}
        }
        // A failure too may be what the generation was waiting for.
        rollouts::advance(&mut tx, &[endpoint]).await?;
        tx.commit().await?;
        self.notify(Wake::Endpoints);
        Ok(())
    }

    /// The worker has unloaded it.
    ///
    /// # Errors
    /// [`StoreError::Database`]; one that is gone already is none.
    pub async fn remove_replica(
        &self,
        replica: ReplicaId,
        worker: WorkerId,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "DELETE FROM replicas WHERE id = $1 AND worker_id = $2",
            replica.0,
            worker.0
        )
        .execute(&self.pool)
        .await?;
        self.notify(Wake::Endpoints);
        Ok(())
    }
}

/// Locks the endpoint of a replica: always before the replica itself, as reconciliation does.
async fn lock_endpoint(
    conn: &mut Tx,
    replica: ReplicaId,
    worker: WorkerId,
) -> Result<Uuid, StoreError> {
    let endpoint = sqlx::query_scalar!(
        "SELECT e.id FROM endpoints e
         JOIN endpoint_variants v ON v.endpoint_id = e.id
         JOIN replicas r ON r.variant_id = v.id
         WHERE r.id = $1 AND r.worker_id = $2 FOR UPDATE OF e",
        replica.0,
        worker.0
    );
    endpoint.fetch_optional(conn).await?.ok_or_else(|| {
        let what = format!("worker {worker} is not to hold replica {replica} any more");
        StoreError::conflict("replica_gone", what)
    })
}

/// A replica of the generation that serves is back.
async fn recover(conn: &mut Tx, endpoint: Uuid) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE endpoints SET status = 'in_service'
         WHERE id = $1 AND status = 'failed' AND serving_generation = generation",
        endpoint
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A replica cannot be loaded: the endpoint failed, unless its newest generation serves anyway.
async fn fail(conn: &mut Tx, endpoint: Uuid, replica: ReplicaId) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE endpoints e SET status = 'failed'
         FROM replicas r JOIN endpoint_variants v ON v.id = r.variant_id
         WHERE e.id = $1 AND r.id = $2 AND v.generation = e.generation AND NOT (
             e.serving_generation IS NOT DISTINCT FROM e.generation AND EXISTS (
                 SELECT FROM replicas o WHERE o.variant_id = v.id AND o.status = 'ready'))",
        endpoint,
        replica.0
    )
    .execute(conn)
    .await?;
    Ok(())
}
