//! Connection pool, migrations and schema check.

use std::{collections::HashMap, str::FromStr, sync::Arc, time::Duration};

use nereid_core::ids::KeyId;
use sqlx::{
    PgPool,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{error::StoreError, notify::Pending};

/// All migrations, embedded.
static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

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
        let connect = PgConnectOptions::from_str(&options.url)?
            .application_name(&options.application_name)
            // A process that hangs within a transaction must not hold its locks for ever.
            .options([
                ("idle_in_transaction_session_timeout", "60s"),
                ("timezone", "UTC"),
            ]);
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            .connect_with(connect)
            .await?;
        Ok(Self {
            pool,
            pending: Arc::default(),
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

    /// Applies all pending migrations (guarded by an advisory lock) and ensures partitions.
    ///
    /// # Errors
    /// [`StoreError::Schema`] if an applied migration is unknown, was edited or was left half done.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        MIGRATOR.run(&self.pool).await.map_err(|e| match e {
            MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) => e.into(),
            other => StoreError::Schema(format!("cannot migrate: {other}")),
        })?;
        self.ensure_partitions().await
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

    /// Fails with [`StoreError::Schema`] unless the schema is one this binary knows.
    ///
    /// # Errors
    /// [`StoreError::Schema`] says which migration is missing, unknown or different.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        // Not checked at compile time: sqlx makes this table when it first migrates.
        let applied = sqlx::query_as::<_, (i64, bool, Vec<u8>)>(
            "SELECT version, success, checksum FROM _sqlx_migrations",
        )
        .fetch_all(&self.pool)
        .await;
        let applied = match applied {
            // 42P01: undefined_table.
            Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some("42P01") => {
                let text = "the database has no Nereid schema yet: run `nereid migrate`";
                return Err(StoreError::Schema(text.to_owned()));
            }
            other => other?,
        };
        check_migrations(&applied).map_err(StoreError::Schema)
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
        self.pool.close().await;
    }
}

fn check_migrations(applied: &[(i64, bool, Vec<u8>)]) -> Result<(), String> {
    let known: HashMap<i64, &[u8]> = MIGRATOR
        .iter()
        .map(|m| (m.version, m.checksum.as_ref()))
        .collect();
    let newest = known.keys().max().copied().unwrap_or(0);
    for (version, success, checksum) in applied {
        match known.get(version) {
            None => {
                return Err(format!(
                    "the database is at migration {version}, this binary knows none after {newest}: use a newer Nereid"
                ));
            }
            Some(_) if !success => {
                return Err(format!(
                    "migration {version} was left half done: repair it, then run `nereid migrate`"
                ));
            }
            Some(known) if known != checksum => {
                return Err(format!(
                    "migration {version} in the database is not the one of this binary: use the Nereid that made it"
                ));
            }
            Some(_) => {}
        }
    }
    let missing = known.keys().filter(|v| !applied.iter().any(|a| a.0 == **v));
    match missing.min() {
        Some(version) => Err(format!(
            "migration {version} has not been applied: run `nereid migrate`"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_to_do_about_a_schema_that_does_not_fit() {
        let ours: Vec<_> = MIGRATOR
            .iter()
            .map(|m| (m.version, true, m.checksum.to_vec()))
            .collect();
        assert_eq!(check_migrations(&ours), Ok(()));
        assert!(
            check_migrations(&[])
                .unwrap_err()
                .contains("run `nereid migrate`")
        );
        let mut newer = ours.clone();
        newer.push((9999, true, vec![]));
        assert!(
            check_migrations(&newer)
                .unwrap_err()
                .contains("newer Nereid")
        );
        let mut edited = ours.clone();
        edited[0].2.push(0);
        assert!(
            check_migrations(&edited)
                .unwrap_err()
                .contains("is not the one")
        );
        let mut half = ours;
        half[0].1 = false;
        assert!(check_migrations(&half).unwrap_err().contains("half done"));
    }
}
