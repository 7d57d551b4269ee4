//! What a worker is told when it is made; where the values come from is the binary's business.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use nereid_core::{engine::DataResources, ids::WorkerId, workers::DeviceKind};

use crate::error::WorkerError;

/// What a worker is and how it behaves.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Identifier, drawn at each start.
    pub id: WorkerId,
    /// Host name, shown to people and used in the worker's URL if it listens on all interfaces.
    pub host: String,
    /// What it computes on.
    pub device: DeviceKind,
    /// Free key-value pairs that jobs may ask for.
    pub labels: BTreeMap<String, String>,
    /// Jobs it runs at the same time.
    pub slots: u32,
    /// How long a job stays this worker's without a sign of life.
    pub lease: Duration,
    /// Time between two signs of life.
    pub heartbeat: Duration,
    /// Longest time between two looks at the queue while no wake-up comes.
    pub poll: Duration,
    /// Where the inference server listens.
    pub inference_addr: SocketAddr,
    /// Base URL under which API processes reach the inference server, unless it is its address.
    pub advertise_url: Option<String>,
    /// Folder for scratch files and the cache of models; several workers may share one.
    pub data_dir: PathBuf,
    /// Time between the request to shut down and the moment running work is abandoned.
    pub drain_timeout: Duration,
    /// Longest time that a step of a job is repeated while S3 fails.
    pub storage_patience: Duration,
    /// Time between two searches for objects that nothing needs; one worker of all makes each.
    pub sweep_interval: Duration,
    /// How long the checkpoints of a job that failed or was stopped are kept, for a retry.
    pub checkpoint_retention: Duration,
    /// What each training may use for its data; the cache is below `data_dir`, whatever it says.
    pub data: DataResources,
}

impl WorkerConfig {
    /// Describes a CPU worker with one slot that is reached over loopback only.
    pub fn new(host: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            id: WorkerId::generate(),
            host: host.into(),
            device: DeviceKind::Cpu,
            labels: BTreeMap::new(),
            slots: 1,
            lease: Duration::from_secs(15),
            heartbeat: Duration::from_secs(5),
            poll: Duration::from_secs(5),
            inference_addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            advertise_url: None,
            data_dir: data_dir.into(),
            drain_timeout: Duration::from_secs(6),
            storage_patience: Duration::from_mins(1),
            sweep_interval: Duration::from_hours(1),
            checkpoint_retention: Duration::from_hours(7 * 24),
            data: DataResources::default(),
        }
    }

    /// What a training may use for its data.
    pub(crate) fn data_resources(&self) -> DataResources {
        DataResources {
            cache_folder: Some(self.data_dir.join("cache").join("data")),
            ..self.data.clone()
        }
    }

    pub(crate) fn check(&self) -> Result<(), WorkerError> {
        if self.slots == 0 {
            return Err(WorkerError::Config("slots must be at least 1".to_owned()));
        }
        // One heartbeat may get lost without the attempts being given up.
        if self.heartbeat.is_zero() || self.heartbeat * 2 > self.lease {
            let (beat, lease) = (self.heartbeat, self.lease);
            return Err(WorkerError::Config(format!(
                "a heartbeat of {beat:?} is not above 0 and at most half of the lease of {lease:?}"
            )));
        }
        if self.sweep_interval.is_zero() {
            let message = "the sweep interval must be above 0".to_owned();
            return Err(WorkerError::Config(message));
        }
        Ok(())
    }

    /// How long an attempt trusts its last renewal.
    ///
    /// It is shorter than the lease, so that the work has come to rest before anybody else may
    /// take it over.
    pub(crate) fn trusted_lease(&self) -> Duration {
        self.lease / 5 * 4
    }

    /// Base URL of the inference server that listens on `bound`.
    pub(crate) fn url(&self, bound: SocketAddr) -> String {
        match &self.advertise_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None if bound.ip().is_unspecified() => {
                format!("http://{}:{}", self.host, bound.port())
            }
            None => format!("http://{bound}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_heartbeat_must_not_cost_the_lease() {
        let mut config = WorkerConfig::new("host", "/nowhere");
        assert!(config.check().is_ok());
        config.heartbeat = config.lease;
        assert!(config.check().is_err());
        config.heartbeat = Duration::ZERO;
        assert!(config.check().is_err());
    }

    #[test]
    fn url_is_one_that_others_can_reach() {
        let mut config = WorkerConfig::new("gpu-3", "/nowhere");
        let any: SocketAddr = "0.0.0.0:7000".parse().unwrap();
        assert_eq!(config.url(any), "http://gpu-3:7000");
        let bound: SocketAddr = "127.0.0.1:7000".parse().unwrap();
        assert_eq!(config.url(bound), "http://127.0.0.1:7000");
        config.advertise_url = Some("http://worker.example/".to_owned());
        assert_eq!(config.url(any), "http://worker.example");
    }
}
