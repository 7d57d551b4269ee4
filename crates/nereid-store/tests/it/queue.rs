//! Claim, fence, lease, budget, order: what holds whoever dies when.

use std::{collections::HashSet, time::Duration};

use nereid_core::{
    events::LogLevel,
    jobs::{JobPhase, JobRequest, JobStatus, Standing, TerminationReason},
};
use nereid_store::queue::Beat;
use serde_json::json;

use crate::support::{
    LEASE, artifact, checkpoint, claim_request, code, db, deploy_spec, ended, name, train,
};

#[tokio::test]
async fn concurrent_claimers_get_each_job_once() {
    let db = db().await;
    for _ in 0..40 {
        db.submit(&train("m", json!({}))).await;
    }
    let drain = |_| async {
        let (store, worker) = (db.second().await, db.worker().await);
        let request = claim_request(worker, 3, LEASE);
        let mut claimed = Vec::new();
        loop {
            let claims = store.claim(&request).await.unwrap();
            if claims.is_empty() {
                return claimed;
            }
            assert!(claims.len() <= 3);
            claimed.extend(claims.into_iter().map(|c| c.fence.job));
        }
    };
    let claimed = futures::future::join_all((0..4).map(drain)).await.concat();
    assert_eq!(claimed.len(), 40);
    assert_eq!(claimed.iter().collect::<HashSet<_>>().len(), 40);
}

#[tokio::test]
async fn a_zombie_can_write_nothing_after_its_job_was_taken_over() {
    let db = db().await;
    let id = db.submit(&train("m", json!({}))).await;
    let (slow, quick) = (db.worker().await, db.worker().await);
    let zombie = db.claim(slow, 1, Duration::ZERO).await.remove(0);
    // Expired, but not taken over: it may go on, only not publish.
    let lines = |text: &str| {
        let (level, at) = (LogLevel::Info, chrono::DateTime::UNIX_EPOCH);
        vec![nereid_core::events::NewLogLine {
            level,
            message: text.to_owned(),
            at,
        }]
    };
    db.store
        .append_logs(&zombie.fence, &lines("still here"))
        .await
        .unwrap();
    assert_eq!(code(&db.publish(&zombie).await.unwrap_err()), "lease_lost");
    let checkpoint = checkpoint(&zombie.fence, 5);
    db.store
        .set_checkpoint(&zombie.fence, &checkpoint)
        .await
        .unwrap();

    assert_eq!(db.store.reap(Duration::ZERO).await.unwrap().leases, 1);
    let current = db.claim_one(quick).await;
    assert_eq!(current.fence.epoch, zombie.fence.epoch + 1);
    assert_ne!(current.fence.claim, zombie.fence.claim);
    assert_eq!(
        (current.attempts, &current.checkpoints),
        (0, &vec![checkpoint.clone()])
    );

    let fence = &zombie.fence;
    let (version, endpoint) = (nereid_core::ids::ModelVersionId::generate(), name("e"));
    let beat = Beat {
        fence: *fence,
        phase: Some(JobPhase::Training),
        progress: None,
    };
    let refused = [
        db.store.report(&beat).await.unwrap_err(),
        db.store.append_metrics(fence, &[]).await.unwrap_err(),
        db.store.append_rules(fence, &[]).await.unwrap_err(),
        db.store
            .append_logs(fence, &lines("boo"))
            .await
            .unwrap_err(),
        db.store
            .set_checkpoint(fence, &checkpoint)
            .await
            .unwrap_err(),
        db.publish(&zombie).await.unwrap_err(),
        db.store
            .roll_out(
                fence,
                version,
                &deploy_spec(endpoint.as_str(), json!({})),
                &artifact(),
            )
            .await
            .unwrap_err(),
        db.store
            .end_attempt(fence, &ended(TerminationReason::Internal))
            .await
            .unwrap_err(),
    ];
    assert!(
        refused.iter().all(|e| code(e) == "lease_lost"),
        "{refused:?}"
    );
    let standings = db.store.heartbeat(slow, LEASE, &[beat]).await.unwrap();
    assert_eq!(standings[&id], Standing::Lost);
    let mut forged = current.fence;
    forged.claim = zombie.fence.claim;
    let refused = db
        .store
        .set_checkpoint(&forged, &checkpoint)
        .await
        .unwrap_err();
    assert_eq!(code(&refused), "lease_lost");

    assert_eq!(db.job(id).await.phase, Some(JobPhase::Starting));
    assert_eq!(db.publish(&current).await.unwrap().version, 1);
}

