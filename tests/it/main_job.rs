//! The main job with the README's own networks: dataset, training, version, deployment, prediction.

use nereid_core::{
    datasets::{DatasetFormat, FileRole},
    jobs::JobPhase,
    models::Manifest,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::*;

#[tokio::test]
async fn the_tabular_network_of_the_readme_trains_and_serves() {
    let server = Server::shared();
    let client = server.client();
    let name = unique("tabular");
    let csv = table_csv(3000, 224, 10).into_bytes();
    let files = [(FileRole::Data, "table.csv", csv)];
    let dataset = add_dataset(
        &client,
        &name,
        DatasetFormat::Csv,
        &files,
        Some("label"),
        None,
    )
    .await;
    assert_eq!(dataset.schema.shape, [224]);
    assert_eq!(dataset.schema.classes().unwrap().len(), 10);
    assert_eq!(dataset.statistics.rows, 3000);

    let job = renamed(
        readme_spec("tabular"),
        &[("model", &name), ("dataset", &name)],
    );
    let job = succeed(&client, &job).await;
    let version = client.model_version(&name, 1).await.unwrap();
    assert_eq!(version.lineage.job_id, job.id);
    assert_eq!(version.lineage.dataset_digest, dataset.digest);
    let accuracy = version.metrics["val_accuracy"];
    assert!(
        accuracy > 0.9,
        "the classes are easy to tell apart, yet val_accuracy is {accuracy}"
    );
    let epochs = client.job_metrics(job.id).await.unwrap();
    assert!(
        epochs.windows(2).all(|w| w[0].step < w[1].step),
        "each step once, in order"
    );
    assert!(epochs.iter().any(|p| p.values.contains_key("val_loss")));

    let job = client.deploy_model(&name, 1, &json!({})).await.unwrap();
    finish(&client, job.id).await;
    let preview = client.dataset_preview(&name, 1).await.unwrap();
    let rows: Vec<Value> = preview.iter().map(|r| json!(r.features)).collect();
    let answer = client.predict(&name, &rows).await.unwrap();
    let right = answer
        .predictions
        .iter()
        .zip(&preview)
        .filter(|(p, row)| p.label.as_deref() == row.target.as_ref().and_then(Value::as_str));
    assert!(right.count() * 10 >= preview.len() * 9, "{answer:?}");
}

#[tokio::test]
async fn mnist_reaches_0_985_within_three_epochs() {
    let server = Server::shared();
    let client = server.client();
    let (train, test) = (unique("mnist"), unique("mnist-test"));
    for (name, stem) in [(&train, "train"), (&test, "t10k")] {
        let (images, labels) = (
            format!("{stem}-images-idx3-ubyte.gz"),
            format!("{stem}-labels-idx1-ubyte.gz"),
        );
        let files = [
            (FileRole::Data, images.as_str(), mnist(&images)),
            (FileRole::Labels, labels.as_str(), mnist(&labels)),
        ];
        let shape = Some(vec![28, 28, 1]);
        add_dataset(&client, name, DatasetFormat::Idx, &files, None, shape).await;
    }
    let spec = readme_spec("mnist");
    assert!(spec["spec"]["fit"]["epochs"].as_u64().unwrap() <= 3);
    let names = [
        ("model", &*train),
        ("dataset", &*train),
        ("test_dataset", &*test),
    ];
    succeed(&client, &renamed(spec, &names)).await;
    let version = client.model_version(&train, 1).await.unwrap();
    let accuracy = version.metrics["test_accuracy"];
    assert!(accuracy >= 0.985, "test accuracy {accuracy}");
}

#[tokio::test]
async fn a_published_version_is_whole_and_its_digests_verify() {
    let server = Server::shared();
    let client = server.client();
    let name = unique("whole");
    add_digits(&client, &name).await;
    let job = succeed(&client, &tiny_job(&name, &name, 2)).await;
    let http = reqwest::Client::new();
    let url = server.url(&format!("/v1/models/{name}/versions/1/artifact"));
    let tar = http
        .get(url)
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("model.tar");
    std::fs::write(&archive, &tar).unwrap();
    let status = std::process::Command::new("tar")
        .args(["--strip-components", "1", "-xf"])
        .arg(&archive)
        .arg("-C")
        .arg(folder.path())
        .status()
        .unwrap();
    assert!(status.success());

    let version = client.model_version(&name, 1).await.unwrap();
    let text = std::fs::read(folder.path().join("manifest.json")).unwrap();
    assert_eq!(hex(&text), version.manifest_sha256);
    let manifest: Manifest = serde_json::from_slice(&text).unwrap();
    assert_eq!(manifest.lineage.job_id, job.id);
    assert_eq!(manifest.metrics, version.metrics);
    let paths: Vec<_> = manifest.files.iter().map(|f| f.path.as_str()).collect();
    assert!(paths.contains(&"weights.safetensors"), "{paths:?}");
    for file in &manifest.files {
        let bytes = std::fs::read(folder.path().join(&file.path)).unwrap();
        assert_eq!(bytes.len() as u64, file.bytes, "{}", file.path);
        assert_eq!(hex(&bytes), file.sha256, "{}", file.path);
    }
    // The same training again gives the same weights, as version 2.
    succeed(&client, &tiny_job(&name, &name, 2)).await;
    let again = client.model_version(&name, 2).await.unwrap();
    assert_eq!(
        weights(&client_manifest(&server, &name, 2).await),
        weights(&manifest)
    );
    assert_eq!(again.metrics, version.metrics);
}

fn weights(manifest: &Manifest) -> &str {
    &manifest
        .files
        .iter()
        .find(|f| f.path == "weights.safetensors")
        .unwrap()
        .sha256
}

async fn client_manifest(server: &Server, name: &str, version: u32) -> Manifest {
    let path = format!("/v1/models/{name}/versions/{version}/files/manifest.json");
    let answer = reqwest::get(server.url(&path))
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[tokio::test]
async fn events_tell_the_whole_story_in_order() {
    let server = Server::shared();
    let client = server.client();
    let name = unique("story");
    add_digits(&client, &name).await;
    let job = client.submit_job(&tiny_job(&name, &name, 3)).await.unwrap();
    let (mut seen, mut kinds) = (Vec::new(), Vec::new());
    client
        .watch_job(job.id, |event| {
            seen.push(event.seq);
            kinds.push(serde_json::to_value(event.kind).unwrap());
        })
        .await
        .unwrap();
    let expected: Vec<u64> = (1..=seen.len() as u64).collect();
    assert_eq!(seen, expected, "numbered from 1 without gaps or repeats");
    for kind in [
        "submitted",
        "status_changed",
        "phase_changed",
        "progress",
        "published",
    ] {
        assert!(
            kinds.contains(&json!(kind)),
            "{kind} is missing in {kinds:?}"
        );
    }
    let logs = client.job_logs(job.id, 1000).await.unwrap();
    assert!(
        logs.iter().any(|l| l.message.contains("epoch 3/3")),
        "{logs:?}"
    );
    let attempts = client.job_attempts(job.id).await.unwrap();
    assert_eq!(attempts.len(), 1);
    assert!(attempts[0].ended_at.is_some());
    assert_eq!(client.job(job.id).await.unwrap().phase, None::<JobPhase>);
}
