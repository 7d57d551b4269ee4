//! Versions of models: read, changed, deleted.

use chrono::{DateTime, Utc};
use nereid_core::{
    Name,
    ids::ProjectId,
    models::{Alias, Approval, Edit, ModelVersion},
};
use serde_json::Value;
use uuid::Uuid;

use super::{alias_not_found, delete_versions, edited, version_not_found};
use crate::{
    Page, PageRequest, Store, StoreError, audit,
    rows::{self, Row},
};

pub(super) struct VersionRow {
    pub(super) id: Uuid,
    pub(super) model: String,
    pub(super) version: i32,
    pub(super) manifest_uri: String,
    pub(super) manifest_sha256: String,
    pub(super) bytes: i64,
    pub(super) spec: Value,
    pub(super) signature: Value,
    pub(super) metrics: Value,
    pub(super) reports: Value,
    pub(super) lineage: Value,
    pub(super) description: String,
    pub(super) tags: Value,
    pub(super) aliases: Vec<String>,
    pub(super) approval_status: String,
    pub(super) approval_reason: String,
    pub(super) approval_at: Option<DateTime<Utc>>,
    pub(super) approval_by: Option<Uuid>,
    pub(super) approval_by_name: Option<String>,
    pub(super) serving: Option<Value>,
    pub(super) created_at: DateTime<Utc>,
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
            description: r.description,
            tags: row.json("tags", r.tags)?,
            aliases: (r.aliases.into_iter())
                .map(|a| Alias::try_from(a).map_err(|e| row.corrupt("alias", e)))
                .collect::<Result<_, _>>()?,
            approval: Approval {
                status: row.word("approval_status", &r.approval_status)?,
                reason: r.approval_reason,
                by: audit::key_ref(row, r.approval_by, r.approval_by_name)?,
                at: r.approval_at,
            },
            serving: row.json_opt("serving", r.serving)?,
            created_at: r.created_at,
        })
    }
}

/// Reads versions; the argument is what follows `FROM model_versions v JOIN models m`.
macro_rules! select_versions {
    ($rest:literal, $($arg:expr),+ $(,)?) => {
        sqlx::query_as!(
            $crate::models::versions::VersionRow,
            r#"SELECT v.id, m.name AS model, v.version, v.manifest_uri, v.manifest_sha256, v.bytes,
                 v.spec, v.signature, v.metrics, v.reports, v.lineage, v.description, v.tags,
                 ARRAY(SELECT a.alias FROM model_aliases a WHERE a.model_version_id = v.id ORDER BY a.alias) AS "aliases!",
                 v.approval_status, v.approval_reason, v.approval_at, v.approval_by,
                 k.name AS "approval_by_name?", v.serving, v.created_at
             FROM model_versions v JOIN models m ON m.id = v.model_id
             LEFT JOIN api_keys k ON k.id = v.approval_by
             "# + $rest,
            $($arg),+
        )
    };
}
pub(super) use select_versions;

impl Store {
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
        let row = select_versions!(
            "WHERE m.project_id = $1 AND m.name = $2 AND v.version = $3::bigint AND v.deleted_at IS NULL",
            project.0,
            name.as_str(),
            i64::from(version)
        );
        row.fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| version_not_found(name, version))?
            .try_into()
    }

    /// Reads the version that an alias points to.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], for the model or the alias.
    pub async fn aliased_version(
        &self,
        project: ProjectId,
        name: &Name,
        alias: &Alias,
    ) -> Result<ModelVersion, StoreError> {
        let row = select_versions!(
            "JOIN model_aliases a ON a.model_id = m.id AND a.model_version_id = v.id
             WHERE m.project_id = $1 AND m.name = $2 AND a.alias = $3 AND v.deleted_at IS NULL",
            project.0,
            name.as_str(),
            alias.as_str()
        )
        .fetch_optional(&self.pool)
        .await?;
        if let Some(row) = row {
            return row.try_into();
        }
        self.model(project, name).await?;
        Err(alias_not_found(name, alias))
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
        let rows = select_versions!(
            "WHERE m.project_id = $1 AND m.name = $2 AND ($3::integer IS NULL OR v.version < $3) AND v.deleted_at IS NULL
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

    /// Changes description and tags of a version; what is absent stays.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] `too_many_tags`.
    pub async fn update_model_version(
        &self,
        project: ProjectId,
        name: &Name,
        version: u32,
        edit: &Edit,
    ) -> Result<ModelVersion, StoreError> {
        let mut tx = self.pool.begin().await?;
        let row = sqlx::query!(
            "SELECT v.id, v.tags FROM model_versions v JOIN models m ON m.id = v.model_id
             WHERE m.project_id = $1 AND m.name = $2 AND v.version = $3::bigint AND v.deleted_at IS NULL
             FOR NO KEY UPDATE OF v",
            project.0,
            name.as_str(),
            i64::from(version)
        )
        .fetch_optional(&mut tx)
        .await?
        .ok_or_else(|| version_not_found(name, version))?;
        let tags = Row::new("model_versions", &row.id).json("tags", row.tags)?;
        sqlx::query!(
            "UPDATE model_versions SET description = COALESCE($2, description), tags = $3 WHERE id = $1",
            row.id,
            edit.description,
            rows::json(&edited(edit, tags)?)?
        )
        .execute(&mut tx)
        .await?;
        let resource = format!("model/{name}@{version}");
        audit::record(&mut tx, project, self.actor, "update", &resource).await?;
        tx.commit().await?;
        self.model_version(project, name, version).await
    }

    /// Refused (Conflict `in_use`) while an alias points to it, or an endpoint's serving or newest generation, or a job
    /// that has not ended, uses it. Soft delete.
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
        let alias = sqlx::query_scalar!(
            "SELECT alias FROM model_aliases WHERE model_version_id = $1 ORDER BY alias LIMIT 1",
            id
        )
        .fetch_optional(&mut tx)
        .await?;
        if let Some(alias) = alias {
            let what = format!("the alias {alias} points to it; move or delete the alias first");
            return Err(StoreError::conflict("in_use", what));
        }
        delete_versions(&mut tx, &[id]).await?;
        let resource = format!("model/{name}@{version}");
        audit::record(&mut tx, project, self.actor, "delete", &resource).await?;
        Ok(tx.commit().await?)
    }
}
