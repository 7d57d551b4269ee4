//! The handle on the database that everything else hangs on.

use std::{sync::Arc, time::Duration};

use nereid_core::ids::KeyId;

use crate::{connection::Pool, error::StoreError, group::Groups, notify::Pending};

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
    pub(crate) pool: Pool,
    /// For the few statements that the queue lives on.
    pub(crate) by_key: Pool,
    /// Submissions and ends, which are committed together.
    pub(crate) groups: Arc<Groups>,
    /// Wake-ups that [`Store::listen`]'s future is to send.
    pub(crate) pending: Arc<Pending>,
    /// Whose changes the audit log records.
    pub(crate) actor: Option<KeyId>,
}

impl Store {
    /// Connects; does not migrate.
    ///
    /// # Errors
    /// [`StoreError::Database`] if the URL is malformed or Postgres does not answer.
    pub async fn connect(options: &StoreOptions) -> Result<Self, StoreError> {
        let by_key = Pool::by_key(options)?;
        let pending = Arc::default();
        Ok(Self {
            pool: Pool::connect(options).await?,
            groups: Arc::new(Groups::start(&by_key, &pending)),
            by_key,
            pending,
            actor: None,
        })
    }

    /// Returns this store with changes recorded as made by `actor`; shares all connections.
    #[must_use]
    pub fn with_actor(&self, actor: Option<KeyId>) -> Self {
        Self {
            actor,
            ..self.clone()
        }
    }

    /// Makes the monthly partitions of the coming months; worth calling once a day.
    ///
    /// Rows of a month without a partition go to a default one, so a missed call loses nothing.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn ensure_partitions(&self) -> Result<(), StoreError> {
        sqlx::query!("SELECT ensure_partitions()")
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// One round trip, for readiness.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query!("SELECT 1 AS one")
            .fetch_one(&self.pool)
            .await?;
        Ok(())
    }

    /// The secret shared by all processes on this database, for calls between API and workers.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn cluster_secret(&self) -> Result<String, StoreError> {
        let secret = sqlx::query_scalar!("SELECT value FROM settings WHERE key = 'cluster_secret'");
        Ok(secret.fetch_one(&self.pool).await?)
    }

    /// Closes all connections.
    pub async fn close(&self) {
        tokio::join!(self.pool.inner().close(), self.by_key.inner().close());
    }
}
