//! Datasets and their immutable versions.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use nereid_core::{
    Name,
    datasets::{
        Dataset, DatasetFile, DatasetSource, DatasetVersion, FileRole, Inspection, PreviewRow,
    },
    ids::{DatasetId, DatasetVersionId, ProjectId},
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Page, PageRequest, ResourceKind, Store, StoreError, WriteTx, audit,
    rows::{self, Row},
};

/// A dataset version that was inspected and is to be registered.
#[derive(Debug, Clone)]
pub struct NewDatasetVersion {
    /// Name of the dataset.
    pub name: Name,
    /// Replaces the dataset's description if given.
    pub description: Option<String>,
    /// Merged into the dataset's tags.
    pub tags: BTreeMap<String, String>,
    /// What the client declared.
    pub source: DatasetSource,
    /// The files, pinned.
    pub files: BTreeMap<FileRole, DatasetFile>,
    /// SHA-256 over the declaration and the files' digests.
    pub digest: String,
    /// What was found in the bytes.
    pub inspection: Inspection,
}

struct VersionRow {
    id: Uuid,
    dataset: String,
    version: i32,
    source: Value,
    files: Value,
    digest: String,
    schema: Value,
    statistics: Value,
    created_at: DateTime<Utc>,
}

impl TryFrom<VersionRow> for DatasetVersion {
    type Error = StoreError;

    fn try_from(r: VersionRow) -> Result<Self, StoreError> {
        let row = Row::new("dataset_versions", &r.id);
        Ok(Self {
            id: r.id.into(),
            dataset: row.name("name", r.dataset)?,
            version: row.number("version", r.version)?,
            source: row.json("source", r.source)?,
            files: row.json("files", r.files)?,
            digest: r.digest,
            schema: row.json("schema", r.schema)?,
            statistics: row.json("statistics", r.statistics)?,
            created_at: r.created_at,
        })
    }
}

struct DatasetRow {
    id: Uuid,
    name: String,
    description: String,
    tags: Value,
    created_at: DateTime<Utc>,
    version_id: Uuid,
    version: i32,
    source: Value,
    files: Value,
    digest: String,
    schema: Value,
    statistics: Value,
    version_created_at: DateTime<Utc>,
}

impl TryFrom<DatasetRow> for Dataset {
    type Error = StoreError;

    fn try_from(r: DatasetRow) -> Result<Self, StoreError> {
        let row = Row::new("datasets", &r.id);
        Ok(Self {
            id: r.id.into(),
            name: row.name("name", r.name.clone())?,
            description: r.description,
            tags: row.json("tags", r.tags)?,
            created_at: r.created_at,
            latest: DatasetVersion::try_from(VersionRow {
                id: r.version_id,
                dataset: r.name,
                version: r.version,
                source: r.source,
                files: r.files,
                digest: r.digest,
                schema: r.schema,
                statistics: r.statistics,
                created_at: r.version_created_at,
            })?,
        })
    }
}

impl WriteTx {
    /// Registers a new version, and the dataset with its first one. Re-registering bytes with the same digest as an
    /// existing version of that dataset makes no new version but returns that one.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn register_dataset_version(
        &mut self,
        new: &NewDatasetVersion,
    ) -> Result<DatasetVersion, StoreError> {
        // Locks the dataset's row, so that concurrent registrations number one after the other.
        let dataset = sqlx::query_file_scalar!(
            "queries/datasets/upsert.sql",
            DatasetId::generate().0,
            self.project.0,
            new.name.as_str(),
            new.description.as_deref(),
            rows::json(&new.tags)?
        )
        .fetch_one(&mut self.tx)
        .await?;
        self.audit("register", &format!("dataset/{}", new.name))
            .await?;
        let existing = sqlx::query_scalar!(
            "SELECT version FROM dataset_versions WHERE dataset_id = $1 AND digest = $2 AND deleted_at IS NULL",
            dataset,
            new.digest
        )
        .fetch_optional(&mut self.tx)
        .await?;
        let version = match existing {
            Some(version) => version,
            None => self.insert_dataset_version(dataset, new).await?,
        };
        let row = sqlx::query_as!(
            VersionRow,
            "SELECT v.id, d.name AS dataset, v.version, source, files, digest, schema, statistics, v.created_at
             FROM dataset_versions v JOIN datasets d ON d.id = v.dataset_id
             WHERE d.id = $1 AND v.version = $2",
            dataset,
            version
        );
        row.fetch_one(&mut self.tx).await?.try_into()
    }

    async fn insert_dataset_version(
        &mut self,
        dataset: Uuid,
        new: &NewDatasetVersion,
    ) -> Result<i32, StoreError> {
        let insert = sqlx::query_scalar!(
            "WITH numbered AS (
                 UPDATE datasets SET next_version = next_version + 1 WHERE id = $1
                 RETURNING next_version - 1 AS version
             )
             INSERT INTO dataset_versions (id, dataset_id, version, source, files, digest, schema, statistics, preview)
             SELECT $2, $1, version, $3, $4, $5, $6, $7, $8 FROM numbered RETURNING version",
            dataset,
            DatasetVersionId::generate().0,
            rows::json(&new.source)?,
            rows::json(&new.files)?,
            new.digest,
            rows::json(&new.inspection.schema)?,
            rows::json(&new.inspection.statistics)?,
            rows::json(&new.inspection.preview)?
        );
        Ok(insert.fetch_one(&mut self.tx).await?)
    }
}

