//! A worker that serves is killed under load: its requests are answered by another one.

use std::time::Duration;

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

/// Clients that ask on and on.
const CLIENTS: usize = 8;
/// Time before the kill.
const BEFORE: Duration = Duration::from_millis(1500);
/// Time after it: until long after everybody knows that the worker is gone.
const AFTER: Duration = Duration::from_secs(6);

/// Kills a serving worker while clients ask; no request may fail.
pub async fn killed_while_serving() {
    let cluster = Box::pin(Cluster::start(1, 2)).await;
    let client = cluster.client(0);
    add_digits(&client, "served").await;
    succeed(&client, &tiny_job("served", "served", 1)).await;
    let options = json!({"replicas": 2});
    let job = client.deploy_model("served", 1, &options).await.unwrap();
    finish(&client, job.id).await;
    let endpoint = client.endpoint("served").await.unwrap();
    let [one, other] = &endpoint.variants[0].replicas_status[..] else {
        panic!("two replicas were asked for: {endpoint:?}")
    };
    assert_ne!(one.worker_id, other.worker_id);
    let url = format!("{}/v1/endpoints/served/predict", cluster.apis()[0].url());
    let (stop, mut asking) = (CancellationToken::new(), JoinSet::new());
    for _ in 0..CLIENTS {
        asking.spawn(ask(url.clone(), cluster.key.clone(), stop.clone()));
    }
    sleep(BEFORE).await;
    cluster.workers()[0].end("KILL").await;
    sleep(AFTER).await;
    stop.cancel();
    let (mut asked, mut slowest) = (0, Duration::ZERO);
    while let Some(ended) = asking.join_next().await {
        let (answered, longest) = ended.unwrap();
        asked += answered;
        slowest = slowest.max(longest);
    }
    say(&format!("{asked} requests, slowest answer {slowest:.0?}"));
    assert!(asked > 100, "{asked}");
}

/// Asks until told to stop; returns how often, and the longest time that took.
async fn ask(url: String, key: String, stop: CancellationToken) -> (u32, Duration) {
    let client = reqwest::Client::new();
    let body = json!({ "rows": [vec![1.0; 64]] });
    let (mut asked, mut slowest) = (0, Duration::ZERO);
    while !stop.is_cancelled() {
        let began = Instant::now();
        let request = client.post(&url).bearer_auth(&key).json(&body);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(status, 200, "after {asked} answers: {answer}");
        asked += 1;
        slowest = slowest.max(began.elapsed());
    }
    (asked, slowest)
}
