//! Batch predictions: rows in S3 to predictions in S3, the same as an endpoint's, each once.

use std::{collections::BTreeMap, path::Path};

use futures::TryStreamExt;
use nereid_client::Client;
use nereid_core::{
    batch_predictions::BatchManifest,
    datasets::{DatasetFormat, FileRole},
    endpoints::Prediction,
    ids::JobId,
    jobs::{Job, JobResult, JobStatus, TerminationReason},
};
use nereid_objects::{Objects, PutOptions, S3Uri};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::*;

/// Largest object that a test reads in bytes.
const MAX_OBJECT: u64 = 64 << 20;

async fn put(objects: &Objects, uri: &str, content: impl Into<Vec<u8>>) {
    let uri: S3Uri = uri.parse().unwrap();
    let content: Vec<u8> = content.into();
    let options = PutOptions::default();
    let put = objects.put_bytes(&uri, content.into(), &options);
    put.await.unwrap();
}

async fn get(objects: &Objects, uri: &str) -> Vec<u8> {
    let content = objects.get_bytes(&uri.parse().unwrap(), MAX_OBJECT).await;
    content.unwrap_or_else(|e| panic!("{e}")).to_vec()
}

/// Names of the objects below a prefix.
async fn names(objects: &Objects, prefix: &str) -> Vec<String> {
    let prefix: S3Uri = prefix.parse().unwrap();
    let listed = objects.list(prefix.bucket(), prefix.key());
    let listed: Vec<_> = listed.try_collect().await.unwrap();
    let name = |key: &str| key[prefix.key().len()..].to_owned();
    listed.iter().map(|o| name(o.uri.key())).collect()
}

fn batch_job(model: &str, input: &Value, output: &Value) -> Value {
    json!({"kind": "batch_predict", "spec": {
        "model": model, "version": 1, "input": input, "output": output,
    }})
}

/// The manifest of a job that has succeeded, checked against its result.
async fn manifest(objects: &Objects, job: &Job) -> BatchManifest {
    let Some(JobResult::BatchPredict {
        rows,
        rejected,
        manifest,
        manifest_sha256,
        rows_per_second,
        ..
    }) = &job.result
    else {
        panic!("{job:?}")
    };
    let json = get(objects, manifest).await;
    assert_eq!(hex::encode(Sha256::digest(&json)), *manifest_sha256);
    let manifest: BatchManifest = serde_json::from_slice(&json).unwrap();
    assert_eq!((manifest.rows, manifest.rejected), (*rows, *rejected));
    assert_eq!(manifest.job_id, job.id);
    assert!(*rows_per_second > 0.0);
    manifest
}

/// The lines of all parts that a manifest lists, whose digests are checked.
async fn lines(objects: &Objects, prefix: &str, manifest: &BatchManifest) -> Vec<Value> {
    let mut lines = Vec::new();
    for file in manifest.parts.iter().filter_map(|p| p.predictions.as_ref()) {
        let content = get(objects, &format!("{prefix}{}", file.path)).await;
        assert_eq!(hex::encode(Sha256::digest(&content)), file.sha256);
        assert_eq!(content.len() as u64, file.bytes);
        let text = String::from_utf8(content).unwrap();
        lines.extend(text.lines().map(|l| serde_json::from_str(l).unwrap()));
    }
    lines
}

/// Waits until a job has failed, and returns its message.
async fn failure(client: &Client, id: JobId) -> String {
    let job = client.watch_job(id, |_| {}).await.unwrap();
    assert_eq!(job.status, JobStatus::Failed);
    let reason = Some(TerminationReason::InvalidInput);
    assert_eq!(job.termination_reason, reason, "{:?}", job.error);
    // No retry mends it, so there was none.
    assert_eq!(client.job_attempts(id).await.unwrap().len(), 1);
    job.error.unwrap().message
}

/// Trains a model of a table with the features `x0`, `x1` and `x2`.
async fn train_table(client: &Client, model: &str, rows: usize) {
    let files = [(FileRole::Data, "t.csv", table_csv(rows, 3, 2).into_bytes())];
    add_dataset(
        client,
        model,
        DatasetFormat::Csv,
        &files,
        Some("label"),
        None,
    )
    .await;
    let mut job = tiny_job(model, model, 1);
    job["spec"]["network"] = json!({"layers": [{"type": "Dense", "units": 2}]});
    succeed(client, &job).await;
}

