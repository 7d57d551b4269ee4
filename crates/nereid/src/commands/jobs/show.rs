//! How jobs, their attempts and logs are printed.

use std::collections::BTreeMap;

use nereid_core::{
    ids::JobId,
    jobs::{Attempt, Job, JobRequest, JobResult, JobStatus},
};

use super::Context;
use crate::output;

/// Prints a job.
pub fn one(context: &Context, job: &Job) -> anyhow::Result<()> {
    if context.json {
        return output::json(job);
    }
    output::line(&format_args!("job {}  {}", job.id, summary(job)))?;
    for line in details(job) {
        output::line(&format_args!("  {line}"))?;
    }
    Ok(())
}

/// Prints jobs as a table.
pub fn list(context: &Context, jobs: &[Job]) -> anyhow::Result<()> {
    if context.json {
        return output::json(&jobs);
    }
    let rows = jobs
        .iter()
        .map(|job| {
            let metrics = job
                .progress
                .as_ref()
                .map(|p| output::metrics(headline(&p.metrics)));
            [
                job.id.to_string(),
                job.spec.kind().to_string(),
                job.spec
                    .model()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                standing(job),
                output::time(job.created_at),
                metrics.unwrap_or_default(),
            ]
        })
        .collect();
    output::table(
        ["JOB", "KIND", "MODEL", "STATUS", "SUBMITTED", "METRICS"],
        rows,
    )
}

/// Prints a job's attempts as a table.
pub fn attempts(context: &Context, attempts: &[Attempt]) -> anyhow::Result<()> {
    if context.json {
        return output::json(&attempts);
    }
    let rows = attempts
        .iter()
        .map(|a| {
            let reason = a.reason.map_or("running", |reason| reason.as_str());
            [
                a.epoch.to_string(),
                a.worker_id.to_string(),
                output::time(a.started_at),
                a.ended_at.map(output::time).unwrap_or_default(),
                reason.to_owned(),
                a.message.clone().unwrap_or_default(),
            ]
        })
        .collect();
    output::table(
        ["ATTEMPT", "WORKER", "STARTED", "ENDED", "REASON", "MESSAGE"],
        rows,
    )
}

/// Prints a job's log.
pub async fn logs(context: &Context, id: JobId) -> anyhow::Result<()> {
    let lines = context.client.job_logs(id, 100_000).await?;
    if context.json {
        return output::json(&lines);
    }
    for line in lines {
        output::line(&format_args!(
            "{} {:5} {}",
            output::time(line.at),
            line.level.as_str(),
            line.message
        ))?;
    }
    Ok(())
}

/// The metrics that people follow; a line has no room for all.
pub fn headline(metrics: &BTreeMap<String, f64>) -> impl Iterator<Item = (&String, &f64)> {
    metrics.iter().filter(|(name, _)| {
        let measure = name.strip_prefix("val_").unwrap_or(name);
        matches!(measure, "loss" | "accuracy" | "mae" | "rmse" | "r2")
    })
}

/// One line about where a job stands or how it ended.
pub fn summary(job: &Job) -> String {
    let status = standing(job);
    match (&job.result, &job.error) {
        (
            Some(JobResult::Train {
                model,
                version,
                metrics,
            }),
            _,
        ) => {
            let metrics = output::metrics(metrics);
            format!("{status}: {model} version {version}  {metrics}")
        }
        (
            Some(JobResult::Deploy {
                endpoint,
                model,
                version,
            }),
            _,
        ) => format!("{status}: endpoint {endpoint} serves {model} version {version}"),
        (
            Some(JobResult::BatchPredict {
                rows,
                rejected,
                output,
                rows_per_second,
                ..
            }),
            _,
        ) => format!(
            "{status}: {rows} rows predicted, {rejected} rejected, at {rows_per_second:.0} rows/s; see {output}"
        ),
        (Some(JobResult::Noop {}), _) | (None, None) => status,
        (None, Some(error)) => format!("{status} ({}): {}", error.reason, error.message),
    }
}

/// Where a job stands, in few words.
fn standing(job: &Job) -> String {
    let mut words = match (job.phase, job.termination_reason) {
        (Some(phase), _) => format!("{}: {phase}", job.status),
        (None, Some(reason)) if job.status == JobStatus::Stopped => {
            format!("{} ({reason})", job.status)
        }
        _ => job.status.to_string(),
    };
    words.push_str(match job.requested {
        None => "",
        Some(JobRequest::Pause) => ", to be paused",
        Some(JobRequest::Stop) => ", to be stopped",
        Some(JobRequest::Cancel) => ", to be cancelled",
    });
    words
}

/// What else there is to say about a job that has not ended.
fn details(job: &Job) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(waiting) = &job.waiting {
        let (place, since) = (waiting.position, output::time(waiting.since));
        lines.push(format!(
            "number {place} in the queue since {since}: {}",
            waiting.detail
        ));
        lines.extend(
            waiting
                .not_before
                .map(|at| format!("not tried before {}", output::time(at))),
        );
        lines.extend(
            waiting
                .gives_up_at
                .map(|at| format!("fails if still waiting at {}", output::time(at))),
        );
    }
    if job.status == JobStatus::Paused {
        lines.push(format!("`nereid job resume {}` lets it go on", job.id));
    }
    if let Some(progress) = job.progress.as_ref().filter(|_| !job.status.is_final()) {
        let metrics = output::metrics(headline(&progress.metrics));
        lines.push(format!(
            "epoch {}/{}, step {}/{}  {metrics}",
            progress.epoch, progress.epochs, progress.step, progress.steps
        ));
    }
    if job.attempts + job.lease_losses > 1 || job.lease_losses > 0 {
        lines.push(format!(
            "{} of {} attempts used up, {} lost with their worker",
            job.attempts, job.options.max_attempts, job.lease_losses
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(change: &serde_json::Value) -> Job {
        let mut job = json!({
            "id": "01980000-0000-7000-8000-000000000000",
            "project_id": "01980000-0000-7000-8000-000000000000",
            "kind": "noop", "spec": {"seconds": 1.0}, "status": "queued",
            "attempts": 0, "lease_losses": 0, "created_at": "2026-01-01T00:00:00Z",
        });
        let fields = change.as_object().unwrap().clone();
        job.as_object_mut().unwrap().extend(fields);
        serde_json::from_value(job).unwrap()
    }

    #[test]
    fn says_why_a_job_waits_and_what_it_was_asked() {
        let waiting = job(&json!({"waiting": {
            "reason": "no_matching_worker", "detail": "no worker has rack=b", "position": 3,
            "since": "2026-01-01T00:00:00Z", "gives_up_at": "2026-01-01T01:00:00Z",
        }}));
        let text = details(&waiting).join("\n");
        assert!(text.contains("number 3") && text.contains("rack=b") && text.contains("01:00:00"));
        let running = job(&json!({
            "status": "running", "phase": "training", "requested": "pause", "lease_losses": 2,
        }));
        assert_eq!(summary(&running), "running: training, to be paused");
        assert!(details(&running).join("\n").contains("2 lost"));
        let paused = job(&json!({"status": "paused", "termination_reason": "paused"}));
        assert_eq!(summary(&paused), "paused");
        assert!(details(&paused)[0].contains("job resume"));
        let ended = job(
            &json!({"status": "stopped", "termination_reason": "stopped_early",
            "result": {"kind": "train", "model": "m", "version": 2, "metrics": {}}}),
        );
        assert!(summary(&ended).starts_with("stopped (stopped_early): m version 2"));
    }
}
