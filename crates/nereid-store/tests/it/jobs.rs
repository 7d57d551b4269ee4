//! Submission, idempotency, cancelling, retrying, listing.

use nereid_core::{
    events::EventKind,
    jobs::{JobRequest, JobSpec, JobStatus, TerminationReason},
};
use nereid_store::{Begun, IdempotencyKey, PageRequest, jobs::JobFilter};
use serde_json::json;

use crate::support::{code, db, ended, name, train};

fn key(fingerprint: u8) -> IdempotencyKey {
    IdempotencyKey {
        key: "k".to_owned(),
        fingerprint: vec![fingerprint; 32],
    }
}

#[tokio::test]
async fn a_repeated_submission_is_answered_with_the_first_one() {
    let db = db().await;
    let second = db.second().await;
    let Begun::Fresh(mut tx) = db.store.begin(db.project, Some(key(1))).await.unwrap() else {
        panic!("nothing to replay yet")
    };
    let job = tx.submit_job(&train("m", json!({}))).await.unwrap();

    let in_flight = second.begin(db.project, Some(key(1))).await.unwrap_err();
    assert_eq!(code(&in_flight), "in_flight");
    tx.commit(201, &job).await.unwrap();

    let Begun::Replay(replay) = second.begin(db.project, Some(key(1))).await.unwrap() else {
        panic!("should replay")
    };
    assert_eq!((replay.status, replay.body), (201, json!(job)));
    let other = second.begin(db.project, Some(key(2))).await.unwrap_err();
    assert_eq!(code(&other), "mismatch");

    let page = db
        .store
        .jobs(db.project, &JobFilter::default(), &page(10, None))
        .await
        .unwrap();
    assert_eq!(page.items, [job]);
}

#[tokio::test]
async fn what_was_submitted_is_read_back_and_nothing_is_left_of_a_dropped_transaction() {
    let db = db().await;
    let new = train(
        "m",
        json!({
            "labels": {"team": "a"}, "priority": 7, "max_attempts": 2, "device": "gpu",
            "worker_labels": {"rack": "b"}, "max_runtime_seconds": 60, "max_queue_seconds": 90,
        }),
    );
    let id = db.submit(&new).await;
    let job = db.job(id).await;
    assert_eq!((&job.spec, &job.options), (&new.spec, &new.options));
    assert_eq!(job.status, JobStatus::Queued);

    let mut tx = db.write().await;
    let dropped = tx.submit_job(&new).await.unwrap().id;
    drop(tx);
    let gone = db.store.job(db.project, dropped).await.unwrap_err();
    assert_eq!(code(&gone), "not_found");

    let mut unknown = new;
    if let JobSpec::Train(spec) = &mut unknown.spec {
        spec.dataset = "digits@2".parse().unwrap();
    }
    let refused = db.write().await.submit_job(&unknown).await.unwrap_err();
    assert_eq!(refused.to_string(), "no dataset version \"digits@2\"");
}

#[tokio::test]
async fn a_queued_job_is_cancelled_at_once_and_can_be_retried() {
    let db = db().await;
    let id = db.submit(&train("m", json!({}))).await;
    let stopped = db.cancel(id).await.unwrap();
    assert_eq!(stopped.status, JobStatus::Stopped);
    assert_eq!(
        stopped.termination_reason,
        Some(TerminationReason::Cancelled)
    );
    assert!(stopped.finished_at.is_some());
    assert_eq!(code(&db.cancel(id).await.unwrap_err()), "job_final");
    let worker = db.worker().await;
    assert!(db.claim(worker, 1, crate::support::LEASE).await.is_empty());

    let queued = db.retry(id).await.unwrap();
    assert_eq!(queued.status, JobStatus::Queued);
    assert!(queued.requested.is_none() && queued.finished_at.is_none());
    assert_eq!(code(&db.retry(id).await.unwrap_err()), "job_not_final");
    let claim = db.claim_one(worker).await;
    db.publish(&claim).await.unwrap();
    assert_eq!(code(&db.retry(id).await.unwrap_err()), "job_succeeded");
}

