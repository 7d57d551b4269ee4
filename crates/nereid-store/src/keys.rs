//! API keys: only a hash is stored.

use chrono::{DateTime, Utc};
use nereid_core::{
    Name,
    ids::{KeyId, ProjectId},
    keys::{Actor, ApiKey, Role},
};
use uuid::Uuid;

use crate::{Page, PageRequest, ResourceKind, Store, StoreError, WriteTx, audit, rows::Row};

/// The project of `dev` and of a fresh installation.
pub const DEFAULT_PROJECT: &str = "default";

struct KeyRow {
    id: Uuid,
    name: String,
    role: String,
    prefix: String,
    created_at: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
}

impl TryFrom<KeyRow> for ApiKey {
    type Error = StoreError;

    fn try_from(r: KeyRow) -> Result<Self, StoreError> {
        let row = Row::new("api_keys", &r.id);
        Ok(Self {
            id: r.id.into(),
            name: row.name("name", r.name)?,
            role: row.word("role", &r.role)?,
            prefix: r.prefix,
            created_at: r.created_at,
            revoked_at: r.revoked_at,
        })
    }
}

impl WriteTx {
    /// `secret_sha256` is the hash of the whole secret, `prefix` its first 12 characters.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] if an unrevoked key has the name.
    pub async fn create_key(
        &mut self,
        name: &Name,
        role: Role,
        prefix: &str,
        secret_sha256: &[u8],
    ) -> Result<ApiKey, StoreError> {
        let row = sqlx::query_as!(
            KeyRow,
            "INSERT INTO api_keys (id, project_id, name, role, prefix, secret_sha256)
             VALUES ($1, $2, $3, $4, $5, $6)
             RETURNING id, name, role, prefix, created_at, revoked_at",
            KeyId::generate().0,
            self.project.0,
            name.as_str(),
            role.as_str(),
            prefix,
            secret_sha256
        )
        .fetch_one(&mut self.tx)
        .await
        .map_err(StoreError::exists("api_keys_name", ResourceKind::Key, name))?;
        self.audit("create", &format!("key/{name}")).await?;
        row.try_into()
    }
}

impl Store {
    /// Id of a project by name; the migration makes "default".
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn project(&self, name: &str) -> Result<ProjectId, StoreError> {
        let id = sqlx::query_scalar!("SELECT id FROM projects WHERE name = $1", name)
            .fetch_optional(&self.pool)
            .await?;
        id.map(ProjectId)
            .ok_or_else(|| StoreError::not_found(ResourceKind::Project, name))
    }

    /// Actor of an unrevoked key, by hash of its secret.
    ///
    /// # Errors
    /// [`StoreError::Database`]; an unknown key is none.
    pub async fn authenticate(&self, secret_sha256: &[u8]) -> Result<Option<Actor>, StoreError> {
        let row = sqlx::query!(
            "SELECT id, project_id, role FROM api_keys WHERE secret_sha256 = $1 AND revoked_at IS NULL",
            secret_sha256
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|r| {
            Ok(Actor {
                project: r.project_id.into(),
                role: Row::new("api_keys", &r.id).word("role", &r.role)?,
                key: Some(r.id.into()),
            })
        })
        .transpose()
    }

    /// Lists the keys of a project, revoked ones too, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `invalid_page_token`.
    pub async fn keys(
        &self,
        project: ProjectId,
        page: &PageRequest,
    ) -> Result<Page<ApiKey>, StoreError> {
        let rows = sqlx::query_as!(
            KeyRow,
            "SELECT id, name, role, prefix, created_at, revoked_at FROM api_keys
             WHERE project_id = $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3",
            project.0,
            page.position::<Uuid>()?,
            page.limit()
        )
        .fetch_all(&self.pool)
        .await?;
        page.page(rows, |r| r.id, TryInto::try_into)
    }

    /// Revokes a key for good; harmless when repeated.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn revoke_key(&self, project: ProjectId, id: KeyId) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        sqlx::query_scalar!(
            "UPDATE api_keys SET revoked_at = COALESCE(revoked_at, now())
             WHERE project_id = $1 AND id = $2 RETURNING id",
            project.0,
            id.0
        )
        .fetch_optional(&mut tx)
        .await?
        .ok_or_else(|| StoreError::not_found(ResourceKind::Key, &id))?;
        audit::record(&mut tx, project, self.actor, "revoke", &format!("key/{id}")).await?;
        Ok(tx.commit().await?)
    }

    /// Whether any usable admin key exists.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn has_keys(&self) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM api_keys WHERE role = 'admin' AND revoked_at IS NULL) AS "found!""#
        );
        Ok(found.fetch_one(&self.pool).await?)
    }
}
