//! Generations of an endpoint's variants: made by clients and deploy jobs, never changed.

use nereid_core::{
    Name,
    batching::VariantSettings,
    endpoints::{EndpointSpec, GenerationSettings, VariantSpec},
    ids::{EndpointId, JobId, ProjectId, VariantId},
    models::Alias,
    rollouts::Rollout,
};
use serde_json::Value;
use uuid::Uuid;

use super::rollouts;
use crate::{
    ResourceKind, StoreError,
    connection::Tx,
    models::{alias_not_found, not_approved, version_not_found},
    rows::{self, Row},
};

/// A variant whose version is known to exist.
#[derive(Debug)]
pub(crate) struct NewVariant {
    pub(crate) name: String,
    pub(crate) model_version: Uuid,
    pub(crate) weight: i32,
    pub(crate) replicas: i32,
    pub(crate) settings: VariantSettings,
}

/// A generation to be made.
pub(crate) struct NewGeneration<'a> {
    pub(crate) variants: &'a [NewVariant],
    pub(crate) settings: &'a GenerationSettings,
    /// Deploy job that makes it.
    pub(crate) job: Option<JobId>,
    /// Generation whose artifacts it serves; those of the newest deployments unless given.
    pub(crate) like: Option<i32>,
}

/// Finds the versions that `spec` names and locks them against deletion.
pub(super) async fn resolve(
    conn: &mut Tx,
    project: ProjectId,
    spec: &EndpointSpec,
) -> Result<Vec<NewVariant>, StoreError> {
    let mut variants = Vec::with_capacity(spec.variants.len());
    for variant in &spec.variants {
        variants.push(NewVariant {
            name: variant.name.to_string(),
            model_version: resolve_version(conn, project, variant).await?,
            weight: rows::bind(variant.weight)?,
            replicas: rows::bind(variant.replicas)?,
            settings: variant.settings(),
        });
    }
    Ok(variants)
}

async fn resolve_version(
    conn: &mut Tx,
    project: ProjectId,
    variant: &VariantSpec,
) -> Result<Uuid, StoreError> {
    let row = sqlx::query!(
        r#"SELECT v.id, v.version, v.serving IS NOT NULL AS "deployed!",
             m.require_approval AND v.approval_status <> 'approved' AS "unapproved!"
         FROM model_versions v JOIN models m ON m.id = v.model_id
         WHERE m.project_id = $1 AND m.name = $2 AND v.deleted_at IS NULL
           AND (v.version = $3::bigint OR v.id = (
               SELECT a.model_version_id FROM model_aliases a WHERE a.model_id = m.id AND a.alias = $4))
         FOR KEY SHARE OF v"#,
        project.0,
        variant.model.as_str(),
        i64::from(variant.version),
        variant.alias.as_ref().map(Alias::as_str)
    )
    .fetch_optional(conn)
    .await?
    .ok_or_else(|| match &variant.alias {
        Some(alias) => alias_not_found(&variant.model, alias),
        None => version_not_found(&variant.model, variant.version),
    })?;
    let version = Row::new("model_versions", &row.id).number("version", row.version)?;
    if row.unapproved {
        return Err(not_approved(&variant.model, version));
    }
    if row.deployed {
        Ok(row.id)
    } else {
        let what = format!(
            "{}@{version} has no serving artifact yet: submit a deploy job for it",
            variant.model
        );
        Err(StoreError::conflict("not_deployed", what))
    }
}

/// Makes an endpoint in its first generation; none if the name is taken.
pub(crate) async fn insert_endpoint(
    conn: &mut Tx,
    project: ProjectId,
    name: &Name,
) -> Result<Option<EndpointId>, StoreError> {
    let id = sqlx::query_scalar!(
        "INSERT INTO endpoints (id, project_id, name, status, generation) VALUES ($1, $2, $3, 'creating', 1)
         ON CONFLICT (project_id, name) WHERE deleted_at IS NULL DO NOTHING RETURNING id",
        EndpointId::generate().0,
        project.0,
        name.as_str()
    );
    Ok(id.fetch_optional(conn).await?.map(EndpointId))
}

/// Finds an endpoint and locks it.
pub(crate) async fn find(
    conn: &mut Tx,
    project: ProjectId,
    name: &Name,
) -> Result<EndpointId, StoreError> {
    let id = sqlx::query_scalar!(
        "SELECT id FROM endpoints WHERE project_id = $1 AND name = $2 AND deleted_at IS NULL FOR UPDATE",
        project.0,
        name.as_str()
    );
    id.fetch_optional(conn)
        .await?
        .map(EndpointId)
        .ok_or_else(|| StoreError::not_found(ResourceKind::Endpoint, name))
}

