//! The figures of `docs/reliability.md`: how long it takes to go on, and what checkpoints cost.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use nereid_client::Client;
use nereid_core::{
    clock::{Clock, SystemClock},
    ids::JobId,
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    cluster::Cluster,
    postgres::Stop,
    report::say,
    resume::{add_mnist, process_of},
    specs,
    support::{finish, readme_spec, renamed, succeed},
};

/// Nereid's defaults.
const LEASE: Duration = Duration::from_secs(15);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often each thing is measured.
const ROUNDS: usize = 5;
/// Rows of MNIST for the cost of checkpoints.
const ROWS: usize = 60_000;
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_mins(2);

/// Measures and prints everything.
pub async fn measure() {
    let cluster = Box::pin(Cluster::with_leases(1, 2, LEASE, HEARTBEAT)).await;
    let client = cluster.client(0);
    specs::prepare(&client).await;
    say("\nminimum, median and maximum in seconds:");
    failover(&cluster, &client).await;
    for how in [Stop::Fast, Stop::Immediate] {
        restart(&cluster, &client, how).await;
    }
    checkpoints(&cluster, &client).await;
}

/// From `kill -9` of a worker to the next attempt's claim and first step.
async fn failover(cluster: &Cluster, client: &Client) {
    let mut job = specs::train(0, "failover");
    job["spec"]["fit"]["epochs"] = json!(100_000);
    let (mut claimed, mut stepped) = (Vec::new(), Vec::new());
    // A job each: one that loses its workers again and again is put off for longer each time.
    for _ in 0..ROUNDS {
        let id = client.submit_job(&job).await.unwrap().id;
        let worker = until(|| async {
            let last = client.job_attempts(id).await.unwrap().pop()?;
            let trains = stepped_since(cluster, id, last.started_at).await.is_some();
            trains.then_some(last.worker_id)
        })
        .await;
        // At another moment between two heartbeats each time.
        sleep(HEARTBEAT.mul_f64(rand::random())).await;
        let process = process_of(cluster, worker);
        let killed = SystemClock.now();
        process.end("KILL").await;
        let next = until(|| async {
            let attempts = client.job_attempts(id).await.unwrap();
            attempts.get(1).map(|next| next.started_at)
        })
        .await;
        let step = until(|| stepped_since(cluster, id, next)).await;
        claimed.push(seconds(next - killed));
        stepped.push(seconds(step - killed));
        client.cancel_job(id).await.unwrap();
        process.start().await;
    }
    row("kill -9 of a worker to the next claim", &mut claimed);
    row("kill -9 of a worker to the next step", &mut stepped);
}

/// The first step that was reported after a moment.
async fn stepped_since(
    cluster: &Cluster,
    job: JobId,
    since: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let mut session = cluster.postgres.session().await;
    sqlx::query_scalar("SELECT min(at) FROM job_metrics WHERE job_id = $1 AND at > $2")
        .bind(job.0)
        .bind(since)
        .fetch_one(&mut session)
        .await
        .unwrap()
}

/// From the moment a restarted Postgres takes connections to an API that answers and a job that runs.
async fn restart(cluster: &Cluster, client: &Client, how: Stop) {
    let http = reqwest::Client::new();
    let url = format!("{}/v1/jobs?page_size=1", cluster.apis()[0].url());
    let (mut answers, mut runs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        cluster.postgres.down(how).await;
        cluster.postgres.up().await;
        let up = Instant::now();
        until(|| async {
            let request = http.get(&url).bearer_auth(&cluster.key);
            let response = request.send().await.ok()?;
            response.status().is_success().then_some(())
        })
        .await;
        answers.push(up.elapsed().as_secs_f64());
        let job = json!({"kind": "noop", "spec": {}});
        succeed(client, &job).await;
        runs.push(up.elapsed().as_secs_f64());
    }
    row(
        &format!("Postgres back ({how:?}) to the API's answer"),
        &mut answers,
    );
    row(
        &format!("Postgres back ({how:?}) to a new job's end"),
        &mut runs,
    );
}

/// What a checkpoint each second costs a training, against none.
async fn checkpoints(cluster: &Cluster, client: &Client) {
    add_mnist(client, "mnist", "train", ROWS).await;
    add_mnist(client, "mnist-test", "t10k", ROWS).await;
    let mut job = renamed(readme_spec("mnist"), &[]);
    job["spec"]["fit"]["epochs"] = json!(1);
    let (mut none, mut each) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        none.push(training_time(cluster, client, &job, 86_400).await);
        each.push(training_time(cluster, client, &job, 1).await);
    }
    row("training without checkpoints", &mut none);
    row("training with a checkpoint each second", &mut each);
    let ratio = each[ROUNDS / 2] / none[ROUNDS / 2];
    say(&format!(
        "a checkpoint each second costs {:+.1} %",
        (ratio - 1.0) * 100.0
    ));
}

async fn training_time(cluster: &Cluster, client: &Client, job: &Value, every: u64) -> f64 {
    let mut job = job.clone();
    job["spec"]["callbacks"] = json!([{"type": "checkpoint", "every_seconds": every}]);
    let id = client.submit_job(&job).await.unwrap().id;
    finish(client, id).await;
    let mut session = cluster.postgres.session().await;
    sqlx::query_scalar(
        "SELECT extract(epoch FROM
             max(at) FILTER (WHERE data ->> 'phase' = 'evaluating')
             - max(at) FILTER (WHERE data ->> 'phase' = 'training'))::double precision
         FROM job_events WHERE job_id = $1 AND kind = 'phase_changed'",
    )
    .bind(id.0)
    .fetch_one(&mut session)
    .await
    .unwrap()
}

/// Looks again and again until there is something.
async fn until<T, F: Future<Output = Option<T>>>(look: impl Fn() -> F) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap()
}

fn seconds(time: chrono::TimeDelta) -> f64 {
    time.as_seconds_f64()
}

/// Sorts the values and prints a line.
fn row(what: &str, values: &mut [f64]) {
    values.sort_by(f64::total_cmp);
    let [first, .., last] = values else {
        unreachable!("measured several times")
    };
    let (min, max) = (*first, *last);
    let median = values[values.len() / 2];
    say(&format!("{what:<48} {min:7.2} {median:7.2} {max:7.2}"));
}
