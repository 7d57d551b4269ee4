//! What clients ask of jobs: pause, stop with what was trained, cancel, resume, retry.

use nereid_core::{
    events::EventKind,
    ids::JobId,
    jobs::{Claim, Job, JobRequest, JobStatus, TerminationReason},
};
use serde_json::json;

use crate::support::{Db, checkpoint, code, db, ended, name, noop, train};

impl Db {
    /// A training that was interrupted after a checkpoint and waits again.
    async fn interrupted(&self) -> JobId {
        let id = self.submit(&train("m", json!({}))).await;
        let worker = self.worker().await;
        let claim = self.claim_one(worker).await;
        self.store
            .set_checkpoint(&claim.fence, &checkpoint(&claim.fence, 7))
            .await
            .unwrap();
        self.end(&claim, TerminationReason::WorkerDrained).await;
        id
    }

    pub async fn end(&self, claim: &Claim, reason: TerminationReason) -> JobStatus {
        let end = ended(reason);
        self.store.end_attempt(&claim.fence, &end).await.unwrap()
    }

    async fn publish_stopped(&self, claim: &Claim) -> Job {
        let mut version = Self::version(claim);
        version.stopped_early = true;
        self.store
            .publish_version(&claim.fence, &version)
            .await
            .unwrap();
        self.job(claim.fence.job).await
    }
}

#[tokio::test]
async fn a_paused_training_frees_its_worker_and_goes_on_from_its_checkpoint() {
    let db = db().await;
    let id = db.submit(&train("m", json!({"max_attempts": 1}))).await;
    let worker = db.worker().await;
    let claim = db.claim_one(worker).await;
    let asked = db.pause(id).await.unwrap();
    assert_eq!(
        (asked.status, asked.requested),
        (JobStatus::Running, Some(JobRequest::Pause))
    );
    assert_eq!(db.pause(id).await.unwrap(), asked, "asked again");
    assert_eq!(code(&db.resume(id).await.unwrap_err()), "job_not_paused");
    let taken = checkpoint(&claim.fence, 3);
    db.store.set_checkpoint(&claim.fence, &taken).await.unwrap();
    assert_eq!(
        db.end(&claim, TerminationReason::Paused).await,
        JobStatus::Paused
    );
    let paused = db.job(id).await;
    assert_eq!((paused.requested, paused.attempts), (None, 0));
    assert!(paused.finished_at.is_none() && paused.error.is_none() && paused.waiting.is_none());
    assert_eq!(db.pause(id).await.unwrap(), paused, "asked again");
    assert!(db.claim(worker, 1, crate::support::LEASE).await.is_empty());
    assert_eq!(code(&db.retry(id).await.unwrap_err()), "job_not_final");
    let in_use = db.store.delete_dataset(db.project, &name("digits")).await;
    assert_eq!(code(&in_use.unwrap_err()), "in_use");

    assert_eq!(db.resume(id).await.unwrap().status, JobStatus::Queued);
    let again = db.claim_one(worker).await;
    assert_eq!((again.requested, &again.checkpoints), (None, &vec![taken]));
    db.publish(&again).await.unwrap();
    assert_eq!(code(&db.pause(id).await.unwrap_err()), "job_final");
    let events = db.store.job_events(db.project, id, 0, 100).await.unwrap();
    assert!(events.iter().map(|e| e.seq).eq(1..=events.len() as u64));
}

#[tokio::test]
async fn a_waiting_job_is_paused_at_once_and_a_paused_one_can_be_cancelled() {
    let db = db().await;
    let id = db.submit(&train("m", json!({}))).await;
    assert_eq!(db.pause(id).await.unwrap().status, JobStatus::Paused);
    let cancelled = db.cancel(id).await.unwrap();
    let reason = Some(TerminationReason::Cancelled);
    assert_eq!(
        (cancelled.status, cancelled.termination_reason),
        (JobStatus::Stopped, reason)
    );
    assert_eq!(db.retry(id).await.unwrap().status, JobStatus::Queued);
}

