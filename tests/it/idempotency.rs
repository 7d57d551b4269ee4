//! Writes that are safe to repeat.

use std::sync::Arc;

use reqwest::StatusCode;
use serde_json::Value;

use crate::support::*;

async fn submit(server: &Server, key: &str, job: &Value) -> (StatusCode, Value) {
    let response = reqwest::Client::new()
        .post(server.url("/v1/jobs"))
        .header("idempotency-key", key)
        .json(job)
        .send()
        .await
        .unwrap();
    (response.status(), response.json().await.unwrap())
}

#[tokio::test]
async fn the_same_key_and_body_give_the_same_job_and_another_body_is_refused() {
    let server = Server::shared();
    let name = unique("again");
    add_digits(&server.client(), &name).await;
    let job = tiny_job(&name, &name, 1);
    let (status, first) = submit(&server, &name, &job).await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, second) = submit(&server, &name, &job).await;
    assert_eq!((status, &second["id"]), (StatusCode::CREATED, &first["id"]));
    let (status, refused) = submit(&server, &name, &tiny_job(&name, &name, 2)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused["code"], "idempotency_mismatch");
}

#[tokio::test]
async fn clients_that_race_with_one_key_make_one_job() {
    let server = Server::shared();
    let name = unique("race");
    add_digits(&server.client(), &name).await;
    let job = Arc::new(tiny_job(&name, &name, 1));
    let mut racers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (server, job, key) = (server.clone(), job.clone(), name.clone());
        racers.spawn(async move { submit(&server, &key, &job).await });
    }
    let mut ids = std::collections::HashSet::new();
    while let Some(answer) = racers.join_next().await {
        match answer.unwrap() {
            (StatusCode::CREATED, body) => {
                ids.insert(body["id"].as_str().unwrap().to_owned());
            }
            (StatusCode::CONFLICT, body) => assert_eq!(body["code"], "idempotency_in_flight"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ids.len(), 1);
}
