//! The audit log: who changed what, written in the transaction of the change.

use chrono::{DateTime, Utc};
use nereid_core::{
    audit::AuditEntry,
    ids::{KeyId, ProjectId},
    keys::KeyRef,
};
use uuid::Uuid;

use crate::{Page, PageRequest, Store, StoreError, connection::Tx, rows::Row};

/// Records a change.
pub(crate) async fn record(
    conn: &mut Tx,
    project: ProjectId,
    actor: Option<KeyId>,
    action: &str,
    resource: &str,
) -> Result<(), StoreError> {
    record_detail(conn, project, actor, action, resource, None).await
}

/// Records a change with what it changed, or why.
pub(crate) async fn record_detail(
    conn: &mut Tx,
    project: ProjectId,
    actor: Option<KeyId>,
    action: &str,
    resource: &str,
    detail: Option<&str>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO audit_log (project_id, actor, action, resource, detail) VALUES ($1, $2, $3, $4, $5)",
        project.0,
        actor.map(|a| a.0),
        action,
        resource,
        detail
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Reads who did something, from a key's columns.
pub(crate) fn key_ref(
    row: Row<'_>,
    id: Option<Uuid>,
    name: Option<String>,
) -> Result<Option<KeyRef>, StoreError> {
    let (Some(id), Some(name)) = (id, name) else {
        return Ok(None);
    };
    Ok(Some(KeyRef {
        id: id.into(),
        name: row.name("name", name)?,
    }))
}

struct EntryRow {
    id: i64,
    at: DateTime<Utc>,
    actor: Option<Uuid>,
    actor_name: Option<String>,
    action: String,
    resource: String,
    detail: Option<String>,
}

impl TryFrom<EntryRow> for AuditEntry {
    type Error = StoreError;

    fn try_from(r: EntryRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: r.id,
            at: r.at,
            by: key_ref(Row::new("audit_log", &r.id), r.actor, r.actor_name)?,
            action: r.action,
            resource: r.resource,
            detail: r.detail,
        })
    }
}

impl Store {
    /// Lists changes of resources whose names begin with `prefix`, newest first.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `invalid_page_token`.
    pub async fn audit_log(
        &self,
        project: ProjectId,
        prefix: Option<&str>,
        page: &PageRequest,
    ) -> Result<Page<AuditEntry>, StoreError> {
        let rows = sqlx::query_as!(
            EntryRow,
            r#"SELECT l.id, l.at, l.actor, k.name AS "actor_name?", l.action, l.resource, l.detail
             FROM audit_log l LEFT JOIN api_keys k ON k.id = l.actor
             WHERE l.project_id = $1
               AND ($2::text IS NULL OR starts_with(l.resource, $2))
               AND ($3::bigint IS NULL OR l.id < $3)
             ORDER BY l.id DESC LIMIT $4"#,
            project.0,
            prefix,
            page.position::<i64>()?,
            page.limit()
        )
        .fetch_all(&self.pool)
        .await?;
        page.page(rows, |r| r.id, TryInto::try_into)
    }
}
