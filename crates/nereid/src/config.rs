//! Configuration: one TOML file, overridden by `NEREID__SECTION__KEY`, parsed once.
//!
//! `nereid.example.toml` documents every key; a test loads it.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::Path, path::PathBuf, time::Duration};

use anyhow::Context;
use bytesize::ByteSize;
use nereid_core::workers::DeviceKind;
use serde::Deserialize;

/// Less is held by a process before it has read any data.
const LEAST_MEMORY: ByteSize = ByteSize::mib(64);
/// More prepare batches no faster than any training takes them.
const MOST_LOADER_THREADS: usize = 64;

/// All of the configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub database: Database,
    pub objects: Objects,
    pub api: Api,
    pub worker: Worker,
    pub log: Log,
}

/// Postgres.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `postgres://…`; `DATABASE_URL` unless given. Without either, `dev` manages its own server.
    pub url: Option<Secret>,
    /// Most connections of one process.
    pub max_connections: u32,
    /// Longest wait for a free connection.
    #[serde(with = "humantime_serde")]
    pub acquire_timeout: Duration,
    /// Folder of `postgres` and `initdb`, for the managed server; `NEREID_PG_BIN` unless given.
    pub postgres_bin: Option<PathBuf>,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: None,
            max_connections: 20,
            acquire_timeout: Duration::from_secs(5),
            postgres_bin: None,
        }
    }
}

/// S3. Credentials come by the standard AWS chain (environment, profile, instance role).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Objects {
    /// Bucket of Nereid's own objects. Without one, `dev` serves its own S3.
    pub bucket: Option<String>,
    /// Address of an S3-compatible server; AWS unless given.
    pub endpoint: Option<String>,
    /// Region; by the AWS chain unless given.
    pub region: Option<String>,
    /// Whether the bucket is part of the path; true with an endpoint unless given.
    pub path_style: Option<bool>,
}

/// API and gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Address and port.
    pub listen: SocketAddr,
    /// Whether inference is served over gRPC too.
    pub grpc: bool,
    /// Port of gRPC, at the same address; 0 picks a free one.
    pub grpc_port: u16,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            grpc: true,
            grpc_port: 8081,
        }
    }
}

/// Worker.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Worker {
    /// Jobs run at the same time.
    pub slots: u32,
    /// What to compute on: cpu, cpu-ndarray or gpu.
    pub device: DeviceKind,
    /// Free key-value pairs.
    pub labels: BTreeMap<String, String>,
    /// Where its inference server listens.
    pub listen: SocketAddr,
    /// How API processes reach that server; `http://` and `listen` unless given.
    pub advertise_url: Option<String>,
    /// Scratch space and model cache.
    pub data_dir: PathBuf,
    /// How long a claim lasts without a heartbeat.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// Time between heartbeats.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// Time to hand everything back after a signal.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// How long a step of a job is repeated while S3 fails.
    #[serde(with = "humantime_serde")]
    pub storage_patience: Duration,
    /// Time between two searches for objects that nothing needs.
    #[serde(with = "humantime_serde")]
    pub sweep_interval: Duration,
    /// How long the checkpoints of jobs that failed or were stopped are kept.
    #[serde(with = "humantime_serde")]
    pub checkpoint_retention: Duration,
    /// Most memory of one training; its process is ended when it holds more.
    pub memory_limit: Option<ByteSize>,
    /// Most memory of one training for decoded data; what is larger is held on disk.
    pub data_memory: ByteSize,
    /// Most bytes of decoded data below `data_dir`.
    pub data_cache_limit: ByteSize,
    /// Threads of one training that prepare batches.
    pub loader_threads: usize,
    /// The library of ONNX Runtime; `ORT_DYLIB_PATH`, else the loader's places unless given.
    pub onnxruntime: Option<PathBuf>,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            slots: 1,
            device: DeviceKind::Cpu,
            labels: BTreeMap::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise_url: None,
            data_dir: PathBuf::from(".nereid/worker"),
            lease: Duration::from_secs(15),
            heartbeat: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(6),
            storage_patience: Duration::from_mins(1),
            sweep_interval: Duration::from_hours(1),
            checkpoint_retention: Duration::from_hours(7 * 24),
            memory_limit: None,
            data_memory: ByteSize::mib(256),
            data_cache_limit: ByteSize::gib(20),
            loader_threads: 2,
            onnxruntime: None,
        }
    }
}

