//! Rollouts under way: what is due is done under the endpoint's lock, whoever comes by first.

use chrono::{DateTime, Utc};
use nereid_core::{
    Name,
    endpoints::{EndpointEventKind, GenerationSettings, RolloutReport, RolloutState},
    ids::{EndpointId, ProjectId},
    rollouts::{Breach, Change, Measured, Progress, Rollout, RolloutStatus, RolloutType},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{events, generations, restore, windows};
use crate::{
    Page, PageRequest, Store, StoreError, WriteTx, connection::Tx, notify::Wake, rows::Row,
};

/// A rollout that is not over.
struct Active {
    endpoint: Uuid,
    generation: i32,
    from: Option<i32>,
    policy: Rollout,
    progress: Progress,
    /// When its state or share last changed.
    changed_at: DateTime<Utc>,
    ready: bool,
    now: DateTime<Utc>,
}

/// Begins the rollout of a generation that was just made, in place of the one under way.
pub(super) async fn begin(
    conn: &mut Tx,
    endpoint: Uuid,
    generation: i32,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE endpoint_rollouts SET status = 'superseded', due_at = NULL, changed_at = now(), finished_at = now(),
             reason = 'generation ' || $2::integer || ' took its place'
         WHERE endpoint_id = $1 AND status IN ('warming', 'shifting', 'baking')",
        endpoint,
        generation
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "INSERT INTO endpoint_rollouts (endpoint_id, generation, from_generation, status)
         SELECT id, $2, serving_generation, 'warming' FROM endpoints WHERE id = $1",
        endpoint,
        generation
    )
    .execute(&mut *conn)
    .await?;
    let data = json!({"generation": generation, "status": RolloutStatus::Warming});
    events::record(conn, endpoint, EndpointEventKind::Rollout, &data).await?;
    restore::carry_scaling_over(conn, endpoint, generation).await?;
    if restore::adopt_same(conn, endpoint, generation).await? {
        let change = Change {
            status: RolloutStatus::Completed,
            share: 100,
            due_at: None,
            reason: "the versions are the same, so their replicas stay".to_owned(),
        };
        apply(conn, endpoint, generation, None, &change).await?;
    }
    Ok(())
}

/// Does what is due of the rollouts of locked endpoints; answers how many changed.
pub(super) async fn advance(conn: &mut Tx, endpoints: &[Uuid]) -> Result<u64, StoreError> {
    let mut changed = 0;
    for active in active(conn, endpoints).await? {
        let breach = breach(conn, &active).await?;
        let change =
            active
                .progress
                .next(&active.policy(), active.ready, breach.as_ref(), active.now);
        if let Some(change) = change {
            apply(
                conn,
                active.endpoint,
                active.generation,
                active.from,
                &change,
            )
            .await?;
            changed += 1;
        }
    }
    Ok(changed)
}

impl Active {
    /// The policy as far as it applies: the first generation has nobody to share with.
    fn policy(&self) -> Rollout {
        if self.from.is_some() {
            return self.policy.clone();
        }
        Rollout {
            kind: RolloutType::AllAtOnce,
            termination_wait_in_seconds: None,
            ..self.policy.clone()
        }
    }
}

async fn active(conn: &mut Tx, endpoints: &[Uuid]) -> Result<Vec<Active>, StoreError> {
    let rows = sqlx::query_file!("queries/endpoints/rollouts.sql", endpoints)
        .fetch_all(conn)
        .await?;
    rows.into_iter()
        .map(|r| {
            let row = Row::new("endpoint_rollouts", &r.endpoint_id);
            let settings: GenerationSettings = row.json("settings", r.settings)?;
            Ok(Active {
                endpoint: r.endpoint_id,
                generation: r.generation,
                from: r.from_generation,
                policy: settings.rollout,
                progress: Progress {
                    status: row.word("status", &r.status)?,
                    share: row.number("share", r.share)?,
                    due_at: r.due_at,
                    started_at: r.started_at,
                },
                changed_at: r.changed_at,
                ready: r.ready,
                now: r.now,
            })
        })
        .collect()
}

/// Looks whether a generation breaks one of its rules.
async fn breach(conn: &mut Tx, active: &Active) -> Result<Option<Breach>, StoreError> {
    if active.progress.status == RolloutStatus::Warming {
        return Ok(None);
    }
    for rule in &active.policy.auto_rollback {
        let looked_back = chrono::TimeDelta::seconds(i64::from(rule.evaluation_seconds));
        let since = active.changed_at.max(active.now - looked_back);
        let (endpoint, new) = (active.endpoint, active.generation);
        let new = windows::measured(conn, endpoint, new, since).await?;
        let old = match active.from {
            Some(old) => windows::measured(conn, endpoint, old, since).await?,
            None => Measured::default(),
        };
        if let Some(breach) = rule.breach(&new, &old) {
            return Ok(Some(breach));
        }
    }
    Ok(None)
}

