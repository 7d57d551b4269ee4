//! Endpoints: desired generations of variants, replicas that workers hold, routes for the gateway.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use nereid_core::{
    Name,
    batching::VariantSettings,
    endpoints::{
        Endpoint, EndpointSpec, GenerationSettings, Replica, RolloutState, Variant, VariantSpec,
    },
    ids::{EndpointId, ProjectId},
};
use uuid::Uuid;

use self::generations::NewGeneration;
use crate::{
    Page, PageRequest, ResourceKind, Store, StoreError, WriteTx, audit, connection::Tx,
    notify::Wake, rows::Row,
};

mod events;
pub(crate) mod generations;
mod reconcile;
mod replicas;
mod restore;
mod rollouts;
mod routes;
mod scaling;
mod unloading;
mod windows;

struct EndpointRow {
    id: Uuid,
    name: String,
    status: String,
    generation: i32,
    serving_generation: Option<i32>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    unloaded_at: Option<DateTime<Utc>>,
}

impl EndpointRow {
    fn endpoint(
        self,
        variants: Vec<Variant>,
        rollout: Option<RolloutState>,
    ) -> Result<Endpoint, StoreError> {
        let row = Row::new("endpoints", &self.id);
        let serving = self.serving_generation;
        let serving = serving.map(|g| row.number("serving_generation", g));
        Ok(Endpoint {
            id: self.id.into(),
            name: row.name("name", self.name)?,
            status: row.word("status", &self.status)?,
            generation: row.number("generation", self.generation)?,
            serving_generation: serving.transpose()?,
            rollout,
            variants,
            created_at: self.created_at,
            updated_at: self.updated_at,
            unloaded_at: self.unloaded_at,
        })
    }
}

