//! Endpoints: plain rows and the Open Inference Protocol, updates, rollback, protection.

use serde_json::{Value, json};

use crate::support::*;

async fn infer(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    let response = reqwest::Client::new()
        .post(server.url(path))
        .json(body)
        .send()
        .await
        .unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn rows_and_tensors_give_the_same_answer() {
    let server = Server::shared();
    let client = server.client();
    let name = deployed_digits(&client).await;
    let preview = client.dataset_preview(&name, 1).await.unwrap();
    let flat: Vec<Value> = preview.iter().map(|r| json!(r.features)).collect();
    let nested: Vec<Value> = preview
        .iter()
        .map(|r| {
            let pixels: Vec<_> = r.features.iter().map(|v| vec![*v]).collect();
            json!(pixels.chunks(8).collect::<Vec<_>>())
        })
        .collect();
    let rows = client.predict(&name, &flat).await.unwrap();
    assert_eq!(rows, client.predict(&name, &nested).await.unwrap());

    let data: Vec<f64> = preview.iter().flat_map(|r| r.features.clone()).collect();
    let n = preview.len();
    let request = json!({
        "id": "seven",
        "inputs": [{"name": "input", "shape": [n, 8, 8, 1], "datatype": "FP32", "data": data}],
    });
    let (status, answer) = infer(&server, &format!("/v2/models/{name}/infer"), &request).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["id"], "seven");
    let outputs = answer["outputs"].as_array().unwrap();
    let output = |name: &str| outputs.iter().find(|o| o["name"] == name).unwrap();
    assert_eq!(output("probabilities")["shape"], json!([n, 10]));
    for (i, prediction) in rows.predictions.iter().enumerate() {
        let class = output("class")["data"][i].as_i64().unwrap().to_string();
        assert_eq!(prediction.label.as_deref(), Some(class.as_str()));
        let total: f32 = prediction.probabilities.as_ref().unwrap().iter().sum();
        assert!((total - 1.0).abs() < 1e-4, "{total}");
    }

    let metadata: Value = reqwest::get(server.url(&format!("/v2/models/{name}")))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(metadata["inputs"][0]["shape"], json!([-1, 8, 8, 1]));
    let wrong = json!({"inputs": [{"name": "input", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]});
    let (status, error) = infer(&server, &format!("/v2/models/{name}/infer"), &wrong).await;
    assert_eq!(status, 422, "{error}");
    assert!(
        error["error"].is_string(),
        "errors as the protocol has them: {error}"
    );
}

#[tokio::test]
async fn traffic_moves_without_a_failed_request_and_moves_back() {
    let server = Server::shared();
    let client = server.client();
    let name = deployed_digits(&client).await;
    succeed(&client, &tiny_job(&name, &name, 4)).await;
    let row = json!(client.dataset_preview(&name, 1).await.unwrap()[0].features);

    // A client asks on and on while version 2 is deployed and rolled back.
    let stop = tokio_util::sync::CancellationToken::new();
    let mut asking = tokio::task::JoinSet::new();
    asking.spawn(ask_until(client.clone(), name.clone(), row, stop.clone()));
    let job = client.deploy_model(&name, 2, &json!({})).await.unwrap();
    finish(&client, job.id).await;
    assert_eq!(serving_version(&client, &name).await, 2);
    let refusal = client.delete_model_version(&name, 2).await.unwrap_err();
    assert_eq!(refusal.problem().unwrap().code, "in_use", "{refusal}");
    client.rollback_endpoint(&name).await.unwrap();
    while serving_version(&client, &name).await != 1 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    stop.cancel();
    let (answered, failed) = asking.join_next().await.unwrap().unwrap();
    assert!(
        answered > 10 && failed.is_empty(),
        "{answered} answered, failed: {failed:?}"
    );
}

async fn ask_until(
    client: nereid_client::Client,
    name: String,
    row: Value,
    stop: tokio_util::sync::CancellationToken,
) -> (usize, Vec<String>) {
    let (mut answered, mut failed) = (0, Vec::new());
    while !stop.is_cancelled() {
        match client.predict(&name, std::slice::from_ref(&row)).await {
            Ok(_) => answered += 1,
            Err(e) => failed.push(e.to_string()),
        }
    }
    (answered, failed)
}

async fn serving_version(client: &nereid_client::Client, name: &str) -> u32 {
    let row = json!(client.dataset_preview(name, 1).await.unwrap()[0].features);
    client.predict(name, &[row]).await.unwrap().version
}