fn assert_same(found: &Prediction, expected: &Prediction) {
    assert_eq!(found.label, expected.label);
    let pair = (&found.probabilities, &expected.probabilities);
    let (Some(found), Some(expected)) = pair else {
        panic!("{pair:?}")
    };
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-6, "{a} is not {b}");
    }
}

#[tokio::test]
async fn predictions_are_those_of_the_endpoint() {
    let server = Server::shared();
    let (client, objects) = (server.client(), server.objects().await);
    let model = deployed_digits(&client).await;
    let prefix = format!("s3://nereid/predictions/{model}/");
    let output = json!({"uri": prefix, "join_source": "input", "id_columns": ["label"]});
    let mut job = batch_job(&model, &json!({"dataset": model}), &output);
    job["spec"]["rows_per_part"] = json!(700);
    let job = succeed(&client, &job).await;
    assert_eq!(job.progress.as_ref().unwrap().steps, 1797);
    let manifest = manifest(&objects, &job).await;
    assert_eq!((manifest.rows, manifest.parts.len()), (1797, 3));
    let version = client.model_version(&model, 1).await.unwrap();
    assert_eq!(manifest.model_digest.len(), version.manifest_sha256.len());
    let lines = lines(&objects, &prefix, &manifest).await;
    let numbers: Vec<_> = lines.iter().map(|l| l["row"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=1797).collect::<Vec<_>>());
    let rows: Vec<Value> = lines
        .iter()
        .map(|line| {
            let columns = line["input"].as_object().unwrap().iter();
            let pixels = columns.filter(|(name, _)| *name != "label");
            let number = |v: &Value| v.as_str().unwrap().parse::<f64>().unwrap();
            let row: BTreeMap<_, _> = pixels.map(|(n, v)| (n, number(v))).collect();
            json!(row)
        })
        .collect();
    let mut right = 0;
    for (lines, rows) in lines.chunks(599).zip(rows.chunks(599)) {
        let expected = client.predict(&model, rows).await.unwrap().predictions;
        for (line, expected) in lines.iter().zip(&expected) {
            let found: Prediction = serde_json::from_value(line["prediction"].clone()).unwrap();
            assert_same(&found, expected);
            right += usize::from(line["id"]["label"] == line["prediction"]["label"]);
        }
    }
    // Far beyond chance: the rows were not shuffled against their labels.
    assert!(right > 900, "{right} of 1797 labels are right");
    let again = batch_job(&model, &json!({"dataset": model}), &output);
    let again = client.submit_job(&again).await.unwrap().id;
    let message = failure(&client, again).await;
    assert!(message.contains("is not empty"), "{message}");
}

