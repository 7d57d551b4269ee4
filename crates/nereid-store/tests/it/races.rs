//! Two connections at the same job, each race forced to its interesting order by locks: what holds
//! whoever comes first.

use std::time::Duration;

use nereid_core::jobs::{Claim, JobRequest, JobStatus, Standing, TerminationReason};
use nereid_store::queue::Beat;
use serde_json::json;

use crate::support::{Db, LEASE, checkpoint, claim_request, code, db, noop, train};

const LOCK_LEASES: &str = "SELECT 1 FROM job_leases FOR UPDATE";
const LOCK_JOBS: &str = "SELECT 1 FROM jobs FOR UPDATE";
const LOCK_MODELS: &str = "SELECT 1 FROM models FOR UPDATE";
const LOCK_WORKERS: &str = "SELECT 1 FROM workers FOR UPDATE";
/// Ends while a test looks on.
const SHORT: Duration = Duration::from_millis(300);

fn beat(claim: &Claim) -> Beat {
    Beat {
        fence: claim.fence,
        phase: None,
        progress: None,
    }
}

impl Db {
    /// A running training; another one has made the model before.
    async fn running(&self, lease: Duration) -> (nereid_core::ids::WorkerId, Claim) {
        self.trained("m").await;
        self.submit(&train("m", json!({}))).await;
        let worker = self.worker().await;
        let claim = self.claim(worker, 1, lease).await.remove(0);
        (worker, claim)
    }

    async fn standing(
        &self,
        worker: nereid_core::ids::WorkerId,
        claim: &Claim,
    ) -> Option<Standing> {
        let answer = self.store.heartbeat(worker, LEASE, &[beat(claim)]).await;
        answer.unwrap().remove(&claim.fence.job)
    }
}

#[tokio::test]
async fn of_two_claimers_at_once_only_one_gets_the_job() {
    let db = db().await;
    let id = db.submit(&noop(json!({}))).await;
    let (first, second) = (db.worker().await, db.worker().await);
    // The first has taken the lease when it has to wait for the job.
    let held = db.hold(LOCK_JOBS).await;
    let other = db.second().await;
    let request = claim_request(first, 1, LEASE);
    let claiming = other.claim(&request);
    let meanwhile = async {
        db.until_waiting(1).await;
        assert!(db.claim(second, 1, LEASE).await.is_empty());
        drop(held);
    };
    let (claimed, ()) = tokio::join!(claiming, meanwhile);
    assert_eq!(claimed.unwrap()[0].fence.job, id);
    assert!(db.claim(second, 1, LEASE).await.is_empty());
}

#[tokio::test]
async fn a_cancel_that_comes_before_a_publication_wins() {
    let db = db().await;
    let (_, claim) = db.running(LEASE).await;
    let held = db.hold(LOCK_LEASES).await;
    let cancelling = db.cancel(claim.fence.job);
    let publishing = async {
        db.until_waiting(1).await;
        let (published, ()) = tokio::join!(db.publish(&claim), async {
            db.until_waiting(2).await;
            drop(held);
        });
        published
    };
    let (cancelled, published) = tokio::join!(cancelling, publishing);
    assert_eq!(cancelled.unwrap().requested, Some(JobRequest::Cancel));
    assert_eq!(code(&published.unwrap_err()), "cancel_requested");
    let end = db.end(&claim, TerminationReason::Cancelled).await;
    assert_eq!(end, JobStatus::Stopped);
    let model = db.store.model(db.project, &"m".parse().unwrap()).await;
    assert_eq!(model.unwrap().latest_version, Some(1));
}

#[tokio::test]
async fn a_cancel_that_comes_after_a_publication_is_refused() {
    let db = db().await;
    let (_, claim) = db.running(LEASE).await;
    // The publication has passed the fence when it has to wait for the model.
    let held = db.hold(LOCK_MODELS).await;
    let publishing = db.publish(&claim);
    let cancelling = async {
        db.until_waiting(1).await;
        let (cancelled, ()) = tokio::join!(db.cancel(claim.fence.job), async {
            db.until_waiting(2).await;
            drop(held);
        });
        cancelled
    };
    let (published, cancelled) = tokio::join!(publishing, cancelling);
    assert_eq!(published.unwrap().version, 2);
    assert_eq!(code(&cancelled.unwrap_err()), "job_final");
    assert_eq!(db.job(claim.fence.job).await.status, JobStatus::Succeeded);
}

#[tokio::test]
async fn a_publication_under_way_when_its_lease_ends_is_not_reaped() {
    let db = db().await;
    let (_, claim) = db.running(SHORT).await;
    let held = db.hold(LOCK_MODELS).await;
    let publishing = db.publish(&claim);
    let reaping = async {
        db.until_waiting(1).await;
        db.until_expired().await;
        assert_eq!(db.store.reap(Duration::ZERO).await.unwrap().leases, 0);
        drop(held);
    };
    let (published, ()) = tokio::join!(publishing, reaping);
    assert_eq!(published.unwrap().version, 2);
    assert_eq!(db.job(claim.fence.job).await.status, JobStatus::Succeeded);
}

