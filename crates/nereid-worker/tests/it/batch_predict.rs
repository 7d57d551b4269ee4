//! Batch predictions: parts, their fence, and going on behind the last one.

use std::sync::atomic::Ordering;

use nereid_core::{
    batch_predictions::BatchManifest,
    ids::JobId,
    jobs::{Job, JobRequest, JobResult, JobStatus, NewJob, TerminationReason},
};
use nereid_objects::S3Uri;
use serde_json::{Value, json};

use crate::{
    engine::{Scripted, short},
    support::{World, eventually, train, world},
};

const PREFIX: &str = "out/";

/// Trains a version and writes an input of so many rows.
async fn prepared(world: &World, rows: usize) {
    let id = world.submit(&train(&json!({}))).await;
    assert_eq!(world.finished(id).await.status, JobStatus::Succeeded);
    let lines: Vec<_> = (1..=rows).map(|i| format!("[{i}, 0.5]")).collect();
    put(world, "in.jsonl", lines.join("\n")).await;
}

async fn put(world: &World, key: &str, content: String) {
    let options = nereid_objects::PutOptions::default();
    let uri = world.objects.own(key).unwrap();
    let put = world.objects.put_bytes(&uri, content.into(), &options);
    put.await.unwrap();
}

fn predict() -> NewJob {
    let job = json!({"kind": "batch_predict", "spec": {
        "model": "digits", "version": 1, "rows_per_part": 2,
        "input": {"uri": "s3://nereid/in.jsonl", "format": "jsonl"},
        "output": {"uri": format!("s3://nereid/{PREFIX}")},
    }});
    NewJob::read(job).unwrap_or_else(|e| panic!("{e:?}"))
}

async fn get(world: &World, key: &str) -> Vec<u8> {
    let uri = world.objects.own(key).unwrap();
    world.objects.get_bytes(&uri, 1 << 20).await.unwrap().into()
}

async fn outputs(world: &World) -> Vec<String> {
    use futures::TryStreamExt;
    let listed = world.objects.list(world.objects.bucket(), PREFIX);
    let objects: Vec<_> = listed.try_collect().await.unwrap();
    let name = |uri: &S3Uri| uri.key()[PREFIX.len()..].to_owned();
    objects.iter().map(|o| name(&o.uri)).collect()
}

/// Row numbers and predictions of a finished job, in the manifest's order.
async fn predicted(world: &World, job: &Job) -> Vec<(u64, f64)> {
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    let Some(JobResult::BatchPredict { manifest, .. }) = &job.result else {
        panic!("{:?}", job.result)
    };
    let uri: S3Uri = manifest.parse().unwrap();
    let manifest: BatchManifest = serde_json::from_slice(&get(world, uri.key()).await).unwrap();
    let mut lines = Vec::new();
    for file in manifest.parts.iter().filter_map(|p| p.predictions.as_ref()) {
        let text = String::from_utf8(get(world, &format!("{PREFIX}{}", file.path)).await);
        for line in text.unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let value = line["prediction"]["value"].as_f64().unwrap();
            lines.push((line["row"].as_u64().unwrap(), value));
        }
    }
    lines
}

/// Waits for some parts and pauses the job, whose input is read row by row meanwhile.
async fn paused_midway(world: &World, engine: &Scripted, id: JobId) {
    eventually("two parts", || async {
        let count = "SELECT count(*) FROM batch_prediction_parts";
        (world.count(count).await >= 2).then_some(())
    })
    .await;
    world.request(id, JobRequest::Pause).await;
    eventually("the pause", || async {
        engine.readable.fetch_add(2, Ordering::Relaxed);
        let job = world.job(id).await;
        (job.status == JobStatus::Paused).then_some(())
    })
    .await;
}

fn all(rows: u32) -> Vec<(u64, f64)> {
    (1..=rows)
        .map(|i| (u64::from(i), f64::from(i) + 0.5))
        .collect()
}

#[tokio::test]
async fn a_paused_prediction_goes_on_behind_its_last_part() {
    let world = world().await;
    let engine = Scripted::new(short);
    let worker = world.worker(&engine).await;
    prepared(&world, 2_001).await;
    engine.readable.store(4, Ordering::Relaxed);
    let id = world.submit(&predict()).await;
    paused_midway(&world, &engine, id).await;
    assert!(!outputs(&world).await.contains(&"_SUCCESS".to_owned()));
    engine.readable.store(u64::MAX, Ordering::Relaxed);
    world.resume(id).await;
    let job = world.finished(id).await;
    assert_eq!(predicted(&world, &job).await, all(2_001));
    let log = world.log(id).await;
    assert!(
        log.iter().any(|l| l.contains("goes on behind part")),
        "{log:?}"
    );
    // Each part was written by one attempt and stayed as it was.
    let names = outputs(&world).await;
    assert_eq!(
        names.len(),
        1_001 + 2,
        "claim and manifest beside the parts"
    );
    worker.leave().await;
}

#[tokio::test]
async fn what_a_lost_attempt_left_is_neither_overwritten_nor_taken_for_the_truth() {
    let world = world().await;
    let engine = Scripted::new(short);
    let worker = world.worker(&engine).await;
    prepared(&world, 5).await;
    engine.readable.store(2, Ordering::Relaxed);
    let id = world.submit(&predict()).await;
    eventually("the first part", || async {
        let count = "SELECT count(*) FROM batch_prediction_parts";
        (world.count(count).await == 1).then_some(())
    })
    .await;
    // As an attempt on another machine would have left it that died before its part could count.
    put(&world, "out/part-00001.jsonl", "other digits\n".to_owned()).await;
    engine.readable.store(u64::MAX, Ordering::Relaxed);
    let job = world.finished(id).await;
    assert_eq!(predicted(&world, &job).await, all(5));
    assert_eq!(get(&world, "out/part-00001.jsonl").await, b"other digits\n");
    assert!(
        outputs(&world)
            .await
            .contains(&"part-00001-1.jsonl".to_owned())
    );
    worker.leave().await;
}

#[tokio::test]
async fn a_prefix_belongs_to_one_job() {
    let world = world().await;
    let engine = Scripted::new(short);
    let worker = world.worker(&engine).await;
    prepared(&world, 3).await;
    let first = world.submit(&predict()).await;
    let job = world.finished(first).await;
    assert_eq!(predicted(&world, &job).await, all(3));
    let before = outputs(&world).await;
    let second = world.submit(&predict()).await;
    let job = world.finished(second).await;
    assert_eq!(
        job.termination_reason,
        Some(TerminationReason::InvalidInput)
    );
    assert_eq!(job.attempts, 1, "no retry mends it");
    assert_eq!(outputs(&world).await, before);
    worker.leave().await;
}

#[tokio::test]
async fn an_input_that_changes_under_way_is_an_error_and_not_a_mixture() {
    let world = world().await;
    let engine = Scripted::new(short);
    let worker = world.worker(&engine).await;
    prepared(&world, 2_001).await;
    engine.readable.store(4, Ordering::Relaxed);
    let id = world.submit(&predict()).await;
    paused_midway(&world, &engine, id).await;
    put(&world, "in.jsonl", "[7, 7]\n[8, 8]\n".to_owned()).await;
    engine.readable.store(u64::MAX, Ordering::Relaxed);
    world.resume(id).await;
    let job = world.finished(id).await;
    assert_eq!(
        job.termination_reason,
        Some(TerminationReason::InvalidInput)
    );
    let message = job.error.unwrap().message;
    assert!(message.contains("no longer the object"), "{message}");
    worker.leave().await;
}
