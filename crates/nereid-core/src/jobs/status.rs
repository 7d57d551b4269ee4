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
        /// Predicts the rows of files in S3 and writes the predictions to S3.
        BatchPredict = "batch_predict",
        /// Does nothing for a while: tries out and measures the queue.
        Noop = "noop",
    }
}

words! {
    /// Where a job stands.
    JobStatus {
        /// Waiting for a worker.
        Queued = "queued",
        /// A worker holds its lease.
        Running = "running",
        /// Put aside by a client; goes on when resumed.
        Paused = "paused",
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
        /// Answering the rows of a batch prediction.
        Predicting = "predicting",
        /// Waiting for replicas to get ready.
        Warming = "warming",
    }
}

words! {
    /// Why an attempt, and with it perhaps the job, ended.
    TerminationReason {
        /// It did what it was asked to.
        Completed = "completed",
        /// A client ended it; nothing of it is kept.
        Cancelled = "cancelled",
        /// A client ended the training early; what was trained is published.
        StoppedEarly = "stopped_early",
        /// A client put it aside.
        Paused = "paused",
        /// The input is wrong; no retry can mend it.
        InvalidInput = "invalid_input",
        /// Loss or weights were no longer finite.
        Diverged = "diverged",
        /// The optimised or loaded model did not reproduce the original's outputs.
        ParityFailed = "parity_failed",
        /// It ran for longer than the job allows.
        MaxRuntimeExceeded = "max_runtime_exceeded",
        /// It waited for a worker for longer than the job allows.
        MaxQueueTimeExceeded = "max_queue_time_exceeded",
        /// It needed more memory than there is.
        OutOfMemory = "out_of_memory",
        /// The worker's disk is full; worth a retry elsewhere.
        DiskFull = "disk_full",
        /// The process that trained died; worth a retry.
        Crashed = "crashed",
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

words! {
    /// What a client asks of a job that has not ended; a later request may only be more final.
    JobRequest {
        /// Save the state and free the worker until resumed.
        Pause = "pause",
        /// End the training now and keep what was trained.
        Stop = "stop",
        /// End without a result.
        Cancel = "cancel",
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
        use JobStatus::{Failed, Paused, Queued, Running, Stopped, Succeeded};
        matches!(
            (self, next),
            // claimed; put aside, cancelled or given up on before any claim
            (Queued, Running | Paused | Stopped | Failed)
                // ended by its worker, put aside, or handed back to be tried again
                | (Running, Succeeded | Failed | Stopped | Paused | Queued)
                // resumed; cancelled
                | (Paused, Queued | Stopped)
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
            Self::Unavailable
                | Self::Internal
                | Self::DiskFull
                | Self::Crashed
                | Self::LeaseLost
                | Self::WorkerDrained
        )
    }

    /// Tells whether the attempt counts against `max_attempts`.
    ///
    /// A worker that drains or dies, and a client who pauses, do so for reasons that have nothing
    /// to do with the job; lost leases have a budget of their own.
    #[must_use]
    pub const fn uses_up_attempt(self) -> bool {
        !matches!(self, Self::WorkerDrained | Self::LeaseLost | Self::Paused)
    }

    /// Status of a job whose last attempt ended for this reason: the final one, except for a pause.
    #[must_use]
    pub const fn final_status(self) -> JobStatus {
        match self {
            Self::Completed => JobStatus::Succeeded,
            Self::Cancelled | Self::StoppedEarly => JobStatus::Stopped,
            Self::Paused => JobStatus::Paused,
            _ => JobStatus::Failed,
        }
    }
}

/// How an attempt that made nothing leaves its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It waits again.
    Requeue,
    /// It stands still, or has ended, for this reason.
    Rest(TerminationReason),
}

/// What becomes of a job whose attempt ended for `reason` without a result.
///
/// `left` tells whether another failure is in the budget that `reason` counts against.
#[must_use]
pub const fn after_attempt(
    reason: TerminationReason,
    requested: Option<JobRequest>,
    left: bool,
) -> Outcome {
    match requested {
        Some(JobRequest::Cancel) => Outcome::Rest(TerminationReason::Cancelled),
        _ if reason.is_retryable() && !left => Outcome::Rest(reason),
        // Whatever else was wrong with the attempt, nobody wants the next one now.
        Some(JobRequest::Pause) if reason.is_retryable() => {
            Outcome::Rest(TerminationReason::Paused)
        }
        // The pause was overtaken while the worker obeyed: by a stop, which wants the model.
        Some(JobRequest::Stop) if matches!(reason, TerminationReason::Paused) => Outcome::Requeue,
        // A training that is to be stopped with its model needs another attempt to publish it.
        _ if reason.is_retryable() => Outcome::Requeue,
        _ => Outcome::Rest(reason),
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
            let rests = reason.final_status().is_final();
            assert_eq!(rests, reason != TerminationReason::Paused);
        }
    }

    #[test]
    fn a_job_is_tried_again_only_if_that_may_help_and_nobody_wants_it_ended() {
        use TerminationReason::{Cancelled, Diverged, LeaseLost, Paused, Unavailable};
        let rest = Outcome::Rest;
        let requeue = Outcome::Requeue;
        let (pause, stop) = (Some(JobRequest::Pause), Some(JobRequest::Stop));
        let cancel = Some(JobRequest::Cancel);
        assert_eq!(after_attempt(Unavailable, None, true), requeue);
        assert_eq!(after_attempt(LeaseLost, None, false), rest(LeaseLost));
        assert_eq!(after_attempt(Unavailable, cancel, true), rest(Cancelled));
        assert_eq!(after_attempt(Diverged, None, true), rest(Diverged));
        assert_eq!(after_attempt(Diverged, cancel, true), rest(Cancelled));
        assert_eq!(after_attempt(Diverged, pause, true), rest(Diverged));
        assert_eq!(after_attempt(Paused, pause, true), rest(Paused));
        assert_eq!(after_attempt(Paused, stop, true), requeue);
        assert_eq!(after_attempt(Paused, cancel, true), rest(Cancelled));
        assert_eq!(after_attempt(LeaseLost, pause, true), rest(Paused));
        assert_eq!(after_attempt(LeaseLost, stop, true), requeue);
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
