//! A pool of worker processes that grows and shrinks with the queue.

use std::time::Duration;

use nereid_core::{
    jobs::JobStatus,
    workers::{Worker, WorkerStatus},
};
use serde_json::{Value, json};

use crate::{
    installation::{Installation, Role},
    support::*,
};

/// Workers that are there.
async fn workers(api: &Role, key: &str) -> Vec<Worker> {
    let url = format!("{}/v1/workers", api.url());
    let request = reqwest::Client::new().get(url).bearer_auth(key);
    let list: Value = request.send().await.unwrap().json().await.unwrap();
    let all: Vec<Worker> = serde_json::from_value(list["items"].clone()).unwrap();
    let there = |w: &Worker| w.status != WorkerStatus::Gone;
    all.into_iter().filter(there).collect()
}

/// Nobody takes jobs of the pool at first; its workers come, do them and go again, and each job is
/// done once.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_brings_workers_for_the_jobs_that_wait_and_takes_them_away_again() {
    let (services, key) = Installation::migrated().await;
    let api = Role::start(services.nereid(&["api"])).await;
    let client = api.client(&key);
    let args = [
        "pool",
        "--name",
        "night",
        "--max",
        "2",
        "--scale-out-cooldown",
        "1",
        "--scale-in-cooldown",
        "2",
    ];
    let mut pool = Role::start(services.nereid(&args)).await;
    assert_eq!(workers(&api, &key).await, []);
    let mut jobs = Vec::new();
    for _ in 0..4 {
        let job = json!({
            "kind": "noop", "spec": {"seconds": 0.5}, "worker_labels": {"nereid.pool": "night"},
        });
        jobs.push(client.submit_job(&job).await.unwrap().id);
    }
    for id in jobs {
        let job = finish(&client, id).await;
        assert_eq!((job.status, job.attempts), (JobStatus::Succeeded, 1));
    }
    let seen = workers(&api, &key).await;
    assert!((1..=2).contains(&seen.len()), "{seen:?}");
    let labelled =
        |w: &Worker| w.info.labels.get("nereid.pool").map(String::as_str) == Some("night");
    assert!(seen.iter().all(labelled));
    let empty = async {
        while !workers(&api, &key).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_mins(1), empty).await;
    assert!(gone.is_ok(), "the workers are still there");
    assert!(pool.is_alive());
}