#[tokio::test]
async fn arrays_and_lines_are_predicted_as_tables_are_and_a_csv_is_written() {
    let server = Server::shared();
    let (client, objects) = (server.client(), server.objects().await);
    let model = deployed_digits(&client).await;
    let root = format!("s3://nereid/batches/{model}");
    let samples = client.dataset_preview(&model, 1).await.unwrap();
    let flat: Vec<Value> = samples.iter().map(|r| json!(r.features)).collect();
    let expected = client.predict(&model, &flat).await.unwrap().predictions;

    let mut npy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    let header = format!(
        "{{'descr': '<f8', 'fortran_order': False, 'shape': ({}, 64), }}",
        flat.len()
    );
    npy.extend(format!("{header:<117}\n").into_bytes());
    let values = samples.iter().flat_map(|r| r.features.clone());
    npy.extend(values.flat_map(f64::to_le_bytes));
    put(&objects, &format!("{root}/in.npy"), npy).await;
    for (i, row) in flat.iter().enumerate() {
        let nested = json!({"image": row, "name": i}).to_string();
        put(&objects, &format!("{root}/lines/{i:02}.jsonl"), nested).await;
    }
    let inputs = [
        json!({"uri": format!("{root}/in.npy"), "format": "npy"}),
        json!({"uri": format!("{root}/lines/"), "format": "jsonl", "columns": {"name": {"kind": "ignore"}}}),
    ];
    for (i, input) in inputs.iter().enumerate() {
        let prefix = format!("{root}/out{i}/");
        let job = batch_job(&model, input, &json!({ "uri": prefix }));
        let job = succeed(&client, &job).await;
        let lines = lines(&objects, &prefix, &manifest(&objects, &job).await).await;
        assert_eq!(lines.len(), expected.len());
        for (line, expected) in lines.iter().zip(&expected) {
            let found: Prediction = serde_json::from_value(line["prediction"].clone()).unwrap();
            assert_same(&found, expected);
        }
    }

    let output = json!({"uri": format!("{root}/csv"), "format": "csv", "id_columns": ["name"]});
    let job = succeed(&client, &batch_job(&model, &inputs[1], &output)).await;
    manifest(&objects, &job).await;
    let csv = get(&objects, &format!("{root}/csv/part-00000.csv")).await;
    let csv = String::from_utf8(csv).unwrap();
    let mut rows = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = rows.next().unwrap();
    assert_eq!(
        header[..4],
        [
            "prediction_row",
            "name",
            "prediction_label",
            "prediction_probability_0"
        ]
    );
    for (i, (row, expected)) in rows.zip(&expected).enumerate() {
        assert_eq!(row[1], i.to_string());
        assert_eq!(Some(row[2]), expected.label.as_deref());
    }
    // What lies there now is a table like any other.
    let source = json!({"name": unique("predicted"), "format": "csv",
        "files": {"data": format!("{root}/csv/")}, "label_column": "prediction_label"});
    let registered = reqwest::Client::new()
        .post(server.url("/v1/datasets"))
        .json(&source);
    assert_eq!(registered.send().await.unwrap().status(), 201);
}

#[tokio::test]
async fn a_row_that_does_not_fit_ends_the_job_or_is_noted_with_its_number() {
    let server = Server::shared();
    let (client, objects) = (server.client(), server.objects().await);
    let model = unique("table");
    train_table(&client, &model, 60).await;
    let root = format!("s3://nereid/batches/{model}");
    let rows = "id,x0,x1,x2\na,1,2,3\nb,1,two,3\nc,1,2\nd,,2,3\ne,4,5,6\n";
    put(&objects, &format!("{root}/in.csv"), rows).await;
    let input = json!({"uri": format!("{root}/in.csv"), "format": "csv"});
    let job = |name: &str, extra: Value| {
        let output = json!({"uri": format!("{root}/{name}/"), "id_columns": ["id"]});
        let mut job = batch_job(&model, &input, &output);
        let spec = job["spec"].as_object_mut().unwrap();
        spec.extend(extra.as_object().unwrap().clone());
        job
    };
    let id = client
        .submit_job(&job("strict", json!({})))
        .await
        .unwrap()
        .id;
    let message = failure(&client, id).await;
    assert!(
        message.contains("row 2") && message.contains("x1"),
        "{message}"
    );
    let left = names(&objects, &format!("{root}/strict/")).await;
    assert_eq!(left, ["_JOB"], "nothing that looks finished");

    let few = json!({"on_error": "skip", "max_errors": 2});
    let id = client.submit_job(&job("few", few)).await.unwrap().id;
    assert!(failure(&client, id).await.contains("max_errors (2)"));

    let skip = json!({"on_error": "skip", "max_errors": 3, "rows_per_part": 2});
    let done = succeed(&client, &job("skip", skip)).await;
    let prefix = format!("{root}/skip/");
    let manifest = manifest(&objects, &done).await;
    assert_eq!((manifest.rows, manifest.rejected), (2, 3));
    let lines = lines(&objects, &prefix, &manifest).await;
    let seen: Vec<_> = lines
        .iter()
        .map(|l| (l["row"].as_u64().unwrap(), l["id"]["id"].as_str().unwrap()))
        .collect();
    assert_eq!(seen, [(1, "a"), (5, "e")]);
    let mut rejected = Vec::new();
    for file in manifest.parts.iter().filter_map(|p| p.rejections.as_ref()) {
        let text = String::from_utf8(get(&objects, &format!("{prefix}{}", file.path)).await);
        for line in text.unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let code = line["errors"][0]["code"].as_str().unwrap().to_owned();
            rejected.push((line["row"].as_u64().unwrap(), code));
        }
    }
    let expected = [(2, "not_a_number"), (3, "ragged_row"), (4, "not_a_number")];
    let expected = expected.map(|(row, code)| (row, code.to_owned()));
    assert_eq!(rejected, expected);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_place() {
    let server = Server::shared();
    let client = server.client();
    let model = unique("table");
    train_table(&client, &model, 60).await;
    let refusal = async |input: Value, output: Value| {
        let refused = client.submit_job(&batch_job(&model, &input, &output)).await;
        let error = refused.unwrap_err();
        let first = error.problem().unwrap().errors[0].clone();
        (first.pointer, first.code)
    };
    let good = json!({"dataset": model});
    let own = refusal(good.clone(), json!({"uri": "s3://nereid/projects/x/"})).await;
    assert_eq!(own, ("/spec/output/uri".into(), "access_denied".into()));
    let missing = refusal(
        json!({"dataset": "nothing-here"}),
        json!({"uri": "s3://nereid/o/"}),
    );
    let expected = ("/spec/input/dataset".into(), "not_found".into());
    assert_eq!(missing.await, expected);
    let foreign = json!({"uri": "s3://nereid/projects/01980000-0000-7000-8000-000000000000/x.csv", "format": "csv"});
    let foreign = refusal(foreign, json!({"uri": "s3://nereid/o/"})).await;
    assert_eq!(foreign, ("/spec/input/uri".into(), "access_denied".into()));
    let absent = json!({"uri": "s3://nereid/nothing/here.csv", "format": "csv"});
    let output = json!({"uri": format!("s3://nereid/predictions/{model}/")});
    let job = client
        .submit_job(&batch_job(&model, &absent, &output))
        .await;
    let message = failure(&client, job.unwrap().id).await;
    assert!(
        message.contains("s3://nereid/nothing/here.csv"),
        "{message}"
    );
}