#[tokio::test]
async fn a_stopped_training_publishes_what_it_has() {
    let db = db().await;
    let worker = db.worker().await;

    let running = db.submit(&train("m", json!({}))).await;
    let claim = db.claim_one(worker).await;
    db.stop(running).await.unwrap();
    assert_eq!(
        code(&db.pause(running).await.unwrap_err()),
        "already_requested"
    );
    let stopped = db.publish_stopped(&claim).await;
    let reason = Some(TerminationReason::StoppedEarly);
    assert_eq!(
        (stopped.status, stopped.termination_reason),
        (JobStatus::Stopped, reason)
    );
    assert!(stopped.result.is_some() && stopped.requested.is_none());
    assert_eq!(
        code(&db.retry(running).await.unwrap_err()),
        "job_succeeded",
        "no job publishes twice"
    );

    // One that waits, or is paused, runs once more.
    let waiting = db.interrupted().await;
    let asked = db.stop(waiting).await.unwrap();
    assert_eq!(
        (asked.status, asked.requested),
        (JobStatus::Queued, Some(JobRequest::Stop))
    );
    let paused = {
        let claim = db.claim_one(worker).await;
        assert_eq!(claim.requested, Some(JobRequest::Stop));
        db.publish_stopped(&claim).await;
        let id = db.interrupted().await;
        db.pause(id).await.unwrap();
        id
    };
    assert_eq!(db.stop(paused).await.unwrap().status, JobStatus::Queued);
    let claim = db.claim_one(worker).await;
    assert_eq!(
        (claim.requested, claim.checkpoints.len()),
        (Some(JobRequest::Stop), 1)
    );
    // It paused before it heard of the stop.
    assert_eq!(
        db.end(&claim, TerminationReason::Paused).await,
        JobStatus::Queued
    );
    let claim = db.claim_one(worker).await;
    let model = db.publish_stopped(&claim).await.result.unwrap();
    assert_eq!(serde_json::to_value(model).unwrap()["version"], 3);
}

#[tokio::test]
async fn a_stop_is_a_cancel_where_there_is_nothing_to_keep() {
    let db = db().await;
    let worker = db.worker().await;
    let never_ran = db.submit(&train("m", json!({}))).await;
    let reason = db.stop(never_ran).await.unwrap().termination_reason;
    assert_eq!(reason, Some(TerminationReason::Cancelled));

    let idle = db.submit(&noop(json!({}))).await;
    let claim = db.claim_one(worker).await;
    let asked = db.stop(idle).await.unwrap();
    assert_eq!(asked.requested, Some(JobRequest::Cancel));
    let refused = db
        .store
        .complete(&claim.fence, &nereid_core::jobs::JobResult::Noop {})
        .await
        .unwrap_err();
    assert_eq!(code(&refused), "cancel_requested");
    db.end(&claim, TerminationReason::Cancelled).await;

    // Its worker died before the first checkpoint.
    let lost = db.submit(&train("m", json!({}))).await;
    let claim = db.claim_one(worker).await;
    db.stop(lost).await.unwrap();
    assert_eq!(
        db.end(&claim, TerminationReason::LeaseLost).await,
        JobStatus::Stopped
    );
    let job = db.job(lost).await;
    assert_eq!(job.termination_reason, Some(TerminationReason::Cancelled));
}

#[tokio::test]
async fn requests_only_get_more_final_and_each_is_recorded() {
    let db = db().await;
    let id = db.submit(&train("m", json!({}))).await;
    let worker = db.worker().await;
    db.claim_one(worker).await;
    for request in [JobRequest::Pause, JobRequest::Stop, JobRequest::Cancel] {
        let job = db.request(id, request).await.unwrap();
        assert_eq!(job.requested, Some(request));
    }
    for less in [JobRequest::Pause, JobRequest::Stop] {
        let refused = db.request(id, less).await.unwrap_err();
        assert_eq!(code(&refused), "already_requested");
    }
    let events = db.store.job_events(db.project, id, 0, 100).await.unwrap();
    let asked = events
        .into_iter()
        .filter(|e| e.kind == EventKind::Requested);
    let asked: Vec<_> = asked.map(|e| e.data["request"].clone()).collect();
    assert_eq!(asked, ["pause", "stop", "cancel"]);
    let audited = db.texts("SELECT action FROM audit_log WHERE resource LIKE 'job/%' ORDER BY id");
    assert_eq!(audited.await, ["submit", "pause", "stop", "cancel"]);
}
