//! Training jobs that go well.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use nereid_core::{
    engine::EngineError,
    events::{EventKind, RuleReport},
    jobs::{JobResult, JobStatus},
    models::Manifest,
    spec::rules::RuleAction,
};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    engine::{Scripted, short},
    support::{train, world},
};

#[tokio::test]
async fn a_job_becomes_a_version_whose_files_are_what_the_manifest_says() {
    let world = world().await;
    let worker = world.worker(&Scripted::new(short)).await;
    let id = world.submit(&train(&json!({}))).await;
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    let Some(JobResult::Train { model, version, .. }) = job.result else {
        panic!("{:?}", job.result)
    };
    let found = world.store.model_version(world.project, &model, version);
    let found = found.await.unwrap();
    assert_eq!(found.lineage.dataset_digest, "digest of digits");
    assert_eq!(found.lineage.seed, 42);
    assert_eq!(found.lineage.framework_version, "test 1");
    assert_eq!(found.reports["matrix"], json!([[1]]));
    // What JSON cannot hold would make the manifest unreadable.
    assert!(!found.metrics.contains_key("odd"));

    let uri = found.manifest_uri.parse().unwrap();
    let manifest = world.objects.get_bytes(&uri, 1 << 20).await.unwrap();
    assert_eq!(
        hex::encode(Sha256::digest(&manifest)),
        found.manifest_sha256
    );
    let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest.files.len(), 2);
    let folder = uri.key().strip_suffix("manifest.json").unwrap();
    let mut bytes = 0;
    for file in &manifest.files {
        let uri = world.objects.own(format!("{folder}{}", file.path)).unwrap();
        let content = world.objects.get_bytes(&uri, 1 << 20).await.unwrap();
        assert_eq!(content.len() as u64, file.bytes);
        assert_eq!(hex::encode(Sha256::digest(&content)), file.sha256);
        bytes += file.bytes;
    }
    assert_eq!(found.bytes, bytes);
    worker.leave().await;
}

#[tokio::test]
async fn everything_reported_is_written_before_the_job_ends() {
    let world = world().await;
    let worker = world.worker(&Scripted::new(short)).await;
    let id = world.submit(&train(&json!({}))).await;
    world.finished(id).await;
    let points = world.store.job_metrics(world.project, id, 100).await;
    let steps: Vec<_> = points.unwrap().iter().map(|p| p.step).collect();
    assert_eq!(steps, [1, 2, 3]);
    let log = world.log(id).await;
    assert!(log.iter().any(|line| line.contains("digits@1")), "{log:?}");
    let events = world.store.job_events(world.project, id, 0, 100).await;
    let events = events.unwrap();
    let progress = events.iter().rfind(|e| e.kind == EventKind::Progress);
    assert_eq!(progress.unwrap().data["step"], 3, "{events:?}");
    let last = events.iter().rfind(|e| e.kind == EventKind::PhaseChanged);
    assert_eq!(last.unwrap().data["phase"], "uploading", "{events:?}");
    worker.leave().await;
}

#[tokio::test]
async fn what_a_rule_finds_is_among_the_events_once_though_the_training_goes_back() {
    let found = |step| RuleReport {
        rule: "dead_relu".to_owned(),
        layer: Some("dense".to_owned()),
        step,
        value: Some(75.0),
        limit: 50.0,
        action: RuleAction::Warn,
        message: "rule dead_relu: 3 of 4 units".to_owned(),
    };
    let world = world().await;
    let attempts = Arc::new(AtomicU32::new(0));
    let engine = Scripted::new(move |task, monitor| {
        // The second attempt goes on from before the first report.
        monitor.rule(found(2));
        if attempts.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(EngineError::Crashed("for the test".to_owned()));
        }
        monitor.rule(found(3));
        short(task, monitor)
    });
    let worker = world.worker(&engine).await;
    let id = world.submit(&train(&json!({}))).await;
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    let events = world.store.job_events(world.project, id, 0, 100).await;
    let events = events.unwrap();
    let rules = events.iter().filter(|e| e.kind == EventKind::RuleTriggered);
    let told = rules.map(|e| serde_json::from_value::<RuleReport>(e.data.clone()).unwrap());
    assert_eq!(told.collect::<Vec<_>>(), [found(2), found(3)]);
    worker.leave().await;
}

#[tokio::test]
async fn a_worker_runs_as_many_jobs_at_once_as_it_has_slots() {
    let world = world().await;
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let peak = Arc::clone(&most);
    let engine = Scripted::new(move |task, monitor| {
        peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        crate::engine::pause(50);
        running.fetch_sub(1, Ordering::SeqCst);
        short(task, monitor)
    });
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(world.submit(&train(&json!({}))).await);
    }
    let folder = world.disk.path().join("worker");
    let mut config = nereid_worker::WorkerConfig::new("test", folder);
    config.slots = 2;
    let worker = world.worker_with(config, &engine).await;
    for id in ids {
        let job = world.finished(id).await;
        assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
    worker.leave().await;
}
