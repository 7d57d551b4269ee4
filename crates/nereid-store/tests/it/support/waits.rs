//! Locks that force an order, and what a test waits for instead of sleeping.

use std::time::Duration;

use sqlx::PgConnection;

use super::Db;

impl Db {
    /// Runs `lock` in a transaction that stays open until the returned connection is dropped.
    pub async fn hold(&self, lock: &'static str) -> PgConnection {
        let mut conn = self.connection().await;
        sqlx::raw_sql("BEGIN").execute(&mut conn).await.unwrap();
        let locked = sqlx::query(lock).fetch_all(&mut conn).await.unwrap();
        assert!(!locked.is_empty(), "nothing to lock: {lock}");
        conn
    }

    /// Waits until so many backends wait for locks that others hold.
    pub async fn until_waiting(&self, backends: usize) {
        let waiting = "SELECT query FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        self.until(|| async { self.texts(waiting).await.len() == backends })
            .await;
    }

    /// Waits until the leases of all running jobs have expired.
    pub async fn until_expired(&self) {
        let current = "SELECT job_id::text FROM job_leases
            WHERE state = 'running' AND expires_at >= clock_timestamp()";
        self.until(|| async { self.texts(current).await.is_empty() })
            .await;
    }

    /// Asks again and again until `true`, for at most half a minute.
    pub async fn until<F: Future<Output = bool>>(&self, is_so: impl Fn() -> F) {
        let asked = async {
            while !is_so().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), asked)
            .await
            .unwrap();
    }
}