impl Store {
    /// Reads a dataset.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn dataset(&self, project: ProjectId, name: &Name) -> Result<Dataset, StoreError> {
        let row = sqlx::query_file_as!(
            DatasetRow,
            "queries/datasets/get.sql",
            project.0,
            name.as_str()
        );
        row.fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| StoreError::not_found(ResourceKind::Dataset, name))?
            .try_into()
    }

    /// Newest version if `version` is none.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn dataset_version(
        &self,
        project: ProjectId,
        name: &Name,
        version: Option<u32>,
    ) -> Result<DatasetVersion, StoreError> {
        let row = sqlx::query_as!(
            VersionRow,
            "SELECT v.id, d.name AS dataset, v.version, source, files, digest, schema, statistics, v.created_at
             FROM dataset_versions v JOIN datasets d ON d.id = v.dataset_id
             WHERE d.project_id = $1 AND d.name = $2 AND ($3::bigint IS NULL OR v.version = $3) AND v.deleted_at IS NULL
             ORDER BY v.version DESC LIMIT 1",
            project.0,
            name.as_str(),
            version.map(i64::from)
        );
        row.fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| version_not_found(name, version))?
            .try_into()
    }

    /// Lists the versions of a dataset, newest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] `invalid_page_token`.
    pub async fn dataset_versions(
        &self,
        project: ProjectId,
        name: &Name,
        page: &PageRequest,
    ) -> Result<Page<DatasetVersion>, StoreError> {
        let rows = sqlx::query_as!(
            VersionRow,
            "SELECT v.id, d.name AS dataset, v.version, source, files, digest, schema, statistics, v.created_at
             FROM dataset_versions v JOIN datasets d ON d.id = v.dataset_id
             WHERE d.project_id = $1 AND d.name = $2 AND ($3::integer IS NULL OR v.version < $3) AND v.deleted_at IS NULL
             ORDER BY v.version DESC LIMIT $4",
            project.0,
            name.as_str(),
            page.position::<i32>()?,
            page.limit()
        )
        .fetch_all(&self.pool)
        .await?;
        if rows.is_empty() {
            self.dataset(project, name).await?;
        }
        page.page(rows, |r| r.version, TryInto::try_into)
    }

    /// Reads the first rows of a version, the newest if `version` is none.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn dataset_preview(
        &self,
        project: ProjectId,
        name: &Name,
        version: Option<u32>,
    ) -> Result<Vec<PreviewRow>, StoreError> {
        let row = sqlx::query!(
            "SELECT v.id, v.preview
             FROM dataset_versions v JOIN datasets d ON d.id = v.dataset_id
             WHERE d.project_id = $1 AND d.name = $2 AND ($3::bigint IS NULL OR v.version = $3) AND v.deleted_at IS NULL
             ORDER BY v.version DESC LIMIT 1",
            project.0,
            name.as_str(),
            version.map(i64::from)
        )
        .fetch_optional(&self.pool)
        .await?
        .ok_or_else(|| version_not_found(name, version))?;
        Row::new("dataset_versions", &row.id).json("preview", row.preview)
    }

    /// Lists the datasets of a project by name.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `invalid_page_token`.
    pub async fn datasets(
        &self,
        project: ProjectId,
        page: &PageRequest,
    ) -> Result<Page<Dataset>, StoreError> {
        let after = page.position::<Name>()?;
        let rows = sqlx::query_file_as!(
            DatasetRow,
            "queries/datasets/list.sql",
            project.0,
            after.as_ref().map(Name::as_str),
            page.limit()
        )
        .fetch_all(&self.pool)
        .await?;
        page.page(rows, |r| r.name.clone(), TryInto::try_into)
    }

    /// Refused (Conflict `in_use`) while a job that has not ended reads it. Lineage of models keeps their copy of what they need.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] `in_use`.
    pub async fn delete_dataset(&self, project: ProjectId, name: &Name) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        let dataset = sqlx::query_scalar!(
            "UPDATE datasets SET deleted_at = now() WHERE project_id = $1 AND name = $2 AND deleted_at IS NULL RETURNING id",
            project.0,
            name.as_str()
        )
        .fetch_optional(&mut tx)
        .await?
        .ok_or_else(|| StoreError::not_found(ResourceKind::Dataset, name))?;
        // Waits for submissions under way, which lock the versions they name.
        let versions = sqlx::query_scalar!(
            "SELECT id FROM dataset_versions WHERE dataset_id = $1 AND deleted_at IS NULL ORDER BY id FOR UPDATE",
            dataset
        )
        .fetch_all(&mut tx)
        .await?;
        let reader = sqlx::query_scalar!(
            "SELECT i.job_id FROM job_inputs i JOIN jobs j ON j.id = i.job_id
             WHERE i.dataset_version_id = ANY ($1) AND j.status IN ('queued', 'running', 'paused') LIMIT 1",
            &versions
        )
        .fetch_optional(&mut tx)
        .await?;
        if let Some(job) = reader {
            let what = format!("job {job} reads dataset {name}; stop it or wait for its end");
            return Err(StoreError::conflict("in_use", what));
        }
        sqlx::query!(
            "UPDATE dataset_versions SET deleted_at = now() WHERE id = ANY ($1)",
            &versions
        )
        .execute(&mut tx)
        .await?;
        let resource = format!("dataset/{name}");
        audit::record(&mut tx, project, self.actor, "delete", &resource).await?;
        Ok(tx.commit().await?)
    }
}

fn version_not_found(name: &Name, version: Option<u32>) -> StoreError {
    match version {
        None => StoreError::not_found(ResourceKind::Dataset, name),
        Some(v) => StoreError::not_found(ResourceKind::DatasetVersion, &format!("{name}@{v}")),
    }
}
