//! What is committed in groups is answered alone, and no worse than what is committed alone.

use std::{collections::HashSet, time::Duration};

use futures::future::join_all;
use nereid_core::jobs::{Claim, Fence, JobRequest, JobResult, JobStatus};
use nereid_store::{StoreError, jobs::Submitted};
use serde_json::json;

use crate::support::{Db, LEASE, code, db, noop};

/// Submits jobs at the same time, each with a label of its own.
async fn submit_together(db: &Db, count: usize) -> Vec<nereid_core::jobs::Job> {
    let submit = |n: usize| async move {
        let new = noop(json!({"labels": {"n": n.to_string()}, "priority": n % 101}));
        match db.store.submit_job(db.project, None, &new).await.unwrap() {
            Submitted::Fresh(job) => job,
            Submitted::Replay(response) => panic!("nothing to replay: {response:?}"),
        }
    };
    join_all((0..count).map(submit)).await
}

async fn claimed(db: &Db, count: usize) -> Vec<Claim> {
    submit_together(db, count).await;
    let worker = db.worker().await;
    let claims = db.claim(worker, u32::try_from(count).unwrap(), LEASE).await;
    assert_eq!(claims.len(), count);
    claims
}

async fn complete(db: &Db, fence: &Fence) -> Result<(), StoreError> {
    db.store.complete(fence, &JobResult::Noop {}).await
}

#[tokio::test]
async fn each_of_many_submissions_gets_its_own_job() {
    let db = db().await;
    let jobs = submit_together(&db, 40).await;
    for (n, answered) in jobs.iter().enumerate() {
        assert_eq!(answered.options.labels["n"], n.to_string());
        let mut stored = db.job(answered.id).await;
        stored.waiting = None;
        assert_eq!(stored, *answered);
        let events = db.store.job_events(db.project, answered.id, 0, 10).await;
        assert_eq!(events.unwrap().len(), 1);
    }
    assert_eq!(jobs.iter().map(|j| j.id).collect::<HashSet<_>>().len(), 40);
    let audit = "SELECT DISTINCT resource FROM audit_log WHERE action = 'submit'";
    assert_eq!(db.texts(audit).await.len(), 40);
}

#[tokio::test]
async fn a_job_that_cannot_be_stored_spoils_no_other() {
    let db = db().await;
    // The table takes no more than a priority of 100; validation, which is left out here, neither.
    let mut bad = noop(json!({}));
    bad.options.priority = 101;
    let good = noop(json!({}));
    let submit = |new| db.store.submit_job(db.project, None, new);
    let answers = join_all([&good, &bad, &good].map(submit)).await;
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert!(answers[1].is_err());
    assert_eq!(db.texts("SELECT id::text FROM jobs").await.len(), 2);
}

#[tokio::test]
async fn of_ends_written_together_only_the_rightful_have_an_effect() {
    let db = db().await;
    let claims = claimed(&db, 5).await;
    let fences: Vec<Fence> = claims.iter().map(|c| c.fence).collect();
    // A claim that nobody made, an older epoch, a cancelled job; then two in good order.
    let mut ends = fences.clone();
    ends[0].claim = nereid_core::ids::ClaimId::generate();
    ends[1].epoch -= 1;
    db.cancel(ends[2].job).await.unwrap();
    let answers = join_all(ends.iter().map(|fence| complete(&db, fence))).await;
    let codes: Vec<&str> = answers[..3]
        .iter()
        .map(|a| code(a.as_ref().unwrap_err()))
        .collect();
    assert_eq!(codes, ["lease_lost", "lease_lost", "cancel_requested"]);
    assert!(answers[3].is_ok() && answers[4].is_ok());
    for (n, end) in ends.iter().enumerate() {
        let job = db.job(end.job).await;
        let expected = if n < 3 {
            JobStatus::Running
        } else {
            JobStatus::Succeeded
        };
        assert_eq!(job.status, expected, "{n}");
    }
    // The answer was lost: the same end again is no error, and no second event.
    complete(&db, &fences[4]).await.unwrap();
    let events = db.store.job_events(db.project, fences[4].job, 0, 10).await;
    let seqs: Vec<u64> = events.unwrap().iter().map(|e| e.seq).collect();
    assert_eq!(seqs, [1, 2, 3]);
    let attempts = db
        .store
        .job_attempts(db.project, fences[4].job)
        .await
        .unwrap();
    assert!(attempts.len() == 1 && attempts[0].ended_at.is_some());
}

#[tokio::test]
async fn two_claims_of_a_job_in_one_group_are_told_apart() {
    let db = db().await;
    submit_together(&db, 1).await;
    let (slow, quick) = (db.worker().await, db.worker().await);
    let zombie = db.claim(slow, 1, Duration::ZERO).await.remove(0);
    db.sql("UPDATE job_leases SET expires_at = now() - interval '1 hour'")
        .await;
    db.store.reap(Duration::ZERO).await.unwrap();
    let current = db.claim(quick, 1, LEASE).await.remove(0);
    assert_eq!(current.fence.job, zombie.fence.job);
    let fences = [&zombie.fence, &current.fence];
    let answers = join_all(fences.map(|fence| complete(&db, fence))).await;
    assert_eq!(code(answers[0].as_ref().unwrap_err()), "lease_lost");
    assert!(answers[1].is_ok());
}

#[tokio::test]
async fn an_end_that_must_wait_holds_up_no_other() {
    let db = db().await;
    let claims = claimed(&db, 2).await;
    // A client's request under way holds the first lease.
    let mut request = db.write().await;
    request
        .request_job(claims[0].fence.job, JobRequest::Pause)
        .await
        .unwrap();
    let mut first = Box::pin(complete(&db, &claims[0].fence));
    assert!(futures::poll!(&mut first).is_pending());
    complete(&db, &claims[1].fence).await.unwrap();
    assert!(futures::poll!(&mut first).is_pending());
    request.rollback().await.unwrap();
    first.await.unwrap();
}
