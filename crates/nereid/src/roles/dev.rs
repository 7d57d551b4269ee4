//! `nereid dev`: every role in one process, with a managed Postgres and an embedded S3.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nereid_api::AuthMode;
use nereid_core::clock::SystemClock;
use nereid_local::{DirectoryLock, EmbeddedS3, ManagedPostgres, PostgresOptions};
use nereid_objects::Objects;
use nereid_store::{Store, keys::DEFAULT_PROJECT};
use nereid_worker::Worker;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    Listening,
    api::{self, Listeners},
    embedded_s3::{self, REGION},
};
use crate::{cli::DevArgs, config::Config, shutdown::Signals};

/// Bucket of the embedded S3.
const BUCKET: &str = "nereid";
/// Credentials of the embedded S3, which listens on loopback only.
const ACCESS_KEY: &str = "nereid";
const SECRET_KEY: &str = "nereid-dev-secret";

/// Runs until a signal comes.
pub async fn run(config: &Config, args: &DevArgs) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let Some(dev) = Dev::start_unless_stopped(config, args, &mut signals).await? else {
        return Ok(());
    };
    dev.print();
    println!("Ctrl-C stops it.");
    dev.run_until(signals).await
}

/// All roles, running.
pub struct Dev {
    /// Base URL of the API.
    pub api: String,
    /// Address of gRPC, unless it is off.
    grpc: Option<SocketAddr>,
    /// Where the objects are.
    objects: String,
    /// The objects themselves.
    pub storage: Objects,
    /// Where the rows are.
    database: &'static str,
    data_dir: PathBuf,
    shutdown: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
    listening: Option<Listening>,
    store: Store,
    postgres: Option<Arc<ManagedPostgres>>,
    s3: Option<EmbeddedS3>,
    stop_within: Duration,
    _lock: DirectoryLock,
}

impl Dev {
    /// Starts everything and says so; nothing if a signal comes first.
    pub async fn start_unless_stopped(
        config: &Config,
        args: &DevArgs,
        signals: &mut Signals,
    ) -> anyhow::Result<Option<Self>> {
        let started = Instant::now();
        let dev = tokio::select! {
            dev = Self::start(config, args) => dev?,
            () = signals.received() => return Ok(None),
        };
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "Nereid {} is ready after {seconds:.1} s",
            nereid_core::VERSION
        );
        Ok(Some(dev))
    }

    /// Starts everything and returns when the API answers and the worker takes jobs.
    pub async fn start(config: &Config, args: &DevArgs) -> anyhow::Result<Self> {
        let data_dir = std::path::absolute(&args.data_dir).context("data directory")?;
        let lock = DirectoryLock::acquire(&data_dir)?;
        let address = SocketAddr::new(args.host, args.port);
        let rest = api::bind(address).await?;
        let grpc = api::bind_grpc(config, address, args.grpc_port).await?;
        let listeners = Listeners { rest, grpc };
        let (database, storage) = tokio::try_join!(
            Box::pin(start_database(config, &data_dir)),
            Box::pin(start_objects(config, args, &data_dir)),
        )?;
        let (store, postgres) = database;
        let (objects, s3) = storage;
        let auth = authentication(&store, args).await?;
        let mut dev = Self {
            api: format!("http://{}", listeners.rest.local_addr()?),
            grpc: listeners
                .grpc
                .as_ref()
                .map(TcpListener::local_addr)
                .transpose()?,
            objects: describe_objects(config, s3.as_ref()),
            storage: objects.clone(),
            database: if postgres.is_some() {
                "managed, in the data folder"
            } else {
                "DATABASE_URL"
            },
            data_dir,
            shutdown: CancellationToken::new(),
            tasks: JoinSet::new(),
            listening: None,
            store,
            postgres,
            s3,
            stop_within: super::stop_within(config),
            _lock: lock,
        };
        dev.spawn_roles(config, args, objects, listeners, auth)
            .await?;
        Ok(dev)
    }

    async fn spawn_roles(
        &mut self,
        config: &Config,
        args: &DevArgs,
        objects: Objects,
        listeners: Listeners,
        auth: AuthMode,
    ) -> anyhow::Result<()> {
        let (wakeups, listening) = Listening::start(&self.store);
        self.listening = Some(listening);
        let mut settings = super::worker::settings(config);
        settings.data_dir = self.data_dir.join("worker");
        settings.slots = args.slots.unwrap_or(settings.slots);
        super::worker::check_device(settings.device)?;
        let (store, engine) = (self.store.clone(), super::trainer::engine(config)?);
        let clock = Arc::new(SystemClock);
        let worker = Worker::new(
            settings,
            store,
            objects.clone(),
            engine,
            wakeups.clone(),
            clock,
        );
        let local = Some(worker.replicas());
        let mut ready = worker.ready();
        let token = self.shutdown.clone();
        self.tasks
            .spawn(async move { Ok(worker.run(token).await?) });
        let parts = api::Parts {
            store: self.store.clone(),
            objects,
            wakeups,
            local,
            auth,
        };
        api::spawn(parts, listeners, &self.shutdown, &mut self.tasks).await?;
        if let Some(postgres) = self.postgres.clone() {
            let token = self.shutdown.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = token.cancelled() => Ok(()),
                    how = postgres.exited() => bail!("the managed Postgres ended: {how}"),
                }
            });
        }
        tokio::select! {
            _ = ready.wait_for(|ready| *ready) => Ok(()),
            Some(ended) = self.tasks.join_next() => {
                ended.context("a task panicked")??;
                bail!("a part ended before everything was ready")
            }
        }
    }

    /// Prints where everything is.
    pub fn print(&self) {
        println!("  docs       {}/docs", self.api);
        println!("  S3         {}", self.objects);
        println!("  Postgres   {}", self.database);
        println!("  data       {}", self.data_dir.display());
        if let Some(grpc) = self.grpc {
            println!("  gRPC       {grpc}");
        }
        println!("  API        {}", self.api);
    }

    /// Runs on until a signal comes or something fails, then stops everything in order.
    pub async fn run_until(mut self, signals: Signals) -> anyhow::Result<()> {
        let token = self.shutdown.clone();
        self.tasks.spawn(async move {
            signals.cancel(token).await;
            Ok(())
        });
        self.stop_when_done().await
    }

    /// Stops everything in order.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.stop_when_done().await
    }

    async fn stop_when_done(self) -> anyhow::Result<()> {
        let result = api::run_until_stopped(self.tasks, &self.shutdown, self.stop_within).await;
        if let Some(listening) = self.listening {
            listening.stop().await;
        }
        super::close(&self.store).await;
        if let Some(s3) = self.s3 {
            s3.shutdown().await;
        }
        if let Some(postgres) = self.postgres.and_then(Arc::into_inner) {
            postgres.stop().await?;
        }
        result
    }
}

