//! A durable Postgres under the test's control: it stops, crashes, stays away and comes back.

use std::path::{Path, PathBuf};

use nereid_local::{ManagedPostgres, PostgresOptions};
use sqlx::{AssertSqlSafe, Connection, FromRow, PgConnection, postgres::PgRow};
use tokio::sync::{Mutex, watch};

use crate::{proxy::Server, support::signal_process};

/// Name of Nereid's database.
pub const DATABASE: &str = "nereid";

/// How a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Cuts connections and writes everything down.
    Fast,
    /// As in a crash: the next start recovers.
    Immediate,
}

pub struct Postgres {
    folder: PathBuf,
    server: Mutex<Option<ManagedPostgres>>,
    /// Where it listens; another socket after each start.
    place: watch::Sender<Server>,
}

impl Postgres {
    /// Makes a cluster in `folder` with an empty database, and starts it.
    pub async fn start(folder: &Path) -> Self {
        let postgres = Self {
            folder: folder.to_owned(),
            server: Mutex::new(None),
            place: watch::Sender::new(Server::Unix(PathBuf::new())),
        };
        postgres.up().await;
        let mut maintenance = postgres.connect("postgres").await;
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {DATABASE}")))
            .execute(&mut maintenance)
            .await
            .unwrap();
        postgres
    }

    /// Where to connect to, now and after each start.
    pub fn place(&self) -> watch::Receiver<Server> {
        self.place.subscribe()
    }

    /// Starts it again on its data.
    pub async fn up(&self) {
        let mut server = self.server.lock().await;
        let started = ManagedPostgres::start(PostgresOptions::new(&self.folder)).await;
        let started = started.unwrap_or_else(|e| panic!("{e}"));
        let socket = started.socket_dir().join(".s.PGSQL.5432");
        self.place.send_replace(Server::Unix(socket));
        *server = Some(started);
    }

    /// Stops it and waits for its end.
    pub async fn down(&self, how: Stop) {
        let Some(server) = self.server.lock().await.take() else {
            return;
        };
        if how == Stop::Immediate {
            signal_process(self.postmaster(), "QUIT");
            server.exited().await;
        }
        server.stop().await.unwrap();
    }

    fn postmaster(&self) -> u32 {
        let lock = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        lock.lines().next().unwrap().parse().unwrap()
    }

    /// URL of Nereid's database, past all proxies; another one after each start.
    pub async fn url(&self) -> String {
        let server = self.server.lock().await;
        server.as_ref().expect("Postgres is up").url_of(DATABASE)
    }

    /// A connection of the test's own, past all proxies.
    pub async fn session(&self) -> PgConnection {
        self.connect(DATABASE).await
    }

    async fn connect(&self, database: &str) -> PgConnection {
        let url = {
            let server = self.server.lock().await;
            server.as_ref().expect("Postgres is up").url_of(database)
        };
        PgConnection::connect(&url).await.unwrap()
    }

    /// Rows of a query.
    pub async fn rows<T>(&self, query: &'static str) -> Vec<T>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let mut session = self.session().await;
        sqlx::query_as(query).fetch_all(&mut session).await.unwrap()
    }

    /// Ends all of Nereid's backends; returns how many there were.
    pub async fn terminate_backends(&self) -> usize {
        let ended = self
            .rows::<(bool,)>(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid()
                   AND application_name LIKE 'nereid %'",
            )
            .await;
        ended.len()
    }
}