/// Adds a generation to a locked endpoint, begins its rollout and returns its number.
pub(crate) async fn add(
    conn: &mut Tx,
    endpoint: EndpointId,
    new: &NewGeneration<'_>,
) -> Result<i32, StoreError> {
    let generation = next(conn, endpoint.0).await?;
    insert(conn, endpoint, generation, new).await?;
    Ok(generation)
}

/// Raises a locked endpoint's generation and returns it.
pub(super) async fn next(conn: &mut Tx, endpoint: Uuid) -> Result<i32, StoreError> {
    let generation = sqlx::query_scalar!(
        "UPDATE endpoints SET
             generation = generation + 1, updated_at = now(), unloaded_at = NULL,
             status = CASE WHEN serving_generation IS NULL THEN 'creating' ELSE 'updating' END
         WHERE id = $1 RETURNING generation",
        endpoint
    );
    Ok(generation.fetch_one(conn).await?)
}

/// Stores a generation and its variants, and begins its rollout.
pub(crate) async fn insert(
    conn: &mut Tx,
    endpoint: EndpointId,
    generation: i32,
    new: &NewGeneration<'_>,
) -> Result<(), StoreError> {
    let NewGeneration { variants, job, .. } = new;
    let ids: Vec<Uuid> = variants.iter().map(|_| VariantId::generate().0).collect();
    let names: Vec<String> = variants.iter().map(|v| v.name.clone()).collect();
    let versions: Vec<Uuid> = variants.iter().map(|v| v.model_version).collect();
    let weights: Vec<i32> = variants.iter().map(|v| v.weight).collect();
    let replicas: Vec<i32> = variants.iter().map(|v| v.replicas).collect();
    let settings = variants.iter().map(|v| rows::json(&v.settings));
    let settings: Vec<Value> = settings.collect::<Result<_, _>>()?;
    sqlx::query!(
        "INSERT INTO endpoint_generations (endpoint_id, generation, job_id, settings) VALUES ($1, $2, $3, $4)",
        endpoint.0,
        generation,
        job.map(|j| j.0),
        rows::json(new.settings)?
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "INSERT INTO endpoint_variants (
             id, endpoint_id, generation, position, name, model_version_id, weight, replicas, settings, artifact)
         SELECT v.id, $1, $2, v.n::integer - 1, v.name, v.version, v.weight, v.replicas, v.settings, COALESCE(
             (SELECT o.artifact FROM endpoint_variants o
              WHERE o.endpoint_id = $1 AND o.generation = $9 AND o.name = v.name AND o.model_version_id = v.version),
             (SELECT m.serving FROM model_versions m WHERE m.id = v.version))
         FROM unnest($3::uuid[], $4::text[], $5::uuid[], $6::integer[], $7::integer[], $8::jsonb[])
             WITH ORDINALITY AS v (id, name, version, weight, replicas, settings, n)",
        endpoint.0,
        generation,
        &ids,
        &names,
        &versions,
        &weights,
        &replicas,
        &settings,
        new.like
    )
    .execute(&mut *conn)
    .await?;
    rollouts::begin(conn, endpoint.0, generation).await
}

/// Reads what the newest generation but one among those that served was, and its number.
pub(super) async fn previous(
    conn: &mut Tx,
    endpoint: EndpointId,
) -> Result<Option<(i32, EndpointSpec)>, StoreError> {
    let rows = sqlx::query!(
        "SELECT v.id, v.generation, v.name, m.name AS model, mv.version, v.weight, v.replicas, v.settings
         FROM endpoint_variants v
         JOIN model_versions mv ON mv.id = v.model_version_id
         JOIN models m ON m.id = mv.model_id
         WHERE v.endpoint_id = $1 AND v.generation = (
             SELECT max(g.generation) FROM endpoint_generations g JOIN endpoints e ON e.id = g.endpoint_id
             WHERE e.id = $1 AND g.generation < e.generation AND g.served_at IS NOT NULL)
         ORDER BY v.position",
        endpoint.0
    )
    .fetch_all(conn)
    .await?;
    let Some(generation) = rows.first().map(|r| r.generation) else {
        return Ok(None);
    };
    let variants = rows.into_iter().map(|r| {
        let row = Row::new("endpoint_variants", &r.id);
        let settings: VariantSettings = row.json("settings", r.settings)?;
        Ok(VariantSpec {
            name: row.name("name", r.name)?,
            model: row.name("model", r.model)?,
            version: row.number("version", r.version)?,
            alias: None,
            weight: row.number("weight", r.weight)?,
            replicas: row.number("replicas", r.replicas)?,
            batching: settings.batching,
            hedge_after_us: settings.hedge_after_us,
            autoscaling: settings.autoscaling,
        })
    });
    let variants = variants.collect::<Result<_, StoreError>>()?;
    // A rollback is carried out at once, however the generation came to serve the first time.
    let spec = EndpointSpec {
        variants,
        rollout: Rollout::default(),
    };
    Ok(Some((generation, spec)))
}
