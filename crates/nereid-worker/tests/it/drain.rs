//! Workers that are asked to leave.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nereid_core::{
    engine::EngineError,
    jobs::{JobPhase, JobStatus},
    workers::WorkerStatus,
};
use serde_json::json;

use crate::{
    engine::{Scripted, pause, short, until_told},
    support::{train, world},
};

#[tokio::test]
async fn a_drained_job_goes_on_elsewhere_and_keeps_its_attempts() {
    let world = world().await;
    let resumed = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&resumed);
    let first = AtomicBool::new(true);
    let engine = Scripted::new(move |task, monitor| {
        if first.swap(false, Ordering::SeqCst) {
            until_told(monitor);
            return Err(EngineError::Stopped);
        }
        (*seen.lock().unwrap()).clone_from(&task.resume);
        short(task, monitor)
    });
    let leaving = world.worker(&engine).await;
    let id = world.submit(&train(&json!({"max_attempts": 1}))).await;
    world
        .job_when(id, |job| job.phase == Some(JobPhase::Training))
        .await;
    let (gone, started) = (leaving.id, Instant::now());
    leaving.leave().await;
    assert!(started.elapsed() < Duration::from_secs(2));
    let job = world.job(id).await;
    assert_eq!((job.status, job.attempts), (JobStatus::Queued, 0));
    let status = world.store.worker(gone).await.unwrap().status;
    assert_eq!(status, WorkerStatus::Gone);

    let next = world.worker(&engine).await;
    assert_eq!(world.finished(id).await.status, JobStatus::Succeeded);
    let resumed = resumed.lock().unwrap().clone();
    assert_eq!(resumed.as_deref(), Some(&b"after seven steps"[..]));
    next.leave().await;
}

#[tokio::test]
async fn a_training_that_does_not_listen_cannot_hold_up_the_shutdown() {
    let world = world().await;
    let deaf = Arc::new(AtomicBool::new(true));
    let hears = Arc::clone(&deaf);
    let engine = Scripted::new(move |_, monitor| {
        monitor.phase(JobPhase::Training);
        while hears.load(Ordering::SeqCst) {
            pause(5);
        }
        Err(EngineError::Stopped)
    });
    let worker = world.worker(&engine).await;
    let id = world.submit(&train(&json!({}))).await;
    world
        .job_when(id, |job| job.phase == Some(JobPhase::Training))
        .await;
    let started = Instant::now();
    worker.leave().await;
    assert!(started.elapsed() < Duration::from_secs(8));
    let job = world.job(id).await;
    assert_eq!((job.status, job.attempts), (JobStatus::Queued, 0));
    deaf.store(false, Ordering::SeqCst);
}
