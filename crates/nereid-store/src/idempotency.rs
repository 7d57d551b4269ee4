//! Write transactions that a client can safely repeat: the response is stored with the change.

use nereid_core::ids::ProjectId;
use serde::Serialize;
use serde_json::Value;

use crate::{Store, error::StoreError};

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
    pub(crate) tx: sqlx::Transaction<'static, sqlx::Postgres>,
    pub(crate) project: ProjectId,
    pub(crate) key: Option<IdempotencyKey>,
}

impl Store {
    /// Begins a write, unless a request with the same key has been answered.
    ///
    /// In flight means: another transaction holds the key's transaction-level advisory lock,
    /// which Postgres frees when its holder dies.
    ///
    /// # Errors
    /// [`StoreError::IdempotencyInFlight`] or [`StoreError::IdempotencyMismatch`].
    pub async fn begin(&self, project: ProjectId, key: Option<IdempotencyKey>) -> Result<Begun, StoreError> { todo!() }
}

impl WriteTx {
    /// Commits, storing the response under the key if there is one.
    pub async fn commit<T: Serialize + Sync>(self, status: u16, body: &T) -> Result<(), StoreError> { todo!() }
}
