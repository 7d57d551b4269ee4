//! The audit log: who changed what, written in the transaction of the change.

use nereid_core::ids::{KeyId, ProjectId};

use crate::{StoreError, connection::Tx};

/// Records a change.
pub(crate) async fn record(
    conn: &mut Tx,
    project: ProjectId,
    actor: Option<KeyId>,
    action: &str,
    resource: &str,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO audit_log (project_id, actor, action, resource) VALUES ($1, $2, $3, $4)",
        project.0,
        actor.map(|a| a.0),
        action,
        resource
    )
    .execute(conn)
    .await?;
    Ok(())
}