/// Records a change of a rollout and has the endpoint follow.
async fn apply(
    conn: &mut Tx,
    endpoint: Uuid,
    generation: i32,
    from: Option<i32>,
    change: &Change,
) -> Result<(), StoreError> {
    // What led to the change, while it is still known since when to look.
    let measured = measured_since_change(conn, endpoint, generation).await?;
    sqlx::query!(
        "UPDATE endpoint_rollouts SET status = $3, share = $4, due_at = $5, reason = $6, changed_at = now(),
             finished_at = CASE WHEN $7 THEN now() END
         WHERE endpoint_id = $1 AND generation = $2",
        endpoint,
        generation,
        change.status.as_str(),
        crate::rows::bind::<_, i32>(change.share)?,
        change.due_at,
        change.reason,
        change.status.is_over()
    )
    .execute(&mut *conn)
    .await?;
    let data = json!({
        "generation": generation, "status": change.status, "share": change.share, "reason": change.reason,
        "measured": measured,
    });
    events::record(conn, endpoint, EndpointEventKind::Rollout, &data).await?;
    match change.status {
        RolloutStatus::Baking | RolloutStatus::Completed => serve(conn, endpoint, generation).await,
        RolloutStatus::RolledBack => match from {
            Some(from) => restore::restore(conn, endpoint, from, generation, &change.reason).await,
            None => fail(conn, endpoint).await,
        },
        _ => Ok(()),
    }
}

/// What was measured of a generation since its rollout last changed.
async fn measured_since_change(
    conn: &mut Tx,
    endpoint: Uuid,
    generation: i32,
) -> Result<Option<Measured>, StoreError> {
    let changed_at = sqlx::query_scalar!(
        "SELECT changed_at FROM endpoint_rollouts WHERE endpoint_id = $1 AND generation = $2 AND status <> 'warming'",
        endpoint,
        generation
    );
    let Some(since) = changed_at.fetch_optional(&mut *conn).await? else {
        return Ok(None);
    };
    windows::measured(conn, endpoint, generation, since)
        .await
        .map(Some)
}

/// All traffic goes to `generation`.
pub(super) async fn serve(
    conn: &mut Tx,
    endpoint: Uuid,
    generation: i32,
) -> Result<(), StoreError> {
    sqlx::query!(
        "WITH serving AS (
             UPDATE endpoints SET serving_generation = $2, status = 'in_service' WHERE id = $1)
         UPDATE endpoint_generations SET served_at = COALESCE(served_at, now())
         WHERE endpoint_id = $1 AND generation = $2",
        endpoint,
        generation
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The first generation was given up: there is nothing to go back to.
async fn fail(conn: &mut Tx, endpoint: Uuid) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE endpoints SET status = 'failed' WHERE id = $1",
        endpoint
    )
    .execute(conn)
    .await?;
    Ok(())
}

impl WriteTx {
    /// Gives a shifting rollout all the traffic now.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] `not_shifting`.
    pub async fn promote_rollout(&mut self, name: &Name) -> Result<RolloutState, StoreError> {
        let endpoint = generations::find(&mut self.tx, self.project, name).await?;
        let active = active(&mut self.tx, &[endpoint.0]).await?.pop();
        let change = active
            .as_ref()
            .and_then(|a| Some((a, a.progress.promote(&a.policy(), a.now)?)));
        let Some((active, change)) = change else {
            let what = format!("endpoint {name} has no rollout that is shifting traffic");
            return Err(StoreError::conflict("not_shifting", what));
        };
        let generation = active.generation;
        apply(&mut self.tx, endpoint.0, generation, active.from, &change).await?;
        self.audit("promote", &format!("endpoint/{name}")).await?;
        self.wake(Wake::Endpoints);
        let state = newest(&mut self.tx, &[endpoint.0]).await?.pop();
        state
            .map(|(_, state)| state)
            .ok_or_else(|| StoreError::conflict("not_shifting", "the rollout is gone"))
    }

    /// Undoes a rollout that is under way, if there is one with something to go back to.
    pub(super) async fn undo_rollout(&mut self, endpoint: EndpointId) -> Result<bool, StoreError> {
        let active = active(&mut self.tx, &[endpoint.0]).await?.pop();
        let Some(active) = active.filter(|a| a.from.is_some()) else {
            return Ok(false);
        };
        let change = Change {
            status: RolloutStatus::RolledBack,
            share: 0,
            due_at: None,
            reason: "rolled back by a client".to_owned(),
        };
        apply(
            &mut self.tx,
            endpoint.0,
            active.generation,
            active.from,
            &change,
        )
        .await?;
        Ok(true)
    }
}