#[tokio::test]
async fn a_heartbeat_renews_carries_progress_up_and_requests_down() {
    let db = db().await;
    let id = db.submit(&train("m", json!({}))).await;
    let worker = db.worker().await;
    let claim = db.claim(worker, 1, Duration::ZERO).await.remove(0);
    let metrics = [("loss".to_owned(), 0.5), ("nan".to_owned(), f64::NAN)];
    let progress = nereid_core::jobs::Progress {
        step: 3,
        metrics: metrics.into(),
        ..Default::default()
    };
    let beat = Beat {
        fence: claim.fence,
        phase: Some(JobPhase::Training),
        progress: Some(progress),
    };
    let standings = db
        .store
        .heartbeat(worker, LEASE, &[beat.clone(), beat.clone()])
        .await
        .unwrap();
    assert_eq!(standings[&id], Standing::Current(None));
    assert_eq!(db.store.reap(Duration::ZERO).await.unwrap().leases, 0);
    let job = db.job(id).await;
    let progress = job.progress.unwrap();
    assert_eq!((job.phase, progress.step), (Some(JobPhase::Training), 3));
    assert_eq!(progress.metrics.len(), 1, "JSON has no NaN");
    let events = db
        .store
        .job_events(db.project, id, 0, 10)
        .await
        .unwrap()
        .len();
    db.store
        .heartbeat(worker, LEASE, std::slice::from_ref(&beat))
        .await
        .unwrap();
    assert_eq!(
        db.store
            .job_events(db.project, id, 0, 10)
            .await
            .unwrap()
            .len(),
        events
    );

    db.cancel(id).await.unwrap();
    let standings = db.store.heartbeat(worker, LEASE, &[beat]).await.unwrap();
    let cancel = Standing::Current(Some(JobRequest::Cancel));
    assert_eq!(standings[&id], cancel);
    // Whatever ended it: a client wanted it ended.
    let status = db
        .store
        .end_attempt(&claim.fence, &ended(TerminationReason::Unavailable))
        .await;
    assert_eq!(status.unwrap(), JobStatus::Stopped);

    // Heartbeats touch no index: they would otherwise bloat the hottest table.
    let indexed = db.texts(
        "SELECT indexdef FROM pg_indexes WHERE tablename IN ('job_leases', 'workers')
         AND (indexdef LIKE '%expires_at%' OR indexdef LIKE '%heartbeat_at%')",
    );
    assert!(indexed.await.is_empty());
}

#[tokio::test]
async fn concurrent_publications_number_versions_without_gaps_and_never_twice() {
    let db = db().await;
    for _ in 0..6 {
        db.submit(&train("m", json!({}))).await;
    }
    let worker = db.worker().await;
    let claims = db.claim(worker, 6, LEASE).await;
    // Each tried twice at once, as after a lost answer: both are told of the same version.
    let twice = claims.iter().chain(&claims).map(|c| db.publish(c));
    let published = futures::future::join_all(twice).await;
    let mut numbers: Vec<u32> = published.into_iter().map(|p| p.unwrap().version).collect();
    assert_eq!(numbers[..6], numbers[6..]);
    numbers.truncate(6);
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);

    db.store
        .delete_model_version(db.project, &name("m"), 6)
        .await
        .unwrap();
    assert_eq!(
        db.store
            .model(db.project, &name("m"))
            .await
            .unwrap()
            .latest_version,
        Some(5)
    );
    assert_eq!(db.trained("m").await.version, 7);
    db.store.delete_model(db.project, &name("m")).await.unwrap();
    assert_eq!(
        db.trained("m").await.version,
        8,
        "name@version never means two things"
    );
}

