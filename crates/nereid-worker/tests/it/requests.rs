//! What clients ask of jobs: pause and resume, stop with the model, cancel; and limits they set.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use nereid_core::{
    engine::{EngineError, TrainTask},
    jobs::{Directive, JobRequest, JobResult, JobStatus, NewJob, TerminationReason},
};
use serde_json::json;
use tokio::sync::Notify;

use crate::{
    engine::{Scripted, pause, progress, resumed, short, until_told, write_model},
    support::{train, world},
};

/// Directives that trainings were told, and what they went on from.
type Heard = Arc<Mutex<Vec<(Option<String>, Directive)>>>;

/// An engine that trains until told otherwise, and does as it is told.
fn obedient() -> (Scripted, Heard) {
    let heard = Heard::default();
    let told = Arc::clone(&heard);
    let engine = Scripted::new(move |task: &TrainTask<'_>, monitor| {
        let directive = until_told(task, monitor);
        told.lock().unwrap().push((resumed(task), directive));
        match directive {
            Directive::Finish => Ok(write_model(task.output)),
            _ => Err(EngineError::Stopped),
        }
    });
    (engine, heard)
}

#[tokio::test]
async fn a_paused_job_frees_its_slot_and_goes_on_where_it_was() {
    let world = world().await;
    let (engine, heard) = obedient();
    let worker = world.worker(&engine).await;
    let id = world.submit(&train(&json!({"max_attempts": 1}))).await;
    world.training(id).await;
    world.request(id, JobRequest::Pause).await;
    let job = world
        .job_when(id, |job| job.status == JobStatus::Paused)
        .await;
    assert_eq!((job.requested, job.attempts), (None, 0));
    // The only slot is free for another one.
    let other = world.submit(&noop(0.0)).await;
    assert_eq!(world.finished(other).await.status, JobStatus::Succeeded);
    assert_eq!(world.job(id).await.status, JobStatus::Paused);

    world.resume(id).await;
    world.training(id).await;
    world.request(id, JobRequest::Stop).await;
    assert_eq!(world.finished(id).await.status, JobStatus::Stopped);
    let state = Some("after seven steps".to_owned());
    let expected = [(None, Directive::Suspend), (state, Directive::Finish)];
    assert_eq!(*heard.lock().unwrap(), expected);
    worker.leave().await;
}

#[tokio::test]
async fn a_job_that_is_stopped_early_publishes_what_it_trained() {
    let world = world().await;
    let (engine, _) = obedient();
    let worker = world.worker(&engine).await;
    let id = world.submit(&train(&json!({}))).await;
    world.training(id).await;
    world.request(id, JobRequest::Stop).await;
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Stopped, "{:?}", job.error);
    let reason = Some(TerminationReason::StoppedEarly);
    assert_eq!(job.termination_reason, reason);
    let Some(JobResult::Train { model, version, .. }) = job.result else {
        panic!("{:?}", job.result)
    };
    let version = world.store.model_version(world.project, &model, version);
    assert_eq!(version.await.unwrap().lineage.job_id, id);
    worker.leave().await;
}

#[tokio::test]
async fn a_paused_job_that_is_stopped_runs_once_more_to_publish() {
    let world = world().await;
    let (engine, heard) = obedient();
    let worker = world.worker(&engine).await;
    let id = world.submit(&train(&json!({}))).await;
    world.training(id).await;
    world.request(id, JobRequest::Pause).await;
    world
        .job_when(id, |job| job.status == JobStatus::Paused)
        .await;
    world.request(id, JobRequest::Stop).await;
    let job = world.finished(id).await;
    let reason = Some(TerminationReason::StoppedEarly);
    assert_eq!(job.termination_reason, reason, "{:?}", job.error);
    assert!(job.result.is_some());
    let state = Some("after seven steps".to_owned());
    assert_eq!(heard.lock().unwrap()[1], (state, Directive::Finish));
    worker.leave().await;
}

