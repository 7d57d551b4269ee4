//! Data sets of many objects: a folder of images and shards are what one tar of them is.

use std::{collections::BTreeMap, io::Read};

use flate2::read::GzDecoder;
use nereid_client::{Client, ClientError, NewDataset};
use nereid_core::{datasets::DatasetVersion, models::Manifest};
use nereid_objects::{Objects, PutOptions};
use serde_json::{Value, json};
use tar::{Archive, Builder, Header};

use crate::support::*;

/// A hundred and twenty digits as PNG: `class/number.png`, in the order of keys in S3.
fn digits() -> BTreeMap<String, Vec<u8>> {
    const TAR: &[u8] = include_bytes!("../../crates/nereid-engine/tests/data/digits.tar.gz");
    let mut archive = Archive::new(GzDecoder::new(TAR));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let name = path.trim_start_matches("./").trim_start_matches("digits/");
        files.insert(name.to_owned(), bytes);
    }
    assert_eq!(files.len(), 120);
    files
}

fn tar<'a>(files: impl Iterator<Item = (&'a String, &'a Vec<u8>)>) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, name, bytes.as_slice())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

async fn put(objects: &Objects, key: &str, bytes: Vec<u8>) -> String {
    let uri = objects.own(key).unwrap();
    let options = PutOptions::default();
    objects
        .put_bytes(&uri, bytes.into(), &options)
        .await
        .unwrap();
    uri.to_string()
}

async fn register(
    client: &Client,
    name: &str,
    format: &str,
    data: Value,
) -> Result<DatasetVersion, ClientError> {
    let source = json!({"format": format, "files": {"data": data}});
    let new = NewDataset {
        name: name.parse().unwrap(),
        description: None,
        tags: BTreeMap::new(),
        source: serde_json::from_value(source).unwrap(),
    };
    client.register_dataset(&new).await
}

/// Trains on a dataset of the same name and returns the digest of the weights.
async fn weights(server: &Server, name: &str) -> String {
    let mut job = tiny_job(name, name, 3);
    // The window is for data that is read again from where it lies; the order is the same.
    job["spec"]["fit"]["shuffle_buffer"] = json!(40);
    succeed(&server.client(), &job).await;
    let path = format!("/v1/models/{name}/versions/1/files/manifest.json");
    let answer = reqwest::get(server.url(&path)).await.unwrap();
    let manifest: Manifest = answer.error_for_status().unwrap().json().await.unwrap();
    let mut files = manifest.files.into_iter();
    let weights = files.find(|f| f.path == "weights.safetensors");
    weights.unwrap().sha256
}

#[tokio::test]
async fn a_folder_and_shards_train_to_the_weights_of_one_tar() {
    let server = Server::shared();
    let (client, objects) = (server.client(), server.objects().await);
    let (digits, place) = (digits(), unique("photos"));
    for (name, bytes) in &digits {
        put(&objects, &format!("{place}/folder/{name}"), bytes.clone()).await;
    }
    // What operating systems and programs leave behind is no data.
    put(&objects, &format!("{place}/folder/3/.DS_Store"), vec![1]).await;
    put(&objects, &format!("{place}/folder/_SUCCESS"), Vec::new()).await;
    let whole = put(&objects, &format!("{place}/all.tar"), tar(digits.iter())).await;
    let mut shards = Vec::new();
    for (i, skipped, taken) in [(0, 0, 70), (1, 70, 50)] {
        let shard = tar(digits.iter().skip(skipped).take(taken));
        shards.push(put(&objects, &format!("{place}/shards/{i}.tar"), shard).await);
    }

    let folder = format!("s3://nereid/{place}/folder/");
    let below = format!("s3://nereid/{place}/shards/");
    let sources = [
        ("one", json!(whole)),
        ("folder", json!(folder)),
        ("list", json!(shards)),
        ("prefix", json!(below)),
    ];
    let mut seen = Vec::new();
    for (kind, data) in sources {
        let name = unique(kind);
        let version = register(&client, &name, "images", data.clone())
            .await
            .unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!(json!(version.source.files)["data"], data);
        assert_eq!(version.statistics.rows, 120, "{kind}");
        assert_eq!(version.schema.classes().unwrap().len(), 10, "{kind}");
        let file = version.files.values().next().unwrap();
        let count = file.objects.as_ref().map(|o| o.count);
        let expected = match kind {
            "one" => None,
            "folder" => Some(120),
            _ => Some(2),
        };
        assert_eq!(count, expected, "{kind}");
        seen.push(weights(&server, &name).await);
        if kind == "folder" {
            // The same again is the same version.
            let again = register(&client, &name, "images", data).await.unwrap();
            assert_eq!((again.id, again.digest), (version.id, version.digest));
        }
    }
    assert!(seen.iter().all(|w| *w == seen[0]), "{seen:?}");
}

