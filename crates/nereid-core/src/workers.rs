//! Workers: what they offer, and where they stand.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ids::WorkerId, words::words};

words! {
    /// Where a worker stands.
    WorkerStatus {
        /// Takes jobs.
        Active = "active",
        /// Finishes what it has and takes nothing new.
        Draining = "draining",
        /// Left, or silent for longer than its lease.
        Gone = "gone",
    }
}

words! {
    /// What tensors are computed on.
    DeviceKind {
        /// Processor.
        Cpu = "cpu",
        /// Processor, by the ndarray backend; slower, to compare with. Needs a build with it.
        CpuNdarray = "cpu-ndarray",
        /// Graphics processor, by wgpu. Needs a build with it.
        Gpu = "gpu",
    }
}

/// What a worker says of itself when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewWorker {
    /// Identifier, drawn at each start: a restarted process is another worker.
    pub id: WorkerId,
    /// Host name.
    pub host: String,
    /// What it computes on.
    pub device: DeviceKind,
    /// Free key-value pairs.
    pub labels: BTreeMap<String, String>,
    /// Jobs it runs at the same time.
    pub slots: u32,
    /// Base URL of its inference server, as the API processes reach it.
    pub url: String,
    /// Version of Nereid.
    pub version: String,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// What it said of itself.
    #[serde(flatten)]
    pub info: NewWorker,
    /// Where it stands.
    pub status: WorkerStatus,
    /// Jobs it runs now.
    pub running: u32,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it was last heard of.
    pub heartbeat_at: DateTime<Utc>,
}
