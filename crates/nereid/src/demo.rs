//! `nereid demo`: the main job on real images, told step by step.
//!
//! It speaks to the API over HTTP, as any client would.

use std::time::Instant;

use anyhow::{Context, bail, ensure};
use nereid_client::{Client, NewDataset};
use nereid_core::{
    Name,
    datasets::{DatasetFormat, DatasetSource, DatasetVersion, FileRole},
    jobs::{Job, JobResult, JobStatus},
    models::ModelVersion,
};
use serde_json::{Value, json};

use crate::{
    cli::DevArgs,
    commands::{endpoints, jobs},
    config::Config,
    roles::dev::Dev,
    shutdown::Signals,
};

/// The UCI optical digits, see `assets/digits-LICENSE.md`.
const DIGITS: &[u8] = include_bytes!("../assets/digits.csv.gz");
/// The training job, as in the README.
const JOB: &str = include_str!("../assets/digits-job.json");
const NAME: &str = "digits";

/// Runs the demo, then serves until a signal comes.
pub async fn run(config: &Config, args: &DevArgs) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let Some(dev) = Dev::start_unless_stopped(config, args, &mut signals).await? else {
        return Ok(());
    };
    let client = Client::new(&dev.api, None)?;
    let told = tokio::select! {
        told = Box::pin(tell(&client)) => told,
        () = signals.received() => return dev.stop().await,
    };
    if let Err(e) = told {
        dev.stop().await?;
        return Err(e);
    }
    dev.print();
    if args.exit_when_done {
        return dev.stop().await;
    }
    println!("Serving on; Ctrl-C stops it, the next start finds everything again.");
    dev.run_until(signals).await
}

async fn tell(client: &Client) -> anyhow::Result<()> {
    let dataset = register(client).await?;
    let version = train(client).await?;
    deploy(client, &version).await?;
    predict(client, &dataset).await
}

async fn register(client: &Client) -> anyhow::Result<DatasetVersion> {
    println!("\n1. Dataset");
    let uploaded = client
        .upload_bytes("digits.csv.gz", DIGITS.to_vec())
        .await?;
    println!("   uploaded {} bytes to {}", uploaded.bytes, uploaded.uri);
    let dataset = client
        .register_dataset(&NewDataset {
            name: name()?,
            description: Some("UCI optical recognition of handwritten digits".to_owned()),
            tags: [("source".to_owned(), "doi:10.24432/C50P49".to_owned())].into(),
            source: DatasetSource {
                format: DatasetFormat::Csv,
                files: [(FileRole::Data, uploaded.uri.into())].into(),
                label_column: Some("label".to_owned()),
                label_columns: Vec::new(),
                shape: Some(vec![8, 8, 1]),
                target: None,
                columns: [].into(),
                arrays: [].into(),
            },
        })
        .await?;
    println!(
        "   {}@{}: {} images of shape {:?}, classes {}",
        dataset.dataset,
        dataset.version,
        dataset.statistics.rows,
        dataset.schema.shape,
        dataset.schema.classes().unwrap_or_default().join(" "),
    );
    Ok(dataset)
}

async fn train(client: &Client) -> anyhow::Result<ModelVersion> {
    println!("\n2. Training");
    let job: Value = serde_json::from_str(JOB).context("the bundled job")?;
    let started = Instant::now();
    let job = client.submit_job(&job).await?;
    println!("   job {}", job.id);
    let job = succeeded(jobs::watch(client, job.id).await?)?;
    let Some(JobResult::Train { version, .. }) = job.result else {
        bail!("job {} succeeded without a model version", job.id)
    };
    let version = client.model_version(NAME, version).await?;
    let accuracy = version
        .metrics
        .get("test_accuracy")
        .context("no test accuracy was measured")?;
    println!(
        "   {NAME} version {}: test accuracy {accuracy:.4} after {:.1} s",
        version.version,
        started.elapsed().as_secs_f64(),
    );
    println!(
        "   published as {} ({} bytes)",
        version.manifest_uri, version.bytes
    );
    Ok(version)
}

async fn deploy(client: &Client, version: &ModelVersion) -> anyhow::Result<()> {
    println!("\n3. Deployment");
    let job = client
        .deploy_model(NAME, version.version, &json!({}))
        .await?;
    let job = succeeded(jobs::watch(client, job.id).await?)?;
    println!("   {}", jobs::summary(&job));
    let served = client.model_version(NAME, version.version).await?;
    if let Some(artifact) = served.serving {
        for step in &artifact.report.steps {
            let kept = if step.kept { "kept" } else { "refused" };
            println!("   {} {kept}: {}", step.name, step.detail);
        }
    }
    Ok(())
}

async fn predict(client: &Client, dataset: &DatasetVersion) -> anyhow::Result<()> {
    println!("\n4. Prediction");
    let preview = client.dataset_preview(NAME, dataset.version).await?;
    let row = preview
        .get(3)
        .context("the dataset's preview is too short")?;
    for line in row.features.chunks(8) {
        let shades: String = line.iter().map(|&value| shade(value)).collect();
        println!("   |{shades}|");
    }
    let answer = client.predict(NAME, &[json!(row.features)]).await?;
    let prediction = answer
        .predictions
        .first()
        .context("the endpoint answered nothing")?;
    let truth = match &row.target {
        Some(Value::String(class)) => class.clone(),
        Some(other) => other.to_string(),
        None => "?".to_owned(),
    };
    println!(
        "   labelled {truth}; the endpoint says {}",
        endpoints::show(prediction)
    );
    print_commands(client, &row.features)
}

/// A pixel of 0 to 16 as two characters, which are about as wide as they are high.
fn shade(value: f64) -> &'static str {
    match value {
        v if v < 2.0 => "  ",
        v if v < 6.0 => "░░",
        v if v < 10.0 => "▒▒",
        v if v < 14.0 => "▓▓",
        _ => "██",
    }
}

/// The same prediction for the reader to repeat.
fn print_commands(client: &Client, features: &[f64]) -> anyhow::Result<()> {
    let base = client.base().as_str().trim_end_matches('/');
    let rows = serde_json::to_string(&json!({ "rows": [features] }))?;
    let tensor = serde_json::to_string(&json!({
        "inputs": [{"name": "input", "shape": [1, 8, 8, 1], "datatype": "FP32", "data": features}],
    }))?;
    println!("\n5. Try it");
    println!("   curl -s {base}/v1/models/{NAME}/versions");
    println!(
        "   curl -s {base}/v1/endpoints/{NAME}/predict -H 'Content-Type: application/json' -d '{rows}'"
    );
    println!(
        "   curl -s {base}/v2/models/{NAME}/infer -H 'Content-Type: application/json' -d '{tensor}'"
    );
    println!();
    Ok(())
}

fn succeeded(job: Job) -> anyhow::Result<Job> {
    ensure!(
        job.status == JobStatus::Succeeded,
        "job {}: {}",
        job.id,
        jobs::summary(&job)
    );
    Ok(job)
}

fn name() -> anyhow::Result<Name> {
    NAME.parse().context("the demo's name")
}
