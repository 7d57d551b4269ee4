//! The fence: the lock on a lease that every write of an attempt holds.

use nereid_core::{
    ids::ProjectId,
    jobs::{Fence, JobRequest},
};

use crate::{StoreError, connection::Tx, rows::Row};

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
    pub(super) requested: Option<JobRequest>,
}

impl Lease {
    /// Refuses to end a job successfully that a client has cancelled: who was told so never sees a result.
    pub(super) fn refuse_cancelled(&self) -> Result<(), StoreError> {
        if self.requested == Some(JobRequest::Cancel) {
            let what = format!("job {} has been cancelled", self.fence.job);
            return Err(StoreError::conflict("cancel_requested", what));
        }
        Ok(())
    }
}

/// Locks the lease that `fence` names until the end of the transaction.
pub(super) async fn lock(
    conn: &mut Tx,
    fence: &Fence,
    require: Require,
) -> Result<Lease, StoreError> {
    // The lock alone keeps others off: a lease that ran out while this waited for it, unchanged, is
    // still nobody else's.
    let row = sqlx::query!(
        r#"SELECT project_id, requested, expires_at > clock_timestamp() AS "unexpired!"
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
        requested: Row::new("job_leases", &fence.job)
            .word_opt("requested", row.requested.as_deref())?,
    })
}
