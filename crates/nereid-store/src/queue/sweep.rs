//! What the garbage sweep asks: which objects under attempts' prefixes nothing needs any more.
//!
//! Each question is answered from one snapshot. An attempt that is current in it may still publish;
//! one that is not never will, and what it published before is in the same snapshot.

use std::{collections::HashSet, time::Duration};

use nereid_core::{ids::JobId, jobs::Fence};
use uuid::Uuid;

use crate::{
    Store, StoreError,
    rows::{self, Row},
};

/// Idempotency keys deleted by one statement.
const BATCH: i64 = 10_000;

impl Store {
    /// Tells whether this process is the one that sweeps now: true at most once per `every`, over all processes.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn begin_sweep(&self, every: Duration) -> Result<bool, StoreError> {
        self.begin_chore("sweep", every).await
    }

    /// Of `attempts`, returns those below whose prefixes nothing is needed: the attempt is not current, and no version
    /// (deleted ones included) has its manifest or serving files there. Attempts at unknown jobs are left alone.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn unneeded_outputs(&self, attempts: &[Fence]) -> Result<HashSet<Fence>, StoreError> {
        let columns = Fences::of(attempts);
        let rows = sqlx::query_file!(
            "queries/queue/unneeded_outputs.sql",
            &columns.jobs,
            &columns.epochs,
            &columns.claims
        )
        .fetch_all(&self.pool)
        .await?;
        let fences = rows.into_iter().map(|r| Fence {
            job: r.job_id.into(),
            epoch: r.epoch,
            claim: r.claim_id.into(),
        });
        Ok(fences.collect())
    }

    /// Of `checkpoints` (attempt and step), returns those that nothing needs: the job has a result, or ended longer than
    /// `retention` ago, or has forgotten them and the attempt is not current. Those of unknown jobs are left alone.
    ///
    /// A job whose checkpoints go for good forgets them in the same statement: a retry starts from the beginning.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn unneeded_checkpoints(
        &self,
        checkpoints: &[(Fence, u64)],
        retention: Duration,
    ) -> Result<HashSet<(Fence, u64)>, StoreError> {
        let (fences, steps): (Vec<Fence>, Vec<u64>) = checkpoints.iter().copied().unzip();
        let columns = Fences::of(&fences);
        let steps = steps
            .into_iter()
            .map(rows::bind::<_, i64>)
            .collect::<Result<Vec<_>, _>>()?;
        let rows = sqlx::query_file!(
            "queries/queue/unneeded_checkpoints.sql",
            &columns.jobs,
            &columns.epochs,
            &columns.claims,
            &steps,
            retention.as_secs_f64()
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|r| {
                let job = JobId(r.job_id);
                let step = Row::new("job_checkpoints", &job).number("step", r.step)?;
                let fence = Fence {
                    job,
                    epoch: r.epoch,
                    claim: r.claim_id.into(),
                };
                Ok((fence, step))
            })
            .collect()
    }

    /// Deletes the stored responses of requests answered longer than `window` ago; returns how many.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn forget_old(&self, window: Duration) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        loop {
            let deleted = sqlx::query!(
                "DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
                     SELECT ctid FROM idempotency_keys
                     WHERE created_at < now() - make_interval(secs => $1) LIMIT $2))",
                window.as_secs_f64(),
                BATCH
            )
            .execute(&self.pool)
            .await?
            .rows_affected();
            forgotten += deleted;
            if deleted == 0 {
                return Ok(forgotten);
            }
        }
    }

    /// Moves the chore's time on, unless somebody did so less than `every` ago.
    pub(super) async fn begin_chore(
        &self,
        chore: &str,
        every: Duration,
    ) -> Result<bool, StoreError> {
        let begun = sqlx::query!(
            "UPDATE maintenance SET last_started_at = clock_timestamp()
             WHERE name = $1 AND last_started_at <= clock_timestamp() - make_interval(secs => $2)",
            chore,
            every.as_secs_f64()
        )
        .execute(&self.pool)
        .await?;
        Ok(begun.rows_affected() == 1)
    }
}

/// Fences as columns.
struct Fences {
    jobs: Vec<Uuid>,
    epochs: Vec<i64>,
    claims: Vec<Uuid>,
}

impl Fences {
    fn of(fences: &[Fence]) -> Self {
        Self {
            jobs: fences.iter().map(|f| f.job.0).collect(),
            epochs: fences.iter().map(|f| f.epoch).collect(),
            claims: fences.iter().map(|f| f.claim.0).collect(),
        }
    }
}
