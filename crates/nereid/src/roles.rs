//! Roles of the binary, each put together from the crates.

pub mod api;
pub mod dev;
pub mod embedded_s3;
pub mod pool;
pub mod trainer;
pub mod worker;

use std::time::Duration;

use anyhow::{Context, bail};
use nereid_objects::{ObjectStoreConfig, Objects};
use nereid_store::{Store, StoreOptions, notify::Wakeups};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Time for a worker to end after its drain, and for the API to let requests under way finish.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Longest wait for a connection to close at the end.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

/// Time for all of a process's tasks to end after the first signal: 8 seconds by default, since
/// whoever sent it may kill 10 seconds later.
fn stop_within(config: &Config) -> Duration {
    config.worker.drain_timeout.max(Duration::from_secs(6)) + STOP_GRACE
}

/// Connects to the configured Postgres.
pub async fn connect_store(config: &Config, application_name: &str) -> anyhow::Result<Store> {
    let Some(url) = &config.database.url else {
        bail!("no database: set database.url in the configuration, or DATABASE_URL")
    };
    connect_store_at(config, url.reveal(), application_name).await
}

/// Connects to the Postgres at `url`.
pub async fn connect_store_at(
    config: &Config,
    url: &str,
    application_name: &str,
) -> anyhow::Result<Store> {
    let options = StoreOptions {
        url: url.to_owned(),
        max_connections: config.database.max_connections,
        acquire_timeout: config.database.acquire_timeout,
        application_name: application_name.to_owned(),
    };
    Store::connect(&options)
        .await
        .context("cannot connect to Postgres")
}

/// Connects to the configured S3 and makes sure of the bucket.
async fn connect_objects(config: &Config) -> anyhow::Result<Objects> {
    let Some(bucket) = config.objects.bucket.clone() else {
        bail!("no bucket: set objects.bucket in the configuration, or NEREID__OBJECTS__BUCKET")
    };
    let endpoint = config.objects.endpoint.clone();
    let objects = Objects::connect(ObjectStoreConfig {
        bucket,
        path_style: config.objects.path_style.unwrap_or(endpoint.is_some()),
        endpoint,
        region: config.objects.region.clone(),
        credentials: None,
    })
    .await
    .context("cannot connect to S3")?;
    objects
        .ensure_bucket()
        .await
        .context("cannot use the bucket")?;
    Ok(objects)
}

/// The one LISTEN connection of a process; it outlives the roles, whose last words it sends.
pub struct Listening {
    task: JoinSet<()>,
    stop: CancellationToken,
}

impl Listening {
    /// Starts listening on a connection of its own.
    pub fn start(store: &Store) -> (Wakeups, Self) {
        let stop = CancellationToken::new();
        let (wakeups, listening) = store.listen(stop.clone());
        let mut task = JoinSet::new();
        task.spawn(listening);
        (wakeups, Self { task, stop })
    }

    /// Sends what is left to send, and ends.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let ended = async { while self.task.join_next().await.is_some() {} };
        let in_time = tokio::time::timeout(CLOSE_WITHIN, ended).await;
        if in_time.is_err() {
            tracing::warn!("the LISTEN connection did not end in time");
        }
    }
}

/// Closes all connections; one that hangs is left behind.
async fn close(store: &Store) {
    if tokio::time::timeout(CLOSE_WITHIN, store.close())
        .await
        .is_err()
    {
        tracing::warn!("connections to Postgres did not close in time");
    }
}

/// Brings the schema up to date.
pub async fn migrate(config: &Config) -> anyhow::Result<()> {
    let store = connect_store(config, "nereid migrate").await?;
    store.migrate().await?;
    store.close().await;
    println!("the schema is up to date");
    Ok(())
}

/// Name of this machine, for people.
fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
