//! One change of one alias, under the lock of its model.

use nereid_core::{
    Name,
    ids::{KeyId, ProjectId},
    limits,
    models::{Alias, AliasAction, ModelAlias},
};
use uuid::Uuid;

use super::read_alias;
use crate::{
    StoreError, audit,
    connection::Tx,
    models::{lock_model, version_not_found},
    rows::Row,
};

/// A version as a move sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    id: Uuid,
    version: u32,
}

/// A change of one alias, under the lock of its model.
pub(super) struct Move<'a> {
    conn: &'a mut Tx,
    project: ProjectId,
    actor: Option<KeyId>,
    name: &'a Name,
    alias: &'a Alias,
    pub(super) model: Uuid,
    /// Where it points to now.
    pub(super) current: Option<Target>,
}

impl<'a> Move<'a> {
    pub(super) async fn begin(
        conn: &'a mut Tx,
        project: ProjectId,
        actor: Option<KeyId>,
        name: &'a Name,
        alias: &'a Alias,
    ) -> Result<Self, StoreError> {
        let model = lock_model(conn, project, name).await?;
        let current = sqlx::query!(
            "SELECT v.id, v.version FROM model_aliases a JOIN model_versions v ON v.id = a.model_version_id
             WHERE a.model_id = $1 AND a.alias = $2",
            model,
            alias.as_str()
        )
        .fetch_optional(&mut *conn)
        .await?;
        let target = |id: Uuid, version: i32| {
            let version = Row::new("model_versions", &id).number("version", version)?;
            Ok::<_, StoreError>(Target { id, version })
        };
        let current = current.map(|r| target(r.id, r.version)).transpose()?;
        Ok(Self {
            conn,
            project,
            actor,
            name,
            alias,
            model,
            current,
        })
    }

    /// Refuses if the alias has been moved since the client looked.
    pub(super) fn expect(&self, expected: Option<u32>) -> Result<(), StoreError> {
        let Some(expected) = expected else {
            return Ok(());
        };
        let found = match self.current {
            Some(current) if current.version == expected => return Ok(()),
            Some(current) => format!("points to version {}", current.version),
            None => "does not exist".to_owned(),
        };
        let what = format!(
            "{}@{} {found}, not to version {expected}; look again and decide anew",
            self.name, self.alias
        );
        Err(StoreError::conflict("alias_moved", what))
    }

    /// Finds a version and locks it against deletion.
    pub(super) async fn lock(&mut self, version: u32) -> Result<Target, StoreError> {
        let id = sqlx::query_scalar!(
            "SELECT id FROM model_versions
             WHERE model_id = $1 AND version = $2::bigint AND deleted_at IS NULL FOR KEY SHARE",
            self.model,
            i64::from(version)
        )
        .fetch_optional(&mut *self.conn)
        .await?
        .ok_or_else(|| version_not_found(self.name, version))?;
        Ok(Target { id, version })
    }

    /// Points the alias to a locked version.
    pub(super) async fn to(
        &mut self,
        target: Target,
        action: AliasAction,
    ) -> Result<ModelAlias, StoreError> {
        if self.current != Some(target) {
            if self.current.is_none() {
                self.check_count().await?;
            }
            sqlx::query!(
                "INSERT INTO model_aliases (model_id, alias, model_version_id, updated_by)
                 VALUES ($1, $2, $3, $4)
                 ON CONFLICT (model_id, alias) DO UPDATE SET
                     model_version_id = EXCLUDED.model_version_id, updated_by = EXCLUDED.updated_by,
                     updated_at = now()",
                self.model,
                self.alias.as_str(),
                target.id,
                self.actor.map(|a| a.0)
            )
            .execute(&mut *self.conn)
            .await?;
            self.record(action, Some(target)).await?;
        }
        read_alias(self.conn, self.model, self.alias).await
    }

    async fn check_count(&mut self) -> Result<(), StoreError> {
        let count = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM model_aliases WHERE model_id = $1"#,
            self.model
        )
        .fetch_one(&mut *self.conn)
        .await?;
        if count < limits::MAX_ALIASES {
            return Ok(());
        }
        let what = format!("model {} has {count} aliases, the most allowed", self.name);
        Err(StoreError::conflict("too_many_aliases", what))
    }

    pub(super) async fn record(
        &mut self,
        action: AliasAction,
        target: Option<Target>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO model_alias_changes (model_id, alias, action, from_version_id, to_version_id, actor)
             VALUES ($1, $2, $3, $4, $5, $6)",
            self.model,
            self.alias.as_str(),
            action.as_str(),
            self.current.map(|c| c.id),
            target.map(|t| t.id),
            self.actor.map(|a| a.0)
        )
        .execute(&mut *self.conn)
        .await?;
        let (action, detail) = match (action, target, self.current) {
            (AliasAction::Set, Some(to), None) => ("set_alias", format!("version {}", to.version)),
            (AliasAction::Delete, _, from) => {
                let from = from.map_or(0, |c| c.version);
                ("delete_alias", format!("before version {from}"))
            }
            (action, to, from) => {
                let number =
                    |t: Option<Target>| t.map_or("none".to_owned(), |t| t.version.to_string());
                let word = match action {
                    AliasAction::Set => "set_alias",
                    action => action.as_str(),
                };
                (
                    word,
                    format!("version {}, before {}", number(to), number(from)),
                )
            }
        };
        let resource = format!("model/{}@{}", self.name, self.alias);
        let (project, actor) = (self.project, self.actor);
        audit::record_detail(self.conn, project, actor, action, &resource, Some(&detail)).await
    }

    /// Takes the newest set or promotion off the stack and returns the version before it.
    pub(super) async fn pop(&mut self) -> Result<Target, StoreError> {
        let nothing = |what: String| StoreError::conflict("no_previous", what);
        let (name, alias) = (self.name, self.alias);
        let change = sqlx::query!(
            r#"SELECT c.id, v.id AS "before?", v.version AS "version?"
             FROM model_alias_changes c LEFT JOIN model_versions v ON v.id = c.from_version_id
             WHERE c.model_id = $1 AND c.alias = $2 AND c.action IN ('set', 'promote') AND NOT c.undone
             ORDER BY c.id DESC LIMIT 1"#,
            self.model,
            alias.as_str()
        )
        .fetch_optional(&mut *self.conn)
        .await?;
        let found = change.and_then(|c| Some((c.id, c.before?, c.version?)));
        let (change, before, version) = found.ok_or_else(|| {
            nothing(format!(
                "no version had {name}@{alias} before; promote one instead"
            ))
        })?;
        let version: u32 = Row::new("model_versions", &before).number("version", version)?;
        let target = self.lock(version).await.map_err(|e| match e {
            StoreError::NotFound { .. } => nothing(format!(
                "version {version}, which had {name}@{alias} before, is deleted; promote another one"
            )),
            e => e,
        })?;
        sqlx::query!(
            "UPDATE model_alias_changes SET undone = true WHERE id = $1",
            change
        )
        .execute(&mut *self.conn)
        .await?;
        Ok(target)
    }

    /// Forgets what a demotion could go back to.
    pub(super) async fn forget(&mut self) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE model_alias_changes SET undone = true WHERE model_id = $1 AND alias = $2 AND NOT undone",
            self.model,
            self.alias.as_str()
        )
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }
}
