//! Jobs: kinds, states, the one table of transitions, attempts and the reasons they end.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    Name,
    ids::{ClaimId, DatasetVersionId, JobId, ModelVersionId, ProjectId, WorkerId},
    limits,
    spec::{DeploySpec, TrainSpec},
    validation::{ObjectReader, Violations},
};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the word used in JSON and in the database.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::jobs::UnknownWord;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                match s {
                    $($word => Ok(Self::$variant),)+
                    other => Err($crate::jobs::UnknownWord {
                        what: stringify!($name),
                        given: other.to_owned(),
                        known: &[$($word),+],
                    }),
                }
            }
        }
    };
}
pub(crate) use words;

/// A string that names no value of an enumeration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no {what}; known are {}", known.join(", "))]
pub struct UnknownWord {
    /// The enumeration.
    pub what: &'static str,
    /// What was given.
    pub given: String,
    /// What would be right.
    pub known: &'static [&'static str],
}

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

/// The validated spec of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", content = "spec", rename_all = "snake_case")]
pub enum JobSpec {
    /// Trains a network and publishes a model version.
    Train(TrainSpec),
    /// Optimises a model version and serves it behind an endpoint.
    Deploy(DeploySpec),
}

impl JobSpec {
    /// Returns the kind.
    #[must_use]
    pub const fn kind(&self) -> JobKind {
        match self {
            Self::Train(_) => JobKind::Train,
            Self::Deploy(_) => JobKind::Deploy,
        }
    }

    /// Returns the model the job is about.
    #[must_use]
    pub const fn model(&self) -> &Name {
        match self {
            Self::Train(s) => &s.model,
            Self::Deploy(s) => &s.model,
        }
    }
}

/// How a job is queued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobOptions {
    /// Free key-value pairs to find the job by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// 0 (last) to 100 (first).
    #[serde(default = "default_priority")]
    #[schema(maximum = 100)]
    pub priority: u8,
    /// Most attempts before the job fails.
    #[serde(default = "default_attempts")]
    #[schema(minimum = 1, maximum = 20)]
    pub max_attempts: u32,
}

const fn default_priority() -> u8 {
    50
}
const fn default_attempts() -> u32 {
    3
}

impl Default for JobOptions {
    fn default() -> Self {
        Self {
            labels: BTreeMap::new(),
            priority: default_priority(),
            max_attempts: default_attempts(),
        }
    }
}

/// A job as a client submits it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NewJob {
    /// Kind and spec.
    #[serde(flatten)]
    pub spec: JobSpec,
    /// How it is queued.
    #[serde(flatten)]
    pub options: JobOptions,
}

impl NewJob {
    /// Reads a submission, collecting every mistake that shows without the database.
    ///
    /// # Errors
    /// All mistakes, with pointers into `value`.
    pub fn read(value: Value) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let job = Self::read_into(value, &mut violations);
        match job {
            Some(job) => violations.into_result(job),
            None => Err(violations),
        }
    }

    fn read_into(value: Value, violations: &mut Violations) -> Option<Self> {
        let mut r = ObjectReader::new(value, "", violations)?;
        let kind: Option<JobKind> = r.required("kind");
        let options = JobOptions::read(&mut r);
        let spec = r.required_with("spec", |value, at, v| match kind {
            Some(JobKind::Train) => TrainSpec::read(value, at, v).map(JobSpec::Train),
            Some(JobKind::Deploy) => DeploySpec::read(value, at, v).map(JobSpec::Deploy),
            None => None,
        });
        r.finish();
        Some(Self {
            spec: spec?,
            options,
        })
    }
}

impl JobOptions {
    /// Reads the options from the object that also holds the spec.
    pub fn read(r: &mut ObjectReader<'_>) -> Self {
        let defaults = Self::default();
        let options = Self {
            labels: r.optional("labels").unwrap_or_default(),
            priority: r.optional("priority").unwrap_or(defaults.priority),
            max_attempts: r.optional("max_attempts").unwrap_or(defaults.max_attempts),
        };
        let at = [
            r.pointer_to("labels"),
            r.pointer_to("priority"),
            r.pointer_to("max_attempts"),
        ];
        let v = r.violations();
        check_tags(&options.labels, &at[0], v);
        v.check_range(&at[1], options.priority, 0, limits::MAX_PRIORITY);
        v.check_range(&at[2], options.max_attempts, 1, limits::MAX_ATTEMPTS);
        options
    }
}