#[tokio::test]
async fn attempts_are_budgeted_and_a_drained_one_is_given_back() {
    let db = db().await;
    let id = db.submit(&train("m", json!({"max_attempts": 2}))).await;
    let worker = db.worker().await;
    let mut seen = Vec::new();
    for reason in [
        TerminationReason::WorkerDrained,
        TerminationReason::Unavailable,
        TerminationReason::WorkerDrained,
        TerminationReason::Unavailable,
    ] {
        let claim = db.claim_one(worker).await;
        let status = db
            .store
            .end_attempt(&claim.fence, &ended(reason))
            .await
            .unwrap();
        seen.push((status, db.job(id).await.attempts));
    }
    let queued = JobStatus::Queued;
    assert_eq!(
        seen,
        [
            (queued, 0),
            (queued, 1),
            (queued, 1),
            (JobStatus::Failed, 2)
        ]
    );

    let hopeless = db.submit(&train("m", json!({}))).await;
    let claim = db.claim_one(worker).await;
    db.store
        .end_attempt(&claim.fence, &ended(TerminationReason::Diverged))
        .await
        .unwrap();
    assert_eq!(db.job(hopeless).await.status, JobStatus::Failed);

    let backed_off = db.submit(&train("m", json!({}))).await;
    let claim = db.claim_one(worker).await;
    let mut later = ended(TerminationReason::Unavailable);
    later.retry_delay = Duration::from_mins(1);
    db.store.end_attempt(&claim.fence, &later).await.unwrap();
    assert_eq!(db.job(backed_off).await.status, JobStatus::Queued);
    assert!(db.claim(worker, 1, LEASE).await.is_empty());
}

#[tokio::test]
async fn priority_orders_within_a_project_and_fairness_across() {
    let db = db().await;
    let mut ids = Vec::new();
    for priority in [50, 50, 90, 10] {
        ids.push(db.submit(&train("m", json!({"priority": priority}))).await);
    }
    db.sql("INSERT INTO projects (name) VALUES ('other')").await;
    let last = db.submit(&train("m", json!({"priority": 0}))).await;
    db.sql("UPDATE jobs SET project_id = (SELECT id FROM projects WHERE name = 'other') WHERE priority = 0").await;
    db.sql("UPDATE job_leases l SET project_id = j.project_id FROM jobs j WHERE j.id = l.job_id")
        .await;

    let worker = db.worker().await;
    let first = db.claim(worker, 2, LEASE).await;
    let order: Vec<_> = first.iter().map(|c| c.fence.job).collect();
    assert_eq!(
        order,
        [ids[2], last],
        "the other project's turn comes before a second of this one"
    );
    let rest = db.claim(worker, 9, LEASE).await;
    let order: Vec<_> = rest.iter().map(|c| c.fence.job).collect();
    assert_eq!(order, [ids[0], ids[1], ids[3]]);
    let depth = db.store.queue_depth().await.unwrap();
    assert_eq!(
        depth,
        [(nereid_core::jobs::JobKind::Train, JobStatus::Running, 5)]
    );

    db.submit(&train("m", json!({}))).await;
    db.store.drain_worker(worker).await.unwrap();
    assert!(db.claim(worker, 1, LEASE).await.is_empty());
}

#[tokio::test]
async fn a_job_that_cannot_be_read_fails_and_does_not_block_the_queue() {
    let db = db().await;
    let broken = db.submit(&train("m", json!({"priority": 100}))).await;
    db.sql("UPDATE jobs SET spec = '{}'").await;
    let sound = db.submit(&train("m", json!({}))).await;
    let worker = db.worker().await;
    let claims = db.claim(worker, 2, LEASE).await;
    assert_eq!(
        claims.iter().map(|c| c.fence.job).collect::<Vec<_>>(),
        [sound]
    );
    assert_eq!(
        db.texts("SELECT status FROM jobs WHERE spec = '{}'").await,
        ["failed"]
    );
    let unreadable = db.store.job(db.project, broken).await.unwrap_err();
    assert!(unreadable.to_string().contains("jobs.spec"), "{unreadable}");
}
