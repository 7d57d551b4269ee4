//! Roles of the binary, each put together from the crates.

pub mod api;
pub mod dev;
pub mod worker;

use anyhow::{Context, bail};
use nereid_objects::{ObjectStoreConfig, Objects};
use nereid_store::{Store, StoreOptions, notify::Wakeups};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Time for all of a process to end after the first signal.
pub const STOP_WITHIN: std::time::Duration = std::time::Duration::from_secs(8);

/// Connects to the configured Postgres.
pub async fn connect_store(config: &Config, application_name: &str) -> anyhow::Result<Store> {
    let Some(url) = &config.database.url else {
        bail!("no database: set database.url in the configuration, or DATABASE_URL")
    };
    connect_store_at(config, url.reveal(), application_name).await
}

/// Connects to the Postgres at `url`.
async fn connect_store_at(
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
struct Listening {
    task: JoinSet<()>,
    stop: CancellationToken,
}

impl Listening {
    fn start(store: &Store) -> (Wakeups, Self) {
        let stop = CancellationToken::new();
        let (wakeups, listening) = store.listen(stop.clone());
        let mut task = JoinSet::new();
        task.spawn(listening);
        (wakeups, Self { task, stop })
    }

    async fn stop(mut self) {
        self.stop.cancel();
        let ended = async { while self.task.join_next().await.is_some() {} };
        let in_time = tokio::time::timeout(std::time::Duration::from_secs(1), ended).await;
        if in_time.is_err() {
            tracing::warn!("the LISTEN connection did not end in time");
        }
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