async fn start_database(
    config: &Config,
    data_dir: &std::path::Path,
) -> anyhow::Result<(Store, Option<Arc<ManagedPostgres>>)> {
    let (url, postgres) = if let Some(url) = &config.database.url {
        (url.reveal().to_owned(), None)
    } else {
        let mut options = PostgresOptions::new(data_dir.join("postgres"));
        options.bin_dir.clone_from(&config.database.postgres_bin);
        let postgres = ManagedPostgres::start(options).await?;
        (postgres.url(), Some(Arc::new(postgres)))
    };
    let store = super::connect_store_at(config, &url, "nereid dev").await?;
    store.migrate().await?;
    Ok((store, postgres))
}

async fn start_objects(
    config: &Config,
    args: &DevArgs,
    data_dir: &std::path::Path,
) -> anyhow::Result<(Objects, Option<EmbeddedS3>)> {
    if config.objects.bucket.is_some() {
        return Ok((super::connect_objects(config).await?, None));
    }
    let (objects, s3) = embedded_s3::start(embedded_s3::Options {
        root: data_dir.join("s3"),
        port: args.s3_port,
        bucket: BUCKET,
        access_key: ACCESS_KEY,
        secret_key: SECRET_KEY,
        durable: true,
    })
    .await?;
    Ok((objects, Some(s3)))
}

/// On loopback whoever reaches the port is the administrator; elsewhere a key is needed.
async fn authentication(store: &Store, args: &DevArgs) -> anyhow::Result<AuthMode> {
    if args.host.is_loopback() {
        return Ok(AuthMode::AnonymousAdmin {
            project: store.project(DEFAULT_PROJECT).await?,
        });
    }
    if !store.has_keys().await? {
        bail!(
            "refusing to listen on {} without authentication: stay on loopback, or make an API key there first (POST /v1/keys)",
            args.host
        );
    }
    Ok(AuthMode::Keys)
}

fn describe_objects(config: &Config, s3: Option<&EmbeddedS3>) -> String {
    let Some(s3) = s3 else {
        let endpoint = config.objects.endpoint.as_deref().unwrap_or("AWS");
        let bucket = config.objects.bucket.as_deref().unwrap_or_default();
        return format!("{endpoint} (bucket {bucket})");
    };
    format!(
        "{} (bucket {BUCKET}, access key {ACCESS_KEY}, secret key {SECRET_KEY}, region {REGION})",
        s3.endpoint()
    )
}
