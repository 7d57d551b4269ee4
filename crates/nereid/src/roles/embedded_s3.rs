//! The S3 that the binary brings along, with a client of it.

use std::{net::SocketAddr, path::PathBuf};

use nereid_local::{EmbeddedS3, EmbeddedS3Options};
use nereid_objects::{ObjectStoreConfig, Objects};

/// The region it says that it is in.
pub const REGION: &str = "us-east-1";

/// What to serve on loopback.
pub struct Options {
    /// Folder of the objects.
    pub root: PathBuf,
    /// Port; 0 takes a free one.
    pub port: u16,
    /// The one bucket.
    pub bucket: &'static str,
    /// Who may do anything.
    pub access_key: &'static str,
    /// Their secret.
    pub secret_key: &'static str,
    /// Whether an answered write outlives a loss of power.
    pub durable: bool,
}

/// Starts it; it serves until it is dropped.
pub async fn start(options: Options) -> anyhow::Result<(Objects, EmbeddedS3)> {
    let Options {
        access_key,
        secret_key,
        ..
    } = options;
    let s3 = EmbeddedS3::start(EmbeddedS3Options {
        root: options.root,
        addr: SocketAddr::from(([127, 0, 0, 1], options.port)),
        access_key: access_key.to_owned(),
        secret_key: secret_key.to_owned(),
        buckets: vec![options.bucket.to_owned()],
        durable: options.durable,
    })
    .await?;
    let objects = Objects::connect(ObjectStoreConfig {
        bucket: options.bucket.to_owned(),
        endpoint: Some(s3.endpoint()),
        region: Some(REGION.to_owned()),
        path_style: true,
        credentials: Some((access_key.to_owned(), secret_key.to_owned())),
    })
    .await?;
    Ok((objects, s3))
}
