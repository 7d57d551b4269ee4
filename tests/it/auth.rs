//! An installation of several processes with keys: Postgres and S3 are given, API and worker run
//! apart, and nobody gets in without a key.

use nereid_client::Client;
use serde_json::json;

use crate::{
    installation::{Installation, Role},
    support::*,
};

#[tokio::test(flavor = "multi_thread")]
async fn api_and_worker_run_apart_and_keys_decide_who_may_do_what() {
    let services = Installation::start().await;
    let (started, _, message) = services.run(&["api"]).await;
    assert!(
        !started && message.contains("schema"),
        "before migrate: {message}"
    );
    assert!(services.run(&["migrate"]).await.0);
    let (started, _, message) = services.run(&["api"]).await;
    assert!(
        !started && message.contains("without authentication"),
        "{message}"
    );

    let admin = services.key("admin").await;
    let (viewer, trainer, deployer) = (
        services.key("viewer").await,
        services.key("trainer").await,
        services.key("deployer").await,
    );
    let api = Role::start(services.nereid(&["api"])).await;
    let base = api.url().to_owned();
    let worker = Role::start(services.nereid(&["worker"])).await;
    let as_role = |key: &str| Client::new(&base, Some(key.to_owned())).unwrap();
    let refused = |e: nereid_client::ClientError| e.problem().unwrap().status;

    let nobody = Client::new(&base, None).unwrap();
    assert_eq!(refused(nobody.models(1).await.unwrap_err()), 401);
    let wrong = as_role(
        &admin
            .replace("nrd_", "nrd_x")
            .chars()
            .take(admin.len())
            .collect::<String>(),
    );
    assert_eq!(refused(wrong.models(1).await.unwrap_err()), 401);

    every_operation_wants_a_key(&base).await;

    let name = unique("apart");
    assert_eq!(
        refused(
            as_role(&viewer)
                .upload_bytes("x", vec![1])
                .await
                .unwrap_err()
        ),
        403
    );
    let trainer = as_role(&trainer);
    add_digits(&trainer, &name).await;
    succeed(&trainer, &tiny_job(&name, &name, 2)).await;
    assert_eq!(
        refused(
            trainer
                .deploy_model(&name, 1, &json!({}))
                .await
                .unwrap_err()
        ),
        403
    );
    let deployer = as_role(&deployer);
    let job = deployer.deploy_model(&name, 1, &json!({})).await.unwrap();
    finish(&deployer, job.id).await;
    // The API holds no replica: it asks the worker over the network.
    let row = json!(deployer.dataset_preview(&name, 1).await.unwrap()[0].features);
    let answer = as_role(&viewer).predict(&name, &[row]).await.unwrap();
    assert_eq!((answer.version, answer.predictions.len()), (1, 1));
    drop((api, worker));
    services.s3.shutdown().await;
}

/// Walks the served document: without a key nothing answers but what is declared open.
async fn every_operation_wants_a_key(base: &str) {
    let http = reqwest::Client::new();
    let document = http
        .get(format!("{base}/openapi.json"))
        .send()
        .await
        .unwrap();
    let document: serde_json::Value = document.json().await.unwrap();
    let (mut closed, mut open) = (0, Vec::new());
    for (template, item) in document["paths"].as_object().unwrap() {
        let path: Vec<_> = template
            .split('/')
            .map(|part| if part.starts_with('{') { "1" } else { part })
            .collect();
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = reqwest::Method::from_bytes(method.to_uppercase().as_bytes()) else {
                continue;
            };
            let request = http.request(method, format!("{base}{}", path.join("/")));
            let status = request.send().await.unwrap().status().as_u16();
            match operation["security"].as_array() {
                Some(schemes) if !schemes.is_empty() => {
                    assert_eq!(status, 401, "{template}");
                    closed += 1;
                }
                _ => {
                    assert_ne!(status, 401, "{template}");
                    open.push(template.as_str());
                }
            }
        }
    }
    assert!(closed > 40, "{closed}");
    open.sort_unstable();
    let expected = [
        "/livez",
        "/openapi.json",
        "/readyz",
        "/v2/health/live",
        "/v2/health/ready",
    ];
    assert_eq!(open, expected);
}
