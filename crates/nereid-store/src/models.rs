//! Models; their versions, aliases, approval and search each have a file.

mod aliases;
mod approval;
mod lineage;
mod search;
mod versions;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use nereid_core::{
    Name,
    ids::ProjectId,
    models::{Alias, Edit, Model},
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
    require_approval: bool,
    aliases: Value,
    created_at: DateTime<Utc>,
}

/// Reads models; the argument is what follows `FROM models m`.
macro_rules! select_models {
    ($rest:literal, $($arg:expr),+ $(,)?) => {
        sqlx::query_as!(
            ModelRow,
            r#"SELECT m.id, m.name, m.description, m.tags, m.require_approval, m.created_at,
                 (SELECT max(version) FROM model_versions v WHERE v.model_id = m.id AND v.deleted_at IS NULL) AS latest_version,
                 COALESCE((
                     SELECT jsonb_object_agg(a.alias, v.version)
                     FROM model_aliases a JOIN model_versions v ON v.id = a.model_version_id
                     WHERE a.model_id = m.id), '{}') AS "aliases!"
             FROM models m "# + $rest,
            $($arg),+
        )
    };
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
            require_approval: r.require_approval,
            aliases: row.json("aliases", r.aliases)?,
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
        let row = select_models!(
            "WHERE m.project_id = $1 AND m.name = $2 AND m.deleted_at IS NULL",
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
        let rows = select_models!(
            "WHERE m.project_id = $1 AND m.deleted_at IS NULL AND ($2::text IS NULL OR m.name > $2)
             ORDER BY m.name LIMIT $3",
            project.0,
            after.as_ref().map(Name::as_str),
            page.limit()
        )
        .fetch_all(&self.pool)
        .await?;
        page.page(rows, |r| r.name.clone(), TryInto::try_into)
    }

    /// Changes description, tags and whether versions need approval; what is absent stays.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] `too_many_tags`.
    pub async fn update_model(
        &self,
        project: ProjectId,
        name: &Name,
        edit: &Edit,
        require_approval: Option<bool>,
    ) -> Result<Model, StoreError> {
        let mut tx = self.pool.begin().await?;
        let id = lock_model(&mut tx, project, name).await?;
        let tags = sqlx::query_scalar!("SELECT tags FROM models WHERE id = $1", id)
            .fetch_one(&mut tx)
            .await?;
        let tags = edited(edit, Row::new("models", &id).json("tags", tags)?)?;
        sqlx::query!(
            "UPDATE models SET description = COALESCE($2, description), tags = $3,
                 require_approval = COALESCE($4, require_approval)
             WHERE id = $1",
            id,
            edit.description,
            rows::json(&tags)?,
            require_approval
        )
        .execute(&mut tx)
        .await?;
        let resource = format!("model/{name}");
        let detail = require_approval.map(|needed| format!("require_approval {needed}"));
        let detail = detail.as_deref();
        audit::record_detail(&mut tx, project, self.actor, "update", &resource, detail).await?;
        tx.commit().await?;
        self.model(project, name).await
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
        aliases::drop_all(&mut tx, model, self.actor).await?;
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

pub(crate) fn alias_not_found(name: &Name, alias: &Alias) -> StoreError {
    StoreError::not_found(ResourceKind::ModelAlias, &format!("{name}@{alias}"))
}

/// The refusal of a version that its model wants approved first.
pub(crate) fn not_approved(name: &Name, version: u32) -> StoreError {
    let what = format!(
        "{name}@{version} is not approved, and model {name} has require_approval: approve it first"
    );
    StoreError::conflict("not_approved", what)
}

/// Finds a model and locks it against other changes of it and of its aliases.
async fn lock_model(conn: &mut Tx, project: ProjectId, name: &Name) -> Result<Uuid, StoreError> {
    let id = sqlx::query_scalar!(
        "SELECT id FROM models WHERE project_id = $1 AND name = $2 AND deleted_at IS NULL FOR NO KEY UPDATE",
        project.0,
        name.as_str()
    );
    id.fetch_optional(conn)
        .await?
        .ok_or_else(|| StoreError::not_found(ResourceKind::Model, name))
}

/// Changes tags, which must not become too many.
fn edited(
    edit: &Edit,
    mut tags: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, StoreError> {
    edit.apply(&mut tags).map_err(|n| {
        let max = nereid_core::limits::MAX_TAGS;
        let what =
            format!("{n} tags would be more than the {max} allowed; take some away with null");
        StoreError::conflict("too_many_tags", what)
    })?;
    Ok(tags)
}
