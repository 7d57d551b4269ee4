//! The fence: the lock on a lease that every write of an attempt holds.

use nereid_core::{ids::ProjectId, jobs::Fence};
use sqlx::PgConnection;

use crate::StoreError;

/// What a write needs of the lease it requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Require {
    /// Nobody has taken the job over.
    Current,
    /// Nor may anybody: for what others act upon, such as a published version.
    Unexpired,
}

/// A locked lease.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) fence: Fence,
    pub(super) project: ProjectId,
    pub(super) stop_requested: bool,
}

/// Locks the lease that `fence` names until the end of the transaction.
pub(super) async fn lock(
    conn: &mut PgConnection,
    fence: &Fence,
    require: Require,
) -> Result<Lease, StoreError> {
    // Whether it is expired is computed after any wait for the lock.
    let row = sqlx::query!(
        r#"SELECT project_id, stop_requested, expires_at > clock_timestamp() AS "unexpired!"
         FROM job_leases
         WHERE job_id = $1 AND epoch = $2 AND claim_id = $3 AND state = 'running'
         FOR UPDATE"#,
        fence.job.0,
        fence.epoch,
        fence.claim.0
    )
    .fetch_optional(conn)
    .await?
    .ok_or(StoreError::LeaseLost)?;
    if require == Require::Unexpired && !row.unexpired {
        return Err(StoreError::LeaseLost);
    }
    Ok(Lease {
        fence: *fence,
        project: row.project_id.into(),
        stop_requested: row.stop_requested,
    })
}
