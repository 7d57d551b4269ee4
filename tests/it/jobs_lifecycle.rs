//! What clients may ask of a job while it lives, each in a process of its own: pause, resume, stop,
//! cancel. And what the queue does with jobs that nobody can take.

use std::time::{Duration, Instant};

use futures::StreamExt;
use nereid_client::{Client, ClientError};
use nereid_core::{
    events::{EventKind, JobEvent},
    ids::JobId,
    jobs::{Job, JobStatus, TerminationReason, WaitReason},
};
use serde_json::{Value, json};

use crate::support::*;

/// A server whose only worker has one slot, the label `rack=a` and a quick heartbeat.
fn one_slot() -> Server {
    let folder = tempfile::Builder::new()
        .prefix("nereid-it-")
        .tempdir()
        .unwrap();
    let mut command = nereid();
    command
        .env("NEREID__WORKER__HEARTBEAT", "500ms")
        .env("NEREID__WORKER__LABELS__RACK", "a");
    Server::launch_in(command, folder, &["--slots", "1"])
}

fn noop(seconds: f64, options: &Value) -> Value {
    let mut job = json!({"kind": "noop", "spec": {"seconds": seconds}});
    let options = options.as_object().unwrap().clone();
    job.as_object_mut().unwrap().extend(options);
    job
}

/// A training that takes long, but not for ever.
async fn long_training(client: &Client, name: &str) -> Job {
    add_digits(client, name).await;
    client
        .submit_job(&tiny_job(name, name, 20_000))
        .await
        .unwrap()
}

