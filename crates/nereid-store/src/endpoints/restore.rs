//! Replicas that change hands: from one generation to another that serves the same versions.

use nereid_core::{batching::VariantSettings, endpoints::EndpointEventKind};
use serde_json::json;
use uuid::Uuid;

use super::{events, generations, rollouts};
use crate::{StoreError, connection::Tx, rows::Row};

/// Has `generation` take over the replicas of the one that serves, if both serve the same versions
/// in the same way; answers whether they do.
///
/// So a change of weights or of the number of replicas takes effect at once, and loads nothing anew.
pub(super) async fn adopt_same(
    conn: &mut Tx,
    endpoint: Uuid,
    generation: i32,
) -> Result<bool, StoreError> {
    let same = sqlx::query_scalar!(
        r#"SELECT COALESCE(bool_and(n.id IS NOT NULL AND o.id IS NOT NULL), false) AS "same!"
         FROM (
             SELECT v.* FROM endpoint_variants v JOIN endpoints e ON e.id = v.endpoint_id
             WHERE v.endpoint_id = $1 AND v.generation = e.serving_generation
         ) o FULL JOIN (
             SELECT * FROM endpoint_variants WHERE endpoint_id = $1 AND generation = $2
         ) n ON n.name = o.name AND n.model_version_id = o.model_version_id
            AND n.settings - 'autoscaling' = o.settings - 'autoscaling'
            AND n.artifact -> 'files' IS NOT DISTINCT FROM o.artifact -> 'files'"#,
        endpoint,
        generation
    )
    .fetch_one(&mut *conn)
    .await?;
    if same {
        let serving = sqlx::query_scalar!(
            r#"SELECT serving_generation AS "serving!" FROM endpoints WHERE id = $1"#,
            endpoint
        );
        let serving = serving.fetch_one(&mut *conn).await?;
        hand_over(conn, endpoint, serving, generation).await?;
    }
    Ok(same)
}

/// Gives the replicas of one generation's variants to those of the same name of another.
async fn hand_over(conn: &mut Tx, endpoint: Uuid, from: i32, to: i32) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE replicas r SET variant_id = n.id
         FROM endpoint_variants o
         JOIN endpoint_variants n ON n.endpoint_id = o.endpoint_id AND n.generation = $3 AND n.name = o.name
         WHERE o.endpoint_id = $1 AND o.generation = $2 AND r.variant_id = o.id",
        endpoint,
        from,
        to
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Makes a new generation of what `from` was, with its replicas, that serves at once.
pub(super) async fn restore(
    conn: &mut Tx,
    endpoint: Uuid,
    from: i32,
    undone: i32,
    reason: &str,
) -> Result<(), StoreError> {
    let generation = generations::next(conn, endpoint).await?;
    sqlx::query!(
        "INSERT INTO endpoint_generations (endpoint_id, generation) VALUES ($1, $2)",
        endpoint,
        generation
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "INSERT INTO endpoint_variants (id, endpoint_id, generation, position, name, model_version_id, weight, replicas, settings, artifact)
         SELECT uuid_v7(), endpoint_id, $3, position, name, model_version_id, weight, replicas, settings, artifact
         FROM endpoint_variants WHERE endpoint_id = $1 AND generation = $2",
        endpoint,
        from,
        generation
    )
    .execute(&mut *conn)
    .await?;
    carry_scaling_over(conn, endpoint, generation).await?;
    hand_over(conn, endpoint, from, generation).await?;
    let why = format!("generation {undone} was rolled back: {reason}");
    sqlx::query!(
        "INSERT INTO endpoint_rollouts (endpoint_id, generation, from_generation, status, share, reason, finished_at)
         VALUES ($1, $2, $3, 'completed', 100, $4, now())",
        endpoint,
        generation,
        undone,
        why
    )
    .execute(&mut *conn)
    .await?;
    let data =
        json!({"generation": generation, "status": "completed", "share": 100, "reason": why});
    events::record(conn, endpoint, EndpointEventKind::Rollout, &data).await?;
    rollouts::serve(conn, endpoint, generation).await
}

/// Has the variants of a new generation that scale by themselves begin where those of the same
/// name are, of the generation that serves: a deployment under load does not begin small.
pub(super) async fn carry_scaling_over(
    conn: &mut Tx,
    endpoint: Uuid,
    generation: i32,
) -> Result<(), StoreError> {
    let variants = sqlx::query!(
        r#"SELECT n.id, n.replicas, n.settings, (
             SELECT s.desired FROM endpoints e
             JOIN endpoint_variants o ON o.endpoint_id = e.id AND o.generation = e.serving_generation AND o.name = n.name
             JOIN variant_scaling s ON s.variant_id = o.id
             WHERE e.id = n.endpoint_id) AS "desired?"
         FROM endpoint_variants n
         WHERE n.endpoint_id = $1 AND n.generation = $2 AND n.settings ? 'autoscaling'"#,
        endpoint,
        generation
    )
    .fetch_all(&mut *conn)
    .await?;
    for v in variants {
        let row = Row::new("endpoint_variants", &v.id);
        let settings: VariantSettings = row.json("settings", v.settings)?;
        let Some(policy) = settings.autoscaling else {
            continue;
        };
        let initial: u32 = row.number("replicas", v.desired.unwrap_or(v.replicas))?;
        // Even what may sleep is loaded once before it gets traffic.
        let least = policy.min_capacity.max(1);
        let desired = initial.clamp(least, policy.max_capacity.max(least));
        sqlx::query!(
            "INSERT INTO variant_scaling (variant_id, desired) VALUES ($1, $2)",
            v.id,
            crate::rows::bind::<_, i32>(desired)?
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}
