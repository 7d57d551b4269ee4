//! What can be watched of a job: events, log lines, metric points.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{ids::JobId, spec::rules::RuleAction, words::words};

words! {
    /// Kind of a job event.
    EventKind {
        /// The job was accepted.
        Submitted = "submitted",
        /// The status changed.
        StatusChanged = "status_changed",
        /// The phase changed.
        PhaseChanged = "phase_changed",
        /// Training came on.
        Progress = "progress",
        /// A client asked something of a running job.
        Requested = "requested",
        /// A checkpoint was stored.
        Checkpointed = "checkpointed",
        /// A model version was published.
        Published = "published",
        /// A rule that watches the training found it ill.
        RuleTriggered = "rule_triggered",
    }
}

words! {
    /// Weight of a log line.
    LogLevel {
        /// Details.
        Debug = "debug",
        /// What happens.
        Info = "info",
        /// What may be wrong.
        Warn = "warn",
        /// What went wrong.
        Error = "error",
    }
}

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobEvent {
    /// The job.
    pub job_id: JobId,
    /// Number within the job, from 1 without gaps; the SSE event id.
    pub seq: u64,
    /// What happened.
    pub kind: EventKind,
    /// Details; depends on the kind.
    pub data: Value,
    /// When, by the database's clock.
    pub at: DateTime<Utc>,
}

/// A line of a job's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Number of the line, rising within the job.
    pub seq: u64,
    /// Attempt that wrote it.
    pub epoch: u64,
    /// Weight.
    pub level: LogLevel,
    /// Text.
    pub message: String,
    /// When, by the worker's clock.
    pub at: DateTime<Utc>,
}

/// A log line before it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLogLine {
    /// Weight.
    pub level: LogLevel,
    /// Text.
    pub message: String,
    /// When, by the worker's clock.
    pub at: DateTime<Utc>,
}

/// Values of metrics at a step of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MetricPoint {
    /// Steps done since the start of training.
    pub step: u64,
    /// Epoch, from 1; fractional within an epoch.
    pub epoch: f64,
    /// Values by name.
    pub values: BTreeMap<String, f64>,
    /// When, by the worker's clock.
    pub at: DateTime<Utc>,
}

/// What a rule found; the data of [`EventKind::RuleTriggered`].
///
/// A rule reports once, and again only after it has found the training well in between.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RuleReport {
    /// Name of the rule, as in the spec.
    pub rule: String,
    /// Layer it applies to; none for rules on losses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// Steps done when it showed.
    pub step: u64,
    /// What was measured; none if it was not finite.
    pub value: Option<f64>,
    /// What the rule held it against.
    pub limit: f64,
    /// What follows.
    pub action: RuleAction,
    /// The same in words.
    pub message: String,
}