/// Follows one stream of events until one of them is what is waited for.
async fn until(
    events: &mut (impl futures::Stream<Item = Result<JobEvent, ClientError>> + Unpin),
    mut wanted: impl FnMut(&JobEvent) -> bool,
) -> JobEvent {
    let found = async {
        loop {
            let event = events.next().await.expect("the stream goes on").unwrap();
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .expect("it comes")
}

fn is_status(status: JobStatus) -> impl FnMut(&JobEvent) -> bool {
    move |event| event.kind == EventKind::StatusChanged && event.data["status"] == status.as_str()
}

/// The refusal's code and text.
fn refusal(answer: Result<Job, ClientError>) -> (String, String) {
    let error = answer.unwrap_err();
    let problem = error.problem().unwrap();
    assert_eq!(problem.status, 409, "{problem}");
    (problem.code.clone(), problem.detail.clone())
}

/// Waits until a job runs.
async fn running(client: &Client, id: JobId) {
    let mut events = client.job_events(id, 0).await.unwrap();
    until(&mut events, is_status(JobStatus::Running)).await;
}

async fn ended(client: &Client, id: JobId) -> Job {
    let watched = tokio::time::timeout(PATIENCE, client.watch_job(id, |_| {})).await;
    watched.expect("it ends").unwrap()
}

#[tokio::test]
async fn a_paused_training_frees_its_slot_and_goes_on_where_it_was() {
    let server = one_slot();
    let client = server.client();
    let job = long_training(&client, "paused").await;
    let mut events = client.job_events(job.id, 0).await.unwrap();
    until(&mut events, |e| e.kind == EventKind::Progress).await;
    let (code, detail) = refusal(client.resume_job(job.id).await);
    assert_eq!(code, "job_not_paused");
    assert!(detail.contains("running"), "{detail}");

    client.pause_job(job.id).await.unwrap();
    let asked = until(&mut events, |e| e.kind == EventKind::Requested).await;
    assert_eq!(asked.data["request"], "pause");
    // The stream does not end here: the job has not.
    until(&mut events, is_status(JobStatus::Paused)).await;
    let paused = client.job(job.id).await.unwrap();
    assert_eq!((paused.status, paused.requested), (JobStatus::Paused, None));
    assert!(paused.waiting.is_none() && paused.finished_at.is_none());
    let step = paused.progress.unwrap().step;
    let (_, detail) = refusal(client.retry_job(job.id).await);
    assert!(
        detail.contains("paused") && detail.contains("resume"),
        "{detail}"
    );

    // The worker is free for others.
    succeed(&client, &noop(0.0, &json!({}))).await;
    assert_eq!(client.job(job.id).await.unwrap().status, JobStatus::Paused);

    let resumed = client.resume_job(job.id).await.unwrap();
    assert_eq!(resumed.status, JobStatus::Queued);
    let on = until(&mut events, |e| e.kind == EventKind::Progress).await;
    assert!(
        on.data["step"].as_u64().unwrap() >= step,
        "{on:?} from {step}"
    );
    // It would take long: what was trained is enough.
    client.stop_job(job.id).await.unwrap();
    let job = ended(&client, job.id).await;
    assert_eq!(job.status, JobStatus::Stopped);
    assert_eq!(
        job.termination_reason,
        Some(TerminationReason::StoppedEarly)
    );
    assert_eq!(job.attempts, 1, "a pause uses none up");

    let attempts = client.job_attempts(job.id).await.unwrap();
    let reasons: Vec<_> = attempts.iter().map(|a| a.reason.unwrap()).collect();
    assert_eq!(
        reasons,
        [TerminationReason::Paused, TerminationReason::StoppedEarly]
    );
    assert!(attempts.iter().all(|a| a.ended_at.is_some()));
    let logs = client.job_logs(job.id, 100_000).await.unwrap();
    let resumed = logs
        .iter()
        .any(|l| l.epoch == 2 && l.message.contains("resum"));
    assert!(resumed, "it started over");
    let points = client.job_metrics(job.id).await.unwrap();
    assert!(
        points.windows(2).all(|w| w[0].step < w[1].step),
        "each step once"
    );
}

#[tokio::test]
async fn a_stopped_training_keeps_its_model_wherever_it_stood() {
    let server = one_slot();
    let client = server.client();
    let first = long_training(&client, "kept").await;
    let mut events = client.job_events(first.id, 0).await.unwrap();
    until(&mut events, |e| e.kind == EventKind::Progress).await;
    client.stop_job(first.id).await.unwrap();
    let (_, detail) = refusal(client.pause_job(first.id).await);
    assert!(detail.contains("stop"), "a pause after a stop: {detail}");
    let first = ended(&client, first.id).await;
    assert_eq!(
        first.termination_reason,
        Some(TerminationReason::StoppedEarly)
    );
    let version = client.model_version("kept", 1).await.unwrap();
    assert_eq!(version.lineage.job_id, first.id);
    assert!(
        version.metrics.contains_key("test_accuracy"),
        "{:?}",
        version.metrics
    );

    // A paused one runs once more, for that alone.
    let second = client
        .submit_job(&tiny_job("kept", "kept", 20_000))
        .await
        .unwrap();
    let mut events = client.job_events(second.id, 0).await.unwrap();
    until(&mut events, |e| e.kind == EventKind::Progress).await;
    client.pause_job(second.id).await.unwrap();
    until(&mut events, is_status(JobStatus::Paused)).await;
    client.stop_job(second.id).await.unwrap();
    let second = ended(&client, second.id).await;
    let attempts = client.job_attempts(second.id).await.unwrap();
    assert_eq!(
        second.termination_reason,
        Some(TerminationReason::StoppedEarly),
        "{attempts:?}"
    );
    assert!(second.progress.unwrap().step < 900_000, "it trained on");
    assert_eq!(client.model_versions("kept", 10).await.unwrap().len(), 2);

    // There is nothing to keep of one that never trained.
    let blocker = client.submit_job(&noop(60.0, &json!({}))).await.unwrap();
    running(&client, blocker.id).await;
    let third = client
        .submit_job(&tiny_job("kept", "kept", 1))
        .await
        .unwrap();
    let third = client.stop_job(third.id).await.unwrap();
    assert_eq!(third.termination_reason, Some(TerminationReason::Cancelled));
    client.cancel_job(blocker.id).await.unwrap();
}

#[tokio::test]
async fn a_cancel_is_quick_and_final() {
    let server = one_slot();
    let client = server.client();
    let job = client.submit_job(&noop(600.0, &json!({}))).await.unwrap();
    running(&client, job.id).await;
    let waiting = client.submit_job(&noop(0.0, &json!({}))).await.unwrap();
    let paused = client.pause_job(waiting.id).await.unwrap();
    assert_eq!(paused.status, JobStatus::Paused, "nobody had it: at once");

    let asked = Instant::now();
    client.cancel_job(job.id).await.unwrap();
    let job = ended(&client, job.id).await;
    // One heartbeat of 500 ms, and some time for a busy machine.
    assert!(
        asked.elapsed() < Duration::from_secs(4),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(job.status, JobStatus::Stopped);
    assert_eq!(job.termination_reason, Some(TerminationReason::Cancelled));
    assert!(job.result.is_none());
    for refused in [
        client.pause_job(job.id).await,
        client.resume_job(job.id).await,
        client.stop_job(job.id).await,
        client.cancel_job(job.id).await,
    ] {
        let (code, detail) = refusal(refused);
        assert!(code.starts_with("job_"), "{code}");
        assert!(detail.contains("stopped"), "{detail}");
    }

    let resumed = client.resume_job(waiting.id).await.unwrap();
    assert_eq!(resumed.status, JobStatus::Queued);
    finish(&client, waiting.id).await;
    let (code, _) = refusal(client.retry_job(waiting.id).await);
    assert_eq!(code, "job_succeeded");
}

#[tokio::test]
async fn jobs_that_nobody_can_take_say_what_is_missing_and_hold_nobody_up() {
    let server = one_slot();
    let client = server.client();
    let first = json!({"priority": 100});
    let mut wants_gpu = noop(0.0, &first);
    wants_gpu["device"] = json!("gpu");
    let mut wants_rack = noop(0.0, &first);
    wants_rack["worker_labels"] = json!({"rack": "b"});
    let gpu = client.submit_job(&wants_gpu).await.unwrap().id;
    let rack = client.submit_job(&wants_rack).await.unwrap().id;
    wants_gpu["max_queue_seconds"] = json!(1);
    let impatient = client.submit_job(&wants_gpu).await.unwrap().id;
    let endless = noop(
        600.0,
        &json!({"max_runtime_seconds": 1, "worker_labels": {"rack": "a"}}),
    );
    let endless = client.submit_job(&endless).await.unwrap().id;

    let why = |job: Job| job.waiting.expect("it waits");
    let waiting = why(client.job(gpu).await.unwrap());
    assert_eq!(waiting.reason, WaitReason::NoMatchingWorker);
    assert!(waiting.detail.contains("gpu"), "{}", waiting.detail);
    let waiting = why(client.job(rack).await.unwrap());
    assert_eq!(waiting.reason, WaitReason::NoMatchingWorker);
    assert!(
        waiting.detail.contains("rack") && waiting.detail.contains('b'),
        "{}",
        waiting.detail
    );

    // Later ones of lower priority run all the same.
    let endless = ended(&client, endless).await;
    assert_eq!(
        endless.termination_reason,
        Some(TerminationReason::MaxRuntimeExceeded),
        "{:?}",
        endless.error
    );
    succeed(&client, &noop(0.0, &json!({"priority": 0}))).await;
    let impatient = ended(&client, impatient).await;
    assert_eq!(impatient.status, JobStatus::Failed);
    assert_eq!(
        impatient.termination_reason,
        Some(TerminationReason::MaxQueueTimeExceeded)
    );
    assert!(
        impatient
            .error
            .unwrap()
            .message
            .contains("max_queue_seconds")
    );
    for id in [gpu, rack] {
        assert_eq!(client.job(id).await.unwrap().status, JobStatus::Queued);
        let cancelled = client.cancel_job(id).await.unwrap();
        assert_eq!(cancelled.status, JobStatus::Stopped);
    }
}

#[tokio::test]
async fn the_queue_goes_by_priority_and_tells_each_job_its_place() {
    let server = one_slot();
    let client = server.client();
    let blocker = client
        .submit_job(&noop(600.0, &json!({})))
        .await
        .unwrap()
        .id;
    running(&client, blocker).await;
    let mut ids = Vec::new();
    for priority in [10, 50, 90] {
        let job = noop(0.0, &json!({"priority": priority}));
        ids.push(client.submit_job(&job).await.unwrap().id);
    }
    for (id, place) in ids.iter().zip([3, 2, 1]) {
        let waiting = client.job(*id).await.unwrap().waiting.expect("it waits");
        assert_eq!(
            waiting.reason,
            WaitReason::WorkersBusy,
            "{}",
            waiting.detail
        );
        assert_eq!(waiting.position, place, "{}", waiting.detail);
    }
    client.cancel_job(blocker).await.unwrap();
    let mut started = Vec::new();
    for id in ids {
        started.push(finish(&client, id).await.started_at.unwrap());
    }
    assert!(
        started[2] < started[1] && started[1] < started[0],
        "{started:?}"
    );
}
