//! Attempts that do not go well, and what is left of them.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nereid_core::{
    engine::EngineError,
    jobs::{JobStatus, TerminationReason},
};
use serde_json::json;

use crate::{
    engine::{Scripted, short},
    support::{train, world},
};

#[tokio::test]
async fn a_panic_fails_the_attempt_and_the_worker_lives_on() {
    let world = world().await;
    let first = AtomicBool::new(true);
    let engine = Scripted::new(move |task, monitor| {
        assert!(!first.swap(false, Ordering::SeqCst), "on purpose");
        short(task, monitor)
    });
    let worker = world.worker(&engine).await;
    let id = world.submit(&train(&json!({"max_attempts": 1}))).await;
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Failed);
    let error = job.error.unwrap();
    assert_eq!(error.reason, TerminationReason::Internal);
    assert_eq!(error.message, "training thread panicked: on purpose");
    let next = world.submit(&train(&json!({}))).await;
    assert_eq!(world.finished(next).await.status, JobStatus::Succeeded);
    worker.leave().await;
}

#[tokio::test]
async fn data_that_changed_since_it_was_registered_is_refused() {
    let world = world().await;
    let worker = world.worker(&Scripted::new(short)).await;
    world.overwrite(&world.data(), "other").await;
    let id = world.submit(&train(&json!({}))).await;
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Failed);
    assert_eq!(job.attempts, 1);
    let error = job.error.unwrap();
    assert_eq!(error.reason, TerminationReason::InvalidInput);
    assert!(
        error.message.contains("register the dataset again"),
        "{error:?}"
    );
    worker.leave().await;
}

#[tokio::test]
async fn what_went_wrong_with_a_training_is_the_jobs_reason() {
    use TerminationReason::{Crashed, DiskFull, OutOfMemory};
    let world = world().await;
    let fails = AtomicU32::new(0);
    let engine = Scripted::new(move |_, _| {
        Err(match fails.fetch_add(1, Ordering::SeqCst) {
            0 => EngineError::Io {
                context: "writing a snapshot".to_owned(),
                source: std::io::ErrorKind::StorageFull.into(),
            },
            1 => EngineError::OutOfMemory("it needed 9 GiB".to_owned()),
            2 => EngineError::Crashed("signal 6".to_owned()),
            _ => EngineError::Stopped,
        })
    });
    let worker = world.worker(&engine).await;
    // A training that stops though nobody asked is a fault, and not tried again for ever.
    for expected in [DiskFull, OutOfMemory, Crashed, TerminationReason::Internal] {
        let id = world.submit(&train(&json!({"max_attempts": 1}))).await;
        let job = world.finished(id).await;
        assert_eq!(job.status, JobStatus::Failed);
        assert_eq!(job.termination_reason, Some(expected), "{:?}", job.error);
    }
    worker.leave().await;
}
