//! Postgres and S3 that go away and come back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use nereid_core::jobs::{Directive, JobStatus, TerminationReason};
use serde_json::json;
use tokio::sync::Notify;

use crate::{
    engine::{Scripted, pause, point, progress, short, write_model},
    support::{eventually, train, world},
};

/// Steps that a training makes without Postgres.
const ALONE: u64 = 50;

#[tokio::test]
async fn a_training_outlasts_postgres_and_reports_everything_afterwards() {
    let world = world().await;
    let (steps, enough) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let (count, end) = (Arc::clone(&steps), Arc::clone(&enough));
    let engine = Scripted::new(move |task, monitor| {
        while !end.load(Ordering::SeqCst) {
            assert_eq!(monitor.directive(), Directive::Continue);
            let step = count.fetch_add(1, Ordering::SeqCst) + 1;
            monitor.metrics(point(step));
            monitor.progress(progress(step));
            pause(5);
        }
        Ok(write_model(task.output))
    });
    let (worker, postgres) = world
        .worker_behind_postgres_gate(world.config(), &engine)
        .await;
    let id = world.submit(&train(&json!({"max_attempts": 1}))).await;
    world.training(id).await;
    let made = |n: u64| {
        let steps = Arc::clone(&steps);
        eventually("the training to go on", move || {
            let done = steps.load(Ordering::SeqCst) >= n;
            async move { done.then_some(()) }
        })
    };
    made(ALONE).await;
    postgres.shut();
    postgres.stopped(1).await;
    made(steps.load(Ordering::SeqCst) + ALONE).await;
    let known = world.steps(id).await.len();
    postgres.open();
    made(steps.load(Ordering::SeqCst) + ALONE).await;
    enough.store(true, Ordering::SeqCst);
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    assert_eq!((job.attempts, job.lease_losses), (1, 0));
    let all: Vec<u64> = (1..=steps.load(Ordering::SeqCst)).collect();
    assert_eq!(world.steps(id).await, all);
    assert!(known < all.len());
    worker.leave().await;
}

#[tokio::test]
async fn an_upload_waits_until_storage_is_back() {
    let world = world().await;
    let (trained, wait) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(true)));
    let (done, waits) = (Arc::clone(&trained), Arc::clone(&wait));
    let engine = Scripted::new(move |task, monitor| {
        let model = short(task, monitor);
        done.notify_one();
        while waits.load(Ordering::SeqCst) {
            pause(5);
        }
        model
    });
    let (worker, s3) = world.worker_behind_s3_gate(world.config(), &engine).await;
    let id = world.submit(&train(&json!({"max_attempts": 1}))).await;
    trained.notified().await;
    s3.shut();
    wait.store(false, Ordering::SeqCst);
    // More often than the client itself tries again.
    s3.stopped(7).await;
    s3.open();
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    assert_eq!(job.attempts, 1);
    worker.leave().await;
}

#[tokio::test]
async fn storage_that_stays_away_is_a_clean_failure() {
    let world = world().await;
    let mut config = world.config();
    config.storage_patience = Duration::from_millis(10);
    let engine = Scripted::new(short);
    let (worker, s3) = world.worker_behind_s3_gate(config, &engine).await;
    s3.shut();
    let id = world.submit(&train(&json!({"max_attempts": 1}))).await;
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Failed);
    let reason = Some(TerminationReason::Unavailable);
    assert_eq!(job.termination_reason, reason, "{:?}", job.error);
    s3.open();
    world.retry(id).await;
    assert_eq!(world.finished(id).await.status, JobStatus::Succeeded);
    worker.leave().await;
}
