//! Kinds, states and the one table of transitions; why attempts end.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::words::words;

words! {
    /// What a job does.
    JobKind {
        /// Trains a network and publishes a model version.
        Train = "train",
        /// Optimises a model version and serves it behind an endpoint.
        Deploy = "deploy",
    }
}

words! {
    /// Where a job stands.
    JobStatus {
        /// Waiting for a worker.
        Queued = "queued",
        /// A worker holds its lease.
        Running = "running",
        /// Done; its result is published.
        Succeeded = "succeeded",
        /// Ended by an error.
        Failed = "failed",
        /// Ended because a client asked.
        Stopped = "stopped",
    }
}

words! {
    /// What a running job is doing.
    JobPhase {
        /// Claimed, nothing done yet.
        Starting = "starting",
        /// Reading its input from S3.
        Downloading = "downloading",
        /// Fitting weights.
        Training = "training",
        /// Measuring on held-out data.
        Evaluating = "evaluating",
        /// Making a version fit for serving.
        Optimising = "optimising",
        /// Writing results to S3.
        Uploading = "uploading",
        /// Waiting for replicas to get ready.
        Warming = "warming",
    }
}

words! {
    /// Why an attempt, and with it perhaps the job, ended.
    TerminationReason {
        /// It did what it was asked to.
        Completed = "completed",
        /// A client asked to stop.
        Cancelled = "cancelled",
        /// The input is wrong; no retry can mend it.
        InvalidInput = "invalid_input",
        /// Loss or weights were no longer finite.
        Diverged = "diverged",
        /// The optimised or loaded model did not reproduce the original's outputs.
        ParityFailed = "parity_failed",
        /// Storage or network failed; worth a retry.
        Unavailable = "unavailable",
        /// A fault in Nereid itself; worth a retry.
        Internal = "internal",
        /// The worker stopped renewing its lease.
        LeaseLost = "lease_lost",
        /// The worker shut down and handed the job back.
        WorkerDrained = "worker_drained",
    }
}

impl JobStatus {
    /// Tells whether the job can no longer change, except by an explicit retry.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Stopped)
    }

    /// The one table of transitions; the store refuses any other.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        use JobStatus::{Failed, Queued, Running, Stopped, Succeeded};
        matches!(
            (self, next),
            // claimed; cancelled before any claim; given up on while waiting
            (Queued, Running | Stopped | Failed)
                // ended by its worker, or handed back to be tried again
                | (Running, Succeeded | Failed | Stopped | Queued)
                // retried by a client
                | (Failed | Stopped, Queued)
        )
    }
}

impl TerminationReason {
    /// Tells whether another attempt may succeed where this one did not.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Unavailable | Self::Internal | Self::LeaseLost | Self::WorkerDrained
        )
    }

    /// Tells whether the attempt counts against `max_attempts`.
    ///
    /// A worker that drains does so for reasons that have nothing to do with the job.
    #[must_use]
    pub const fn uses_up_attempt(self) -> bool {
        !matches!(self, Self::WorkerDrained)
    }

    /// Final status of a job whose last attempt ended for this reason.
    #[must_use]
    pub const fn final_status(self) -> JobStatus {
        match self {
            Self::Completed => JobStatus::Succeeded,
            Self::Cancelled => JobStatus::Stopped,
            _ => JobStatus::Failed,
        }
    }
}

/// Seconds to wait before attempt `attempt + 1`: exponential with full jitter, at most 5 minutes.
///
/// `jitter` is drawn uniformly from 0 to below 1 (Brooker, "Exponential Backoff And Jitter").
#[must_use]
pub fn retry_delay(attempt: u32, jitter: f64) -> f64 {
    let ceiling = 2_f64
        .powi(i32::try_from(attempt.min(16)).unwrap_or(16))
        .min(300.0);
    ceiling * jitter.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn final_states_only_leave_by_retry_and_success_never() {
        for &from in JobStatus::ALL {
            for &to in JobStatus::ALL {
                if from.may_become(to) && from.is_final() {
                    assert_eq!(to, JobStatus::Queued);
                    assert_ne!(from, JobStatus::Succeeded);
                }
            }
        }
        for &reason in TerminationReason::ALL {
            assert!(JobStatus::Running.may_become(reason.final_status()));
            assert!(reason.final_status().is_final());
        }
    }

    #[test]
    fn words_round_trip_through_json_and_text() {
        for &status in JobStatus::ALL {
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
            assert_eq!(status.as_str().parse::<JobStatus>().unwrap(), status);
        }
        for &reason in TerminationReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
