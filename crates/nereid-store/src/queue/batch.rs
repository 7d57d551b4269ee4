//! Batch predictions: what all attempts share, and the parts that are finished.

use nereid_core::{
    batch_predictions::{BatchPart, BatchPlan},
    jobs::Fence,
};

use super::lease::{self, Require};
use crate::{
    Store, StoreError,
    connection::Tx,
    rows::{self, Row},
};

/// A batch prediction that was begun.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchState {
    /// What all attempts share.
    pub plan: BatchPlan,
    /// Finished parts in their order, without gaps.
    pub parts: Vec<BatchPart>,
}

impl Store {
    /// Returns what earlier attempts have decided and done; nothing before the first has decided.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn batch_prediction(&self, fence: &Fence) -> Result<Option<BatchState>, StoreError> {
        let mut tx = self.pool.begin().await?;
        lease::lock(&mut tx, fence, Require::Current).await?;
        let state = read(&mut tx, fence).await?;
        tx.commit().await?;
        Ok(state)
    }

    /// Decides what all attempts share, unless that was done: then that is what counts.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn begin_batch_prediction(
        &self,
        fence: &Fence,
        plan: &BatchPlan,
    ) -> Result<BatchState, StoreError> {
        let mut tx = self.pool.begin().await?;
        lease::lock(&mut tx, fence, Require::Current).await?;
        sqlx::query!(
            "INSERT INTO batch_predictions (job_id, plan) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            fence.job.0,
            rows::json(plan)?
        )
        .execute(&mut tx)
        .await?;
        let state = read(&mut tx, fence).await?;
        tx.commit().await?;
        state
            .ok_or_else(|| Row::new("batch_predictions", &fence.job).corrupt("job_id", "not there"))
    }

    /// Notes a part as finished. Repeated by the attempt that did it, changes nothing.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`], also once others might take the job over; [`StoreError::Conflict`] `part_out_of_order`
    /// unless it is the next one.
    pub async fn add_batch_part(&self, fence: &Fence, part: &BatchPart) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        lease::lock(&mut tx, fence, Require::Unexpired).await?;
        let number = rows::bind::<_, i32>(part.part)?;
        let added = sqlx::query!(
            "INSERT INTO batch_prediction_parts (job_id, part, epoch, rows, rejected, seconds, detail)
             SELECT $1::uuid, $2::integer, $3::bigint, $4::bigint, $5::bigint, $6::float8, $7::jsonb
             WHERE (SELECT coalesce(max(part) + 1, 0) FROM batch_prediction_parts WHERE job_id = $1::uuid) = $2::integer",
            fence.job.0,
            number,
            fence.epoch,
            rows::bind::<_, i64>(part.rows)?,
            rows::bind::<_, i64>(part.rejected)?,
            part.seconds,
            rows::json(part)?
        )
        .execute(&mut tx)
        .await?;
        if added.rows_affected() == 0 {
            let before = sqlx::query_scalar!(
                r#"SELECT EXISTS (
                     SELECT FROM batch_prediction_parts WHERE job_id = $1 AND part = $2 AND epoch = $3
                   ) AS "before!""#,
                fence.job.0,
                number,
                fence.epoch
            );
            if !before.fetch_one(&mut tx).await? {
                let what = format!("part {number} of job {} is not the next one", fence.job);
                return Err(StoreError::conflict("part_out_of_order", what));
            }
        }
        tx.commit().await?;
        Ok(())
    }
}

async fn read(conn: &mut Tx, fence: &Fence) -> Result<Option<BatchState>, StoreError> {
    let plan = sqlx::query_scalar!(
        "SELECT plan FROM batch_predictions WHERE job_id = $1",
        fence.job.0
    );
    let Some(plan) = plan.fetch_optional(&mut *conn).await? else {
        return Ok(None);
    };
    let parts = sqlx::query!(
        "SELECT seconds, detail FROM batch_prediction_parts WHERE job_id = $1 ORDER BY part",
        fence.job.0
    )
    .fetch_all(conn)
    .await?;
    let row = Row::new("batch_prediction_parts", &fence.job);
    let part = |seconds: f64, detail| -> Result<BatchPart, StoreError> {
        let part: BatchPart = row.json("detail", detail)?;
        Ok(BatchPart { seconds, ..part })
    };
    let parts = parts.into_iter().map(|r| part(r.seconds, r.detail));
    Ok(Some(BatchState {
        plan: Row::new("batch_predictions", &fence.job).json("plan", plan)?,
        parts: parts.collect::<Result<_, _>>()?,
    }))
}
