//! Aliases: moved under the lock of their model, each move with its history and audit entry.

mod moves;

use chrono::{DateTime, Utc};
use nereid_core::{
    Name,
    ids::{KeyId, ProjectId},
    models::{Alias, AliasAction, AliasChange, ModelAlias},
};
use uuid::Uuid;

use self::moves::Move;
use super::alias_not_found;
use crate::{Page, PageRequest, Store, StoreError, WriteTx, audit, connection::Tx, rows::Row};

struct AliasRow {
    model: String,
    alias: String,
    version: i32,
    version_id: Uuid,
    previous_version: Option<i32>,
    updated_by: Option<Uuid>,
    updated_by_name: Option<String>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<AliasRow> for ModelAlias {
    type Error = StoreError;

    fn try_from(r: AliasRow) -> Result<Self, StoreError> {
        let row = Row::new("model_aliases", &r.alias);
        let alias = r.alias.clone().try_into();
        Ok(Self {
            model: row.name("name", r.model)?,
            alias: alias.map_err(|e: nereid_core::models::InvalidAlias| row.corrupt("alias", e))?,
            version: row.number("version", r.version)?,
            version_id: r.version_id.into(),
            previous_version: row.number_opt("previous_version", r.previous_version)?,
            updated_by: audit::key_ref(row, r.updated_by, r.updated_by_name)?,
            updated_at: r.updated_at,
        })
    }
}

/// Reads aliases; the argument is what follows the joins.
macro_rules! select_aliases {
    ($rest:literal, $($arg:expr),+ $(,)?) => {
        sqlx::query_as!(
            AliasRow,
            r#"SELECT m.name AS model, a.alias, v.version, v.id AS version_id, a.updated_at, a.updated_by,
                 k.name AS "updated_by_name?", p.version AS "previous_version?"
             FROM model_aliases a
             JOIN models m ON m.id = a.model_id
             JOIN model_versions v ON v.id = a.model_version_id
             LEFT JOIN api_keys k ON k.id = a.updated_by
             LEFT JOIN LATERAL (
                 SELECT c.from_version_id FROM model_alias_changes c
                 WHERE c.model_id = a.model_id AND c.alias = a.alias AND c.action IN ('set', 'promote') AND NOT c.undone
                 ORDER BY c.id DESC LIMIT 1
             ) c ON true
             LEFT JOIN model_versions p ON p.id = c.from_version_id AND p.deleted_at IS NULL
             WHERE m.deleted_at IS NULL "# + $rest,
            $($arg),+
        )
    };
}

async fn read_alias(conn: &mut Tx, model: Uuid, alias: &Alias) -> Result<ModelAlias, StoreError> {
    let row = select_aliases!("AND m.id = $1 AND a.alias = $2", model, alias.as_str());
    row.fetch_one(conn).await?.try_into()
}

impl WriteTx {
    /// Moves an alias to a version, making the alias if there is none; it remembers the version before.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for model or version; [`StoreError::Conflict`] `alias_moved` if it does not point to
    /// `expected`, `too_many_aliases`.
    pub async fn promote(
        &mut self,
        name: &Name,
        alias: &Alias,
        version: u32,
        expected: Option<u32>,
    ) -> Result<ModelAlias, StoreError> {
        let mut change = Move::begin(&mut self.tx, self.project, self.actor, name, alias).await?;
        change.expect(expected)?;
        let target = change.lock(version).await?;
        change.to(target, AliasAction::Promote).await
    }

    /// Moves an alias back to the version that had it before; again, to the one before that.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for model or alias; [`StoreError::Conflict`] `alias_moved`, `no_previous`.
    pub async fn demote(
        &mut self,
        name: &Name,
        alias: &Alias,
        expected: Option<u32>,
    ) -> Result<ModelAlias, StoreError> {
        let mut change = Move::begin(&mut self.tx, self.project, self.actor, name, alias).await?;
        if change.current.is_none() {
            return Err(alias_not_found(name, alias));
        }
        change.expect(expected)?;
        let target = change.pop().await?;
        change.to(target, AliasAction::Demote).await
    }
}

impl Store {
    /// Points an alias to a version, making the alias if there is none.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for model or version; [`StoreError::Conflict`] `too_many_aliases`.
    pub async fn set_alias(
        &self,
        project: ProjectId,
        name: &Name,
        alias: &Alias,
        version: u32,
    ) -> Result<ModelAlias, StoreError> {
        let mut tx = self.pool.begin().await?;
        let mut change = Move::begin(&mut tx, project, self.actor, name, alias).await?;
        let target = change.lock(version).await?;
        let alias = change.to(target, AliasAction::Set).await?;
        tx.commit().await?;
        Ok(alias)
    }