struct RolloutRow {
    endpoint_id: Uuid,
    generation: i32,
    from_generation: Option<i32>,
    settings: Value,
    status: String,
    share: i32,
    due_at: Option<DateTime<Utc>>,
    reason: Option<String>,
    started_at: DateTime<Utc>,
    changed_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

impl RolloutRow {
    fn state(self) -> Result<RolloutState, StoreError> {
        let row = Row::new("endpoint_rollouts", &self.endpoint_id);
        let from = self.from_generation;
        let from = from.map(|g| row.number("from_generation", g)).transpose()?;
        let settings: GenerationSettings = row.json("settings", self.settings)?;
        Ok(RolloutState {
            generation: row.number("generation", self.generation)?,
            from_generation: from,
            policy: settings.rollout,
            status: row.word("status", &self.status)?,
            share: row.number("share", self.share)?,
            due_at: self.due_at,
            reason: self.reason,
            started_at: self.started_at,
            changed_at: self.changed_at,
            finished_at: self.finished_at,
        })
    }
}

/// Reads the rollout of each endpoint's newest generation.
pub(super) async fn newest(
    conn: &mut Tx,
    endpoints: &[Uuid],
) -> Result<Vec<(Uuid, RolloutState)>, StoreError> {
    let rows = sqlx::query_as!(
        RolloutRow,
        "SELECT o.endpoint_id, o.generation, o.from_generation, g.settings, o.status, o.share, o.due_at, o.reason,
             o.started_at, o.changed_at, o.finished_at
         FROM endpoint_rollouts o
         JOIN endpoints e ON e.id = o.endpoint_id AND e.generation = o.generation
         JOIN endpoint_generations g ON g.endpoint_id = o.endpoint_id AND g.generation = o.generation
         WHERE o.endpoint_id = ANY ($1::uuid[])",
        endpoints
    )
    .fetch_all(conn)
    .await?;
    let pair = |r: RolloutRow| Ok((r.endpoint_id, r.state()?));
    rows.into_iter().map(pair).collect()
}

impl Store {
    /// Lists the rollouts of an endpoint, newest first.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `invalid_page_token`; an endpoint that does not exist has none.
    pub async fn rollouts(
        &self,
        project: ProjectId,
        name: &Name,
        page: &PageRequest,
    ) -> Result<Page<RolloutState>, StoreError> {
        let before = page.position::<i32>()?;
        let rows = sqlx::query_as!(
            RolloutRow,
            "SELECT o.endpoint_id, o.generation, o.from_generation, g.settings, o.status, o.share, o.due_at, o.reason,
                 o.started_at, o.changed_at, o.finished_at
             FROM endpoints e
             JOIN endpoint_rollouts o ON o.endpoint_id = e.id
             JOIN endpoint_generations g ON g.endpoint_id = o.endpoint_id AND g.generation = o.generation
             WHERE e.project_id = $1 AND e.name = $2 AND e.deleted_at IS NULL
               AND ($3::integer IS NULL OR o.generation < $3)
             ORDER BY o.generation DESC LIMIT $4",
            project.0,
            name.as_str(),
            before,
            page.limit()
        )
        .fetch_all(&self.pool)
        .await?;
        page.page(rows, |r| r.generation, RolloutRow::state)
    }

    /// Reads the newest rollout with what was measured since it last changed.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn rollout_report(
        &self,
        project: ProjectId,
        name: &Name,
    ) -> Result<RolloutReport, StoreError> {
        let page = PageRequest {
            size: 1,
            after: None,
        };
        let rollout = self.rollouts(project, name, &page).await?.items.pop();
        let not_found = || StoreError::not_found(crate::ResourceKind::Endpoint, name);
        let rollout = rollout.ok_or_else(not_found)?;
        let mut tx = self.pool.begin().await?;
        let endpoint = sqlx::query_scalar!(
            "SELECT id FROM endpoints WHERE project_id = $1 AND name = $2 AND deleted_at IS NULL",
            project.0,
            name.as_str()
        );
        let endpoint = endpoint.fetch_optional(&mut tx).await?;
        let endpoint = endpoint.ok_or_else(not_found)?;
        // Over at once, it is compared over all that is still known of both.
        let since = match rollout.finished_at {
            Some(_) => rollout.started_at,
            None => rollout.changed_at,
        };
        let new = crate::rows::bind(rollout.generation)?;
        let new = windows::measured(&mut tx, endpoint, new, since).await?;
        let old = match rollout.from_generation {
            Some(old) => {
                let old = crate::rows::bind(old)?;
                windows::measured(&mut tx, endpoint, old, since).await?
            }
            None => Measured::default(),
        };
        Ok(RolloutReport { rollout, new, old })
    }

    /// Reads the rollout of one generation.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn rollout(
        &self,
        project: ProjectId,
        name: &Name,
        generation: u32,
    ) -> Result<RolloutState, StoreError> {
        let page = PageRequest {
            size: 1,
            after: Some((u64::from(generation) + 1).to_string()),
        };
        let found = self.rollouts(project, name, &page).await?.items.pop();
        found
            .filter(|r| r.generation == generation)
            .ok_or_else(|| StoreError::not_found(crate::ResourceKind::Endpoint, name))
    }
}