#[tokio::test]
async fn a_stop_that_comes_when_all_is_trained_changes_nothing() {
    let world = world().await;
    let engine = Scripted::new(|task, monitor| {
        assert_eq!(until_told(task, monitor), Directive::Finish);
        // It was in its last epoch.
        monitor.progress(progress(10));
        Ok(write_model(task.output))
    });
    let worker = world.worker(&engine).await;
    let id = world.submit(&train(&json!({}))).await;
    world.training(id).await;
    world.request(id, JobRequest::Stop).await;
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    assert_eq!(job.termination_reason, Some(TerminationReason::Completed));
    worker.leave().await;
}

#[tokio::test]
async fn a_cancelled_training_ends_without_a_model_or_a_snapshot() {
    let world = world().await;
    let (engine, heard) = obedient();
    let worker = world.worker(&engine).await;
    let id = world.submit(&train(&json!({}))).await;
    world.training(id).await;
    world.request(id, JobRequest::Cancel).await;
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Stopped);
    assert_eq!(job.termination_reason, Some(TerminationReason::Cancelled));
    assert_eq!(*heard.lock().unwrap(), [(None, Directive::Stop)]);
    assert_eq!(world.keys("").await, Vec::<String>::new());
    worker.leave().await;
}

#[tokio::test]
async fn a_job_that_is_cancelled_while_it_uploads_is_not_published() {
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
    let config = world.config();
    let (worker, s3) = world.worker_behind_s3_gate(config, &engine).await;
    let id = world.submit(&train(&json!({}))).await;
    trained.notified().await;
    s3.hold();
    wait.store(false, Ordering::SeqCst);
    s3.stopped(1).await;
    assert_eq!(world.job(id).await.status, JobStatus::Running);
    world.request(id, JobRequest::Cancel).await;
    let job = world.finished(id).await;
    assert_eq!(job.termination_reason, Some(TerminationReason::Cancelled));
    assert_eq!(job.result, None);
    s3.open();
    worker.leave().await;
}

#[tokio::test]
async fn a_job_that_used_up_its_running_time_fails_for_good() {
    let world = world().await;
    let (engine, heard) = obedient();
    let worker = world.worker(&engine).await;
    let limits = json!({"max_runtime_seconds": 1, "max_attempts": 5});
    let id = world.submit(&train(&limits)).await;
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Failed);
    let reason = Some(TerminationReason::MaxRuntimeExceeded);
    assert_eq!(job.termination_reason, reason, "{:?}", job.error);
    assert_eq!(*heard.lock().unwrap(), [(None, Directive::Stop)]);
    worker.leave().await;
}

/// A job that does nothing for so long.
fn noop(seconds: f64) -> NewJob {
    NewJob::read(json!({"kind": "noop", "spec": {"seconds": seconds}})).unwrap()
}

#[tokio::test]
async fn noop_jobs_succeed_and_heed_what_is_asked() {
    let world = world().await;
    let engine = Scripted::new(short);
    let worker = world.worker(&engine).await;
    let id = world.submit(&noop(0.0)).await;
    let job = world.finished(id).await;
    assert_eq!(job.result, Some(JobResult::Noop {}), "{:?}", job.error);
    for (request, ended) in [
        (JobRequest::Cancel, JobStatus::Stopped),
        (JobRequest::Stop, JobStatus::Stopped),
        (JobRequest::Pause, JobStatus::Paused),
    ] {
        let id = world.submit(&noop(3600.0)).await;
        world
            .job_when(id, |job| job.status == JobStatus::Running)
            .await;
        world.request(id, request).await;
        world.job_when(id, |job| job.status == ended).await;
    }
    let id = world.submit(&noop(3600.0)).await;
    world
        .job_when(id, |job| job.status == JobStatus::Running)
        .await;
    worker.leave().await;
    let job = world.job(id).await;
    assert_eq!((job.status, job.attempts), (JobStatus::Queued, 0));
}
