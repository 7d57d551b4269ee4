//! Bad inputs, each with its problem document, in one table. None of them may lose anything.

use std::io::Write;

use nereid_client::{Client, Problem};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::*;

/// What is sent.
enum Body {
    None,
    Json(Value),
    Text(&'static str, String),
    /// Only announced: the server must refuse before it reads.
    Announced(u64),
    /// A file is uploaded first and registered with these declarations.
    Dataset(&'static str, Vec<u8>, Value),
}

/// A bad input and the answer it must get.
struct Case {
    name: &'static str,
    method: Method,
    path: String,
    body: Body,
    status: u16,
    code: &'static str,
    /// Pointer and code of one of the violations; empty if the problem has none.
    violation: (&'static str, &'static str),
    /// Words that must be in the answer: the value, the limit, or what would be right.
    says: &'static [&'static str],
}

fn case(
    name: &'static str,
    (method, path, body): (Method, &str, Body),
    (status, code): (u16, &'static str),
    violation: (&'static str, &'static str),
    says: &'static [&'static str],
) -> Case {
    Case {
        name,
        method,
        path: path.to_owned(),
        body,
        status,
        code,
        violation,
        says,
    }
}

fn post(path: &str, body: Value) -> (Method, &str, Body) {
    (Method::POST, path, Body::Json(body))
}

/// A training with one thing changed.
fn train(dataset: &str, change: impl FnOnce(&mut Value)) -> (Method, &'static str, Body) {
    let mut job = tiny_job("bad", dataset, 1);
    change(&mut job);
    (Method::POST, "/v1/jobs", Body::Json(job))
}

fn layers(dataset: &str, layers: Value) -> (Method, &'static str, Body) {
    train(dataset, |job| job["spec"]["network"]["layers"] = layers)
}

fn csv(text: &str, more: &Value) -> (Method, &'static str, Body) {
    let mut declared = json!({"format": "csv", "label_column": "label"});
    declared
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    (
        Method::POST,
        "/v1/datasets",
        Body::Dataset("data.csv", text.into(), declared),
    )
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn specs(d: &str) -> Vec<Case> {
    const I: (u16, &str) = (422, "invalid_request");
    let dense = json!({"type": "Dense", "units": 10});
    vec![
        case(
            "layers in the wrong order",
            layers(
                d,
                json!([{"type": "Flatten"}, {"type": "Conv2D", "filters": 8, "kernel_size": 3}, dense]),
            ),
            I,
            ("/spec/network/layers/1", "shape_mismatch"),
            &["conv2d", "(64)"],
        ),
        case(
            "window larger than the image",
            layers(
                d,
                json!([{"type": "MaxPooling2D", "pool_size": 9}, {"type": "Flatten"}, dense]),
            ),
            I,
            ("/spec/network/layers/0/pool_size", "shape_mismatch"),
            &["9", "8"],
        ),
        case(
            "unknown layer",
            layers(d, json!([{"type": "Dens", "units": 10}])),
            I,
            ("/spec/network/layers/0/type", "unknown_value"),
            &["Dens", "Dense"],
        ),
        case(
            "unknown field of a layer",
            layers(d, json!([{"type": "Dense", "units": 10, "unit": 1}])),
            I,
            ("/spec/network/layers/0/unit", "unknown_field"),
            &["unit"],
        ),
        case(
            "no layers",
            layers(d, json!([])),
            I,
            ("/spec/network/layers", "missing"),
            &["at least one"],
        ),
        case(
            "units of zero",
            layers(d, json!([{"type": "Dense", "units": 0}])),
            I,
            ("/spec/network/layers/0/units", "out_of_range"),
            &["0", "1"],
        ),
        case(
            "negative units",
            layers(d, json!([{"type": "Dense", "units": -3}])),
            I,
            ("/spec/network/layers/0/units", "invalid_value"),
            &["-3"],
        ),
        case(
            "dropout of everything",
            layers(d, json!([{"type": "Dropout", "rate": 1.0}, dense])),
            I,
            ("/spec/network/layers/0/rate", "out_of_range"),
            &["1"],
        ),
        case(
            "unknown activation",
            layers(
                d,
                json!([{"type": "Dense", "units": 10, "activation": "rely"}]),
            ),
            I,
            ("/spec/network/layers/0/activation", "unknown_value"),
            &["rely", "relu"],
        ),
        case(
            "reshape to another size",
            layers(
                d,
                json!([{"type": "Reshape", "target_shape": [7, 9]}, dense]),
            ),
            I,
            ("/spec/network/layers/0/target_shape", "shape_mismatch"),
            &["64"],
        ),
        case(
            "embedding after another layer",
            layers(
                d,
                json!([{"type": "Flatten"}, {"type": "Embedding", "input_dim": 9, "output_dim": 2}, {"type": "Flatten"}, dense]),
            ),
            I,
            ("/spec/network/layers/1", "layer_order"),
            &["embedding", "the network's input"],
        ),
        case(
            "two layers of one name",
            layers(
                d,
                json!([{"type": "Flatten", "name": "a"}, {"type": "Dense", "units": 10, "name": "a"}]),
            ),
            I,
            ("/spec/network/layers/1/name", "duplicate"),
            &["\"a\""],
        ),
        case(
            "outputs that do not fit the classes",
            layers(
                d,
                json!([{"type": "Flatten"}, {"type": "Dense", "units": 7}]),
            ),
            I,
            ("/spec/network/layers/1", "shape_mismatch"),
            &["(7)", "(10)"],
        ),
        case(
            "logits after softmax",
            train(d, |j| {
                j["spec"]["network"]["layers"][4]["activation"] = json!("softmax");
                j["spec"]["loss"]["from_logits"] = json!(true);
            }),
            I,
            ("/spec/loss/from_logits", "conflict"),
            &["from_logits"],
        ),
        case(
            "a loss for numbers on classes",
            train(d, |j| j["spec"]["loss"] = json!({"type": "mse"})),
            I,
            ("/spec/loss", "target_mismatch"),
            &["label"],
        ),
        case(
            "unknown field of a metric without fields",
            train(d, |j| {
                j["spec"]["metrics"] = json!([{"type": "accuracy", "k": 3}]);
            }),
            I,
            ("/spec/metrics/0/k", "unknown_field"),
            &["k"],
        ),
        case(
            "unknown optimiser",
            train(d, |j| j["spec"]["optimizer"] = json!({"type": "adamm"})),
            I,
            ("/spec/optimizer/type", "unknown_value"),
            &["adamm", "adamw"],
        ),
        case(
            "negative learning rate",
            train(d, |j| {
                j["spec"]["optimizer"] = json!({"type": "sgd", "learning_rate": -0.1});
            }),
            I,
            ("/spec/optimizer/learning_rate", "out_of_range"),
            &["-0.1"],
        ),
        case(
            "batches of nothing",
            train(d, |j| j["spec"]["fit"]["batch_size"] = json!(0)),
            I,
            ("/spec/fit/batch_size", "out_of_range"),
            &["65536"],
        ),
        case(
            "epochs as text",
            train(d, |j| j["spec"]["fit"]["epochs"] = json!("five")),
            I,
            ("/spec/fit/epochs", "invalid_value"),
            &["five"],
        ),
        case(
            "nothing left to train on",
            train(d, |j| {
                j["spec"]["fit"] = json!({"validation_split": 0.6, "test_split": 0.6});
            }),
            I,
            ("/spec/fit/test_split", "out_of_range"),
            &["0.95"],
        ),
        case(
            "weight of a class that is none",
            train(d, |j| {
                j["spec"]["fit"]["class_weight"] = json!({"eleven": 2.0});
            }),
            I,
            ("/spec/fit/class_weight/eleven", "unknown_value"),
            &["eleven"],
        ),
        case(
            "callback on what is not measured",
            train(d, |j| {
                j["spec"]["callbacks"] = json!([{"type": "early_stopping", "monitor": "val_loss"}]);
            }),
            I,
            ("/spec/callbacks/0/monitor", "unknown_value"),
            &["val_loss", "accuracy"],
        ),
        case(
            "a metric for numbers on classes",
            train(d, |j| j["spec"]["metrics"] = json!(["rmse"])),
            I,
            ("/spec/metrics/0", "target_mismatch"),
            &["rmse"],
        ),
        case(
            "top-k beyond the classes",
            train(d, |j| {
                j["spec"]["metrics"] = json!([{"type": "top_k_accuracy", "k": 11}]);
            }),
            I,
            ("/spec/metrics/0/k", "out_of_range"),
            &["11", "10"],
        ),
        case(
            "unknown field of the job",
            train(d, |j| j["prio"] = json!(1)),
            I,
            ("/prio", "unknown_field"),
            &["priority"],
        ),
        case(
            "priority beyond the limit",
            train(d, |j| j["priority"] = json!(101)),
            I,
            ("/priority", "out_of_range"),
            &["101", "100"],
        ),
        case(
            "a device that is none",
            train(d, |j| j["device"] = json!("tpu")),
            I,
            ("/device", "unknown_value"),
            &["tpu", "gpu"],
        ),
        case(
            "labels of workers as a list",
            train(d, |j| j["worker_labels"] = json!(["rack"])),
            I,
            ("/worker_labels", "invalid_value"),
            &["map"],
        ),
        case(
            "labels of workers with a number",
            train(d, |j| j["worker_labels"] = json!({"rack": 1})),
            I,
            ("/worker_labels/rack", "invalid_value"),
            &["1", "string"],
        ),
        case(
            "no time to run",
            train(d, |j| j["max_runtime_seconds"] = json!(0)),
            I,
            ("/max_runtime_seconds", "out_of_range"),
            &["0", "31536000"],
        ),
        case(
            "time to run as text",
            train(d, |j| j["max_runtime_seconds"] = json!("1h")),
            I,
            ("/max_runtime_seconds", "invalid_value"),
            &["1h"],
        ),
        case(
            "time to wait beyond the limit",
            train(d, |j| j["max_queue_seconds"] = json!(31_536_001)),
            I,
            ("/max_queue_seconds", "out_of_range"),
            &["31536001", "31536000"],
        ),
        case(
            "doing nothing for less than no time",
            post("/v1/jobs", json!({"kind": "noop", "spec": {"seconds": -1}})),
            I,
            ("/spec/seconds", "out_of_range"),
            &["-1", "86400"],
        ),
        case(
            "doing something by doing nothing",
            post("/v1/jobs", json!({"kind": "noop", "spec": {"model": "m"}})),
            I,
            ("/spec/model", "unknown_field"),
            &["seconds"],
        ),
        case(
            "option of a deployment that is none",
            post(
                &format!("/v1/models/{d}/versions/1/deploy"),
                json!({"device": "tpu"}),
            ),
            I,
            ("/device", "unknown_value"),
            &["tpu"],
        ),
        case(
            "unknown kind",
            train(d, |j| j["kind"] = json!("trian")),
            I,
            ("/kind", "unknown_value"),
            &["trian", "train"],
        ),
        case(
            "a dataset that is not there",
            train("no-such-data", |_| {}),
            I,
            ("/spec/dataset", "not_found"),
            &["no-such-data"],
        ),
        case(
            "a name that is none",
            train(d, |j| j["spec"]["model"] = json!("Übung 1")),
            I,
            ("/spec/model", "invalid_value"),
            &["63"],
        ),
        case(
            "a version that is not there",
            post(
                "/v1/jobs",
                json!({"kind": "deploy", "spec": {"model": "nobody", "version": 1}}),
            ),
            I,
            ("/spec/model", "not_found"),
            &["nobody"],
        ),
    ]
}

fn datasets() -> Vec<Case> {
    const D: (u16, &str) = (422, "dataset_invalid");
    const F: &str = "/files/data";
    let good = "a,b,label\n1,2,x\n3,4,y\n";
    let mut cut = gzip(table_csv(500, 8, 2).as_bytes());
    cut.truncate(cut.len() / 2);
    let idx = |bytes: Vec<u8>| {
        let declared = json!({"format": "idx"});
        (
            Method::POST,
            "/v1/datasets",
            Body::Dataset("images-idx3-ubyte", bytes, declared),
        )
    };
    vec![
        case(
            "infinity in a CSV",
            csv("a,b,label\n1,2,x\n3,inf,y\n", &json!({})),
            D,
            (F, "not_a_number"),
            &["row 2", "\"b\"", "finite"],
        ),
        case(
            "word among declared numbers",
            csv(
                "a,b,label\n1,two,x\n3,4,y\n",
                &json!({"columns": {"b": {"kind": "number"}}}),
            ),
            D,
            (F, "not_a_number"),
            &["row 1", "two"],
        ),
        case(
            "row without a label",
            csv("a,b,label\n1,2,\n3,4,y\n", &json!({})),
            D,
            (F, "missing_value"),
            &["row 1", "\"label\""],
        ),
        case(
            "ragged CSV",
            csv("a,b,label\n1,2,x\n3,4\n", &json!({})),
            D,
            (F, "ragged_row"),
            &["row 2"],
        ),
        case(
            "CSV without rows",
            csv("a,b,label\n", &json!({})),
            D,
            (F, "empty"),
            &[],
        ),
        case(
            "label column that is not there",
            csv(good, &json!({"label_column": "klass"})),
            D,
            (F, "missing_column"),
            &["klass", "label"],
        ),
        case(
            "shape of another size",
            csv(good, &json!({"shape": [3, 1]})),
            D,
            (F, "shape_mismatch"),
            &["3", "2"],
        ),
        case(
            "truncated gzip",
            (
                Method::POST,
                "/v1/datasets",
                Body::Dataset(
                    "data.csv.gz",
                    cut,
                    json!({"format": "csv", "label_column": "label"}),
                ),
            ),
            D,
            (F, "truncated"),
            &[],
        ),
        case(
            "IDX that is none",
            idx(b"these are no images".to_vec()),
            D,
            (F, "bad_header"),
            &[],
        ),
        case(
            "IDX cut short",
            idx(vec![
                0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0, 0, 2, 1, 2, 3,
            ]),
            D,
            (F, "truncated"),
            &[],
        ),
        case(
            "labels in a file beside a CSV",
            csv(good, &json!({"files": {"labels": "s3://a/b"}})),
            (422, "invalid_request"),
            ("/files/labels", "conflict"),
            &["label_column"],
        ),
        case(
            "bucket that is not there",
            post(
                "/v1/datasets",
                json!({"name": "bad", "format": "csv", "files": {"data": "s3://no-such-bucket/x.csv"}}),
            ),
            (422, "invalid_request"),
            (F, "not_found"),
            &["no bucket", "s3://no-such-bucket"],
        ),
        case(
            "object that is not there",
            post(
                "/v1/datasets",
                json!({"name": "bad", "format": "csv", "files": {"data": "s3://nereid/no/such/key.csv"}}),
            ),
            (422, "invalid_request"),
            (F, "not_found"),
            &["no/such/key.csv"],
        ),
        case(
            "URI that is none",
            post(
                "/v1/datasets",
                json!({"name": "bad", "format": "csv", "files": {"data": "/etc/passwd"}}),
            ),
            (422, "invalid_request"),
            (F, "invalid_value"),
            &["s3://"],
        ),
        case(
            "unknown format",
            post(
                "/v1/datasets",
                json!({"name": "bad", "format": "xls", "files": {"data": "s3://nereid/x"}}),
            ),
            (422, "invalid_request"),
            ("/format", "unknown_value"),
            &["xls", "csv"],
        ),
    ]
}

fn requests(endpoint: &str) -> Vec<Case> {
    let predict = format!("/v1/endpoints/{endpoint}/predict");
    let missing = "/v1/jobs/01980000-0000-7000-8000-000000000000";
    let get = |path: &'static str| (Method::GET, path, Body::None);
    let text = |kind, text: &str| (Method::POST, "/v1/jobs", Body::Text(kind, text.to_owned()));
    vec![
        case(
            "3 GB body",
            (
                Method::PUT,
                "/v1/uploads/huge.bin",
                Body::Announced(3 << 30),
            ),
            (413, "too_large"),
            ("", ""),
            &["2147483648"],
        ),
        case(
            "huge JSON body",
            text("application/json", &format!("\"{}\"", "x".repeat(3 << 20))),
            (413, "too_large"),
            ("", ""),
            &["2097152"],
        ),
        case(
            "no JSON",
            text("application/json", "{\"kind\": "),
            (400, "invalid_json"),
            ("", ""),
            &["line 1"],
        ),
        case(
            "deeply nested JSON",
            text("application/json", &"[".repeat(100_000)),
            (400, "invalid_json"),
            ("", ""),
            &[],
        ),
        case(
            "wrong content type",
            text("text/plain", "{}"),
            (415, "unsupported_media_type"),
            ("", ""),
            &["application/json"],
        ),
        case(
            "job that is not there",
            (Method::GET, missing, Body::None),
            (404, "not_found"),
            ("", ""),
            &["01980000"],
        ),
        case(
            "id that is none",
            get("/v1/jobs/17"),
            (400, "invalid_parameter"),
            ("", ""),
            &["17"],
        ),
        case(
            "route that is not there",
            get("/v1/jbos"),
            (404, "unknown_route"),
            ("", ""),
            &[],
        ),
        case(
            "method that is not there",
            (Method::DELETE, "/v1/jobs", Body::None),
            (405, "method_not_allowed"),
            ("", ""),
            &[],
        ),
        case(
            "page too large",
            get("/v1/jobs?page_size=1000"),
            (400, "invalid_parameter"),
            ("", ""),
            &["1000", "200"],
        ),
        case(
            "page token that is none",
            get("/v1/jobs?page_token=zzzz"),
            (400, "invalid_page_token"),
            ("", ""),
            &[],
        ),
        case(
            "unknown status",
            get("/v1/jobs?status=done"),
            (400, "invalid_parameter"),
            ("", ""),
            &["done", "succeeded"],
        ),
        case(
            "unknown parameter",
            get("/v1/jobs?stats=queued"),
            (400, "invalid_parameter"),
            ("", ""),
            &["stats"],
        ),
        case(
            "row of another size",
            post(&predict, json!({"rows": [[1, 2, 3]]})),
            (422, "invalid_request"),
            ("/rows/0", "shape_mismatch"),
            &["3", "64"],
        ),
        case(
            "row with a word",
            post(&predict, json!({"rows": [vec![json!("x"); 64]]})),
            (422, "invalid_request"),
            ("/rows/0/0", "not_a_number"),
            &[],
        ),
        case(
            "no rows",
            post(&predict, json!({"rows": []})),
            (422, "invalid_request"),
            ("/rows", "out_of_range"),
            &[],
        ),
        case(
            "pausing a job that is not there",
            post(&format!("{missing}/pause"), json!({})),
            (404, "not_found"),
            ("", ""),
            &["01980000"],
        ),
        case(
            "resuming a job that is not there",
            (Method::POST, &format!("{missing}/resume"), Body::None),
            (404, "not_found"),
            ("", ""),
            &["01980000"],
        ),
        case(
            "stopping with a wish",
            post(&format!("{missing}/stop"), json!({"keep": true})),
            (422, "invalid_request"),
            ("/keep", "unknown_field"),
            &["keep"],
        ),
        case(
            "pausing by GET",
            (Method::GET, &format!("{missing}/pause"), Body::None),
            (405, "method_not_allowed"),
            ("", ""),
            &["GET"],
        ),
        case(
            "endpoint that is not there",
            post("/v1/endpoints/nobody/predict", json!({"rows": [[1]]})),
            (404, "not_found"),
            ("", ""),
            &["nobody"],
        ),
    ]
}

#[tokio::test]
async fn each_bad_input_gets_its_problem_document_and_loses_nothing() {
    let server = Server::shared();
    let client = server.client();
    let name = deployed_digits(&client).await;
    let mut cases = specs(&name);
    cases.extend(datasets());
    cases.extend(requests(&name));
    assert!(cases.len() >= 40);
    let mut wrong = Vec::new();
    for case in &cases {
        if let Err(why) = check(&server, &client, case).await {
            wrong.push(format!("{}: {why}", case.name));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    // Nothing was made by any of them, and what was there still works.
    assert!(client.model("bad").await.is_err());
    assert!(client.dataset("bad").await.is_err());
    let row = json!(client.dataset_preview(&name, 1).await.unwrap()[0].features);
    client.predict(&name, &[row]).await.unwrap();
}

async fn check(server: &Server, client: &Client, case: &Case) -> Result<(), String> {
    let response = send(server, client, case).await;
    let status = response.status();
    let kind = response
        .headers()
        .get("content-type")
        .map(|v| v.to_str().unwrap().to_owned());
    let body = response.text().await.unwrap();
    let shown = format!("{status} {body}");
    let expect = |ok: bool, what: String| {
        if ok {
            Ok(())
        } else {
            Err(format!("{what}: {shown}"))
        }
    };
    expect(
        status == StatusCode::from_u16(case.status).unwrap(),
        format!("not {}", case.status),
    )?;
    expect(
        kind.as_deref() == Some("application/problem+json"),
        format!("content type {kind:?}"),
    )?;
    let problem: Problem = serde_json::from_str(&body).map_err(|e| format!("{e}: {shown}"))?;
    expect(
        problem.code == case.code,
        format!("code is not {}", case.code),
    )?;
    expect(problem.request_id.is_some(), "no request_id".to_owned())?;
    let (pointer, code) = case.violation;
    let found = problem
        .errors
        .iter()
        .any(|e| e.pointer == pointer && e.code == code);
    expect(
        pointer.is_empty() || found,
        format!("no violation {pointer} {code}"),
    )?;
    for word in case.says {
        let said =
            problem.detail.contains(word) || problem.errors.iter().any(|e| e.detail.contains(word));
        expect(said, format!("does not say {word:?}"))?;
    }
    Ok(())
}

async fn send(server: &Server, client: &Client, case: &Case) -> reqwest::Response {
    let request = reqwest::Client::new().request(case.method.clone(), server.url(&case.path));
    let request = match &case.body {
        Body::None => request,
        Body::Json(value) => request.json(value),
        Body::Text(kind, text) => request.header("content-type", *kind).body(text.clone()),
        Body::Announced(bytes) => {
            // The server refuses by the header alone; the body would never come.
            let never = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
            request
                .header("content-type", "application/octet-stream")
                .header("content-length", bytes.to_string())
                .body(reqwest::Body::wrap_stream(never))
        }
        Body::Dataset(file, bytes, declared) => {
            let uri = client.upload_bytes(file, bytes.clone()).await.unwrap().uri;
            let mut body = declared.clone();
            body["name"] = json!("bad");
            body["files"]["data"] = json!(uri);
            request.json(&body)
        }
    };
    request
        .send()
        .await
        .unwrap_or_else(|e| panic!("{}: {e:?}", case.name))
}
