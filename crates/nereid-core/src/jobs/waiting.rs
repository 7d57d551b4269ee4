//! Why a queued job does not run yet.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::words::words;

words! {
    /// What a queued job waits for.
    WaitReason {
        /// No worker is there at all.
        NoWorker = "no_worker",
        /// Workers are there, but none with the device and labels that the job needs.
        NoMatchingWorker = "no_matching_worker",
        /// All slots of the workers that could take it are taken.
        WorkersBusy = "workers_busy",
        /// It failed and is tried again a little later.
        BackingOff = "backing_off",
        /// A worker is about to take it.
        Starting = "starting",
    }
}

/// Where a queued job stands in the queue, and what is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Waiting {
    /// What it waits for.
    pub reason: WaitReason,
    /// The same in words, with what is missing.
    pub detail: String,
    /// Place among the waiting jobs that the same workers could take, from 1. Far back it is a
    /// lower bound: of its own project no more than 10,000 jobs ahead are counted.
    pub position: u64,
    /// Since when it waits.
    pub since: DateTime<Utc>,
    /// It is not tried again before then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<DateTime<Utc>>,
    /// It fails if no worker has taken it by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gives_up_at: Option<DateTime<Utc>>,
}
