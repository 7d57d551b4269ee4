//! Deployments, rollbacks, changes of size and killed workers while clients ask: no request fails.

use std::time::Duration;

use nereid_core::{
    endpoints::{Endpoint, ReplicaStatus},
    ids::WorkerId,
    rollouts::RolloutStatus,
};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::Cluster,
    report::say,
    support::{add_digits, finish, succeed, tiny_job},
};

/// Name of model, data set and endpoint.
const NAME: &str = "rolled";
/// Longest wait for one change to be through.
const PATIENCE: Duration = Duration::from_mins(2);

/// How much of everything happens.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub deployments: usize,
    pub rollbacks: usize,
    pub resizes: usize,
    pub kills: usize,
    /// Clients that ask on and on, and the pause of each between two requests.
    pub clients: usize,
    pub pause: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Deploy(u32),
    Rollback,
    Resize(u32),
    Kill,
}

/// What the clients saw.
#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
}

/// Carries the plan out in an order that follows from its seed.
pub async fn under_load(plan: Plan) {
    let cluster = Box::pin(Cluster::start(1, 3)).await;
    let client = cluster.client(0);
    add_digits(&client, NAME).await;
    for epochs in [1, 2] {
        succeed(&client, &tiny_job(NAME, NAME, epochs)).await;
    }
    let options = json!({"replicas": 3});
    let job = client.deploy_model(NAME, 1, &options).await.unwrap();
    finish(&client, job.id).await;
    let url = format!("{}/v1/endpoints/{NAME}/predict", cluster.apis()[0].url());

    let quiet = load(&plan, &url, &cluster.key, sleep(Duration::from_secs(5))).await;
    let mut acts = acts(&plan);
    acts.shuffle(&mut StdRng::seed_from_u64(plan.seed));
    let busy = load(&plan, &url, &cluster.key, async {
        for act in acts {
            say(&format!("{act:?}"));
            Box::pin(carry_out(&cluster, act)).await;
        }
    })
    .await;
    let (calm, stormy) = (p99(quiet), p99(busy));
    say(&format!("p99 {calm:.1?} in quiet, {stormy:.1?} meanwhile"));
}

fn acts(plan: &Plan) -> Vec<Act> {
    let mut acts = Vec::new();
    for i in 0..plan.deployments {
        acts.push(Act::Deploy(1 + u32::try_from(i % 2).unwrap()));
    }
    acts.extend((0..plan.rollbacks).map(|_| Act::Rollback));
    for i in 0..plan.resizes {
        acts.push(Act::Resize(if i % 2 == 0 { 4 } else { 2 }));
    }
    acts.extend((0..plan.kills).map(|_| Act::Kill));
    acts
}

async fn carry_out(cluster: &Cluster, act: Act) {
    let client = cluster.client(0);
    match act {
        Act::Deploy(version) => {
            let options = json!({"replicas": 3, "batching": {"max_batch_size": 8 + version}});
            let job = client.deploy_model(NAME, version, &options).await.unwrap();
            finish(&client, job.id).await;
        }
        Act::Rollback => {
            // The first of all finds nothing to go back to.
            if let Err(e) = client.rollback_endpoint(NAME).await {
                assert_eq!(e.problem().unwrap().code, "no_previous", "{e}");
            }
        }
        Act::Resize(replicas) => {
            let endpoint = client.endpoint(NAME).await.unwrap();
            let mut variant = json!(endpoint.variants[0].spec);
            variant["replicas"] = json!(replicas);
            let body = json!({"variants": [variant]});
            put(cluster, &body).await;
        }
        Act::Kill => {
            let endpoint = client.endpoint(NAME).await.unwrap();
            let serving = holders(&endpoint);
            // Each start draws another identifier, so a log names it once.
            let holds = |log: String| serving.iter().any(|id| log.contains(&id.to_string()));
            let workers = cluster.workers();
            let victim = workers.into_iter().find(|w| holds(w.log_text()));
            let victim = victim.expect("somebody serves");
            victim.end("KILL").await;
            sleep(Duration::from_millis(500)).await;
            victim.start().await;
        }
    }
    settled(cluster).await;
}

/// Workers that hold a ready replica.
fn holders(endpoint: &Endpoint) -> Vec<WorkerId> {
    let replicas = endpoint.variants.iter().flat_map(|v| &v.replicas_status);
    let ready = replicas.filter(|r| r.status == ReplicaStatus::Ready);
    let mut workers: Vec<_> = ready.map(|r| r.worker_id).collect();
    workers.sort_unstable();
    workers.dedup();
    workers
}

async fn put(cluster: &Cluster, body: &Value) {
    let url = format!("{}/v1/endpoints/{NAME}", cluster.apis()[0].url());
    let request = reqwest::Client::new().put(url).bearer_auth(&cluster.key);
    let response = request.json(body).send().await.unwrap();
    let status = response.status();
    let answer: Value = response.json().await.unwrap();
    assert_eq!(status, 200, "{answer}");
}

/// Waits until the newest generation serves, on two workers at least.
async fn settled(cluster: &Cluster) {
    let (client, began) = (cluster.client(0), Instant::now());
    loop {
        let endpoint = client.endpoint(NAME).await.unwrap();
        let over = endpoint.rollout.as_ref().map(|r| r.status) == Some(RolloutStatus::Completed);
        let serves = endpoint.serving_generation == Some(endpoint.generation);
        if over && serves && holders(&endpoint).len() >= 2 {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{endpoint:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Has the clients ask while `meanwhile` goes on; not one request may fail.
async fn load(plan: &Plan, url: &str, key: &str, meanwhile: impl Future<Output = ()>) -> Seen {
    let (stop, mut asking) = (CancellationToken::new(), JoinSet::new());
    for _ in 0..plan.clients {
        let (url, key, stop) = (url.to_owned(), key.to_owned(), stop.clone());
        asking.spawn(ask(url, key, plan.pause, stop));
    }
    meanwhile.await;
    stop.cancel();
    let mut seen = Seen::default();
    while let Some(ended) = asking.join_next().await {
        seen.latencies.extend(ended.unwrap());
    }
    say(&format!("{} requests, none failed", seen.latencies.len()));
    seen
}

async fn ask(url: String, key: String, pause: Duration, stop: CancellationToken) -> Vec<Duration> {
    let client = reqwest::Client::new();
    let body = json!({ "rows": [vec![1.0; 64]] });
    let mut latencies = Vec::new();
    while !stop.is_cancelled() {
        let began = Instant::now();
        let request = client.post(&url).bearer_auth(&key).json(&body);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(status, 200, "after {} answers: {answer}", latencies.len());
        latencies.push(began.elapsed());
        sleep(pause).await;
    }
    latencies
}

fn p99(mut seen: Seen) -> Duration {
    seen.latencies.sort_unstable();
    seen.latencies[seen.latencies.len() * 99 / 100]
}
