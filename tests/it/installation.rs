//! An installation of several processes: Postgres and S3 as an operator would provide them, and
//! the roles as processes of their own.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use nereid_client::Client;
use nereid_local::{EmbeddedS3, EmbeddedS3Options, ManagedPostgres, PostgresOptions};
use tempfile::TempDir;

use crate::support::*;

/// Postgres and S3, and the configuration that leads to them.
pub struct Installation {
    pub s3: EmbeddedS3,
    postgres: Mutex<Option<ManagedPostgres>>,
    pub folder: TempDir,
}

impl Installation {
    /// Starts Postgres and S3; the schema is left to the caller.
    pub async fn start() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("nereid-it-")
            // Postgres may run as another user, who has to get through.
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let s3 = EmbeddedS3::start(EmbeddedS3Options {
            root: folder.path().join("s3"),
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            access_key: "operator".to_owned(),
            secret_key: "operator-secret".to_owned(),
            buckets: Vec::new(),
            durable: false,
        })
        .await
        .unwrap();
        let installation = Self {
            s3,
            postgres: Mutex::new(None),
            folder,
        };
        installation.start_postgres().await;
        installation
    }

    /// As [`Installation::start`], with a schema; returns an administrator's key, too.
    pub async fn migrated() -> (Self, String) {
        let installation = Self::start().await;
        let (migrated, _, error) = installation.run(&["migrate"]).await;
        assert!(migrated, "{error}");
        let key = installation.key("admin").await;
        (installation, key)
    }

    /// Starts Postgres on its data, under the same address as before.
    pub async fn start_postgres(&self) {
        let options = PostgresOptions {
            // What was committed must be there after a crash.
            durable: true,
            ..PostgresOptions::for_tests(self.folder.path().join("postgres"))
        };
        let started = ManagedPostgres::start(options).await.unwrap();
        // Each start has a socket of its own; the link to it stays where it is.
        let _ = std::fs::remove_file(self.socket());
        std::os::unix::fs::symlink(started.socket_dir(), self.socket()).unwrap();
        *self.postgres.lock().unwrap() = Some(started);
    }

    /// Ends Postgres by a signal to it: `INT` is its fast shutdown, `QUIT` the immediate one.
    pub async fn end_postgres(&self, signal: &str) {
        let postgres = self.postgres.lock().unwrap().take().expect("it runs");
        signal_process(self.postmaster(), signal);
        postgres.exited().await;
    }

    /// Sends a signal to Postgres and all of its backends.
    pub fn signal_all_of_postgres(&self, signal: &str) {
        let postmaster = self.postmaster();
        let output = Command::new("ps")
            .args(["-eo", "pid,ppid"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let pairs = text.lines().filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse::<u32>);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        });
        // The parent first, so that it cannot start others meanwhile.
        signal_process(postmaster, signal);
        for (pid, _) in pairs.filter(|(_, parent)| *parent == postmaster) {
            signal_process(pid, signal);
        }
    }

    fn postmaster(&self) -> u32 {
        let lock = self.folder.path().join("postgres/data/postmaster.pid");
        let text = std::fs::read_to_string(lock).unwrap();
        text.lines().next().unwrap().parse().unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// URL of the database, the same after each start of Postgres.
    pub fn database(&self) -> String {
        let socket = self.socket();
        format!(
            "postgres://nereid@localhost:5432/postgres?host={}&sslmode=disable",
            socket.display()
        )
    }

    /// A command of the binary that is configured for these services.
    pub fn nereid(&self, args: &[&str]) -> Command {
        let mut command = nereid();
        command
            .args(args)
            .env("DATABASE_URL", self.database())
            .env("NEREID__OBJECTS__BUCKET", "models")
            .env("NEREID__OBJECTS__ENDPOINT", self.s3.endpoint())
            .env("NEREID__OBJECTS__REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "operator")
            .env("AWS_SECRET_ACCESS_KEY", "operator-secret")
            .env("NEREID__API__LISTEN", "127.0.0.1:0")
            .env(
                "NEREID__WORKER__DATA_DIR",
                self.folder.path().join("worker"),
            );
        command
    }

    /// Runs a command to its end, off the thread that serves S3.
    pub async fn run(&self, args: &[&str]) -> (bool, String, String) {
        let mut command = tokio::process::Command::from(self.nereid(args));
        let output = command.output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap().trim().to_owned();
        (
            output.status.success(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// Makes a key of a role.
    pub async fn key(&self, role: &str) -> String {
        let (made, key, error) = self.run(&["key", "create", "--role", role]).await;
        assert!(made && key.starts_with("nrd_"), "{error}");
        key
    }
}

/// A role's process; ended when dropped.
pub struct Role {
    child: Child,
    /// What it printed when it was ready.
    pub line: String,
}

impl Role {
    /// Starts a role and waits until it is ready.
    pub async fn start(mut command: Command) -> Self {
        let start = move || {
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let line = lines.next().expect("it gets ready").unwrap();
            std::thread::spawn(move || lines.for_each(drop));
            Self { child, line }
        };
        tokio::task::spawn_blocking(start).await.unwrap()
    }

    /// Address that an API printed.
    pub fn url(&self) -> &str {
        let line = self.line.trim().strip_prefix("API");
        line.expect("an address").trim()
    }

    /// A client of an API.
    pub fn client(&self, key: &str) -> Client {
        Client::new(self.url(), Some(key.to_owned())).unwrap()
    }

    /// Tells whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if self.is_alive() {
            signal_process(self.child.id(), "TERM");
            let _ = self.child.wait();
        }
    }
}
