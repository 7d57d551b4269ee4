//! Autoscaling: the number of replicas wanted, chosen under the endpoint's lock by whoever comes by.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use nereid_core::{
    autoscaling::{Autoscaling, Decision, Memory, Observation, ScalingMetric, decide},
    batching::VariantSettings,
    endpoints::EndpointEventKind,
    ids::VariantId,
    traffic::Window,
};
use serde_json::json;
use uuid::Uuid;

use super::{events, windows};
use crate::{
    Store, StoreError,
    connection::Tx,
    notify::Wake,
    rows::{self, Row},
};

/// Time between two looks at a variant.
const EVERY: Duration = Duration::from_secs(2);
/// Seconds of traffic that a decision looks at: short enough to follow, long enough to smooth.
const WINDOW: i64 = 10;

/// A variant that scales by itself.
struct Scaling {
    endpoint: Uuid,
    variant: Uuid,
    name: String,
    policy: Autoscaling,
    memory: Memory,
    ready: u32,
    held_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
}

impl Store {
    /// Looks at the variants that scale by themselves and have not been looked at for two seconds.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn autoscale(&self) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        let endpoints = lock_due(&mut tx).await?;
        if endpoints.is_empty() {
            return Ok(());
        }
        let mut changed = false;
        for mut scaling in scalings(&mut tx, &endpoints).await? {
            let seen = observe(&mut tx, &scaling).await?;
            let (policy, now) = (scaling.policy.clone(), scaling.now);
            let decision = decide(&policy, &mut scaling.memory, seen, now);
            remember(&mut tx, &scaling).await?;
            if let Some(decision) = decision {
                carry_out(&mut tx, &scaling, &decision).await?;
                changed = true;
            }
        }
        tx.commit().await?;
        if changed {
            self.notify(Wake::Endpoints);
        }
        Ok(())
    }

    /// Wakes a variant that sleeps, since a request waits for it; answers whether it did sleep.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn wake_variant(&self, variant: VariantId) -> Result<bool, StoreError> {
        let mut tx = self.pool.begin().await?;
        let endpoint = sqlx::query_scalar!(
            "SELECT e.id FROM endpoints e JOIN endpoint_variants v ON v.endpoint_id = e.id
             JOIN variant_scaling s ON s.variant_id = v.id
             WHERE v.id = $1 AND s.desired = 0 AND e.deleted_at IS NULL FOR UPDATE OF e",
            variant.0
        )
        .fetch_optional(&mut tx)
        .await?;
        let Some(endpoint) = endpoint else {
            return Ok(false);
        };
        let sleeping = scalings(&mut tx, &[endpoint]).await?.into_iter();
        let mut sleeping = sleeping.filter(|s| s.variant == variant.0 && s.memory.desired == 0);
        let Some(mut scaling) = sleeping.next() else {
            return Ok(false);
        };
        let seen = Observation {
            held: true,
            ..Observation::default()
        };
        let (policy, now) = (scaling.policy.clone(), scaling.now);
        let decision = decide(&policy, &mut scaling.memory, seen, now);
        remember(&mut tx, &scaling).await?;
        sqlx::query!(
            "UPDATE variant_scaling SET held_at = now() WHERE variant_id = $1",
            variant.0
        )
        .execute(&mut tx)
        .await?;
        if let Some(decision) = decision {
            carry_out(&mut tx, &scaling, &decision).await?;
        }
        tx.commit().await?;
        self.notify(Wake::Endpoints);
        Ok(true)
    }
}

/// Locks the endpoints with a variant that is due, and that nobody else is busy with.
async fn lock_due(conn: &mut Tx) -> Result<Vec<Uuid>, StoreError> {
    let ids = sqlx::query_scalar!(
        "SELECT e.id FROM endpoints e
         WHERE e.deleted_at IS NULL AND EXISTS (
             SELECT FROM endpoint_variants v JOIN variant_scaling s ON s.variant_id = v.id
             WHERE v.endpoint_id = e.id AND v.generation IN (e.generation, e.serving_generation)
               AND s.evaluated_at < now() - make_interval(secs => $1))
         ORDER BY e.id FOR UPDATE OF e SKIP LOCKED",
        EVERY.as_secs_f64()
    );
    Ok(ids.fetch_all(conn).await?)
}

