//! What a job reads: resolved and locked, so that it cannot be deleted under a submission.

use nereid_core::{
    ids::ProjectId,
    jobs::JobSpec,
    spec::{DatasetRef, DeploySpec, TrainSpec},
};
use uuid::Uuid;

use crate::{ResourceKind, StoreError, connection::Tx, models::version_not_found};

/// What a job's spec names.
#[derive(Default)]
pub(super) struct Inputs {
    /// Dataset versions, the training data first.
    pub(super) datasets: Vec<Uuid>,
    /// The version a deployment is about.
    pub(super) model_version: Option<Uuid>,
}

/// Finds what `spec` names and locks it against deletion until the end of the transaction.
pub(super) async fn lock(
    conn: &mut Tx,
    project: ProjectId,
    spec: &JobSpec,
) -> Result<Inputs, StoreError> {
    match spec {
        JobSpec::Train(spec) => lock_datasets(conn, project, spec).await,
        JobSpec::Deploy(spec) => lock_model_version(conn, project, spec).await,
        JobSpec::Noop(_) => Ok(Inputs::default()),
    }
}

async fn lock_datasets(
    conn: &mut Tx,
    project: ProjectId,
    spec: &TrainSpec,
) -> Result<Inputs, StoreError> {
    // Keeps a model that has versions from being deleted before this job counts as its user.
    sqlx::query!(
        "SELECT id FROM models WHERE project_id = $1 AND name = $2 FOR KEY SHARE",
        project.0,
        spec.model.as_str()
    )
    .fetch_optional(&mut *conn)
    .await?;
    let mut inputs = Inputs::default();
    let others = [&spec.validation_dataset, &spec.test_dataset];
    for dataset in [&spec.dataset]
        .into_iter()
        .chain(others.into_iter().flatten())
    {
        let id = lock_dataset(conn, project, dataset).await?;
        if !inputs.datasets.contains(&id) {
            inputs.datasets.push(id);
        }
    }
    Ok(inputs)
}

async fn lock_dataset(
    conn: &mut Tx,
    project: ProjectId,
    dataset: &DatasetRef,
) -> Result<Uuid, StoreError> {
    let version = dataset.version.ok_or_else(|| {
        let what = format!("dataset {dataset} is named without a version");
        StoreError::conflict("unresolved_version", what)
    })?;
    // Deletion takes the stronger FOR UPDATE: it waits for us, or we see what it did.
    let id = sqlx::query_scalar!(
        "SELECT v.id FROM dataset_versions v JOIN datasets d ON d.id = v.dataset_id
         WHERE d.project_id = $1 AND d.name = $2 AND v.version = $3::bigint AND v.deleted_at IS NULL
         FOR KEY SHARE OF v",
        project.0,
        dataset.name.as_str(),
        i64::from(version)
    );
    id.fetch_optional(conn)
        .await?
        .ok_or_else(|| StoreError::not_found(ResourceKind::DatasetVersion, dataset))
}

async fn lock_model_version(
    conn: &mut Tx,
    project: ProjectId,
    spec: &DeploySpec,
) -> Result<Inputs, StoreError> {
    let id = sqlx::query_scalar!(
        "SELECT v.id FROM model_versions v JOIN models m ON m.id = v.model_id
         WHERE m.project_id = $1 AND m.name = $2 AND v.version = $3::bigint AND v.deleted_at IS NULL
         FOR KEY SHARE OF v",
        project.0,
        spec.model.as_str(),
        i64::from(spec.version)
    )
    .fetch_optional(conn)
    .await?
    .ok_or_else(|| version_not_found(&spec.model, spec.version))?;
    Ok(Inputs {
        model_version: Some(id),
        ..Inputs::default()
    })
}
