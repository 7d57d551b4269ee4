//! Write transactions that a client can safely repeat: the response is stored with the change.

use std::sync::Arc;

use nereid_core::ids::{KeyId, ProjectId};
use serde::Serialize;
use serde_json::Value;

use crate::{
    Store, audit,
    connection::Tx,
    error::StoreError,
    notify::{Pending, Wake},
    rows::{self, Row},
};

/// A client's `Idempotency-Key` with the fingerprint of the request it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The header's value.
    pub key: String,
    /// SHA-256 over method, path, query and body.
    pub fingerprint: Vec<u8>,
}

/// Response of the first request with a key.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredResponse {
    /// HTTP status.
    pub status: u16,
    /// JSON body.
    pub body: Value,
}

/// Outcome of [`Store::begin`].
#[derive(Debug)]
pub enum Begun {
    /// Do the work in this transaction.
    Fresh(WriteTx),
    /// It was done before; answer with this.
    Replay(StoredResponse),
}

/// A write transaction of a client's request; rolled back when dropped.
///
/// Use cases of `POST` requests are methods of it (in `datasets`, `jobs`, `models`, `endpoints`,
/// `keys`), so that change and stored response commit together.
#[derive(Debug)]
pub struct WriteTx {
    pub(crate) tx: Tx,
    pub(crate) project: ProjectId,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) actor: Option<KeyId>,
    pending: Arc<Pending>,
    /// Sent after the commit: before, the change could not be seen yet.
    wakes: Vec<Wake>,
}

impl Store {
    /// Begins a write, unless a request with the same key has been answered.
    ///
    /// In flight means: another transaction holds the key's transaction-level advisory lock,
    /// which Postgres frees when its holder dies.
    ///
    /// # Errors
    /// [`StoreError::IdempotencyInFlight`] or [`StoreError::IdempotencyMismatch`].
    pub async fn begin(
        &self,
        project: ProjectId,
        key: Option<IdempotencyKey>,
    ) -> Result<Begun, StoreError> {
        let mut write = WriteTx {
            tx: self.pool.begin().await?,
            project,
            key,
            actor: self.actor,
            pending: Arc::clone(&self.pending),
            wakes: Vec::new(),
        };
        let known = match write.replay().await {
            Ok(None) => return Ok(Begun::Fresh(write)),
            Ok(Some(response)) => Ok(Begun::Replay(response)),
            Err(e) => Err(e),
        };
        // The key is free again before the answer is out: a client that sends the next request at
        // once must not be told that this one is still under way.
        if let Err(e) = write.rollback().await {
            tracing::debug!(error = %e, "the connection of an answered request is given up");
        }
        known
    }
}

impl WriteTx {
    /// Has the audit log name `actor` as the one who makes the change.
    #[must_use]
    pub fn with_actor(mut self, actor: Option<KeyId>) -> Self {
        self.actor = actor;
        self
    }

    /// Commits, storing the response under the key if there is one.
    ///
    /// # Errors
    /// [`StoreError::Database`]; whether the change was made is then unknown, and a repetition
    /// with the same key tells.
    pub async fn commit<T: Serialize + Sync>(
        mut self,
        status: u16,
        body: &T,
    ) -> Result<(), StoreError> {
        if let Some(key) = &self.key {
            sqlx::query!(
                "INSERT INTO idempotency_keys (project_id, key, fingerprint, status, body) VALUES ($1, $2, $3, $4, $5)",
                self.project.0,
                key.key,
                key.fingerprint,
                i32::from(status),
                rows::json(body)?
            )
            .execute(&mut self.tx)
            .await?;
        }
        self.tx.commit().await?;
        for wake in self.wakes {
            self.pending.add(wake);
        }
        Ok(())
    }

    /// Undoes everything and frees the key before it returns; a mere drop frees it some time later.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn rollback(self) -> Result<(), StoreError> {
        Ok(self.tx.rollback().await?)
    }

    /// Notes a wake-up for after the commit.
    pub(crate) fn wake(&mut self, wake: Wake) {
        self.wakes.push(wake);
    }

    /// Records a change of this transaction in the audit log.
    pub(crate) async fn audit(&mut self, action: &str, resource: &str) -> Result<(), StoreError> {
        audit::record(&mut self.tx, self.project, self.actor, action, resource).await
    }

    async fn replay(&mut self) -> Result<Option<StoredResponse>, StoreError> {
        let Some(key) = &self.key else {
            return Ok(None);
        };
        let locked = sqlx::query_scalar!(
            r#"SELECT pg_try_advisory_xact_lock(hashtextextended($1::text || ':' || $2::text, 0)) AS "locked!""#,
            self.project.to_string(),
            key.key
        )
        .fetch_one(&mut self.tx)
        .await?;
        if !locked {
            return Err(StoreError::IdempotencyInFlight);
        }
        let row = sqlx::query!(
            "SELECT fingerprint, status, body FROM idempotency_keys WHERE project_id = $1 AND key = $2",
            self.project.0,
            key.key
        )
        .fetch_optional(&mut self.tx)
        .await?;
        match row {
            None => Ok(None),
            Some(row) if row.fingerprint != key.fingerprint => Err(StoreError::IdempotencyMismatch),
            Some(row) => Ok(Some(StoredResponse {
                status: Row::new("idempotency_keys", &key.key).number("status", row.status)?,
                body: row.body,
            })),
        }
    }
}
