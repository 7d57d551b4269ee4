//! `nereid job …`

mod show;

use std::{io::Read as _, path::Path, process::ExitCode};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use nereid_client::{Client, JobQuery};
use nereid_core::{
    events::{EventKind, JobEvent},
    ids::JobId,
    jobs::{Job, JobStatus, Progress},
};
use serde_json::Value;

pub use self::show::summary;
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
            show::one(context, &job)?;
        }
        JobCommand::Watch { id } => return watch_to_end(context, id).await,
        JobCommand::Get { id } => show::one(context, &client.job(id).await?)?,
        JobCommand::Attempts { id } => {
            show::attempts(context, &client.job_attempts(id).await?)?;
        }
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
            show::list(context, &client.jobs(&query, limit).await?)?;
        }
        JobCommand::Logs { id } => show::logs(context, id).await?,
        JobCommand::Pause { id } => show::one(context, &client.pause_job(id).await?)?,
        JobCommand::Resume { id } => show::one(context, &client.resume_job(id).await?)?,
        JobCommand::Stop { id } => show::one(context, &client.stop_job(id).await?)?,
        JobCommand::Cancel { id } => show::one(context, &client.cancel_job(id).await?)?,
        JobCommand::Retry { id } => show::one(context, &client.retry_job(id).await?)?,
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
            let shown = output::metrics(show::headline(&progress.metrics));
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
                if word == JobStatus::Paused.as_str() {
                    let id = event.job_id;
                    tell(
                        bar,
                        &format!("paused; `nereid job resume {id}` lets it go on"),
                    );
                }
            }
        }
        EventKind::Requested => {
            let asked = event.data.get("request").and_then(Value::as_str);
            tell(bar, &format!("asked to {}", asked.unwrap_or("end")));
        }
        EventKind::RuleTriggered => {
            if let Some(found) = event.data.get("message").and_then(Value::as_str) {
                tell(bar, found);
            }
        }
        _ => {}
    }
}

/// Says something beside the bar.
fn tell(bar: &ProgressBar, text: &str) {
    if bar.is_hidden() {
        println!("  {text}");
    } else {
        bar.set_message(text.to_owned());
    }
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
