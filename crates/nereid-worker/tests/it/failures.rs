//! Attempts that do not go well, and what is left of them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use nereid_core::{
    engine::{EngineError, Snapshot},
    jobs::{Directive, JobPhase, JobStatus, TerminationReason},
};
use serde_json::json;

use crate::{
    engine::{Scripted, short, until_told, write_model},
    support::{eventually, train, world},
};

#[tokio::test]
async fn a_request_to_stop_reaches_the_training() {
    let world = world().await;
    let engine = Scripted::new(|_, monitor| {
        assert_eq!(until_told(monitor), Directive::Stop);
        Err(EngineError::Stopped)
    });
    let worker = world.worker(&engine).await;
    let id = world.submit(&train(&json!({}))).await;
    world
        .job_when(id, |job| job.phase == Some(JobPhase::Training))
        .await;
    world.stop(id).await;
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Stopped);
    assert_eq!(job.termination_reason, Some(TerminationReason::Cancelled));
    // What was trained until then is there for a retry.
    assert_eq!(world.keys("jobs/").await.len(), 1);
    worker.leave().await;
}

#[tokio::test]
async fn a_training_that_lost_its_lease_stops_and_leaves_nothing() {
    let world = world().await;
    let told = Arc::new(Mutex::new(None));
    let heard = Arc::clone(&told);
    let engine = Scripted::new(move |task, monitor| {
        let directive = until_told(monitor);
        *heard.lock().unwrap() = Some(directive);
        // A zombie that finishes all the same.
        Ok(write_model(task.output))
    });
    let worker = world.worker(&engine).await;
    let id = world.submit(&train(&json!({}))).await;
    world
        .job_when(id, |job| job.phase == Some(JobPhase::Training))
        .await;
    // Somebody else has claimed the job.
    world
        .sql("UPDATE job_leases SET epoch = epoch + 1, claim_id = gen_random_uuid(), expires_at = now() + interval '1 hour'")
        .await;
    let told = eventually("the training to be told", || async {
        *told.lock().unwrap()
    });
    assert_eq!(told.await, Directive::Lost);
    worker.leave().await;
    assert_eq!(world.job(id).await.status, JobStatus::Running);
    assert_eq!(world.keys("").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_worker_that_cannot_renew_its_lease_stops_by_itself() {
    let world = world().await;
    let told = Arc::new(Mutex::new(None));
    let heard = Arc::clone(&told);
    let engine = Scripted::new(move |task, monitor| {
        let directive = until_told(monitor);
        *heard.lock().unwrap() = Some(directive);
        Ok(write_model(task.output))
    });
    let worker = world.worker(&engine).await;
    let id = world.submit(&train(&json!({}))).await;
    world
        .job_when(id, |job| job.phase == Some(JobPhase::Training))
        .await;
    // Postgres is there, but answers no heartbeat.
    let blocked = world.block_leases().await;
    let told = eventually("the training to be told", || async {
        *told.lock().unwrap()
    });
    assert_eq!(told.await, Directive::Lost);
    drop(blocked);
    worker.leave().await;
    assert_eq!(world.keys("").await, Vec::<String>::new());
}

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
async fn the_next_attempt_goes_on_from_the_checkpoint() {
    let world = world().await;
    let resumed = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&resumed);
    let engine = Scripted::new(move |task, monitor| {
        seen.lock().unwrap().push(task.resume.clone());
        if task.resume.is_some() {
            return short(task, monitor);
        }
        for step in [1, 2, 3] {
            monitor.checkpoint(Snapshot {
                step,
                bytes: format!("step {step}").into_bytes(),
            });
        }
        Err(EngineError::Internal("half-way".to_owned()))
    });
    let worker = world.worker(&engine).await;
    let id = world.submit(&train(&json!({}))).await;
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    let resumed = resumed.lock().unwrap().clone();
    assert_eq!(resumed, [None, Some(b"step 3".to_vec())]);
    worker.leave().await;
    // A job that succeeded never runs again.
    assert_eq!(world.keys("jobs/").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_damaged_checkpoint_costs_a_fresh_start_and_no_more() {
    let world = world().await;
    let tries = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&tries);
    let engine = Scripted::new(move |task, monitor| {
        if count.fetch_add(1, Ordering::SeqCst) > 0 {
            assert_eq!(task.resume, None);
            return short(task, monitor);
        }
        monitor.checkpoint(Snapshot {
            step: 1,
            bytes: b"whole".to_vec(),
        });
        Err(EngineError::Diverged {
            step: 1,
            what: "loss".to_owned(),
        })
    });
    let worker = world.worker(&engine).await;
    let id = world.submit(&train(&json!({}))).await;
    assert_eq!(world.finished(id).await.status, JobStatus::Failed);
    let key = world.keys("jobs/").await.remove(0);
    let uri = world.objects.own(key).unwrap();
    world.overwrite(&uri, "wh0le").await;
    world.retry(id).await;
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    let log = world.log(id).await;
    assert!(
        log.iter().any(|line| line.contains("starts over")),
        "{log:?}"
    );
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
