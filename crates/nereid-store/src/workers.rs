//! Workers: registration, draining, listing.

use chrono::{DateTime, Utc};
use nereid_core::{
    ids::WorkerId,
    workers::{NewWorker, Worker},
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Page, PageRequest, ResourceKind, Store, StoreError,
    notify::Wake,
    rows::{self, Row},
};

mod pools;

pub use pools::{PoolLoad, PoolMember};

/// What a worker calls its sessions in Postgres (`application_name`), by which others find them.
#[must_use]
pub fn session_name(worker: WorkerId) -> String {
    format!("{SESSION_PREFIX}{worker}")
}

/// First part of the names of workers' sessions.
pub(crate) const SESSION_PREFIX: &str = "nereid worker ";

struct WorkerRow {
    id: Uuid,
    host: String,
    device: String,
    labels: Value,
    slots: i32,
    url: String,
    version: String,
    status: String,
    running: i64,
    started_at: DateTime<Utc>,
    heartbeat_at: DateTime<Utc>,
}

impl TryFrom<WorkerRow> for Worker {
    type Error = StoreError;

    fn try_from(r: WorkerRow) -> Result<Self, StoreError> {
        let row = Row::new("workers", &r.id);
        Ok(Self {
            info: NewWorker {
                id: r.id.into(),
                host: r.host,
                device: row.word("device", &r.device)?,
                labels: row.json("labels", r.labels)?,
                slots: row.number("slots", r.slots)?,
                url: r.url,
                version: r.version,
            },
            status: row.word("status", &r.status)?,
            running: row.number("running", r.running)?,
            started_at: r.started_at,
            heartbeat_at: r.heartbeat_at,
        })
    }
}

impl Store {
    /// Registers a worker as active; repeated, renews what it says of itself.
    ///
    /// Until its first heartbeat it counts as alive for half a minute.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn register_worker(&self, new: &NewWorker) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO workers (id, host, device, labels, slots, url, version, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, now() + interval '30 seconds')
             ON CONFLICT (id) DO UPDATE SET
                 host = excluded.host, device = excluded.device, labels = excluded.labels,
                 slots = excluded.slots, url = excluded.url, version = excluded.version,
                 status = 'active', heartbeat_at = now(), expires_at = excluded.expires_at,
                 retired_at = NULL",
            new.id.0,
            rows::clean(&new.host),
            new.device.as_str(),
            rows::json(&new.labels)?,
            rows::bind::<_, i32>(new.slots)?,
            new.url,
            new.version
        )
        .execute(&self.pool)
        .await?;
        self.notify(Wake::Endpoints);
        Ok(())
    }

    /// Status draining: claims nothing, its replicas move.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] `worker_gone`.
    pub async fn drain_worker(&self, id: WorkerId) -> Result<Worker, StoreError> {
        sqlx::query!(
            "UPDATE workers SET status = 'draining' WHERE id = $1 AND status = 'active'",
            id.0
        )
        .execute(&self.pool)
        .await?;
        let worker = self.worker(id).await?;
        if worker.status == nereid_core::workers::WorkerStatus::Gone {
            let what = format!("worker {id} is gone, so there is nothing to drain");
            return Err(StoreError::conflict("worker_gone", what));
        }
        self.notify(Wake::Endpoints);
        Ok(worker)
    }

    /// The worker left in good order.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn retire_worker(&self, id: WorkerId) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        sqlx::query_scalar!(
            "UPDATE workers SET status = 'gone', retired_at = now() WHERE id = $1 RETURNING id",
            id.0
        )
        .fetch_optional(&mut tx)
        .await?
        .ok_or_else(|| StoreError::not_found(ResourceKind::Worker, &id))?;
        sqlx::query!("DELETE FROM replicas WHERE worker_id = $1", id.0)
            .execute(&mut tx)
            .await?;
        tx.commit().await?;
        self.notify(Wake::Endpoints);
        Ok(())
    }

    /// Reads a worker.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn worker(&self, id: WorkerId) -> Result<Worker, StoreError> {
        let row = sqlx::query_as!(
            WorkerRow,
            r#"SELECT id, host, device, labels, slots, url, version, status, started_at, heartbeat_at,
                 (SELECT count(*) FROM job_leases l WHERE l.worker_id = w.id AND l.state = 'running') AS "running!"
             FROM workers w WHERE id = $1"#,
            id.0
        )
        .fetch_optional(&self.pool)
        .await?;
        row.ok_or_else(|| StoreError::not_found(ResourceKind::Worker, &id))?
            .try_into()
    }

    /// Lists workers, oldest first; those gone for more than an hour are left out.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `invalid_page_token`.
    pub async fn workers(&self, page: &PageRequest) -> Result<Page<Worker>, StoreError> {
        let rows = sqlx::query_as!(
            WorkerRow,
            r#"SELECT id, host, device, labels, slots, url, version, status, started_at, heartbeat_at,
                 (SELECT count(*) FROM job_leases l WHERE l.worker_id = w.id AND l.state = 'running') AS "running!"
             FROM workers w
             WHERE ($1::uuid IS NULL OR id > $1)
               AND (status <> 'gone' OR heartbeat_at > now() - interval '1 hour')
             ORDER BY id LIMIT $2"#,
            page.position::<Uuid>()?,
            page.limit()
        )
        .fetch_all(&self.pool)
        .await?;
        page.page(rows, |r| r.id, TryInto::try_into)
    }
}