#[tokio::test]
async fn an_object_that_has_changed_is_named() {
    let server = Server::shared();
    let (client, objects) = (server.client(), server.objects().await);
    let place = unique("changing");
    for (name, bytes) in digits() {
        put(&objects, &format!("{place}/{name}"), bytes).await;
    }
    let data = json!(format!("s3://nereid/{place}/"));
    register(&client, &place, "images", data).await.unwrap();
    let others: Vec<_> = digits().into_values().collect();
    let victim = digits().into_keys().nth(77).unwrap();
    let changed = put(&objects, &format!("{place}/{victim}"), others[0].clone()).await;
    let job = client
        .submit_job(&tiny_job(&place, &place, 1))
        .await
        .unwrap();
    let job = client.watch_job(job.id, |_| {}).await.unwrap();
    let error = job.error.unwrap().message;
    assert!(
        error.contains(&changed) && error.contains("no longer the object that it was"),
        "{error}"
    );
}

#[tokio::test]
async fn tables_in_shards_are_one_table() {
    let server = Server::shared();
    let (client, objects) = (server.client(), server.objects().await);
    let place = unique("tables");
    let table = table_csv(60, 3, 2);
    let (header, rows) = table.split_once('\n').unwrap();
    let rows: Vec<_> = rows.lines().collect();
    let whole = put(
        &objects,
        &format!("{place}.csv"),
        table.clone().into_bytes(),
    )
    .await;
    for (i, part) in rows.chunks(25).enumerate() {
        let text = format!("{header}\n{}", part.join("\n"));
        put(
            &objects,
            &format!("{place}/part-{i}.csv"),
            text.into_bytes(),
        )
        .await;
    }
    let mut seen = Vec::new();
    for data in [whole, format!("s3://nereid/{place}/")] {
        let name = unique("table");
        let source = json!({"format": "csv", "files": {"data": data}, "label_column": "label"});
        let new = NewDataset {
            name: name.parse().unwrap(),
            description: None,
            tags: BTreeMap::new(),
            source: serde_json::from_value(source).unwrap(),
        };
        let version = client.register_dataset(&new).await.unwrap();
        seen.push((version.statistics, version.schema));
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn what_is_no_data_set_of_objects_is_refused_with_its_place() {
    let server = Server::shared();
    let (client, objects) = (server.client(), server.objects().await);
    let place = unique("refused");
    let first = digits().into_values().next().unwrap();
    put(&objects, &format!("{place}/ok/1/1.png"), first.clone()).await;
    put(&objects, &format!("{place}/mixed/1/1.png"), first.clone()).await;
    put(&objects, &format!("{place}/mixed/1/notes.txt"), vec![1]).await;
    put(&objects, &format!("{place}/mixed/notes.docx"), vec![1]).await;
    put(&objects, &format!("{place}/bare/readme"), vec![1]).await;
    let uri = |path: &str| format!("s3://nereid/{place}/{path}");
    let many = vec![uri("ok/1/1.png"); 1_001];
    let foreign = "s3://nereid/projects/01980000-0000-7000-8000-000000000000/";
    for (format, data, pointer, code, says) in [
        (
            "images",
            json!(uri("none/")),
            "/files/data",
            "empty",
            "none/",
        ),
        (
            "images",
            json!(uri("mixed/")),
            "/files/data",
            "unknown_extension",
            "notes.txt",
        ),
        (
            "images",
            json!(uri("bare/")),
            "/files/data",
            "unknown_extension",
            "bare/readme",
        ),
        (
            "images",
            json!([uri("ok/1/1.png"), uri("mixed/notes.docx")]),
            "/files/data/1",
            "unknown_extension",
            "notes.docx",
        ),
        (
            "images",
            json!([uri("ok/1/1.png"), uri("ok/1/2.png")]),
            "/files/data/1",
            "not_found",
            "ok/1/2.png",
        ),
        (
            "images",
            json!([uri("ok/1/1.png"), uri("ok/")]),
            "/files/data/1",
            "invalid_value",
            "prefix",
        ),
        ("images", json!(many), "/files/data", "too_many", "1000"),
        ("images", json!([]), "/files/data", "empty", "no object"),
        (
            "images",
            json!(foreign),
            "/files/data",
            "access_denied",
            "another project",
        ),
        ("npy", json!(uri("ok/")), "/files/data", "conflict", "npy"),
        (
            "csv",
            json!(uri("ok/")),
            "/files/data",
            "unknown_extension",
            "1.png",
        ),
        (
            "csv",
            json!(["s3://nereid/x.csv", "nowhere"]),
            "/files/data/1",
            "invalid_value",
            "nowhere",
        ),
    ] {
        let refusal = register(&client, &unique("bad"), format, data).await;
        let refusal = refusal.unwrap_err();
        let problem = refusal
            .problem()
            .unwrap_or_else(|| panic!("{says}: {refusal}"));
        let violation = &problem.errors[0];
        assert_eq!(
            (violation.pointer.as_str(), violation.code.as_str()),
            (pointer, code),
            "{says}: {violation:?}"
        );
        assert!(violation.detail.contains(says), "{says}: {violation:?}");
    }
}

#[tokio::test]
async fn the_command_line_takes_folders_prefixes_and_shards() {
    let server = Server::shared();
    let (client, objects) = (server.client(), server.objects().await);
    let (local, place) = (tempfile::tempdir().unwrap(), unique("typed"));
    for (name, bytes) in digits() {
        let path = local.path().join(&name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &bytes).unwrap();
        put(&objects, &format!("{place}/all/{name}"), bytes).await;
    }
    let digits = digits();
    let half = |skipped| tar(digits.iter().skip(skipped).take(60));
    let first = put(&objects, &format!("{place}/0.tar"), half(0)).await;
    let second = put(&objects, &format!("{place}/1.tar"), half(60)).await;
    let below = format!("s3://nereid/{place}/all/");
    let folder = local.path().to_str().unwrap();
    let mut seen = Vec::new();
    for files in [
        &["--file", folder][..],
        &["--file", &below, "--format", "images"],
        &["--file", &first, "--file", &second],
    ] {
        let name = unique("typed");
        let args = [&["dataset", "add", &name], files].concat();
        let (status, out, err) = cli(&server, &args);
        assert_eq!(status, 0, "{args:?}: {out}{err}");
        assert!(out.contains("120 rows"), "{out}");
        let version = client.dataset(&name).await.unwrap().latest;
        seen.push((version.schema, version.statistics));
    }
    assert!(seen.iter().all(|s| *s == seen[0]), "{seen:?}");

    let table = local.path().join("t.csv");
    std::fs::write(&table, "a,rain,wind\n1,0,1\n2,1,1\n3,1,0\n").unwrap();
    let (name, file) = (unique("typed"), table.to_str().unwrap());
    let args = [
        "dataset",
        "add",
        &name,
        "--file",
        file,
        "--label-columns",
        "rain,wind",
    ];
    let (status, out, err) = cli(&server, &args);
    assert_eq!(status, 0, "{out}{err}");
    let version = client.dataset(&name).await.unwrap().latest;
    assert_eq!(version.schema.labels().unwrap(), ["rain", "wind"]);
    assert_eq!(version.statistics.class_counts, Some(vec![2, 2]));
}
