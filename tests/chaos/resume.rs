//! Exact resume: the README's MNIST network, killed again and again, ends with the same weights.

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use nereid_client::Client;
use nereid_core::{
    datasets::{DatasetFormat, FileRole},
    events::LogLine,
    ids::{JobId, WorkerId},
    jobs::TerminationReason,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    cluster::Cluster,
    process::Process,
    report::say,
    support::{add_dataset, finish, mnist, readme_spec, renamed},
    truth::Truth,
    verify::Reference,
};

/// How often the worker that trains is killed.
const KILLS: usize = 5;
/// Steps between two checkpoints.
const CHECKPOINT: u64 = 20;
/// Pause between two looks at the job.
const LOOK: Duration = Duration::from_millis(30);
/// Longest wait for the next step, failover included.
const PATIENCE: Duration = Duration::from_mins(2);

/// Trains once undisturbed and once killed at random steps, and compares weights and metrics.
pub async fn killed_and_resumed(seed: u64, rows: usize, epochs: u32) {
    let cluster = Box::pin(Cluster::start(1, 2)).await;
    let client = cluster.client(0);
    add_mnist(&client, "mnist", "train", rows).await;
    add_mnist(&client, "mnist-test", "t10k", rows).await;
    let mut job = renamed(readme_spec("mnist"), &[]);
    job["spec"]["fit"]["epochs"] = json!(epochs);
    job["spec"]["callbacks"] = json!([{"type": "checkpoint", "every_steps": CHECKPOINT}]);

    let began = Instant::now();
    let undisturbed = client.submit_job(&job).await.unwrap().id;
    finish(&client, undisturbed).await;
    let alone = began.elapsed();
    let steps = last_step(&cluster, undisturbed).await;

    let kills = draw(seed, steps);
    say(&format!(
        "\nresume: seed {seed}, {steps} steps in {alone:.1?}, kill -9 at {kills:?}"
    ));
    let began = Instant::now();
    let killed = kill_at(&cluster, &client, &job, &kills).await;
    let disturbed = began.elapsed();

    let truth = Truth::read(&cluster.postgres).await;
    let history = &truth.jobs[&killed];
    let reasons: Vec<_> = history
        .attempts
        .iter()
        .map(|a| a.reason.as_deref())
        .collect();
    let mut expected = vec![Some(TerminationReason::LeaseLost.as_str()); KILLS];
    expected.push(Some(TerminationReason::Completed.as_str()));
    assert_eq!(reasons, expected, "{:#?}", history.logs);
    for epoch in 2..=KILLS + 1 {
        let resumed = |(of, _, message): &(i64, String, String)| {
            usize::try_from(*of).unwrap() == epoch && message.contains("resumed")
        };
        let logs = &history.logs;
        assert!(
            logs.iter().any(resumed),
            "attempt {epoch} started over: {logs:#?}"
        );
    }
    let before = Reference::of(&truth.jobs[&undisturbed], &cluster.objects).await;
    let after = Reference::of(history, &cluster.objects).await;
    let series = |reference: &Reference| {
        let steps: Vec<_> = reference.metrics.iter().map(|point| point.0).collect();
        steps
    };
    assert_eq!(
        series(&after),
        series(&before),
        "each step once, none missing"
    );
    assert_eq!(after, before, "weights and metrics of both trainings");
    say(&format!(
        "resume: weights.safetensors {} both times, {} points of metrics; killed {KILLS} times it \
         took {disturbed:.1?} instead of {alone:.1?}",
        after.weights,
        after.metrics.len()
    ));
}

/// Draws rising steps, each far enough from the others to be reached by an attempt of its own.
fn draw(seed: u64, steps: u64) -> Vec<u64> {
    let mut rng = StdRng::seed_from_u64(seed);
    let share = (steps - 2 * CHECKPOINT) / KILLS as u64;
    let kills = (0..KILLS as u64).map(|i| {
        let from = CHECKPOINT + 2 + i * share;
        rng.random_range(from..from + share)
    });
    kills.collect()
}

/// Submits the job, kills its worker at each of these steps, and waits for its success.
async fn kill_at(cluster: &Cluster, client: &Client, job: &Value, kills: &[u64]) -> JobId {
    let id = client.submit_job(job).await.unwrap().id;
    for (step, attempt) in kills.iter().zip(1..) {
        let until = Instant::now() + PATIENCE;
        let worker = loop {
            assert!(Instant::now() < until, "step {step} was never reached");
            let job = client.job(id).await.unwrap();
            assert!(
                !job.status.is_final(),
                "it ended before step {step}: {:?}",
                job.error
            );
            let attempts = client.job_attempts(id).await.unwrap();
            let reached = job.progress.is_some_and(|progress| progress.step >= *step);
            match attempts.last() {
                // What the attempt before reached is still there until this one has said its own.
                Some(last)
                    if last.epoch == attempt && reached && trains(client, id, attempt).await =>
                {
                    break last.worker_id;
                }
                _ => sleep(LOOK).await,
            }
        };
        let process = process_of(cluster, worker);
        process.end("KILL").await;
        process.start().await;
    }
    finish(client, id).await;
    id
}

/// Tells whether an attempt has come so far as to train, from a checkpoint unless it is the first.
async fn trains(client: &Client, id: JobId, attempt: u64) -> bool {
    let logs = client.job_logs(id, 1000).await.unwrap();
    let resumed = |log: &LogLine| log.epoch == attempt && log.message.contains("resumed");
    attempt == 1 || logs.iter().any(resumed)
}

pub fn process_of(cluster: &Cluster, worker: WorkerId) -> &Process {
    let is_it = |process: &&Process| process.log_text().contains(&worker.to_string());
    cluster.workers().into_iter().find(is_it).unwrap()
}

async fn last_step(cluster: &Cluster, job: JobId) -> u64 {
    let truth = Truth::read(&cluster.postgres).await;
    let last = truth.jobs[&job].metrics.last().unwrap().0;
    u64::try_from(last).unwrap()
}

/// Registers the first rows of MNIST's training or test data.
pub async fn add_mnist(client: &Client, name: &str, stem: &str, rows: usize) {
    let images = format!("{stem}-images-idx3-ubyte.gz");
    let labels = format!("{stem}-labels-idx1-ubyte.gz");
    let files = [
        (
            FileRole::Data,
            images.as_str(),
            first_rows(&mnist(&images), rows),
        ),
        (
            FileRole::Labels,
            labels.as_str(),
            first_rows(&mnist(&labels), rows),
        ),
    ];
    let shape = Some(vec![28, 28, 1]);
    add_dataset(client, name, DatasetFormat::Idx, &files, None, shape).await;
}

/// The first rows of a gzipped IDX file: four bytes of which the last is the rank, the dimensions
/// as 32-bit numbers, the values in bytes.
fn first_rows(file: &[u8], rows: usize) -> Vec<u8> {
    let mut idx = Vec::new();
    GzDecoder::new(file).read_to_end(&mut idx).unwrap();
    let rank = usize::from(idx[3]);
    let dimension = |i: usize| {
        let bytes = idx[4 + 4 * i..8 + 4 * i].try_into().unwrap();
        u32::from_be_bytes(bytes) as usize
    };
    let rows = rows.min(dimension(0));
    let row: usize = (1..rank).map(dimension).product();
    idx.truncate(4 + 4 * rank + rows * row);
    idx[4..8].copy_from_slice(&u32::try_from(rows).unwrap().to_be_bytes());
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&idx).unwrap();
    gzip.finish().unwrap()
}
