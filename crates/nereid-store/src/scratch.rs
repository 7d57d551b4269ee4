//! Databases for a while: made on a given server, and dropped again. For benchmarks.

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use url::Url;
use uuid::Uuid;

use crate::StoreError;

/// An empty database that nobody else knows; stays until [`ScratchDatabase::drop`].
#[derive(Debug)]
pub struct ScratchDatabase {
    server: String,
    name: String,
    url: String,
}

/// What decides how long a commit takes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ServerSettings {
    /// Version of Postgres.
    pub version: String,
    /// Whether commits reach the disk.
    pub fsync: String,
    /// Whether a commit waits for that.
    pub synchronous_commit: String,
}

impl ScratchDatabase {
    /// Makes a database on the server at `server`, whose user must be allowed to.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn create(server: &str) -> Result<Self, StoreError> {
        let mut url = Url::parse(server).map_err(|e| sqlx::Error::Configuration(e.into()))?;
        let name = format!("nereid_bench_{}", Uuid::now_v7().simple());
        url.set_path(&name);
        let scratch = Self {
            server: server.to_owned(),
            name,
            url: url.to_string(),
        };
        scratch.administer("CREATE DATABASE", "").await?;
        Ok(scratch)
    }

    /// How to connect to it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The settings of its server.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn settings(&self) -> Result<ServerSettings, StoreError> {
        let mut conn = PgConnection::connect(&self.url).await?;
        let row = sqlx::query!(
            r#"SELECT current_setting('server_version') AS "version!", current_setting('fsync') AS "fsync!",
                      current_setting('synchronous_commit') AS "synchronous_commit!""#
        )
        .fetch_one(&mut conn)
        .await?;
        conn.close().await?;
        Ok(ServerSettings {
            version: row.version,
            fsync: row.fsync,
            synchronous_commit: row.synchronous_commit,
        })
    }

    /// Removes all jobs, as if none had ever been submitted.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn clear_jobs(&self) -> Result<(), StoreError> {
        let mut conn = PgConnection::connect(&self.url).await?;
        sqlx::query!("TRUNCATE jobs, job_leases, job_attempts, job_events CASCADE")
            .execute(&mut conn)
            .await?;
        Ok(conn.close().await?)
    }

    /// Drops it, with all connections that are still open.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn drop(self) -> Result<(), StoreError> {
        self.administer("DROP DATABASE", "WITH (FORCE)").await
    }

    async fn administer(&self, verb: &str, options: &str) -> Result<(), StoreError> {
        let mut server = PgConnection::connect(&self.server).await?;
        // The name is made of hexadecimal digits above.
        let statement = format!("{verb} {} {options}", self.name);
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut server)
            .await?;
        Ok(server.close().await?)
    }
}
