//! Models and their versions.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use nereid_core::{
    Name,
    ids::ProjectId,
    models::{Model, ModelVersion},
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Page, PageRequest, ResourceKind, Store, StoreError, audit,
    connection::Tx,
    rows::{self, Row},
};

struct ModelRow {
    id: Uuid,
    name: String,
    description: String,
    tags: Value,
    latest_version: Option<i32>,
    created_at: DateTime<Utc>,
}

impl TryFrom<ModelRow> for Model {
    type Error = StoreError;

    fn try_from(r: ModelRow) -> Result<Self, StoreError> {
        let row = Row::new("models", &r.id);
        let latest = r.latest_version.map(|v| row.number("version", v));
        Ok(Self {
            id: r.id.into(),
            name: row.name("name", r.name)?,
            description: r.description,
            tags: row.json("tags", r.tags)?,
            latest_version: latest.transpose()?,
            created_at: r.created_at,
        })
    }
}

struct VersionRow {
    id: Uuid,
    model: String,
    version: i32,
    manifest_uri: String,
    manifest_sha256: String,
    bytes: i64,
    spec: Value,
    signature: Value,
    metrics: Value,
    reports: Value,
    lineage: Value,
    tags: Value,
    serving: Option<Value>,
    created_at: DateTime<Utc>,
}

impl TryFrom<VersionRow> for ModelVersion {
    type Error = StoreError;

    fn try_from(r: VersionRow) -> Result<Self, StoreError> {
        let row = Row::new("model_versions", &r.id);
        Ok(Self {
            id: r.id.into(),
            model: row.name("name", r.model)?,
            version: row.number("version", r.version)?,
            manifest_uri: r.manifest_uri,
            manifest_sha256: r.manifest_sha256,
            bytes: row.number("bytes", r.bytes)?,
            spec: row.json("spec", r.spec)?,
            signature: row.json("signature", r.signature)?,
            metrics: row.json("metrics", r.metrics)?,
            reports: row.json("reports", r.reports)?,
            lineage: row.json("lineage", r.lineage)?,
            tags: row.json("tags", r.tags)?,
            serving: row.json_opt("serving", r.serving)?,
            created_at: r.created_at,
        })
    }
}

