//! What Postgres says happened, read in one go after the end.

use std::collections::HashMap;

use nereid_core::{
    ids::JobId,
    jobs::{JobStatus, TerminationReason},
};
use serde_json::Value;
use uuid::Uuid;

use crate::postgres::Postgres;

/// Metrics that measure the machine instead of the training.
const TIMED: [&str; 4] = [
    "samples_per_second",
    "data_wait",
    "memory_bytes",
    "memory_peak_bytes",
];

/// A point of a metric series, without what differs from run to run.
pub type Point = (i64, f64, Value);

/// Everything about one job.
#[derive(Debug, Default)]
pub struct JobTruth {
    pub status: Option<JobStatus>,
    pub reason: Option<TerminationReason>,
    pub error: Option<Value>,
    /// Steps trained in the end.
    pub step: Option<i64>,
    pub attempts: Vec<AttemptTruth>,
    /// Number, kind and data.
    pub events: Vec<(i64, String, Value)>,
    /// Epoch, level and message.
    pub logs: Vec<(i64, String, String)>,
    pub metrics: Vec<Point>,
    pub versions: Vec<VersionTruth>,
}

#[derive(Debug)]
#[expect(dead_code, reason = "printed if something is wrong")]
pub struct AttemptTruth {
    pub epoch: i64,
    pub worker: Uuid,
    /// Why it ended, if it has.
    pub reason: Option<String>,
    pub message: Option<String>,
}

#[derive(Debug, Clone)]
pub struct VersionTruth {
    pub model: String,
    pub version: i32,
    pub manifest_uri: String,
    pub manifest_sha256: String,
}

/// The whole database, as far as the promises go.
pub struct Truth {
    pub jobs: HashMap<JobId, JobTruth>,
    /// Jobs that still have a row in the queue.
    pub leases: Vec<JobId>,
}

impl Truth {
    pub async fn read(postgres: &Postgres) -> Self {
        let mut jobs = read_jobs(postgres).await;
        for (job, epoch, worker, reason, message) in postgres
            .rows::<(Uuid, i64, Uuid, Option<String>, Option<String>)>(
                "SELECT job_id, epoch, worker_id, reason, message FROM job_attempts
                 ORDER BY job_id, epoch",
            )
            .await
        {
            of(&mut jobs, job).attempts.push(AttemptTruth {
                epoch,
                worker,
                reason,
                message,
            });
        }
        for (job, seq, kind, data) in postgres
            .rows::<(Uuid, i64, String, Value)>(
                "SELECT job_id, seq, kind, data FROM job_events ORDER BY job_id, seq",
            )
            .await
        {
            of(&mut jobs, job).events.push((seq, kind, data));
        }
        for (job, epoch, level, message) in postgres
            .rows::<(Uuid, i64, String, String)>(
                "SELECT job_id, epoch, level, message FROM job_logs ORDER BY job_id, seq",
            )
            .await
        {
            of(&mut jobs, job).logs.push((epoch, level, message));
        }
        for (job, step, epoch, mut values) in postgres
            .rows::<(Uuid, i64, f64, Value)>(
                r#"SELECT job_id, step, epoch, "values" FROM job_metrics ORDER BY job_id, step"#,
            )
            .await
        {
            let named = values.as_object_mut().unwrap();
            named.retain(|name, _| !TIMED.contains(&name.as_str()));
            of(&mut jobs, job).metrics.push((step, epoch, values));
        }
        read_versions(postgres, &mut jobs).await;
        let leases = postgres
            .rows::<(Uuid,)>("SELECT job_id FROM job_leases")
            .await;
        Self {
            jobs,
            leases: leases.into_iter().map(|(id,)| JobId(id)).collect(),
        }
    }

    /// All versions there are.
    pub fn versions(&self) -> Vec<VersionTruth> {
        self.jobs
            .values()
            .flat_map(|job| job.versions.clone())
            .collect()
    }
}

fn of(jobs: &mut HashMap<JobId, JobTruth>, id: Uuid) -> &mut JobTruth {
    jobs.entry(JobId(id)).or_default()
}

async fn read_jobs(postgres: &Postgres) -> HashMap<JobId, JobTruth> {
    type Columns = (Uuid, String, Option<String>, Option<Value>, Option<i64>);
    let rows = postgres
        .rows::<Columns>(
            "SELECT id, status, termination_reason, error, (progress->>'step')::bigint FROM jobs",
        )
        .await;
    let read = |(id, status, reason, error, step): Columns| {
        let truth = JobTruth {
            status: Some(status.parse().unwrap()),
            reason: reason.map(|reason| reason.parse().unwrap()),
            error,
            step,
            ..JobTruth::default()
        };
        (JobId(id), truth)
    };
    rows.into_iter().map(read).collect()
}

async fn read_versions(postgres: &Postgres, jobs: &mut HashMap<JobId, JobTruth>) {
    for (job, model, version, manifest_uri, manifest_sha256) in postgres
        .rows::<(Uuid, String, i32, String, String)>(
            "SELECT v.job_id, m.name, v.version, v.manifest_uri, v.manifest_sha256
             FROM model_versions v JOIN models m ON m.id = v.model_id ORDER BY m.name, v.version",
        )
        .await
    {
        of(jobs, job).versions.push(VersionTruth {
            model,
            version,
            manifest_uri,
            manifest_sha256,
        });
    }
}
