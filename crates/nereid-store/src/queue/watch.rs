//! What an attempt leaves for those who watch it: metrics, what rules found, log lines.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use nereid_core::{
    events::{EventKind, MetricPoint, NewLogLine, RuleReport},
    jobs::Fence,
};
use serde_json::Value;

use super::lease::{self, Require};
use crate::{Store, StoreError, events::append_event, notify::Wake, rows};

impl Store {
    /// Stores metric points; values of a step that is repeated replace the older ones.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn append_metrics(
        &self,
        fence: &Fence,
        points: &[MetricPoint],
    ) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        lease::lock(&mut tx, fence, Require::Current).await?;
        let columns = Columns::of(points)?;
        sqlx::query!(
            r#"INSERT INTO job_metrics AS m (job_id, step, epoch, "values", at)
             SELECT $1, * FROM unnest($2::bigint[], $3::double precision[], $4::jsonb[], $5::timestamptz[])
             ON CONFLICT (job_id, step) DO UPDATE SET
                 epoch = excluded.epoch, "values" = m."values" || excluded."values", at = excluded.at"#,
            fence.job.0,
            &columns.steps,
            &columns.epochs,
            &columns.values,
            &columns.at
        )
        .execute(&mut tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// Forgets the metric points of steps after `step`: the training goes on from there and reports them anew.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn rewind_metrics(&self, fence: &Fence, step: u64) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        lease::lock(&mut tx, fence, Require::Current).await?;
        sqlx::query!(
            "DELETE FROM job_metrics WHERE job_id = $1 AND step > $2",
            fence.job.0,
            rows::bind::<_, i64>(step)?
        )
        .execute(&mut tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// Appends what rules found, in order.
    ///
    /// A training that goes on from a checkpoint before such a step finds the same again: it is told
    /// once.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn append_rules(
        &self,
        fence: &Fence,
        reports: &[RuleReport],
    ) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        lease::lock(&mut tx, fence, Require::Current).await?;
        for report in reports {
            let told = sqlx::query_scalar!(
                r#"SELECT EXISTS (
                     SELECT FROM job_events WHERE job_id = $1 AND kind = $2 AND data ->> 'rule' = $3
                         AND data ->> 'layer' IS NOT DISTINCT FROM $4 AND (data ->> 'step')::bigint = $5
                 ) AS "told!""#,
                fence.job.0,
                EventKind::RuleTriggered.as_str(),
                report.rule,
                report.layer.as_deref(),
                rows::bind::<_, i64>(report.step)?
            );
            if !told.fetch_one(&mut tx).await? {
                let data = rows::json(report)?;
                append_event(&mut tx, fence.job, EventKind::RuleTriggered, &data).await?;
            }
        }
        tx.commit().await?;
        self.notify(Wake::Job(fence.job));
        Ok(())
    }

    /// Appends log lines in their order.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn append_logs(&self, fence: &Fence, lines: &[NewLogLine]) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        lease::lock(&mut tx, fence, Require::Current).await?;
        let levels: Vec<String> = lines.iter().map(|l| l.level.to_string()).collect();
        let messages: Vec<String> = lines.iter().map(|l| rows::clean(&l.message)).collect();
        let at: Vec<DateTime<Utc>> = lines.iter().map(|l| l.at).collect();
        // The lock makes this attempt the only writer, so the newest number is the last one.
        sqlx::query!(
            r#"INSERT INTO job_logs (job_id, seq, epoch, level, message, at)
             SELECT $1, newest + n, $2, level, message, at
             FROM (SELECT COALESCE(max(seq), 0) AS newest FROM job_logs WHERE job_id = $1) last,
                 unnest($3::text[], $4::text[], $5::timestamptz[]) WITH ORDINALITY AS l (level, message, at, n)"#,
            fence.job.0,
            fence.epoch,
            &levels,
            &messages,
            &at
        )
        .execute(&mut tx)
        .await?;
        Ok(tx.commit().await?)
    }
}

/// Metric points as columns, each step once.
#[derive(Default)]
struct Columns {
    steps: Vec<i64>,
    epochs: Vec<f64>,
    values: Vec<Value>,
    at: Vec<DateTime<Utc>>,
}

impl Columns {
    /// Merges points of the same step: one statement may touch a row only once.
    fn of(points: &[MetricPoint]) -> Result<Self, StoreError> {
        let mut merged: BTreeMap<u64, MetricPoint> = BTreeMap::new();
        for point in points {
            let entry = merged.entry(point.step).or_insert_with(|| point.clone());
            entry.values.extend(point.values.clone());
            (entry.epoch, entry.at) = (point.epoch, point.at);
        }
        let mut columns = Self::default();
        for (step, point) in merged {
            columns.steps.push(rows::bind(step)?);
            columns.epochs.push(point.epoch);
            columns
                .values
                .push(rows::json(&rows::finite(&point.values))?);
            columns.at.push(point.at);
        }
        Ok(columns)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn points_of_one_step_are_merged_and_infinities_left_out() {
        let point = |step, name: &str, value| MetricPoint {
            step,
            epoch: 1.0,
            values: BTreeMap::from([(name.to_owned(), value)]),
            at: DateTime::UNIX_EPOCH,
        };
        let points = [
            point(2, "loss", f64::NAN),
            point(1, "loss", 0.5),
            point(2, "val_loss", 0.25),
        ];
        let columns = Columns::of(&points).unwrap();
        assert_eq!(columns.steps, [1, 2]);
        assert_eq!(
            columns.values,
            [json!({"loss": 0.5}), json!({"val_loss": 0.25})]
        );
    }
}
