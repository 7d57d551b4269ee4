//! Leases, budgets and limits in time: what happens when nobody answers.

use std::time::{Duration, Instant};

use nereid_core::{
    jobs::{JobRequest, JobStatus, TerminationReason},
    limits::MAX_LEASE_LOSSES,
};
use nereid_store::workers::session_name;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::{LEASE, checkpoint, db, noop, train};

const NOW: Duration = Duration::ZERO;

#[tokio::test]
async fn a_dead_workers_job_runs_again_elsewhere_within_lease_and_two_seconds() {
    let db = db().await;
    let id = db.submit(&noop(json!({}))).await;
    let (dead, alive) = (db.worker().await, db.worker().await);
    let lease = Duration::from_secs(1);
    let shutdown = CancellationToken::new();
    let reapers = [db.store.clone(), db.second().await];
    let reapers = reapers.map(|s| s.reaper(lease, shutdown.clone()));
    let test = async {
        // By then both have seen Postgres for a lease.
        tokio::time::sleep(lease).await;
        db.claim(dead, 1, lease).await;
        let claimed = Instant::now();
        db.until(|| async { !db.claim(alive, 1, LEASE).await.is_empty() })
            .await;
        // What the loop adds to the lease; half of it again for a machine that is busy.
        assert!(claimed.elapsed() < lease + Duration::from_secs(3));
        shutdown.cancel();
    };
    tokio::join!(test, futures::future::join_all(reapers));
    let job = db.job(id).await;
    assert_eq!(
        (job.status, job.attempts, job.lease_losses),
        (JobStatus::Running, 0, 1)
    );
}

#[tokio::test]
async fn a_silent_workers_open_transaction_keeps_nobody_from_its_jobs() {
    let db = db().await;
    let id = db.submit(&noop(json!({}))).await;
    let worker = db.worker().await;
    db.claim(worker, 1, NOW).await;
    let mut cut_off = db.hold("SELECT job_id FROM job_leases FOR UPDATE").await;
    let reap = || async { db.store.reap(NOW).await.unwrap() };
    assert_eq!(
        reap().await.leases,
        0,
        "locked by a worker that is not silent"
    );

    sqlx::query("SELECT set_config('application_name', $1, false)")
        .bind(session_name(worker))
        .execute(&mut cut_off)
        .await
        .unwrap();
    db.sql("UPDATE workers SET expires_at = clock_timestamp()")
        .await;
    let reaped = reap().await;
    assert_eq!(reaped.disconnected, 1);
    db.until(|| async { db.job(id).await.status == JobStatus::Queued || reap().await.leases == 1 })
        .await;
    assert_eq!(db.job(id).await.lease_losses, 1);
    let answer = sqlx::query("SELECT 1").execute(&mut cut_off).await;
    assert!(answer.is_err(), "its session is over");
}

#[tokio::test]
async fn lost_leases_have_a_budget_of_their_own_and_wait_from_the_second_on() {
    let db = db().await;
    let id = db.submit(&train("m", json!({"max_attempts": 1}))).await;
    let worker = db.worker().await;
    db.claim(worker, 1, NOW).await;
    assert_eq!(
        db.store.reap(Duration::from_hours(1)).await.unwrap().leases,
        0,
        "Postgres has just started"
    );
    assert_eq!(db.store.reap(NOW).await.unwrap().leases, 1);
    assert_eq!(db.claim(worker, 1, NOW).await.len(), 1, "without delay");

    // By now the delay is drawn from five minutes.
    db.sql("UPDATE jobs SET lease_losses = 10").await;
    assert_eq!(db.store.reap(NOW).await.unwrap().leases, 1);
    assert!(db.claim(worker, 1, NOW).await.is_empty());
    let waiting = db.job(id).await.waiting.unwrap();
    assert!(waiting.not_before.is_some(), "{waiting:?}");
    assert!(waiting.detail.contains("lease_lost"), "{waiting:?}");

    db.sql("UPDATE job_leases SET available_at = now()").await;
    db.claim(worker, 1, NOW).await;
    db.sql("UPDATE jobs SET lease_losses = 19").await;
    assert_eq!(db.store.reap(NOW).await.unwrap().leases, 1);
    let job = db.job(id).await;
    let lost = Some(TerminationReason::LeaseLost);
    assert_eq!(
        (job.status, job.termination_reason),
        (JobStatus::Failed, lost)
    );
    assert_eq!((job.lease_losses, job.attempts), (MAX_LEASE_LOSSES, 0));
    let attempts = db.store.job_attempts(db.project, id).await.unwrap();
    assert!(
        attempts
            .iter()
            .all(|a| a.reason == lost && a.ended_at.is_some())
    );

    let fresh = db.retry(id).await.unwrap();
    assert_eq!((fresh.lease_losses, fresh.error), (0, None));
    let events = db.store.job_events(db.project, id, 0, 100).await.unwrap();
    assert!(events.iter().map(|e| e.seq).eq(1..=events.len() as u64));
}

