//! A real Postgres as a child process: made, started, watched and stopped by Nereid.
//!
//! It is reached over a Unix socket in a private folder and never over the network. It stops with
//! its parent, however that ends; the next start finds the data again.

mod account;
mod binaries;
mod cluster;
mod supervisor;

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{sync::OnceCell, task::spawn_blocking};

use self::{
    account::Account,
    binaries::Binaries,
    cluster::Cluster,
    supervisor::{Launch, Supervisor},
};
use crate::{DirectoryLock, LocalError};

/// Name of the database superuser, the only role there is.
const SUPERUSER: &str = "nereid";
/// Names the socket, and nothing else: the server does not listen on TCP.
const PORT: u16 = 5432;
/// Parent of the sockets' folders; short, because a socket's path has at most 107 bytes.
const SOCKETS_PARENT: &str = "/tmp";
/// Longest start, crash recovery included.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest stop; the watching shell escalates to a kill well before.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a starting server's state is read from its lock file.
const READY_POLL: Duration = Duration::from_millis(5);
/// Pause before a start is repeated that the last server's dying processes prevented.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How to run a [`ManagedPostgres`].
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Folder of its data, log and lock; created if missing.
    pub data_dir: PathBuf,
    /// Folder with `initdb`, `postgres` and `pg_ctl`; searched for if not given.
    pub bin_dir: Option<PathBuf>,
    /// Whether committed data must survive a crash of the machine; off only in tests.
    pub durable: bool,
    /// Memory for pages in MiB.
    pub shared_buffers_mib: u32,
    /// Most connections at a time.
    pub max_connections: u32,
}

impl PostgresOptions {
    /// Durable and fit for a small machine.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            bin_dir: None,
            durable: true,
            shared_buffers_mib: 128,
            max_connections: 100,
        }
    }

    /// Fast, forgetful in a crash, and open to many tests at a time.
    #[must_use]
    pub fn for_tests(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            durable: false,
            shared_buffers_mib: 32,
            max_connections: 400,
            ..Self::new(data_dir)
        }
    }
}

/// A Postgres server that lives as long as this value, and no longer than this process.
///
/// [`stop`](Self::stop) waits for its end; a mere drop only asks for it.
#[derive(Debug)]
pub struct ManagedPostgres {
    socket_dir: PathBuf,
    supervisor: Supervisor,
    _lock: DirectoryLock,
}

impl ManagedPostgres {
    /// Starts the server, making the cluster on the first start, and waits until it accepts.
    ///
    /// A server that an earlier Nereid left behind on the same data is stopped first.
    ///
    /// # Errors
    /// If no Postgres is installed, another Nereid uses the directory, or the server fails.
    pub async fn start(options: PostgresOptions) -> Result<Self, LocalError> {
        let prepare = move || Prepared::durable(&options).map(|prepared| (options, prepared));
        let (options, prepared) = spawn_blocking(prepare)
            .await
            .map_err(|_| LocalError::Interrupted)??;
        prepared.serve(&options).await
    }

    /// The server that all tests of this process share.
    ///
    /// It is started by the first caller, and gone with its files when the process ends. Give
    /// each test a database of its own.
    ///
    /// # Errors
    /// If no Postgres is installed or the server fails.
    pub async fn ephemeral() -> Result<&'static Self, LocalError> {
        static SHARED: OnceCell<ManagedPostgres> = OnceCell::const_new();
        SHARED
            .get_or_try_init(|| async {
                let (options, prepared) = spawn_blocking(Prepared::ephemeral)
                    .await
                    .map_err(|_| LocalError::Interrupted)??;
                prepared.serve(&options).await
            })
            .await
    }

    /// URL of the maintenance database `postgres`, for sqlx.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// URL of another database of this server, whether or not it exists yet.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        format!(
            "postgres://{SUPERUSER}@localhost:{PORT}/{database}?host={}&sslmode=disable",
            self.socket_dir.display()
        )
    }

    /// Folder of its socket.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// Waits until the server has ended, asked to or not, and says how.
    pub async fn exited(&self) -> String {
        self.supervisor.exited().await
    }

    /// Stops the server: connections are cut, data is written; after five seconds by force.
    ///
    /// # Errors
    /// If it has not ended even so.
    pub async fn stop(self) -> Result<(), LocalError> {
        self.supervisor.close();
        tokio::time::timeout(STOP_TIMEOUT, self.supervisor.exited())
            .await
            .map(drop)
            .map_err(|_| LocalError::Program {
                program: "postgres",
                status: "still running".to_owned(),
                output: format!("not stopped within {} s", STOP_TIMEOUT.as_secs()),
            })
    }
}

/// What is there before the server is.
struct Prepared {
    account: Account,
    binaries: Binaries,
    cluster: Cluster,
    socket_dir: TempDir,
    /// All files of a throw-away server.
    scratch: Option<TempDir>,
    lock: DirectoryLock,
}

impl Prepared {
    fn durable(options: &PostgresOptions) -> Result<Self, LocalError> {
        Self::new(options, Account::choose()?, None)
    }

    fn ephemeral() -> Result<(PostgresOptions, Self), LocalError> {
        let account = Account::choose()?;
        let scratch = private_dir("nereid-test-pg-", account)?;
        let options = PostgresOptions::for_tests(scratch.path());
        let prepared = Self::new(&options, account, Some(scratch))?;
        Ok((options, prepared))
    }

