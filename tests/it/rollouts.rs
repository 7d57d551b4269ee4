//! Endpoints that are updated, tried in the shadow and put to sleep, asked over HTTP meanwhile.

use std::time::{Duration, Instant};

use nereid_client::Client;
use nereid_core::{endpoints::Endpoint, rollouts::RolloutStatus};
use serde_json::{Value, json};

use crate::support::*;

/// Longest wait for what takes a few seconds.
const PATIENCE: Duration = Duration::from_mins(1);

/// Asks an endpoint for a prediction; returns the answer.
async fn ask(server: &Server, name: &str) -> Value {
    let url = server.url(&format!("/v1/endpoints/{name}/predict"));
    let body = json!({ "rows": [vec![1.0; 64]] });
    let response = reqwest::Client::new().post(url).json(&body).send().await;
    let response = response.unwrap();
    let status = response.status();
    let answer: Value = response.json().await.unwrap();
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn get(server: &Server, path: &str) -> Value {
    let response = reqwest::get(server.url(path)).await.unwrap();
    response.json().await.unwrap()
}

/// Waits until an endpoint is as it should be.
async fn eventually(client: &Client, name: &str, holds: impl Fn(&Endpoint) -> bool) -> Endpoint {
    let began = Instant::now();
    loop {
        let endpoint = client.endpoint(name).await.unwrap();
        if holds(&endpoint) {
            return endpoint;
        }
        assert!(began.elapsed() < PATIENCE, "{endpoint:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Two versions of a model of the digits.
async fn two_versions(client: &Client, name: &str) {
    add_digits(client, name).await;
    for epochs in [1, 2] {
        succeed(client, &tiny_job(name, name, epochs)).await;
    }
}

#[tokio::test]
async fn a_variant_that_nobody_asks_is_unloaded_and_the_first_request_waits_for_it() {
    let server = Server::shared();
    let client = server.client();
    let name = unique("sleepy");
    add_digits(&client, &name).await;
    succeed(&client, &tiny_job(&name, &name, 1)).await;
    let policy =
        json!({"min_capacity": 0, "max_capacity": 1, "target_value": 1, "scale_in_cooldown": 2});
    let options = json!({ "autoscaling": policy });
    let job = client.deploy_model(&name, 1, &options).await.unwrap();
    finish(&client, job.id).await;
    ask(&server, &name).await;
    eventually(&client, &name, |e| {
        let variant = &e.variants[0];
        variant.desired_replicas == 0 && variant.replicas_status.is_empty()
    })
    .await;
    let began = Instant::now();
    ask(&server, &name).await;
    println!("from zero to the first answer: {:?}", began.elapsed());
    let events = get(&server, &format!("/v1/endpoints/{name}/events")).await;
    let events = events["items"].as_array().unwrap();
    let steps: Vec<_> = events.iter().filter(|e| e["kind"] == "scaled").collect();
    let pair = |e: &Value| (e["data"]["from"].as_u64(), e["data"]["to"].as_u64());
    assert_eq!(pair(steps[0]), (Some(0), Some(1)));
    assert_eq!(pair(steps[1]), (Some(1), Some(0)));
    assert_eq!(steps[0]["data"]["reason"], "a request waits");
}

#[tokio::test]
async fn a_shadow_gets_copies_and_its_answers_are_compared_but_never_given() {
    let server = Server::shared();
    let client = server.client();
    let name = unique("shadowed");
    two_versions(&client, &name).await;
    let job = client.deploy_model(&name, 1, &json!({})).await.unwrap();
    finish(&client, job.id).await;
    let shadow = json!({"rollout": {"type": "shadow", "wait_interval_in_seconds": 3_600}});
    let job = client.deploy_model(&name, 2, &shadow).await.unwrap();
    finish(&client, job.id).await;
    let began = Instant::now();
    let report = loop {
        for _ in 0..10 {
            assert_eq!(ask(&server, &name).await["version"], 1);
        }
        let report = get(&server, &format!("/v1/endpoints/{name}/rollout")).await;
        if report["new"]["mirrored"].as_u64() >= Some(10) {
            break report;
        }
        assert!(began.elapsed() < PATIENCE, "{report}");
    };
    assert_eq!(report["rollout"]["status"], "shifting");
    assert!(report["old"]["requests"].as_u64() >= Some(10), "{report}");
    let (mirrored, mismatched) = (&report["new"]["mirrored"], &report["new"]["mismatched"]);
    assert!(mismatched.as_u64() <= mirrored.as_u64(), "{report}");

    client.rollback_endpoint(&name).await.unwrap();
    let endpoint = client.endpoint(&name).await.unwrap();
    let rollout = endpoint.rollout.unwrap();
    assert_eq!(rollout.status, RolloutStatus::Completed);
    assert_eq!(ask(&server, &name).await["version"], 1);
}

/// A canary that answers wrongly often enough is undone by itself; here the rule is one that any
/// request breaks.
#[tokio::test]
async fn a_canary_that_breaks_its_rule_is_undone_while_requests_go_on() {
    let server = Server::shared();
    let client = server.client();
    let name = unique("canary");
    two_versions(&client, &name).await;
    let job = client.deploy_model(&name, 1, &json!({})).await.unwrap();
    finish(&client, job.id).await;
    let rule = json!({"metric": "latency_p99_ms", "threshold": 0, "min_requests": 5});
    let canary = json!({"rollout": {"type": "canary", "canary_size": 50, "auto_rollback": [rule]}});
    let job = client.deploy_model(&name, 2, &canary).await.unwrap();
    finish(&client, job.id).await;
    let began = Instant::now();
    let mut versions = Vec::new();
    loop {
        versions.push(ask(&server, &name).await["version"].as_u64().unwrap());
        let endpoint = client.endpoint(&name).await.unwrap();
        if endpoint.generation == 3 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{endpoint:?}");
    }
    assert!(
        versions.contains(&1) && versions.contains(&2),
        "{versions:?}"
    );
    let rollouts = get(&server, &format!("/v1/endpoints/{name}/rollouts")).await;
    let undone = &rollouts["items"][1];
    assert_eq!(undone["status"], "rolled_back");
    let why = undone["reason"].as_str().unwrap();
    assert!(why.contains("latency_p99_ms"), "{why}");
    let serving = eventually(&client, &name, |e| e.serving_generation == Some(3)).await;
    assert_eq!(serving.variants[0].spec.version, 1);
}
