//! Rolling a deployed version out to an endpoint, from within its deploy job.

use nereid_core::{
    Name,
    endpoints::GenerationSettings,
    ids::{ModelVersionId, ProjectId},
    jobs::{Fence, JobPhase},
    models::ServingArtifact,
    spec::DeploySpec,
};

use super::{
    Beat, heartbeat,
    lease::{self, Lease, Require},
};
use crate::{
    ResourceKind, Store, StoreError,
    connection::Tx,
    endpoints::generations::{self, NewGeneration, NewVariant},
    models::not_approved,
    notify::Wake,
    rows::{self, Row},
};

/// Name of the only variant that a deploy job makes.
const VARIANT: &str = "main";

impl Store {
    /// Stores the serving artifact of the version and makes the endpoint's next generation serve it with one variant
    /// named "main", creating the endpoint if needed; the job stays running (phase warming). Returns the generation.
    /// Idempotent per job: a second attempt of the same job finds the generation the first one made.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::NotFound`] if the version is gone.
    pub async fn roll_out(
        &self,
        fence: &Fence,
        version: ModelVersionId,
        spec: &DeploySpec,
        artifact: &ServingArtifact,
    ) -> Result<u32, StoreError> {
        let endpoint = &spec.endpoint;
        let mut tx = self.pool.begin().await?;
        let lease = lease::lock(&mut tx, fence, Require::Unexpired).await?;
        let made = sqlx::query_scalar!(
            "SELECT generation FROM endpoint_generations WHERE job_id = $1",
            fence.job.0
        )
        .fetch_optional(&mut tx)
        .await?;
        // The artifact of the first attempt stays: replicas may have loaded it already.
        let generation = if let Some(generation) = made {
            generation
        } else {
            store_artifact(&mut tx, &lease, version, artifact).await?;
            let variant = NewVariant {
                name: VARIANT.to_owned(),
                model_version: version.0,
                weight: 100,
                replicas: rows::bind(spec.replicas)?,
                settings: spec.settings(),
            };
            let new = NewGeneration {
                variants: &[variant],
                settings: &GenerationSettings {
                    rollout: spec.rollout.clone(),
                },
                job: Some(fence.job),
                like: None,
            };
            next_generation(&mut tx, lease.project, endpoint, &new).await?
        };
        let beat = Beat {
            fence: *fence,
            phase: Some(JobPhase::Warming),
            progress: None,
        };
        heartbeat::record(&mut tx, &[&beat]).await?;
        tx.commit().await?;
        self.notify(Wake::Job(fence.job));
        self.notify(Wake::Endpoints);
        Row::new("endpoint_generations", endpoint).number("generation", generation)
    }
}

async fn store_artifact(
    conn: &mut Tx,
    lease: &Lease,
    version: ModelVersionId,
    artifact: &ServingArtifact,
) -> Result<(), StoreError> {
    let stored = sqlx::query!(
        r#"UPDATE model_versions v SET serving = $3 FROM models m
         WHERE v.id = $1 AND m.id = v.model_id AND m.project_id = $2 AND v.deleted_at IS NULL
         RETURNING m.name, v.version,
             m.require_approval AND v.approval_status <> 'approved' AS "unapproved!""#,
        version.0,
        lease.project.0,
        rows::json(artifact)?
    )
    .fetch_optional(conn)
    .await?
    .ok_or_else(|| StoreError::not_found(ResourceKind::ModelVersion, &version))?;
    // It may have been rejected since the job was submitted.
    if stored.unapproved {
        let row = Row::new("model_versions", &version);
        let model = row.name("name", stored.name)?;
        return Err(not_approved(&model, row.number("version", stored.version)?));
    }
    Ok(())
}

/// Makes the endpoint, or adds a generation to it.
async fn next_generation(
    conn: &mut Tx,
    project: ProjectId,
    name: &Name,
    new: &NewGeneration<'_>,
) -> Result<i32, StoreError> {
    if let Some(made) = generations::insert_endpoint(conn, project, name).await? {
        generations::insert(conn, made, 1, new).await?;
        return Ok(1);
    }
    let endpoint = generations::find(conn, project, name).await?;
    generations::add(conn, endpoint, new).await
}
