//! What happened to endpoints, and why.

use nereid_core::{
    Name,
    endpoints::{EndpointEvent, EndpointEventKind},
    ids::ProjectId,
};
use serde_json::Value;
use uuid::Uuid;

use crate::{Page, PageRequest, ResourceKind, Store, StoreError, connection::Tx, rows::Row};

/// Records an event of an endpoint that this transaction has locked, or locks by that.
pub(super) async fn record(
    conn: &mut Tx,
    endpoint: Uuid,
    kind: EndpointEventKind,
    data: &Value,
) -> Result<(), StoreError> {
    sqlx::query!(
        "WITH numbered AS (
             UPDATE endpoints SET last_event_seq = last_event_seq + 1 WHERE id = $1 RETURNING last_event_seq)
         INSERT INTO endpoint_events (endpoint_id, seq, kind, data) SELECT $1, last_event_seq, $2, $3 FROM numbered",
        endpoint,
        kind.as_str(),
        data
    )
    .execute(conn)
    .await?;
    Ok(())
}

impl Store {
    /// Lists the events of an endpoint, newest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] `invalid_page_token`.
    pub async fn endpoint_events(
        &self,
        project: ProjectId,
        name: &Name,
        page: &PageRequest,
    ) -> Result<Page<EndpointEvent>, StoreError> {
        let before = page.position::<i64>()?;
        let endpoint = sqlx::query_scalar!(
            "SELECT id FROM endpoints WHERE project_id = $1 AND name = $2 AND deleted_at IS NULL",
            project.0,
            name.as_str()
        )
        .fetch_optional(&self.pool)
        .await?
        .ok_or_else(|| StoreError::not_found(ResourceKind::Endpoint, name))?;
        let rows = sqlx::query!(
            "SELECT seq, kind, data, at FROM endpoint_events
             WHERE endpoint_id = $1 AND ($2::bigint IS NULL OR seq < $2) ORDER BY seq DESC LIMIT $3",
            endpoint,
            before,
            page.limit()
        )
        .fetch_all(&self.pool)
        .await?;
        page.page(
            rows,
            |r| r.seq,
            |r| {
                let row = Row::new("endpoint_events", &r.seq);
                Ok(EndpointEvent {
                    seq: row.number("seq", r.seq)?,
                    kind: row.word("kind", &r.kind)?,
                    data: r.data,
                    at: r.at,
                })
            },
        )
    }
}
