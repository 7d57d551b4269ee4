//! Connection pool, migrations and schema check.

use std::time::Duration;

use sqlx::PgPool;

use crate::error::StoreError;

/// How to connect.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// `postgres://…` URL; may hold a password, so it is never logged.
    pub url: String,
    /// Most connections of this process.
    pub max_connections: u32,
    /// Longest wait for a free connection.
    pub acquire_timeout: Duration,
    /// Name shown in `pg_stat_activity`.
    pub application_name: String,
}

/// Nereid's database.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) pool: PgPool,
}

impl Store {
    /// Connects; does not migrate.
    pub async fn connect(options: &StoreOptions) -> Result<Self, StoreError> { todo!() }
    /// Applies all pending migrations (guarded by an advisory lock) and ensures partitions.
    pub async fn migrate(&self) -> Result<(), StoreError> { todo!() }
    /// Fails with [`StoreError::Schema`] unless the schema is one this binary knows.
    pub async fn check_schema(&self) -> Result<(), StoreError> { todo!() }
    /// One round trip, for readiness.
    pub async fn ping(&self) -> Result<(), StoreError> { todo!() }
    /// The secret shared by all processes on this database, for calls between API and workers.
    pub async fn cluster_secret(&self) -> Result<String, StoreError> { todo!() }
    /// Closes all connections.
    pub async fn close(&self) { self.pool.close().await }
}
