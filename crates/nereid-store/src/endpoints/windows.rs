//! What gateways measured of variants: written by each every second or two, read by rollouts and
//! autoscaling.

use std::time::Duration;

use chrono::{DateTime, Utc};
use nereid_core::{
    ids::VariantId, rollouts::Measured, statistics::HistogramSnapshot, traffic::VariantWindow,
};
use uuid::Uuid;

use crate::{Store, StoreError, connection::Tx, rows};

/// How long windows are kept: as long as a rule may look back, and a little more.
const KEPT: Duration = Duration::from_mins(65);

impl Store {
    /// Records what process `process` measured.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn record_windows(
        &self,
        process: Uuid,
        windows: &[VariantWindow],
    ) -> Result<(), StoreError> {
        if windows.is_empty() {
            return Ok(());
        }
        let numbers = |f: fn(&VariantWindow) -> u64| -> Result<Vec<i64>, StoreError> {
            windows.iter().map(|w| rows::bind(f(w))).collect()
        };
        let floats = |f: fn(&VariantWindow) -> f64| -> Vec<f64> { windows.iter().map(f).collect() };
        let variants: Vec<Uuid> = windows.iter().map(|w| w.variant.0).collect();
        // Arrays of arrays must be of one length in Postgres, so they travel as text.
        let buckets: Vec<String> = windows.iter().map(|w| array(&w.window.latency)).collect();
        sqlx::query!(
            "INSERT INTO variant_windows (
                 variant_id, process_id, requests, errors, rejected, latency_us, queue_us, latency_buckets,
                 scores, score_sum, score_squares, mirrored, mismatched)
             SELECT w.variant, $2, w.requests, w.errors, w.rejected, w.latency, w.queue, w.buckets::bigint[],
                 w.scores, w.sum, w.squares, w.mirrored, w.mismatched
             FROM unnest(
                 $1::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[],
                 $9::bigint[], $10::float8[], $11::float8[], $12::bigint[], $13::bigint[])
                 AS w (variant, requests, errors, rejected, latency, queue, buckets, scores, sum, squares, mirrored, mismatched)
             ON CONFLICT DO NOTHING",
            &variants,
            process,
            &numbers(|w| w.window.requests)?,
            &numbers(|w| w.window.errors)?,
            &numbers(|w| w.window.rejected)?,
            &numbers(|w| w.window.latency.sum)?,
            &numbers(|w| w.window.queue_us)?,
            &buckets,
            &numbers(|w| w.window.scores.count)?,
            &floats(|w| w.window.scores.sum),
            &floats(|w| w.window.scores.squares),
            &numbers(|w| w.window.mirrored)?,
            &numbers(|w| w.window.mismatched)?
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Deletes windows that nobody looks back to any more.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn forget_windows(&self) -> Result<u64, StoreError> {
        let forgotten = sqlx::query!(
            "DELETE FROM variant_windows WHERE at < now() - make_interval(secs => $1)",
            KEPT.as_secs_f64()
        );
        Ok(forgotten.execute(&self.pool).await?.rows_affected())
    }
}

/// Writes a histogram's counts as an array of Postgres, without the empty end.
fn array(histogram: &HistogramSnapshot) -> String {
    let counts = histogram.counts();
    let used = counts.iter().rposition(|&n| n > 0).map_or(0, |i| i + 1);
    let counts: Vec<String> = counts[..used].iter().map(ToString::to_string).collect();
    format!("{{{}}}", counts.join(","))
}

/// Adds up what was measured of a generation since `since`.
pub(super) async fn measured(
    conn: &mut Tx,
    endpoint: Uuid,
    generation: i32,
    since: DateTime<Utc>,
) -> Result<Measured, StoreError> {
    let variants = sqlx::query_scalar!(
        "SELECT id FROM endpoint_variants WHERE endpoint_id = $1 AND generation = $2",
        endpoint,
        generation
    )
    .fetch_all(&mut *conn)
    .await?;
    let variants: Vec<VariantId> = variants.into_iter().map(VariantId).collect();
    let sum = sum(conn, &variants, since).await?;
    let p99 = sum.latency.quantile(0.99);
    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds below a minute or so"
    )]
    let latency_p99_ms = (sum.latency.count() > 0).then(|| p99 as f64 / 1e3);
    Ok(Measured {
        requests: sum.requests,
        errors: sum.errors,
        latency_p99_ms,
        scores: sum.scores.count,
        score_sum: sum.scores.sum,
        score_squares: sum.scores.squares,
        mirrored: sum.mirrored,
        mismatched: sum.mismatched,
    })
}

/// Adds up the windows of variants that ended after `since`.
pub(super) async fn sum(
    conn: &mut Tx,
    variants: &[VariantId],
    since: DateTime<Utc>,
) -> Result<nereid_core::traffic::Window, StoreError> {
    let ids: Vec<Uuid> = variants.iter().map(|v| v.0).collect();
    let sums = sqlx::query!(
        r#"SELECT COALESCE(sum(requests), 0)::bigint AS "requests!", COALESCE(sum(errors), 0)::bigint AS "errors!",
             COALESCE(sum(rejected), 0)::bigint AS "rejected!", COALESCE(sum(latency_us), 0)::bigint AS "latency!",
             COALESCE(sum(queue_us), 0)::bigint AS "queue!", COALESCE(sum(scores), 0)::bigint AS "scores!",
             COALESCE(sum(score_sum), 0) AS "score_sum!", COALESCE(sum(score_squares), 0) AS "score_squares!",
             COALESCE(sum(mirrored), 0)::bigint AS "mirrored!", COALESCE(sum(mismatched), 0)::bigint AS "mismatched!"
         FROM variant_windows WHERE variant_id = ANY ($1::uuid[]) AND at > $2"#,
        &ids,
        since
    )
    .fetch_one(&mut *conn)
    .await?;
    let buckets = sqlx::query!(
        r#"SELECT b.i AS "bucket!", sum(b.n)::bigint AS "n!"
         FROM variant_windows w CROSS JOIN unnest(w.latency_buckets) WITH ORDINALITY AS b (n, i)
         WHERE w.variant_id = ANY ($1::uuid[]) AND w.at > $2 GROUP BY b.i"#,
        &ids,
        since
    )
    .fetch_all(conn)
    .await?;
    let number = |n: i64| u64::try_from(n).unwrap_or(0);
    let mut counts = Vec::new();
    for b in buckets {
        let at = usize::try_from(b.bucket - 1).unwrap_or(0);
        if counts.len() <= at {
            counts.resize(at + 1, 0);
        }
        counts[at] = number(b.n);
    }
    Ok(nereid_core::traffic::Window {
        requests: number(sums.requests),
        errors: number(sums.errors),
        rejected: number(sums.rejected),
        latency: HistogramSnapshot::from_counts(counts, number(sums.latency)),
        queue_us: number(sums.queue),
        scores: nereid_core::traffic::Scores {
            count: number(sums.scores),
            sum: sums.score_sum,
            squares: sums.score_squares,
        },
        mirrored: number(sums.mirrored),
        mismatched: number(sums.mismatched),
    })
}
