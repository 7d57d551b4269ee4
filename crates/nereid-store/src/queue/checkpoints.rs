//! Checkpoints: the last few of a job, which its next attempt goes on from.

use nereid_core::{
    events::EventKind,
    jobs::{CheckpointRef, Fence},
    limits::KEPT_CHECKPOINTS,
};
use serde_json::json;

use super::lease::{self, Require};
use crate::{
    Store, StoreError,
    connection::Tx,
    events::append_event,
    notify::Wake,
    rows::{self, Row},
};

impl Store {
    /// Notes a checkpoint as the job's newest. Returns those that are now forgotten, because the job has more than
    /// [`KEPT_CHECKPOINTS`]: their objects are the caller's to delete.
    ///
    /// Repeated with the same step, changes nothing; the sweep then finds what the first call, whose answer was lost, has
    /// forgotten.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn set_checkpoint(
        &self,
        fence: &Fence,
        checkpoint: &CheckpointRef,
    ) -> Result<Vec<CheckpointRef>, StoreError> {
        let mut tx = self.pool.begin().await?;
        lease::lock(&mut tx, fence, Require::Current).await?;
        let new = sqlx::query!(
            "INSERT INTO job_checkpoints (job_id, epoch, claim_id, step, key, bytes, sha256)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
            fence.job.0,
            fence.epoch,
            fence.claim.0,
            rows::bind::<_, i64>(checkpoint.step)?,
            checkpoint.key,
            rows::bind::<_, i64>(checkpoint.bytes)?,
            checkpoint.sha256
        )
        .execute(&mut tx)
        .await?;
        if new.rows_affected() == 0 {
            return Ok(Vec::new());
        }
        let forgotten = forget_older(&mut tx, fence).await?;
        let data = json!({"step": checkpoint.step, "bytes": checkpoint.bytes});
        append_event(&mut tx, fence.job, EventKind::Checkpointed, &data).await?;
        tx.commit().await?;
        self.notify(Wake::Job(fence.job));
        Ok(forgotten)
    }
}

async fn forget_older(conn: &mut Tx, fence: &Fence) -> Result<Vec<CheckpointRef>, StoreError> {
    let rows = sqlx::query!(
        "DELETE FROM job_checkpoints c USING (
             SELECT epoch, claim_id, step FROM job_checkpoints WHERE job_id = $1
             ORDER BY epoch DESC, step DESC OFFSET $2
         ) AS o
         WHERE c.job_id = $1 AND c.epoch = o.epoch AND c.claim_id = o.claim_id AND c.step = o.step
         RETURNING c.key, c.bytes, c.sha256, c.step",
        fence.job.0,
        rows::bind::<_, i64>(KEPT_CHECKPOINTS)?
    )
    .fetch_all(conn)
    .await?;
    let row = Row::new("job_checkpoints", &fence.job);
    rows.into_iter()
        .map(|r| {
            Ok(CheckpointRef {
                key: r.key,
                bytes: row.number("bytes", r.bytes)?,
                sha256: r.sha256,
                step: row.number("step", r.step)?,
            })
        })
        .collect()
}

/// Tells whether the job has a checkpoint to go on from.
pub(crate) async fn any(conn: &mut Tx, job: nereid_core::ids::JobId) -> Result<bool, StoreError> {
    let any = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM job_checkpoints WHERE job_id = $1) AS "any!""#,
        job.0
    );
    Ok(any.fetch_one(conn).await?)
}