async fn scalings(conn: &mut Tx, endpoints: &[Uuid]) -> Result<Vec<Scaling>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT v.id, v.endpoint_id, v.name, v.settings, s.desired, s.memory, s.held_at, now() AS "now!", (
             SELECT count(*) FROM replicas r JOIN workers w ON w.id = r.worker_id
             WHERE r.variant_id = v.id AND r.status = 'ready' AND w.status <> 'gone') AS "ready!"
         FROM endpoints e
         JOIN endpoint_variants v ON v.endpoint_id = e.id AND v.generation IN (e.generation, e.serving_generation)
         JOIN variant_scaling s ON s.variant_id = v.id
         WHERE e.id = ANY ($1::uuid[])"#,
        endpoints
    )
    .fetch_all(conn)
    .await?;
    let mut found = Vec::with_capacity(rows.len());
    for r in rows {
        let row = Row::new("variant_scaling", &r.id);
        let settings: VariantSettings = row.json("settings", r.settings)?;
        let Some(policy) = settings.autoscaling else {
            continue;
        };
        let mut memory: Memory = row.json("memory", r.memory)?;
        memory.desired = row.number("desired", r.desired)?;
        found.push(Scaling {
            endpoint: r.endpoint_id,
            variant: r.id,
            name: r.name,
            policy,
            memory,
            ready: row.number("ready", r.ready)?,
            held_at: r.held_at,
            now: r.now,
        });
    }
    Ok(found)
}

async fn observe(conn: &mut Tx, scaling: &Scaling) -> Result<Observation, StoreError> {
    let since = scaling.now - TimeDelta::seconds(WINDOW);
    let window = windows::sum(conn, &[VariantId(scaling.variant)], since).await?;
    let held = scaling.held_at.is_some_and(|at| at > since);
    Ok(Observation {
        ready: scaling.ready,
        value: value(scaling.policy.metric, &window, scaling.ready),
        held: held || (window.rejected > 0 && scaling.ready == 0),
    })
}

/// Value of a metric for each of `ready` replicas; none without a request.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts and times of ten seconds are far below 2^53"
)]
fn value(metric: ScalingMetric, window: &Window, ready: u32) -> Option<f64> {
    let requests = window.requests + window.rejected;
    if requests == 0 {
        return None;
    }
    let (requests, replicas) = (requests as f64, f64::from(ready.max(1)));
    Some(match metric {
        // Little's law: the time that requests spent, over the time that passed.
        ScalingMetric::Concurrency => window.latency.sum as f64 / (WINDOW as f64 * 1e6) / replicas,
        ScalingMetric::RequestsPerMinute => requests * 60.0 / WINDOW as f64 / replicas,
        ScalingMetric::LatencyP99 => window.latency.quantile(0.99) as f64 / 1e3,
        ScalingMetric::QueueTime => window.queue_us as f64 / 1e3 / requests,
    })
}

async fn remember(conn: &mut Tx, scaling: &Scaling) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE variant_scaling SET desired = $2, memory = $3, evaluated_at = now() WHERE variant_id = $1",
        scaling.variant,
        rows::bind::<_, i32>(scaling.memory.desired)?,
        rows::json(&scaling.memory)?
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Records a decision and, if replicas are to go, chooses which: those still loading, then the
/// newest of the workers that hold most.
async fn carry_out(
    conn: &mut Tx,
    scaling: &Scaling,
    decision: &Decision,
) -> Result<(), StoreError> {
    let data = json!({
        "variant": scaling.name, "from": decision.from, "to": decision.to, "reason": decision.reason,
    });
    events::record(conn, scaling.endpoint, EndpointEventKind::Scaled, &data).await?;
    sqlx::query!(
        "UPDATE replicas SET status = 'draining', updated_at = now()
         WHERE id IN (
             SELECT r.id FROM replicas r
             WHERE r.variant_id = $1 AND r.status IN ('loading', 'ready')
             ORDER BY r.status = 'loading', (
                 SELECT count(*) FROM replicas o
                 WHERE o.variant_id = $1 AND o.worker_id = r.worker_id AND o.status IN ('loading', 'ready')),
                 r.created_at, r.id
             OFFSET $2)",
        scaling.variant,
        i64::from(decision.to)
    )
    .execute(conn)
    .await?;
    Ok(())
}