    /// Deletes an alias; its history stays, but no demotion goes back beyond this.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for model or alias.
    pub async fn delete_alias(
        &self,
        project: ProjectId,
        name: &Name,
        alias: &Alias,
    ) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        let mut change = Move::begin(&mut tx, project, self.actor, name, alias).await?;
        if change.current.is_none() {
            return Err(alias_not_found(name, alias));
        }
        change.forget().await?;
        change.record(AliasAction::Delete, None).await?;
        let model = change.model;
        sqlx::query!(
            "DELETE FROM model_aliases WHERE model_id = $1 AND alias = $2",
            model,
            alias.as_str()
        )
        .execute(&mut tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// Reads an alias.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for model or alias.
    pub async fn alias(
        &self,
        project: ProjectId,
        name: &Name,
        alias: &Alias,
    ) -> Result<ModelAlias, StoreError> {
        let row = select_aliases!(
            "AND m.project_id = $1 AND m.name = $2 AND a.alias = $3",
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

    /// Lists the aliases of a model by name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] `invalid_page_token`.
    pub async fn aliases(
        &self,
        project: ProjectId,
        name: &Name,
        page: &PageRequest,
    ) -> Result<Page<ModelAlias>, StoreError> {
        let after = page.position::<Name>()?;
        let rows = select_aliases!(
            "AND m.project_id = $1 AND m.name = $2 AND ($3::text IS NULL OR a.alias > $3)
             ORDER BY a.alias LIMIT $4",
            project.0,
            name.as_str(),
            after.as_ref().map(Name::as_str),
            page.limit()
        )
        .fetch_all(&self.pool)
        .await?;
        if rows.is_empty() {
            self.model(project, name).await?;
        }
        page.page(rows, |r| r.alias.clone(), TryInto::try_into)
    }

    /// Lists the changes of an alias, newest first; also of one that has been deleted.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the model, or if there never was such an alias; [`StoreError::Conflict`]
    /// `invalid_page_token`.
    pub async fn alias_history(
        &self,
        project: ProjectId,
        name: &Name,
        alias: &Alias,
        page: &PageRequest,
    ) -> Result<Page<AliasChange>, StoreError> {
        let model = self.model(project, name).await?;
        let rows = sqlx::query!(
            r#"SELECT c.id, c.action, f.version AS "from_version?", t.version AS "to_version?", c.at,
                 c.actor, k.name AS "actor_name?"
             FROM model_alias_changes c
             LEFT JOIN model_versions f ON f.id = c.from_version_id
             LEFT JOIN model_versions t ON t.id = c.to_version_id
             LEFT JOIN api_keys k ON k.id = c.actor
             WHERE c.model_id = $1 AND c.alias = $2 AND ($3::bigint IS NULL OR c.id < $3)
             ORDER BY c.id DESC LIMIT $4"#,
            model.id.0,
            alias.as_str(),
            page.position::<i64>()?,
            page.limit()
        )
        .fetch_all(&self.pool)
        .await?;
        if rows.is_empty() {
            self.alias(project, name, alias).await?;
        }
        page.page(
            rows,
            |r| r.id,
            |r| {
                let row = Row::new("model_alias_changes", &r.id);
                Ok(AliasChange {
                    action: row.word("action", &r.action)?,
                    from_version: row.number_opt("from_version", r.from_version)?,
                    to_version: row.number_opt("to_version", r.to_version)?,
                    by: audit::key_ref(row, r.actor, r.actor_name)?,
                    at: r.at,
                })
            },
        )
    }
}

/// Deletes all aliases of a locked model that is deleted itself.
pub(super) async fn drop_all(
    conn: &mut Tx,
    model: Uuid,
    actor: Option<KeyId>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "WITH dropped AS (
             DELETE FROM model_aliases WHERE model_id = $1 RETURNING alias, model_version_id
         ), undone AS (
             UPDATE model_alias_changes SET undone = true WHERE model_id = $1 AND NOT undone
         )
         INSERT INTO model_alias_changes (model_id, alias, action, from_version_id, actor)
         SELECT $1, alias, 'delete', model_version_id, $2 FROM dropped",
        model,
        actor.map(|a| a.0)
    )
    .execute(conn)
    .await?;
    Ok(())
}
