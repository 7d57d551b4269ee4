//! Migrations, and which binaries may use which schema.
//!
//! A database may be newer than a binary: migrations first only add, and `settings.oldest_binary`
//! says which migration a binary must know, so that two versions can run side by side while the
//! servers are upgraded. It is raised by the later migration that takes the old things away.

use std::collections::HashMap;

use sqlx::{
    Connection, PgConnection,
    migrate::{MigrateError, Migrator},
};

use crate::{Store, StoreError};

/// All migrations, embedded. Those that only a newer binary knows are no error.
static MIGRATOR: Migrator = {
    let mut migrator = sqlx::migrate!("../../migrations");
    migrator.ignore_missing = true;
    migrator
};

/// What the database says of its schema.
#[derive(Debug, Clone, Default)]
struct Schema {
    /// Migrations: version, whether it was completed, checksum.
    applied: Vec<(i64, bool, Vec<u8>)>,
    /// Migration that a binary must know.
    oldest_binary: i64,
}

impl Store {
    /// Applies all pending migrations (guarded by an advisory lock) and ensures partitions. A newer database is left as
    /// it is, if this binary may use it.
    ///
    /// # Errors
    /// [`StoreError::Schema`] if an applied migration was edited or left half done, or this binary is too old.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        if let Some(schema) = self.schema().await? {
            schema.check_applied().map_err(StoreError::Schema)?;
        }
        // Apart from the pool, for neither locks nor statements of a migration have a time limit.
        let options = self.pool.inner().connect_options();
        let unlimited = [("statement_timeout", "0"), ("lock_timeout", "0")];
        let options = (*options).clone().options(unlimited);
        let mut conn = PgConnection::connect_with(&options).await?;
        MIGRATOR.run(&mut conn).await.map_err(|e| match e {
            MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) => e.into(),
            other => StoreError::Schema(format!("cannot migrate: {other}")),
        })?;
        conn.close().await?;
        self.ensure_partitions().await
    }

    /// Fails with [`StoreError::Schema`] unless this binary may use the database as it is.
    ///
    /// # Errors
    /// [`StoreError::Schema`] says which migration is missing or different, or which Nereid it takes.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        let Some(schema) = self.schema().await? else {
            let text = "the database has no Nereid schema yet: run `nereid migrate`";
            return Err(StoreError::Schema(text.to_owned()));
        };
        schema
            .check_applied()
            .and_then(|()| schema.check_complete())
            .map_err(StoreError::Schema)
    }

    /// Reads what the database says of its schema; nothing if it has none.
    async fn schema(&self) -> Result<Option<Schema>, StoreError> {
        // Not checked at compile time: sqlx makes this table when it first migrates.
        let applied = sqlx::query_as::<_, (i64, bool, Vec<u8>)>(
            "SELECT version, success, checksum FROM _sqlx_migrations ORDER BY version",
        )
        .fetch_all(&self.pool)
        .await;
        let applied = match applied {
            // 42P01: undefined_table.
            Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some("42P01") => {
                return Ok(None);
            }
            other => other?,
        };
        if applied.is_empty() {
            return Ok(None);
        }
        let oldest = sqlx::query_scalar!("SELECT value FROM settings WHERE key = 'oldest_binary'")
            .fetch_optional(&self.pool)
            .await?;
        let oldest_binary = match oldest {
            Some(level) => level.parse().map_err(|e| {
                crate::rows::Row::new("settings", &"oldest_binary").corrupt("value", e)
            })?,
            None => 0,
        };
        Ok(Some(Schema {
            applied,
            oldest_binary,
        }))
    }
}

impl Schema {
    /// Fails if what has been applied does not fit this binary.
    fn check_applied(&self) -> Result<(), String> {
        let known: HashMap<i64, &[u8]> = MIGRATOR
            .iter()
            .map(|m| (m.version, m.checksum.as_ref()))
            .collect();
        let newest = known.keys().max().copied().unwrap_or(0);
        if newest < self.oldest_binary {
            return Err(format!(
                "the database needs a Nereid that knows migration {}, this one ({}) knows none after {newest}: use a newer Nereid",
                self.oldest_binary,
                env!("CARGO_PKG_VERSION")
            ));
        }
        for (version, success, checksum) in &self.applied {
            if !success {
                return Err(format!(
                    "migration {version} was left half done: repair it, then run `nereid migrate`"
                ));
            }
            let same = known.get(version).map(|known| known == checksum);
            if same == Some(false) || (same.is_none() && *version < newest) {
                return Err(format!(
                    "migration {version} in the database is not one of this binary: use the Nereid that made it"
                ));
            }
        }
        Ok(())
    }

    /// Fails if something is still to be applied.
    fn check_complete(&self) -> Result<(), String> {
        let missing = MIGRATOR
            .iter()
            .filter(|m| !self.applied.iter().any(|a| a.0 == m.version));
        match missing.map(|m| m.version).min() {
            Some(version) => Err(format!(
                "the database lacks migration {version}, which this Nereid needs: run `nereid migrate`"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Schema {
        let applied = MIGRATOR
            .iter()
            .map(|m| (m.version, true, m.checksum.to_vec()))
            .collect();
        Schema {
            applied,
            oldest_binary: 1,
        }
    }

    fn refusal(change: impl FnOnce(&mut Schema)) -> String {
        let mut schema = ours();
        change(&mut schema);
        schema
            .check_applied()
            .and_then(|()| schema.check_complete())
            .unwrap_err()
    }

    #[test]
    fn says_what_to_do_about_a_schema_that_does_not_fit() {
        let lacking = refusal(|s| {
            s.applied.pop();
        });
        assert!(lacking.contains("run `nereid migrate`"), "{lacking}");
        let old = refusal(|s| s.oldest_binary = 9999);
        assert!(old.contains("knows migration 9999") && old.contains("newer Nereid"));
        assert!(refusal(|s| s.applied[0].2.push(0)).contains("is not one of"));
        assert!(refusal(|s| s.applied[0].1 = false).contains("half done"));
        let other = refusal(|s| s.applied.insert(0, (0, true, vec![])));
        assert!(other.contains("is not one of"), "{other}");
    }

    #[test]
    fn a_database_may_be_newer_as_long_as_it_suits_this_binary() {
        let mut schema = ours();
        schema.applied.push((9999, true, vec![]));
        assert_eq!(schema.check_applied(), Ok(()));
        assert_eq!(schema.check_complete(), Ok(()));
    }
}