/// Records labels or tags that are too many or too long.
pub fn check_tags(tags: &BTreeMap<String, String>, pointer: &str, v: &mut Violations) {
    v.check(tags.len() <= limits::MAX_TAGS, pointer, "too_many", || {
        format!(
            "{} entries are more than the {} allowed",
            tags.len(),
            limits::MAX_TAGS
        )
    });
    for (key, value) in tags {
        let at = format!("{pointer}/{}", crate::validation::escape(key));
        let key_len = key.chars().count();
        v.check(
            (1..=limits::MAX_TAG_KEY_LEN).contains(&key_len),
            &at,
            "too_long",
            || {
                format!(
                    "a key of {key_len} characters is not between 1 and {}",
                    limits::MAX_TAG_KEY_LEN
                )
            },
        );
        let len = value.chars().count();
        v.check(len <= limits::MAX_TAG_VALUE_LEN, &at, "too_long", || {
            format!(
                "{len} characters are more than the {} allowed",
                limits::MAX_TAG_VALUE_LEN
            )
        });
        let clean = !key.contains('\0') && !value.contains('\0');
        v.check(clean, &at, "invalid_value", || {
            "a NUL character is not allowed".to_owned()
        });
    }
}

/// How far a running job has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// Epoch under way, from 1.
    pub epoch: u32,
    /// Epochs in all.
    pub epochs: u32,
    /// Steps done since the start of training.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Newest value of each metric.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
}

/// Why a job or attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobError {
    /// Kind of failure.
    pub reason: TerminationReason,
    /// What happened and, where known, what to do.
    pub message: String,
}

/// What a succeeded job made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobResult {
    /// A published model version.
    Train {
        /// Name of the model.
        model: Name,
        /// Number of the version.
        version: u32,
        /// Its final metrics.
        metrics: BTreeMap<String, f64>,
    },
    /// A version that is served.
    Deploy {
        /// Endpoint that serves it.
        endpoint: Name,
        /// Name of the model.
        model: Name,
        /// Number of the version.
        version: u32,
    },
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Identifier.
    pub id: JobId,
    /// Project it belongs to.
    pub project_id: ProjectId,
    /// Kind and spec, dataset versions resolved.
    #[serde(flatten)]
    pub spec: JobSpec,
    /// How it is queued.
    #[serde(flatten)]
    pub options: JobOptions,
    /// Where it stands.
    pub status: JobStatus,
    /// What it is doing, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<JobPhase>,
    /// Whether a client has asked it to stop.
    pub stop_requested: bool,
    /// Attempts used up so far.
    pub attempts: u32,
    /// How far it has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<JobResult>,
    /// Why it (or its last attempt) failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<JobError>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub termination_reason: Option<TerminationReason>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When its first attempt started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
}

/// One try at a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    /// Fencing number: rises with each claim of the job and never repeats.
    pub epoch: u64,
    /// Worker that held the lease.
    pub worker_id: WorkerId,
    /// When it was claimed.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<TerminationReason>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The fence: what every write of an attempt must match to change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The job.
    pub job: JobId,
    /// Raised by each claim, never reset.
    pub epoch: i64,
    /// Drawn by each claim: an epoch may be given out again after a failover of Postgres.
    pub claim: ClaimId,
}

/// A claimed job: what a worker needs to run it.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The fence of this attempt.
    pub fence: Fence,
    /// Project it belongs to.
    pub project: ProjectId,
    /// Kind and spec, dataset versions resolved.
    pub spec: JobSpec,
    /// Attempts used up before this one.
    pub attempts: u32,
    /// Pointer to the newest checkpoint of an earlier attempt.
    pub checkpoint: Option<CheckpointRef>,
}

/// Where a checkpoint lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRef {
    /// S3 key in Nereid's bucket.
    pub key: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// Steps done when it was taken.
    pub step: u64,
}

/// What the control plane wants of a running attempt; carried down by heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directive {
    /// Go on.
    Continue,
    /// Stop: a client asked.
    Stop,
    /// The attempt is no longer current: stop at once and write nothing.
    Lost,
}

/// Lineage of a model version: what it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Lineage {
    /// Job that trained it.
    pub job_id: JobId,
    /// Training data.
    pub dataset: Name,
    /// Its version.
    pub dataset_version: u32,
    /// Identifier of that version.
    pub dataset_version_id: DatasetVersionId,
    /// SHA-256 of the training data's declaration and bytes.
    pub dataset_digest: String,
    /// Version of Nereid that trained it.
    pub nereid_version: String,
    /// Version of the framework that trained it.
    pub framework_version: String,
    /// Seed of the training.
    pub seed: u64,
}

/// Names a published version in events and results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Identifier of the version.
    pub id: ModelVersionId,
    /// Its number.
    pub version: u32,
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
