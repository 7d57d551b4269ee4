//! What a job reads: resolved and locked, so that it cannot be deleted under a submission.

use nereid_core::{
    Name,
    ids::ProjectId,
    jobs::JobSpec,
    spec::{BatchPredictSpec, DatasetRef, DeploySpec, TrainSpec},
};
use uuid::Uuid;

use crate::{
    ResourceKind, StoreError,
    connection::Tx,
    models::{not_approved, version_not_found},
};

/// What a job's spec names.
#[derive(Default)]
pub(super) struct Inputs {
    /// Dataset versions, the training data first.
    pub(super) datasets: Vec<Uuid>,
    /// The version that a deployment is about, or that a training starts from.
    pub(super) model_version: Option<Uuid>,
}

/// Finds what `spec` names and locks it against deletion until the end of the transaction.
pub(super) async fn lock(
    conn: &mut Tx,
    project: ProjectId,
    spec: &JobSpec,
) -> Result<Inputs, StoreError> {
    match spec {
        JobSpec::Train(spec) => Ok(Inputs {
            datasets: lock_datasets(conn, project, spec).await?,
            model_version: lock_base(conn, project, spec).await?,
        }),
        JobSpec::Deploy(spec) => Ok(Inputs {
            model_version: Some(lock_deployable(conn, project, spec).await?),
            ..Inputs::default()
        }),
        JobSpec::BatchPredict(spec) => lock_predicted(conn, project, spec).await,
        JobSpec::Noop(_) => Ok(Inputs::default()),
    }
}

async fn lock_datasets(
    conn: &mut Tx,
    project: ProjectId,
    spec: &TrainSpec,
) -> Result<Vec<Uuid>, StoreError> {
    // Keeps a model that has versions from being deleted before this job counts as its user.
    sqlx::query!(
        "SELECT id FROM models WHERE project_id = $1 AND name = $2 FOR KEY SHARE",
        project.0,
        spec.model.as_str()
    )
    .fetch_optional(&mut *conn)
    .await?;
    let mut datasets = Vec::new();
    let others = [&spec.validation_dataset, &spec.test_dataset];
    for dataset in [&spec.dataset]
        .into_iter()
        .chain(others.into_iter().flatten())
    {
        let id = lock_dataset(conn, project, dataset).await?;
        if !datasets.contains(&id) {
            datasets.push(id);
        }
    }
    Ok(datasets)
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

async fn lock_base(
    conn: &mut Tx,
    project: ProjectId,
    spec: &TrainSpec,
) -> Result<Option<Uuid>, StoreError> {
    let Some(from) = &spec.initialize_from else {
        return Ok(None);
    };
    let version = from.version.ok_or_else(|| {
        let what = format!("model {} is named without a version", from.model);
        StoreError::conflict("unresolved_version", what)
    })?;
    lock_version(conn, project, &from.model, version)
        .await
        .map(Some)
}

/// Locks the version that a job is to deploy, which must be approved if its model asks for that.
async fn lock_deployable(
    conn: &mut Tx,
    project: ProjectId,
    spec: &DeploySpec,
) -> Result<Uuid, StoreError> {
    if let Some(alias) = &spec.alias {
        let what = format!("{}@{alias} is not resolved to a number", spec.model);
        return Err(StoreError::conflict("unresolved_version", what));
    }
    let id = lock_version(conn, project, &spec.model, spec.version).await?;
    let unapproved = sqlx::query_scalar!(
        r#"SELECT m.require_approval AND v.approval_status <> 'approved' AS "unapproved!"
         FROM model_versions v JOIN models m ON m.id = v.model_id WHERE v.id = $1"#,
        id
    )
    .fetch_one(conn)
    .await?;
    if unapproved {
        return Err(not_approved(&spec.model, spec.version));
    }
    Ok(id)
}

async fn lock_predicted(
    conn: &mut Tx,
    project: ProjectId,
    spec: &BatchPredictSpec,
) -> Result<Inputs, StoreError> {
    let version = spec.version.ok_or_else(|| {
        let what = format!("model {} is named without a version", spec.model);
        StoreError::conflict("unresolved_version", what)
    })?;
    let version = lock_version(conn, project, &spec.model, version).await?;
    let datasets = match &spec.input.dataset {
        Some(dataset) => vec![lock_dataset(conn, project, dataset).await?],
        None => Vec::new(),
    };
    Ok(Inputs {
        datasets,
        model_version: Some(version),
    })
}

async fn lock_version(
    conn: &mut Tx,
    project: ProjectId,
    model: &Name,
    version: u32,
) -> Result<Uuid, StoreError> {
    let id = sqlx::query_scalar!(
        "SELECT v.id FROM model_versions v JOIN models m ON m.id = v.model_id
         WHERE m.project_id = $1 AND m.name = $2 AND v.version = $3::bigint AND v.deleted_at IS NULL
         FOR KEY SHARE OF v",
        project.0,
        model.as_str(),
        i64::from(version)
    );
    id.fetch_optional(conn)
        .await?
        .ok_or_else(|| version_not_found(model, version))
}