impl WriteTx {
    /// Creates an endpoint; each variant's version must have a serving artifact (Conflict `not_deployed`, naming which).
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`]; [`StoreError::NotFound`] for a version;
    /// [`StoreError::Conflict`] `not_deployed`.
    pub async fn create_endpoint(
        &mut self,
        name: &Name,
        spec: &EndpointSpec,
    ) -> Result<Endpoint, StoreError> {
        let variants = generations::resolve(&mut self.tx, self.project, spec).await?;
        let id = generations::insert_endpoint(&mut self.tx, self.project, name)
            .await?
            .ok_or_else(|| StoreError::AlreadyExists {
                kind: ResourceKind::Endpoint,
                id: name.to_string(),
            })?;
        let settings = GenerationSettings {
            rollout: spec.rollout.clone(),
        };
        let new = NewGeneration {
            variants: &variants,
            settings: &settings,
            job: None,
            like: None,
        };
        generations::insert(&mut self.tx, id, 1, &new).await?;
        self.audit("create", &format!("endpoint/{name}")).await?;
        self.wake(Wake::Endpoints);
        read_endpoint(&mut self.tx, self.project, name).await
    }

    /// Undoes the rollout under way, whose former generation serves again at once; without one, makes a new generation
    /// with the variants of the one that served before the newest (Conflict `no_previous` if none).
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also if a version has been deleted since;
    /// [`StoreError::Conflict`] `no_previous`.
    pub async fn rollback_endpoint(&mut self, name: &Name) -> Result<Endpoint, StoreError> {
        let id = generations::find(&mut self.tx, self.project, name).await?;
        if !self.undo_rollout(id).await? {
            let previous = generations::previous(&mut self.tx, id).await?;
            let (like, spec) = previous.ok_or_else(|| {
                let what = format!("no generation of endpoint {name} served before the newest one");
                StoreError::conflict("no_previous", what)
            })?;
            add(&mut self.tx, self.project, id, &spec, Some(like)).await?;
        }
        self.audit("rollback", &format!("endpoint/{name}")).await?;
        self.wake(Wake::Endpoints);
        read_endpoint(&mut self.tx, self.project, name).await
    }
}

impl Store {
    /// A new generation with these variants.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the endpoint or a version; [`StoreError::Conflict`] `not_deployed`.
    pub async fn update_endpoint(
        &self,
        project: ProjectId,
        name: &Name,
        spec: &EndpointSpec,
    ) -> Result<Endpoint, StoreError> {
        let mut tx = self.pool.begin().await?;
        let id = generations::find(&mut tx, project, name).await?;
        add(&mut tx, project, id, spec, None).await?;
        let resource = format!("endpoint/{name}");
        audit::record(&mut tx, project, self.actor, "update", &resource).await?;
        let endpoint = read_endpoint(&mut tx, project, name).await?;
        tx.commit().await?;
        self.notify(Wake::Endpoints);
        Ok(endpoint)
    }

    /// Reads an endpoint.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn endpoint(&self, project: ProjectId, name: &Name) -> Result<Endpoint, StoreError> {
        read_endpoint(&mut self.pool.begin().await?, project, name).await
    }

    /// Lists the endpoints of a project by name.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `invalid_page_token`.
    pub async fn endpoints(
        &self,
        project: ProjectId,
        page: &PageRequest,
    ) -> Result<Page<Endpoint>, StoreError> {
        let after = page.position::<Name>()?;
        let mut tx = self.pool.begin().await?;
        let rows = sqlx::query_as!(
            EndpointRow,
            "SELECT id, name, status, generation, serving_generation, created_at, updated_at, unloaded_at
             FROM endpoints
             WHERE project_id = $1 AND deleted_at IS NULL AND ($2::text IS NULL OR name > $2)
             ORDER BY name LIMIT $3",
            project.0,
            after.as_ref().map(Name::as_str),
            page.limit()
        )
        .fetch_all(&mut tx)
        .await?;
        let page = page.page(rows, |r| r.name.clone(), Ok)?;
        Ok(Page {
            items: with_variants(&mut tx, page.items).await?,
            next: page.next,
        })
    }

    /// Deletes an endpoint: its name is free at once, its workers drain the replicas.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn delete_endpoint(&self, project: ProjectId, name: &Name) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        let deleted = sqlx::query!(
            "UPDATE endpoints SET deleted_at = now() WHERE project_id = $1 AND name = $2 AND deleted_at IS NULL",
            project.0,
            name.as_str()
        )
        .execute(&mut tx)
        .await?;
        if deleted.rows_affected() == 0 {
            return Err(StoreError::not_found(ResourceKind::Endpoint, name));
        }
        let resource = format!("endpoint/{name}");
        audit::record(&mut tx, project, self.actor, "delete", &resource).await?;
        tx.commit().await?;
        self.notify(Wake::Endpoints);
        Ok(())
    }
}

/// Adds a generation as a client specified it.
async fn add(
    conn: &mut Tx,
    project: ProjectId,
    endpoint: EndpointId,
    spec: &EndpointSpec,
    like: Option<i32>,
) -> Result<(), StoreError> {
    let variants = generations::resolve(conn, project, spec).await?;
    let settings = GenerationSettings {
        rollout: spec.rollout.clone(),
    };
    let new = NewGeneration {
        variants: &variants,
        settings: &settings,
        job: None,
        like,
    };
    generations::add(conn, endpoint, &new).await?;
    Ok(())
}

async fn read_endpoint(
    conn: &mut Tx,
    project: ProjectId,
    name: &Name,
) -> Result<Endpoint, StoreError> {
    let row = sqlx::query_as!(
        EndpointRow,
        "SELECT id, name, status, generation, serving_generation, created_at, updated_at, unloaded_at
         FROM endpoints WHERE project_id = $1 AND name = $2 AND deleted_at IS NULL",
        project.0,
        name.as_str()
    )
    .fetch_optional(&mut *conn)
    .await?;
    let mut endpoints = with_variants(conn, row.into_iter().collect()).await?;
    endpoints
        .pop()
        .ok_or_else(|| StoreError::not_found(ResourceKind::Endpoint, name))
}

/// Adds the variants of each endpoint's newest generation, with their replicas.
async fn with_variants(
    conn: &mut Tx,
    endpoints: Vec<EndpointRow>,
) -> Result<Vec<Endpoint>, StoreError> {
    let ids: Vec<Uuid> = endpoints.iter().map(|e| e.id).collect();
    let mut states: HashMap<Uuid, RolloutState> =
        rollouts::newest(conn, &ids).await?.into_iter().collect();
    let generations: Vec<i32> = endpoints.iter().map(|e| e.generation).collect();
    let variants = sqlx::query!(
        r#"SELECT v.id, v.endpoint_id, v.name, m.name AS model, mv.version, v.weight, v.replicas, v.settings,
             COALESCE(s.desired, v.replicas) AS "desired!"
         FROM unnest($1::uuid[], $2::integer[]) AS e (id, generation)
         JOIN endpoint_variants v ON v.endpoint_id = e.id AND v.generation = e.generation
         JOIN model_versions mv ON mv.id = v.model_version_id
         JOIN models m ON m.id = mv.model_id
         LEFT JOIN variant_scaling s ON s.variant_id = v.id
         ORDER BY v.endpoint_id, v.position"#,
        &ids,
        &generations
    )
    .fetch_all(&mut *conn)
    .await?;
    let ids: Vec<Uuid> = variants.iter().map(|v| v.id).collect();
    let mut replicas = read_replicas(conn, &ids).await?;
    let mut by_endpoint: HashMap<EndpointId, Vec<Variant>> = HashMap::new();
    for v in variants {
        let row = Row::new("endpoint_variants", &v.id);
        let settings: VariantSettings = row.json("settings", v.settings)?;
        let variant = Variant {
            spec: VariantSpec {
                name: row.name("name", v.name)?,
                model: row.name("model", v.model)?,
                version: row.number("version", v.version)?,
                alias: None,
                weight: row.number("weight", v.weight)?,
                replicas: row.number("replicas", v.replicas)?,
                batching: settings.batching,
                hedge_after_us: settings.hedge_after_us,
                autoscaling: settings.autoscaling,
            },
            desired_replicas: row.number("desired", v.desired)?,
            replicas_status: replicas.remove(&v.id).unwrap_or_default(),
        };
        let of_endpoint = by_endpoint.entry(v.endpoint_id.into()).or_default();
        of_endpoint.push(variant);
    }
    let take = |e: EndpointRow| {
        let variants = by_endpoint.remove(&EndpointId(e.id)).unwrap_or_default();
        let state = states.remove(&e.id);
        e.endpoint(variants, state)
    };
    endpoints.into_iter().map(take).collect()
}

async fn read_replicas(
    conn: &mut Tx,
    variants: &[Uuid],
) -> Result<HashMap<Uuid, Vec<Replica>>, StoreError> {
    let rows = sqlx::query!(
        "SELECT id, variant_id, worker_id, status, error FROM replicas WHERE variant_id = ANY ($1) ORDER BY created_at, id",
        variants
    )
    .fetch_all(conn)
    .await?;
    let mut replicas: HashMap<Uuid, Vec<Replica>> = HashMap::new();
    for r in rows {
        let replica = Replica {
            id: r.id.into(),
            worker_id: r.worker_id.into(),
            status: Row::new("replicas", &r.id).word("status", &r.status)?,
            error: r.error,
        };
        replicas.entry(r.variant_id).or_default().push(replica);
    }
    Ok(replicas)
}