impl Worker {
    fn check(&self) -> anyhow::Result<()> {
        let Self {
            slots,
            lease,
            heartbeat,
            ..
        } = self;
        anyhow::ensure!(
            (1..=1024).contains(slots),
            "worker.slots: {slots} is not between 1 and 1024"
        );
        anyhow::ensure!(
            *lease >= Duration::from_secs(2) && *heartbeat * 2 <= *lease,
            "worker.lease: {lease:?} must be at least 2s and twice worker.heartbeat ({heartbeat:?})"
        );
        anyhow::ensure!(!heartbeat.is_zero(), "worker.heartbeat must be above 0");
        let drain = self.drain_timeout;
        anyhow::ensure!(
            (Duration::from_secs(1)..=Duration::from_hours(1)).contains(&drain),
            "worker.drain_timeout: {drain:?} is not between 1s and 1h"
        );
        if let Some(limit) = self.memory_limit {
            anyhow::ensure!(
                limit >= LEAST_MEMORY,
                "worker.memory_limit: {limit} is less than any training needs ({LEAST_MEMORY})"
            );
        }
        let threads = self.loader_threads;
        anyhow::ensure!(
            threads <= MOST_LOADER_THREADS,
            "worker.loader_threads: {threads} is above {MOST_LOADER_THREADS}"
        );
        let sweep = self.sweep_interval;
        anyhow::ensure!(
            sweep >= Duration::from_secs(1),
            "worker.sweep_interval: {sweep:?} is shorter than 1s"
        );
        Ok(())
    }
}

/// Logs.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Filter in `tracing`'s syntax, such as `info,nereid_worker=debug`.
    pub filter: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

/// Text that is not printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Returns the text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Config {
    /// Reads the file, if one is named, and the environment.
    pub fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        let mut builder = config::Config::builder();
        if let Some(path) = file {
            builder = builder.add_source(config::File::from(path).format(config::FileFormat::Toml));
        }
        let environment = config::Environment::with_prefix("NEREID")
            .prefix_separator("__")
            .separator("__")
            .try_parsing(true);
        let mut config: Self = builder
            .add_source(environment)
            .build()
            .and_then(config::Config::try_deserialize)
            .context("the configuration cannot be read")?;
        config.database.url = config
            .database
            .url
            .or_else(|| env("DATABASE_URL").map(Secret));
        config.database.postgres_bin = config
            .database
            .postgres_bin
            .or_else(|| env("NEREID_PG_BIN").map(PathBuf::from));
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        self.worker.check()?;
        let connections = self.database.max_connections;
        anyhow::ensure!(
            (4..=1000).contains(&connections),
            "database.max_connections: {connections} is not between 4 and 1000"
        );
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
)]
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_file_is_valid_and_complete() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../nereid.example.toml");
        let config = Config::load(Some(Path::new(path))).unwrap();
        assert_eq!(config.objects.bucket.as_deref(), Some("nereid"));
        // What the file calls defaults are the defaults.
        let (api, default_api) = (&config.api, Api::default());
        assert_eq!(
            (api.listen, api.grpc, api.grpc_port),
            (default_api.listen, default_api.grpc, default_api.grpc_port)
        );
        let (shown, defaults) = (&config.worker, Worker::default());
        assert_eq!(
            [shown.lease, shown.heartbeat, shown.drain_timeout],
            [defaults.lease, defaults.heartbeat, defaults.drain_timeout]
        );
        assert_eq!(
            [
                shown.storage_patience,
                shown.sweep_interval,
                shown.checkpoint_retention
            ],
            [
                defaults.storage_patience,
                defaults.sweep_interval,
                defaults.checkpoint_retention
            ]
        );
        assert_eq!(
            (
                shown.data_memory,
                shown.data_cache_limit,
                shown.loader_threads
            ),
            (
                defaults.data_memory,
                defaults.data_cache_limit,
                defaults.loader_threads
            )
        );
        assert!(!format!("{config:?}").contains("postgres://"));
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[worker]\nslot = 3\n").unwrap();
        let error = Config::load(Some(file.path())).unwrap_err();
        assert!(format!("{error:#}").contains("slot"), "{error:#}");
    }
}