#[tokio::test]
async fn what_was_asked_decides_over_a_job_whose_worker_died() {
    let db = db().await;
    let worker = db.worker().await;
    let mut jobs = Vec::new();
    for (request, trained) in [
        (Some(JobRequest::Cancel), true),
        (Some(JobRequest::Pause), true),
        (Some(JobRequest::Stop), true),
        (Some(JobRequest::Stop), false),
        (None, false),
    ] {
        let id = db.submit(&train("m", json!({}))).await;
        let fence = db.claim(worker, 1, NOW).await.remove(0).fence;
        if trained {
            let checkpoint = checkpoint(&fence, 1);
            db.store.set_checkpoint(&fence, &checkpoint).await.unwrap();
        }
        if let Some(request) = request {
            db.request(id, request).await.unwrap();
        }
        jobs.push(id);
    }
    assert_eq!(db.store.reap(NOW).await.unwrap().leases, 5);
    let mut stand = Vec::new();
    for id in jobs {
        let job = db.job(id).await;
        stand.push((job.status, job.requested));
    }
    assert_eq!(
        stand,
        [
            (JobStatus::Stopped, None),
            (JobStatus::Paused, None),
            (JobStatus::Queued, Some(JobRequest::Stop)),
            (JobStatus::Stopped, None),
            (JobStatus::Queued, None),
        ]
    );
}

#[tokio::test]
async fn a_job_that_nobody_takes_in_time_fails_each_wait_counted_anew() {
    let db = db().await;
    let new = noop(json!({"max_queue_seconds": 3600}));
    let id = db.submit(&new).await;
    let patient = db.submit(&noop(json!({"device": "gpu"}))).await;
    let worker = db.worker().await;
    let first = db.job(id).await.waiting.unwrap().gives_up_at.unwrap();
    let claim = db.claim(worker, 1, NOW).await.remove(0);
    assert_eq!(db.store.reap(NOW).await.unwrap().given_up, 0, "it runs");
    assert_eq!(claim.fence.job, id);
    let second = db.job(id).await.waiting.unwrap().gives_up_at.unwrap();
    assert!(second > first);

    db.sql("UPDATE job_leases SET gives_up_at = now() WHERE gives_up_at IS NOT NULL")
        .await;
    let reaped = db.store.reap(NOW).await.unwrap();
    assert_eq!((reaped.leases, reaped.given_up), (0, 1));
    let job = db.job(id).await;
    let reason = Some(TerminationReason::MaxQueueTimeExceeded);
    assert_eq!(
        (job.status, job.termination_reason),
        (JobStatus::Failed, reason)
    );
    assert!(db.claim(worker, 1, NOW).await.is_empty());
    let again = db.retry(id).await.unwrap();
    assert_eq!(again.status, JobStatus::Queued);
    assert_eq!(db.job(patient).await.status, JobStatus::Queued);
}

#[tokio::test]
async fn running_time_is_summed_over_attempts_until_a_client_retries() {
    let db = db().await;
    let id = db.submit(&noop(json!({"max_runtime_seconds": 100}))).await;
    let worker = db.worker().await;
    let left = async || {
        let claim = db.claim_one(worker).await;
        db.sql("UPDATE job_attempts SET started_at = started_at - interval '40 seconds' WHERE ended_at IS NULL")
            .await;
        db.end(&claim, TerminationReason::WorkerDrained).await;
        claim.runtime_left.unwrap().as_secs_f64()
    };
    assert!((left().await - 100.0).abs() < f64::EPSILON);
    let second = left().await;
    assert!((50.0..=60.0).contains(&second), "{second}");
    left().await;
    assert!(left().await.abs() < f64::EPSILON, "never below zero");
    db.cancel(id).await.unwrap();
    db.retry(id).await.unwrap();
    assert!((left().await - 100.0).abs() < f64::EPSILON);
}