#[tokio::test]
async fn a_retry_has_a_fresh_budget_and_a_higher_epoch() {
    let db = db().await;
    let id = db.submit(&train("m", json!({"max_attempts": 1}))).await;
    let worker = db.worker().await;
    let first = db.claim_one(worker).await;
    let status = db
        .store
        .end_attempt(&first.fence, &ended(TerminationReason::Internal))
        .await;
    assert_eq!(status.unwrap(), JobStatus::Failed);
    let failed = db.job(id).await;
    assert_eq!(
        (failed.attempts, failed.error.unwrap().reason),
        (1, TerminationReason::Internal)
    );

    assert_eq!(db.retry(id).await.unwrap().attempts, 0);
    let second = db.claim_one(worker).await;
    assert_eq!(
        (second.fence.epoch, second.attempts),
        (first.fence.epoch + 1, 0)
    );
    let attempts = db.store.job_attempts(db.project, id).await.unwrap();
    let reasons: Vec<_> = attempts.iter().map(|a| (a.epoch, a.reason)).collect();
    assert_eq!(reasons, [(1, Some(TerminationReason::Internal)), (2, None)]);
}

#[tokio::test]
async fn events_are_numbered_without_gaps_whoever_writes_at_the_same_time() {
    let db = db().await;
    let id = db.submit(&train("m", json!({}))).await;
    let worker = db.worker().await;
    let claim = db.claim_one(worker).await;
    let report = |step| {
        let (store, fence) = (db.store.clone(), claim.fence);
        async move {
            let progress = nereid_core::jobs::Progress {
                step,
                ..Default::default()
            };
            let beat = nereid_store::queue::Beat {
                fence,
                phase: None,
                progress: Some(progress),
            };
            store.report(&beat).await.unwrap();
        }
    };
    let reports = futures::future::join_all((1..=20).map(report));
    let (_, stopped) = tokio::join!(reports, db.stop(id));
    assert_eq!(stopped.unwrap().requested, Some(JobRequest::Stop));

    let events = db.store.job_events(db.project, id, 0, 100).await.unwrap();
    let numbers: Vec<u64> = events.iter().map(|e| e.seq).collect();
    assert_eq!(numbers, (1..=23).collect::<Vec<_>>());
    let kinds = |kind| events.iter().filter(|e| e.kind == kind).count();
    assert_eq!(
        (events[0].kind, events[1].kind),
        (EventKind::Submitted, EventKind::StatusChanged)
    );
    assert_eq!(
        (kinds(EventKind::Progress), kinds(EventKind::Requested)),
        (20, 1)
    );
    let rest = db.store.job_events(db.project, id, 21, 1).await.unwrap();
    assert_eq!(rest, events[21..22]);
}

fn page(size: u32, after: Option<String>) -> PageRequest {
    PageRequest { size, after }
}

#[tokio::test]
async fn lists_are_paged_filtered_and_ordered() {
    let db = db().await;
    let mut ids = Vec::new();
    for i in 0..5 {
        let labels = json!({"labels": {"parity": (i % 2).to_string(), "all": "x"}});
        ids.push(db.submit(&train("m", labels)).await);
    }
    let oldest = JobFilter {
        oldest_first: true,
        ..JobFilter::default()
    };
    let mut seen = Vec::new();
    let mut request = page(2, None);
    loop {
        let page = db.store.jobs(db.project, &oldest, &request).await.unwrap();
        assert!(page.items.len() <= 2);
        seen.extend(page.items.iter().map(|j| j.id));
        request.after = page.next;
        if request.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ids);

    let label = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    let odd = JobFilter {
        status: Some(JobStatus::Queued),
        model: Some(name("m")),
        labels: vec![label("parity", "1"), label("all", "x")],
        ..JobFilter::default()
    };
    let odd = db
        .store
        .jobs(db.project, &odd, &page(10, None))
        .await
        .unwrap();
    assert_eq!(
        odd.items.iter().map(|j| j.id).collect::<Vec<_>>(),
        [ids[3], ids[1]]
    );

    for token in ["x", "1|2", "'; DROP TABLE jobs"] {
        let request = page(10, Some(token.to_owned()));
        let refused = db
            .store
            .jobs(db.project, &oldest, &request)
            .await
            .unwrap_err();
        assert_eq!(code(&refused), "invalid_page_token");
        let refused = db
            .store
            .models(db.project, &page(10, Some("A/".to_owned())))
            .await;
        assert_eq!(code(&refused.unwrap_err()), "invalid_page_token");
    }
}