impl Store {
    /// Reads a model.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn model(&self, project: ProjectId, name: &Name) -> Result<Model, StoreError> {
        let row = sqlx::query_as!(
            ModelRow,
            "SELECT id, name, description, tags, created_at,
                 (SELECT max(version) FROM model_versions v WHERE v.model_id = m.id AND v.deleted_at IS NULL) AS latest_version
             FROM models m WHERE project_id = $1 AND name = $2 AND deleted_at IS NULL",
            project.0,
            name.as_str()
        );
        row.fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| StoreError::not_found(ResourceKind::Model, name))?
            .try_into()
    }

    /// Lists the models of a project by name.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `invalid_page_token`.
    pub async fn models(
        &self,
        project: ProjectId,
        page: &PageRequest,
    ) -> Result<Page<Model>, StoreError> {
        let after = page.position::<Name>()?;
        let rows = sqlx::query_as!(
            ModelRow,
            "SELECT id, name, description, tags, created_at,
                 (SELECT max(version) FROM model_versions v WHERE v.model_id = m.id AND v.deleted_at IS NULL) AS latest_version
             FROM models m WHERE project_id = $1 AND deleted_at IS NULL AND ($2::text IS NULL OR name > $2)
             ORDER BY name LIMIT $3",
            project.0,
            after.as_ref().map(Name::as_str),
            page.limit()
        )
        .fetch_all(&self.pool)
        .await?;
        page.page(rows, |r| r.name.clone(), TryInto::try_into)
    }

    /// Reads a version.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn model_version(
        &self,
        project: ProjectId,
        name: &Name,
        version: u32,
    ) -> Result<ModelVersion, StoreError> {
        let row = sqlx::query_as!(
            VersionRow,
            "SELECT v.id, m.name AS model, version, manifest_uri, manifest_sha256, bytes, spec,
                 signature, metrics, reports, lineage, v.tags, serving, v.created_at
             FROM model_versions v JOIN models m ON m.id = v.model_id
             WHERE m.project_id = $1 AND m.name = $2 AND v.version = $3::bigint AND v.deleted_at IS NULL",
            project.0,
            name.as_str(),
            i64::from(version)
        );
        row.fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| version_not_found(name, version))?
            .try_into()
    }

    /// Lists the versions of a model, newest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] `invalid_page_token`.
    pub async fn model_versions(
        &self,
        project: ProjectId,
        name: &Name,
        page: &PageRequest,
    ) -> Result<Page<ModelVersion>, StoreError> {
        let rows = sqlx::query_as!(
            VersionRow,
            "SELECT v.id, m.name AS model, version, manifest_uri, manifest_sha256, bytes, spec,
                 signature, metrics, reports, lineage, v.tags, serving, v.created_at
             FROM model_versions v JOIN models m ON m.id = v.model_id
             WHERE m.project_id = $1 AND m.name = $2 AND ($3::integer IS NULL OR v.version < $3) AND v.deleted_at IS NULL
             ORDER BY v.version DESC LIMIT $4",
            project.0,
            name.as_str(),
            page.position::<i32>()?,
            page.limit()
        )
        .fetch_all(&self.pool)
        .await?;
        if rows.is_empty() {
            self.model(project, name).await?;
        }
        page.page(rows, |r| r.version, TryInto::try_into)
    }

    /// Replaces description (if given) and tags (if given).
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn update_model(
        &self,
        project: ProjectId,
        name: &Name,
        description: Option<&str>,
        tags: Option<&BTreeMap<String, String>>,
    ) -> Result<Model, StoreError> {
        let mut tx = self.pool.begin().await?;
        let changed = sqlx::query!(
            "UPDATE models SET description = COALESCE($3, description), tags = COALESCE($4, tags)
             WHERE project_id = $1 AND name = $2 AND deleted_at IS NULL",
            project.0,
            name.as_str(),
            description,
            tags.map(rows::json).transpose()?
        )
        .execute(&mut tx)
        .await?;
        if changed.rows_affected() == 0 {
            return Err(StoreError::not_found(ResourceKind::Model, name));
        }
        let resource = format!("model/{name}");
        audit::record(&mut tx, project, self.actor, "update", &resource).await?;
        tx.commit().await?;
        self.model(project, name).await
    }

    /// Replaces the tags of a version.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn update_model_version(
        &self,
        project: ProjectId,
        name: &Name,
        version: u32,
        tags: &BTreeMap<String, String>,
    ) -> Result<ModelVersion, StoreError> {
        let mut tx = self.pool.begin().await?;
        let changed = sqlx::query!(
            "UPDATE model_versions v SET tags = $4 FROM models m
             WHERE m.id = v.model_id AND m.project_id = $1 AND m.name = $2 AND v.version = $3::bigint AND v.deleted_at IS NULL",
            project.0,
            name.as_str(),
            i64::from(version),
            rows::json(tags)?
        )
        .execute(&mut tx)
        .await?;
        if changed.rows_affected() == 0 {
            return Err(version_not_found(name, version));
        }
        let resource = format!("model/{name}@{version}");
        audit::record(&mut tx, project, self.actor, "update", &resource).await?;
        tx.commit().await?;
        self.model_version(project, name, version).await
    }

    /// Refused (Conflict `in_use`) while an endpoint's serving or newest generation, or a job that has not ended, uses it. Soft delete.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] `in_use`.
    pub async fn delete_model_version(
        &self,
        project: ProjectId,
        name: &Name,
        version: u32,
    ) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        // The lock waits for submissions and roll-outs under way, which lock what they name.
        let id = sqlx::query_scalar!(
            "SELECT v.id FROM model_versions v JOIN models m ON m.id = v.model_id
             WHERE m.project_id = $1 AND m.name = $2 AND v.version = $3::bigint AND v.deleted_at IS NULL
             FOR UPDATE OF v",
            project.0,
            name.as_str(),
            i64::from(version)
        )
        .fetch_optional(&mut tx)
        .await?
        .ok_or_else(|| version_not_found(name, version))?;
        delete_versions(&mut tx, &[id]).await?;
        let resource = format!("model/{name}@{version}");
        audit::record(&mut tx, project, self.actor, "delete", &resource).await?;
        Ok(tx.commit().await?)
    }

    /// All versions; refused while any is in use or a job trains it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] `in_use`.
    pub async fn delete_model(&self, project: ProjectId, name: &Name) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        let model = sqlx::query_scalar!(
            "SELECT id FROM models WHERE project_id = $1 AND name = $2 AND deleted_at IS NULL FOR UPDATE",
            project.0,
            name.as_str()
        )
        .fetch_optional(&mut tx)
        .await?
        .ok_or_else(|| StoreError::not_found(ResourceKind::Model, name))?;
        let versions = sqlx::query_scalar!(
            "SELECT id FROM model_versions WHERE model_id = $1 AND deleted_at IS NULL ORDER BY id FOR UPDATE",
            model
        )
        .fetch_all(&mut tx)
        .await?;
        let job = sqlx::query_scalar!(
            "SELECT id FROM jobs WHERE project_id = $1 AND model = $2 AND status IN ('queued', 'running', 'paused') LIMIT 1",
            project.0,
            name.as_str()
        )
        .fetch_optional(&mut tx)
        .await?;
        if let Some(job) = job {
            let what = format!("job {job} works on model {name}; stop it or wait for its end");
            return Err(StoreError::conflict("in_use", what));
        }
        delete_versions(&mut tx, &versions).await?;
        sqlx::query!("UPDATE models SET deleted_at = now() WHERE id = $1", model)
            .execute(&mut tx)
            .await?;
        let resource = format!("model/{name}");
        audit::record(&mut tx, project, self.actor, "delete", &resource).await?;
        Ok(tx.commit().await?)
    }
}

/// Marks locked versions deleted unless one is in use.
async fn delete_versions(conn: &mut Tx, ids: &[Uuid]) -> Result<(), StoreError> {
    let endpoint = sqlx::query_scalar!(
        "SELECT e.name FROM endpoint_variants v JOIN endpoints e ON e.id = v.endpoint_id
         WHERE v.model_version_id = ANY ($1) AND e.deleted_at IS NULL
           AND v.generation IN (e.generation, e.serving_generation)
         LIMIT 1",
        ids
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(endpoint) = endpoint {
        let what = format!("endpoint {endpoint} serves it; change or delete the endpoint first");
        return Err(StoreError::conflict("in_use", what));
    }
    let job = sqlx::query!(
        "SELECT id, kind FROM jobs WHERE model_version_id = ANY ($1) AND status IN ('queued', 'running', 'paused') LIMIT 1",
        ids
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(job) = job {
        let uses = match job.kind.as_str() {
            "train" => "starts a training from it",
            _ => "deploys it",
        };
        let what = format!("job {} {uses}; stop the job or wait for its end", job.id);
        return Err(StoreError::conflict("in_use", what));
    }
    sqlx::query!(
        "UPDATE model_versions SET deleted_at = now() WHERE id = ANY ($1)",
        ids
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(crate) fn version_not_found(name: &Name, version: u32) -> StoreError {
    StoreError::not_found(ResourceKind::ModelVersion, &format!("{name}@{version}"))
}
