//! What a client submits: spec and options, read with all mistakes at once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::JobKind;
use crate::{
    Name, limits,
    spec::{BatchPredictSpec, DeploySpec, NoopSpec, TrainSpec},
    validation::{ObjectReader, Violations},
    workers::DeviceKind,
};

/// The validated spec of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", content = "spec", rename_all = "snake_case")]
#[expect(
    clippy::large_enum_variant,
    reason = "held once per job; a box would show in each match"
)]
pub enum JobSpec {
    /// Trains a network and publishes a model version.
    Train(TrainSpec),
    /// Optimises a model version and serves it behind an endpoint.
    Deploy(DeploySpec),
    /// Predicts the rows of files in S3 and writes the predictions to S3.
    BatchPredict(BatchPredictSpec),
    /// Does nothing for a while: tries out and measures the queue.
    Noop(NoopSpec),
}

impl JobSpec {
    /// Returns the kind.
    #[must_use]
    pub const fn kind(&self) -> JobKind {
        match self {
            Self::Train(_) => JobKind::Train,
            Self::Deploy(_) => JobKind::Deploy,
            Self::BatchPredict(_) => JobKind::BatchPredict,
            Self::Noop(_) => JobKind::Noop,
        }
    }

    /// Returns the model the job is about, if it is about one.
    #[must_use]
    pub const fn model(&self) -> Option<&Name> {
        match self {
            Self::Train(s) => Some(&s.model),
            Self::Deploy(s) => Some(&s.model),
            Self::BatchPredict(s) => Some(&s.model),
            Self::Noop(_) => None,
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
    /// What the job has to be computed on; on anything unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceKind>,
    /// Labels that a worker must have to take the job.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub worker_labels: BTreeMap<String, String>,
    /// Longest time the job may run, all attempts together, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 31_536_000)]
    pub max_runtime_seconds: Option<u32>,
    /// Longest time the job may wait for a worker each time it is queued, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 31_536_000)]
    pub max_queue_seconds: Option<u32>,
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
            device: None,
            worker_labels: BTreeMap::new(),
            max_runtime_seconds: None,
            max_queue_seconds: None,
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
            Some(JobKind::BatchPredict) => {
                BatchPredictSpec::read(value, at, v).map(JobSpec::BatchPredict)
            }
            Some(JobKind::Noop) => NoopSpec::read(value, at, v).map(JobSpec::Noop),
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
            device: r.optional("device"),
            worker_labels: r.optional("worker_labels").unwrap_or_default(),
            max_runtime_seconds: r.optional("max_runtime_seconds"),
            max_queue_seconds: r.optional("max_queue_seconds"),
        };
        let at = |field: &str| r.pointer_to(field);
        let (labels, worker_labels) = (at("labels"), at("worker_labels"));
        let (priority, attempts) = (at("priority"), at("max_attempts"));
        let times = [
            (at("max_runtime_seconds"), options.max_runtime_seconds),
            (at("max_queue_seconds"), options.max_queue_seconds),
        ];
        let v = r.violations();
        check_tags(&options.labels, &labels, v);
        check_tags(&options.worker_labels, &worker_labels, v);
        v.check_range(&priority, options.priority, 0, limits::MAX_PRIORITY);
        v.check_range(&attempts, options.max_attempts, 1, limits::MAX_ATTEMPTS);
        for (pointer, seconds) in times {
            v.check_range(&pointer, seconds.unwrap_or(1), 1, limits::MAX_JOB_SECONDS);
        }
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
