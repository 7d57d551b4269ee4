//! Overload of an endpoint, and how its variants' settings are checked.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::*;

/// Rows of each request: enough to compute for a while.
const ROWS: usize = 2_048;
/// Requests at the same time.
const CLIENTS: usize = 24;

struct Asked {
    status: u16,
    retry_after: Option<String>,
    took: Duration,
}

async fn ask(client: &reqwest::Client, url: &str, body: &str) -> Asked {
    let began = Instant::now();
    let response = client.post(url).header("content-type", "application/json");
    let response = response.body(body.to_owned()).send().await.unwrap();
    let header = response.headers().get("retry-after");
    Asked {
        status: response.status().as_u16(),
        retry_after: header.map(|v| v.to_str().unwrap().to_owned()),
        took: began.elapsed(),
    }
}

#[tokio::test]
async fn overload_answers_429_and_recovers_at_once() {
    let server = Server::shared();
    let client = server.client();
    let name = unique("crowded");
    add_digits(&client, &name).await;
    succeed(&client, &tiny_job(&name, &name, 1)).await;
    let narrow = json!({"batching": {"max_queue_size": 1, "concurrency": 1}});
    let job = client.deploy_model(&name, 1, &narrow).await.unwrap();
    finish(&client, job.id).await;
    let endpoint = client.endpoint(&name).await.unwrap();
    assert_eq!(endpoint.variants[0].spec.batching.max_queue_size, 1);

    let url = server.url(&format!("/v1/endpoints/{name}/predict"));
    let many = json!({ "rows": vec![vec![1.0; 64]; ROWS] }).to_string();
    let mut asking = JoinSet::new();
    for _ in 0..CLIENTS {
        let (url, many) = (url.clone(), many.clone());
        asking.spawn(async move {
            let client = reqwest::Client::new();
            let mut asked = Vec::new();
            for _ in 0..4 {
                asked.push(ask(&client, &url, &many).await);
            }
            asked
        });
    }
    let mut all = Vec::new();
    while let Some(asked) = asking.join_next().await {
        all.extend(asked.unwrap());
    }
    let (answered, refused): (Vec<_>, Vec<_>) = all.iter().partition(|a| a.status == 200);
    assert!(!answered.is_empty(), "nothing was answered");
    assert!(!refused.is_empty(), "everything was answered");
    for refusal in &refused {
        assert_eq!(refusal.status, 429);
        assert_eq!(refusal.retry_after.as_deref(), Some("1"));
    }
    let median = |asked: &[&Asked]| {
        let mut times: Vec<_> = asked.iter().map(|a| a.took).collect();
        times.sort();
        times[times.len() / 2]
    };
    let (refusing, serving) = (median(&refused), median(&answered));
    assert!(refusing < serving, "{refusing:?} {serving:?}");
    let one = json!({ "rows": [vec![1.0; 64]] }).to_string();
    let after = ask(&reqwest::Client::new(), &url, &one).await;
    assert_eq!(after.status, 200);
}

#[tokio::test]
async fn settings_out_of_range_are_named() {
    let server = Server::shared();
    let wrong = json!({
        "name": "nobody",
        "variants": [{
            "name": "main", "model": "nobody", "version": 1,
            "batching": {"max_batch_size": 0, "response_cache": {"max_bytes": 1}},
            "hedge_after_us": 0,
        }],
    });
    let url = server.url("/v1/endpoints");
    let response = reqwest::Client::new().post(url).json(&wrong).send().await;
    let problem: Value = response.unwrap().json().await.unwrap();
    let pointers = problem["errors"].as_array().unwrap().iter();
    let pointers: Vec<_> = pointers.map(|e| e["pointer"].as_str().unwrap()).collect();
    let expected = [
        "/variants/0/batching/max_batch_size",
        "/variants/0/batching/response_cache/max_bytes",
        "/variants/0/hedge_after_us",
    ];
    assert_eq!(pointers, expected, "{problem}");
}