    fn new(
        options: &PostgresOptions,
        account: Account,
        scratch: Option<TempDir>,
    ) -> Result<Self, LocalError> {
        let lock = DirectoryLock::acquire(&options.data_dir)?;
        let data_dir = options
            .data_dir
            .canonicalize()
            .map_err(LocalError::io("find", &options.data_dir))?;
        let binaries = Binaries::find(options.bin_dir.as_deref())?;
        let cluster = Cluster::prepare(&data_dir, options.durable, account, &binaries)?;
        cluster.stop_leftover(account, &binaries)?;
        Ok(Self {
            socket_dir: private_dir("nereid-pg-", account)?,
            account,
            binaries,
            cluster,
            scratch,
            lock,
        })
    }

    async fn serve(self, options: &PostgresOptions) -> Result<ManagedPostgres, LocalError> {
        let began = Instant::now();
        let arguments = server_arguments(options, &self.cluster, self.socket_dir.path());
        let supervisor = loop {
            let supervisor = Supervisor::spawn(Launch {
                account: self.account,
                server: &self.binaries.postgres,
                arguments: &arguments,
                socket_dir: self.socket_dir.path(),
                scratch: self.scratch.as_ref().map(TempDir::path),
                log: self.cluster.open_log(self.account)?,
            })?;
            match wait_until_ready(&supervisor, &self.cluster, began).await {
                Ok(()) => break supervisor,
                Err(error) if began.elapsed() < START_TIMEOUT && is_transient(&error) => {
                    recreate(self.socket_dir.path(), self.account)?;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        };
        let elapsed_ms = began.elapsed().as_millis();
        tracing::info!(data = %self.cluster.data.display(), elapsed_ms, "Postgres is ready");
        // From here on the shell deletes them, because it alone outlives us.
        if let Some(scratch) = self.scratch {
            let _ = scratch.keep();
        }
        Ok(ManagedPostgres {
            socket_dir: self.socket_dir.keep(),
            supervisor,
            _lock: self.lock,
        })
    }
}

async fn wait_until_ready(
    supervisor: &Supervisor,
    cluster: &Cluster,
    began: Instant,
) -> Result<(), LocalError> {
    let failed = |what| LocalError::PostgresStart {
        what,
        log_file: cluster.log.clone(),
        log: cluster.log_tail(),
    };
    while !cluster.is_ready() {
        if began.elapsed() > START_TIMEOUT {
            supervisor.close();
            let seconds = START_TIMEOUT.as_secs();
            return Err(failed(format!("was not ready within {seconds} s")));
        }
        tokio::select! {
            status = supervisor.exited() => {
                return Err(failed(format!("ended while starting ({status})")));
            }
            () = tokio::time::sleep(READY_POLL) => {}
        }
    }
    Ok(())
}

/// The last server was killed and its processes are just ending.
fn is_transient(error: &LocalError) -> bool {
    matches!(error, LocalError::PostgresStart { log, .. } if log.contains("pre-existing shared memory block"))
}

/// A new folder that only the server's user, and root, can enter.
fn private_dir(prefix: &str, account: Account) -> Result<TempDir, LocalError> {
    let dir = tempfile::Builder::new()
        .prefix(prefix)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(SOCKETS_PARENT)
        .map_err(LocalError::io("create a folder in", SOCKETS_PARENT))?;
    account.own(dir.path())?;
    Ok(dir)
}

/// Makes the socket's folder again, which the shell of a failed start has deleted.
fn recreate(dir: &Path, account: Account) -> Result<(), LocalError> {
    std::fs::create_dir(dir).map_err(LocalError::io("create", dir))?;
    std::fs::set_permissions(dir, Permissions::from_mode(0o700))
        .map_err(LocalError::io("close to others", dir))?;
    account.own(dir)
}

fn server_arguments(
    options: &PostgresOptions,
    cluster: &Cluster,
    socket_dir: &Path,
) -> Vec<String> {
    let on_off = |on| if on { "on" } else { "off" };
    let durable = on_off(options.durable);
    let settings = [
        ("listen_addresses", String::new()),
        ("unix_socket_directories", socket_dir.display().to_string()),
        ("port", PORT.to_string()),
        ("max_connections", options.max_connections.to_string()),
        (
            "shared_buffers",
            format!("{}MB", options.shared_buffers_mib),
        ),
        ("fsync", durable.to_owned()),
        ("synchronous_commit", durable.to_owned()),
        ("full_page_writes", durable.to_owned()),
        // Nobody replicates from this server: less to log and to keep.
        ("wal_level", "minimal".to_owned()),
        ("max_wal_senders", "0".to_owned()),
        ("max_wal_size", "512MB".to_owned()),
        // Short statements gain nothing from compilation and would pay for it.
        ("jit", "off".to_owned()),
        ("timezone", "UTC".to_owned()),
        ("log_timezone", "UTC".to_owned()),
        ("logging_collector", "off".to_owned()),
    ];
    let mut arguments = vec!["-D".to_owned(), cluster.data.display().to_string()];
    for (name, value) in settings {
        arguments.push("-c".to_owned());
        arguments.push(format!("{name}={value}"));
    }
    arguments
}
