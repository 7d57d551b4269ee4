//! Roles of the binary, each put together from the crates.

pub mod api;
pub mod dev;
pub mod worker;

use anyhow::{Context, bail};
use nereid_objects::{ObjectStoreConfig, Objects};
use nereid_store::{Store, StoreOptions};

use crate::config::Config;

/// Time for all of a process to end after the first signal.
pub const STOP_WITHIN: std::time::Duration = std::time::Duration::from_secs(9);

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
