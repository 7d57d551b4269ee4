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
    jobs::{Directive, JobPhase, JobStatus},
    workers::WorkerStatus,
};
use serde_json::json;

use crate::{
    engine::{Scripted, pause, resumed, short, until_told},
    support::{train, world},
};

#[tokio::test]
async fn a_drained_job_goes_on_elsewhere_and_keeps_its_attempts() {
    let world = world().await;
    let went_on_from = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&went_on_from);
    let first = AtomicBool::new(true);
    let engine = Scripted::new(move |task, monitor| {
        if first.swap(false, Ordering::SeqCst) {
            assert_eq!(until_told(task, monitor), Directive::Suspend);
            return Err(EngineError::Stopped);
        }
        *seen.lock().unwrap() = resumed(task);
        short(task, monitor)
    });
    let leaving = world.worker(&engine).await;
    let id = world.submit(&train(&json!({"max_attempts": 1}))).await;
    world.training(id).await;
    let (gone, started) = (leaving.id, Instant::now());
    leaving.leave().await;
    assert!(started.elapsed() < Duration::from_secs(2));
    let job = world.job(id).await;
    assert_eq!((job.status, job.attempts), (JobStatus::Queued, 0));
    let status = world.store.worker(gone).await.unwrap().status;
    assert_eq!(status, WorkerStatus::Gone);

    let next = world.worker(&engine).await;
    assert_eq!(world.finished(id).await.status, JobStatus::Succeeded);
    let state = went_on_from.lock().unwrap().clone();
    assert_eq!(state.as_deref(), Some("after seven steps"));
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
    world.training(id).await;
    let started = Instant::now();
    worker.leave().await;
    assert!(started.elapsed() < Duration::from_secs(8));
    let job = world.job(id).await;
    assert_eq!((job.status, job.attempts), (JobStatus::Queued, 0));
    deaf.store(false, Ordering::SeqCst);
}