#[tokio::test]
async fn a_publication_that_comes_while_its_lease_is_reaped_is_refused() {
    let db = db().await;
    let (worker, claim) = db.running(Duration::ZERO).await;
    // The reaper has taken the lease when it has to wait for the job.
    let held = db.hold(LOCK_JOBS).await;
    let other = db.second().await;
    let reaping = other.reap(Duration::ZERO);
    let publishing = async {
        db.until_waiting(1).await;
        let (published, ()) = tokio::join!(db.publish(&claim), async {
            db.until_waiting(2).await;
            // Nor does a heartbeat wait for it, or call the attempt lost before it is.
            assert_eq!(db.standing(worker, &claim).await, None);
            drop(held);
        });
        published
    };
    let (reaped, published) = tokio::join!(reaping, publishing);
    assert_eq!(reaped.unwrap().leases, 1);
    assert_eq!(code(&published.unwrap_err()), "lease_lost");
    assert_eq!(db.standing(worker, &claim).await, Some(Standing::Lost));
    assert_eq!(db.job(claim.fence.job).await.status, JobStatus::Queued);
}

#[tokio::test]
async fn a_lease_that_is_being_renewed_is_not_reaped() {
    let db = db().await;
    let (worker, claim) = db.running(Duration::ZERO).await;
    // The heartbeat has renewed the lease when it has to wait for the worker's row.
    let held = db.hold(LOCK_WORKERS).await;
    let other = db.second().await;
    let reaping = async {
        db.until_waiting(1).await;
        assert_eq!(other.reap(Duration::ZERO).await.unwrap().leases, 0);
        drop(held);
        other.reap(Duration::ZERO).await.unwrap().leases
    };
    let (standing, reaped) = tokio::join!(db.standing(worker, &claim), reaping);
    assert_eq!((standing, reaped), (Some(Standing::Current(None)), 0));
}

#[tokio::test]
async fn a_client_that_stands_still_over_one_job_costs_a_worker_no_other() {
    let db = db().await;
    db.submit(&noop(json!({}))).await;
    db.submit(&noop(json!({}))).await;
    let worker = db.worker().await;
    let claims = db.claim(worker, 2, LEASE).await;
    let beats: Vec<Beat> = claims.iter().map(beat).collect();
    let mut client = db.write().await;
    let cancelled = client.request_job(claims[0].fence.job, JobRequest::Cancel);
    let cancelled = cancelled.await.unwrap();
    let answers = db.store.heartbeat(worker, LEASE, &beats).await.unwrap();
    assert_eq!(answers.get(&claims[0].fence.job), None, "nothing is known");
    let other = answers[&claims[1].fence.job];
    assert_eq!(other, Standing::Current(None));

    client.commit(200, &cancelled).await.unwrap();
    let answers = db.store.heartbeat(worker, LEASE, &beats).await.unwrap();
    let cancel = Standing::Current(Some(JobRequest::Cancel));
    assert_eq!(answers[&claims[0].fence.job], cancel);
}

#[tokio::test]
async fn a_retry_and_a_cancel_at_once_take_their_locks_in_one_order() {
    let db = db().await;
    let id = db.submit(&noop(json!({}))).await;
    db.pause(id).await.unwrap();
    // The cancel has found no queue row when it has to wait for the job, which then is queued.
    let mut resuming = db.write().await;
    let resumed = resuming.resume_job(id).await.unwrap();
    let cancelling = db.cancel(id);
    let claiming = async {
        db.until_waiting(1).await;
        resuming.commit(200, &resumed).await.unwrap();
        let worker = db.worker().await;
        db.claim(worker, 1, LEASE).await
    };
    let (cancelled, claims) = tokio::join!(cancelling, claiming);
    let cancelled = cancelled.unwrap();
    match cancelled.status {
        JobStatus::Stopped => assert!(claims.is_empty()),
        JobStatus::Running => assert_eq!(cancelled.requested, Some(JobRequest::Cancel)),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_attempt_with_the_same_epoch_but_another_claim_can_write_nothing() {
    let db = db().await;
    let (worker, current) = db.running(LEASE).await;
    // As after a failover that lost the claim of the other.
    let mut zombie = current.clone();
    zombie.fence.claim = nereid_core::ids::ClaimId::generate();
    let fence = &zombie.fence;
    let end = crate::support::ended(TerminationReason::Internal);
    let refused = [
        db.publish(&zombie).await.map(drop),
        db.store.append_metrics(fence, &[]).await,
        db.store.append_rules(fence, &[]).await,
        db.store.append_logs(fence, &[]).await,
        db.store
            .set_checkpoint(fence, &checkpoint(fence, 1))
            .await
            .map(drop),
        db.store.report(&beat(&zombie)).await,
        db.store.end_attempt(fence, &end).await.map(drop),
        db.store
            .complete(fence, &nereid_core::jobs::JobResult::Noop {})
            .await,
    ];
    assert!(
        refused
            .iter()
            .all(|r| code(r.as_ref().unwrap_err()) == "lease_lost")
    );
    assert_eq!(db.standing(worker, &zombie).await, Some(Standing::Lost));
    db.publish(&current).await.unwrap();
}
