//! Endpoints without replicas because a client wants none for now.

use nereid_core::{Name, ids::ProjectId};

use super::generations;
use crate::{Store, StoreError, audit, notify::Wake};

impl Store {
    /// Lets workers drain all replicas of an endpoint, which stays as it is; nothing if it already
    /// was unloaded.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn unload_endpoint(&self, project: ProjectId, name: &Name) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        let id = generations::find(&mut tx, project, name).await?;
        let changed = sqlx::query!(
            "UPDATE endpoints SET unloaded_at = now() WHERE id = $1 AND unloaded_at IS NULL",
            id.0
        )
        .execute(&mut tx)
        .await?;
        if changed.rows_affected() > 0 {
            let resource = format!("endpoint/{name}");
            audit::record(&mut tx, project, self.actor, "unload", &resource).await?;
        }
        tx.commit().await?;
        self.notify(Wake::Endpoints);
        Ok(())
    }

    /// Lets workers hold replicas of an endpoint again, also those that failed to load it before;
    /// nothing if it was not unloaded.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn load_endpoint(&self, project: ProjectId, name: &Name) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        let id = generations::find(&mut tx, project, name).await?;
        let changed = sqlx::query!(
            "UPDATE endpoints SET unloaded_at = NULL WHERE id = $1 AND unloaded_at IS NOT NULL",
            id.0
        )
        .execute(&mut tx)
        .await?;
        if changed.rows_affected() > 0 {
            sqlx::query!(
                "DELETE FROM replicas r USING endpoint_variants v
                 WHERE v.endpoint_id = $1 AND r.variant_id = v.id AND r.status = 'failed'",
                id.0
            )
            .execute(&mut tx)
            .await?;
            let resource = format!("endpoint/{name}");
            audit::record(&mut tx, project, self.actor, "load", &resource).await?;
        }
        tx.commit().await?;
        self.notify(Wake::Endpoints);
        Ok(())
    }
}
