//! Nereid's S3 client against a real server: the embedded one, through the real protocol.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod datasets;
mod failures;
mod proxy;
mod read;
mod write;

use std::path::Path;

use bytes::Bytes;
use nereid_local::{EmbeddedS3, EmbeddedS3Options};
use nereid_objects::{ObjectStoreConfig, Objects, PutOptions, S3Uri, Stored};

/// A server of its own for each test, gone with it.
pub(crate) struct Store {
    pub(crate) objects: Objects,
    pub(crate) server: EmbeddedS3,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) async fn serve(root: &Path) -> EmbeddedS3 {
    EmbeddedS3::start(EmbeddedS3Options {
        root: root.to_owned(),
        addr: ([127, 0, 0, 1], 0).into(),
        access_key: "nereid".to_owned(),
        secret_key: "secret".to_owned(),
        buckets: vec!["nereid".to_owned()],
        durable: false,
    })
    .await
    .unwrap()
}

pub(crate) async fn connect(endpoint: String, bucket: &str, secret: &str) -> Objects {
    let config = ObjectStoreConfig {
        credentials: Some(("nereid".to_owned(), secret.to_owned())),
        ..ObjectStoreConfig::new(bucket, Some(endpoint))
    };
    Objects::connect(config).await.unwrap()
}

impl Store {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = serve(&dir.path().join("s3")).await;
        let objects = connect(server.endpoint(), "nereid", "secret").await;
        Self {
            objects,
            server,
            dir,
        }
    }

    pub(crate) fn uri(&self, key: &str) -> S3Uri {
        self.objects.own(key).unwrap()
    }

    pub(crate) async fn put(&self, key: &str, content: impl Into<Bytes>) -> Stored {
        self.objects
            .put_bytes(&self.uri(key), content.into(), &PutOptions::default())
            .await
            .unwrap()
    }

    /// Names of what an unfinished write would leave in the server's folder.
    pub(crate) fn unfinished(&self) -> usize {
        let count = |name: &str| {
            let dir = self.dir.path().join("s3").join(name);
            std::fs::read_dir(dir).unwrap().count()
        };
        count(".drafts") + count(".uploads")
    }
}

/// Bytes that are neither random nor alike.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| u8::try_from((i ^ (i >> 8) ^ (i >> 16)) & 0xff).unwrap())
        .collect()
}