/// A server whose leases end soon after its death.
fn start(folder: &Path) -> Server {
    let mut command = nereid();
    command
        .env("NEREID__WORKER__LEASE", "2s")
        .env("NEREID__WORKER__HEARTBEAT", "500ms");
    Server::launch(command, folder, &["--slots", "1"]).unwrap()
}

#[tokio::test]
async fn a_killed_prediction_goes_on_behind_its_last_part_and_predicts_each_row_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path());
    let (client, objects) = (server.client(), server.objects().await);
    train_table(&client, "table", 300).await;
    let rows = 60_000;
    put(&objects, "s3://nereid/in.csv", table_csv(rows, 3, 2)).await;
    let input = json!({"uri": "s3://nereid/in.csv", "format": "csv", "label_column": "label"});
    let prefix = "s3://nereid/out/";
    let mut job = batch_job("table", &input, &json!({ "uri": prefix }));
    job["spec"]["rows_per_part"] = json!(200);
    let id = client.submit_job(&job).await.unwrap().id;
    let begun = async {
        while names(&objects, prefix).await.len() < 6 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    server.signal("KILL");
    server.wait();

    let server = start(folder.path());
    let (client, objects) = (server.client(), server.objects().await);
    let left = names(&objects, prefix).await;
    assert!(!left.contains(&"_SUCCESS".to_owned()), "killed too late");
    let job = finish(&client, id).await;
    let attempts = client.job_attempts(id).await.unwrap();
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert_eq!(attempts[0].reason, Some(TerminationReason::LeaseLost));
    let logs = client.job_logs(id, 1_000).await.unwrap();
    let goes_on = |l: &nereid_core::events::LogLine| l.message.contains("goes on behind part");
    assert!(logs.iter().any(goes_on), "it started over: {logs:?}");
    let manifest = manifest(&objects, &job).await;
    assert_eq!(manifest.rows, rows as u64);
    let lines = lines(&objects, prefix, &manifest).await;
    let numbers: Vec<_> = lines.iter().map(|l| l["row"].as_u64().unwrap()).collect();
    assert_eq!(
        numbers,
        (1..=rows as u64).collect::<Vec<_>>(),
        "each row once, in order"
    );
    // Beside the parts lie the claim and the manifest, and nothing else.
    assert_eq!(
        names(&objects, prefix).await.len(),
        manifest.parts.len() + 2
    );
}
