//! `nereid job …`

use std::{collections::BTreeMap, io::Read as _, path::Path, process::ExitCode};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use nereid_client::{Client, JobQuery};
use nereid_core::{
    events::{EventKind, JobEvent},
    ids::JobId,
    jobs::{Job, JobResult, JobStatus, Progress},
};
use serde_json::Value;

use super::Context;
use crate::{cli::JobCommand, output};

pub async fn run(context: &Context, command: JobCommand) -> anyhow::Result<ExitCode> {
    let client = &context.client;
    match command {
        JobCommand::Submit { file, watch } => {
            let job = client.submit_job(&read_job(&file)?).await?;
            if watch {
                return watch_to_end(context, job.id).await;
            }
            show_one(context, &job)?;
        }
        JobCommand::Watch { id } => return watch_to_end(context, id).await,
        JobCommand::Get { id } => show_one(context, &client.job(id).await?)?,
        JobCommand::List {
            status,
            kind,
            model,
            labels,
            limit,
        } => {
            let query = JobQuery {
                status,
                kind,
                model,
                labels,
            };
            list(context, &client.jobs(&query, limit).await?)?;
        }
        JobCommand::Logs { id } => logs(context, id).await?,
        JobCommand::Cancel { id } => show_one(context, &client.cancel_job(id).await?)?,
        JobCommand::Retry { id } => show_one(context, &client.retry_job(id).await?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a job from TOML, YAML or JSON, by the file's ending.
fn read_job(path: &Path) -> anyhow::Result<Value> {
    let shown = path.display();
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("standard input")?;
        text
    } else {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?
    };
    let parsed = match path.extension().and_then(|e| e.to_str()) {
        Some("toml") => toml::from_str(&text).map_err(anyhow::Error::from),
        Some("yaml" | "yml") => yaml_serde::from_str(&text).map_err(anyhow::Error::from),
        _ => serde_json::from_str(&text).map_err(anyhow::Error::from),
    };
    parsed.with_context(|| format!("{shown} cannot be read as a job"))
}

/// Shows a job's progress until it has ended; the exit status says how.
pub async fn watch_to_end(context: &Context, id: JobId) -> anyhow::Result<ExitCode> {
    let job = if context.json {
        let mut failed = None;
        let job = context
            .client
            .watch_job(id, |event| match serde_json::to_string(event) {
                Ok(line) => println!("{line}"),
                Err(e) => failed = Some(e),
            })
            .await?;
        failed.map_or(Ok(job), Err)?
    } else {
        watch(&context.client, id).await?
    };
    let succeeded = job.status == JobStatus::Succeeded;
    if context.json {
        println!("{}", serde_json::to_string(&job)?);
    } else {
        println!("{}", summary(&job));
    }
    Ok(if succeeded {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Shows a progress bar until the job has ended.
pub async fn watch(client: &Client, id: JobId) -> anyhow::Result<Job> {
    let bar = ProgressBar::new(0);
    bar.set_style(
        ProgressStyle::with_template("{spinner} {prefix:11} [{bar:32}] {pos}/{len} {wide_msg}")
            .context("progress bar")?
            .progress_chars("=> "),
    );
    let mut epoch = 0;
    let job = client
        .watch_job(id, |event| show_event(&bar, event, &mut epoch))
        .await?;
    bar.finish_and_clear();
    Ok(job)
}

fn show_event(bar: &ProgressBar, event: &JobEvent, epoch: &mut u32) {
    match event.kind {
        EventKind::Progress => {
            let Ok(progress) = serde_json::from_value::<Progress>(event.data.clone()) else {
                return;
            };
            bar.set_length(progress.steps);
            bar.set_position(progress.step);
            let shown = output::metrics(headline(&progress.metrics));
            bar.set_message(format!(
                "epoch {}/{}  {shown}",
                progress.epoch, progress.epochs
            ));
            // Where nobody sees a bar, each epoch is a line.
            if bar.is_hidden() && progress.epoch != *epoch {
                println!("  epoch {}/{}  {shown}", progress.epoch, progress.epochs);
                *epoch = progress.epoch;
            }
        }
        EventKind::PhaseChanged | EventKind::StatusChanged => {
            let field = if event.kind == EventKind::PhaseChanged {
                "phase"
            } else {
                "status"
            };
            if let Some(word) = event.data.get(field).and_then(Value::as_str) {
                bar.set_prefix(word.to_owned());
            }
        }
        _ => {}
    }
}

/// The metrics that people follow; a line has no room for all.
fn headline(metrics: &BTreeMap<String, f64>) -> impl Iterator<Item = (&String, &f64)> {
    metrics.iter().filter(|(name, _)| {
        let measure = name.strip_prefix("val_").unwrap_or(name);
        matches!(measure, "loss" | "accuracy" | "mae" | "rmse" | "r2")
    })
}

/// One line about how a job ended.
pub fn summary(job: &Job) -> String {
    match (&job.result, &job.error) {
        (
            Some(JobResult::Train {
                model,
                version,
                metrics,
            }),
            _,
        ) => {
            format!(
                "{}: {model} version {version}  {}",
                job.status,
                output::metrics(metrics)
            )
        }
        (
            Some(JobResult::Deploy {
                endpoint,
                model,
                version,
            }),
            _,
        ) => {
            format!(
                "{}: endpoint {endpoint} serves {model} version {version}",
                job.status
            )
        }
        (None, Some(error)) => format!("{} ({}): {}", job.status, error.reason, error.message),
        (None, None) => job.status.to_string(),
    }
}

fn show_one(context: &Context, job: &Job) -> anyhow::Result<()> {
    if context.json {
        return output::json(job);
    }
    println!("job {}  {}", job.id, summary(job));
    Ok(())
}

fn list(context: &Context, jobs: &[Job]) -> anyhow::Result<()> {
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
                job.spec.model().to_string(),
                job.phase.map_or_else(
                    || job.status.to_string(),
                    |p| format!("{}: {p}", job.status),
                ),
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

async fn logs(context: &Context, id: JobId) -> anyhow::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_job_in_all_three_notations() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            read_job(&path).unwrap()
        };
        let json = write(
            "a.json",
            r#"{"kind": "deploy", "spec": {"model": "m", "version": 1}}"#,
        );
        let toml = write(
            "a.toml",
            "kind = \"deploy\"\n[spec]\nmodel = \"m\"\nversion = 1\n",
        );
        let yaml = write("a.yaml", "kind: deploy\nspec:\n  model: m\n  version: 1\n");
        assert_eq!(json, toml);
        assert_eq!(json, yaml);
    }
}
