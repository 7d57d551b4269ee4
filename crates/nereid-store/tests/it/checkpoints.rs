//! Checkpoints and the garbage sweep: the last few are kept, nothing that is needed is named garbage.

use std::{collections::HashSet, time::Duration};

use nereid_core::{
    events::EventKind,
    ids::{ClaimId, JobId},
    jobs::{Claim, Fence, TerminationReason},
};
use serde_json::json;

use crate::support::{Db, artifact, checkpoint, db, deploy, deploy_spec, train};

const MONTH: Duration = Duration::from_hours(30 * 24);

impl Db {
    async fn take(&self, claim: &Claim, step: u64) -> Vec<u64> {
        let taken = checkpoint(&claim.fence, step);
        let forgotten = self.store.set_checkpoint(&claim.fence, &taken).await;
        forgotten.unwrap().into_iter().map(|c| c.step).collect()
    }

    async fn unneeded(&self, checkpoints: &[(Fence, u64)]) -> Vec<(Fence, u64)> {
        let found = self.store.unneeded_checkpoints(checkpoints, MONTH).await;
        let found = found.unwrap();
        let named = checkpoints.iter().filter(|c| found.contains(c));
        named.copied().collect()
    }

    async fn garbage(&self, attempts: &[Fence]) -> HashSet<Fence> {
        self.store.unneeded_outputs(attempts).await.unwrap()
    }
}

fn stranger() -> Fence {
    Fence {
        job: JobId::generate(),
        epoch: 1,
        claim: ClaimId::generate(),
    }
}

#[tokio::test]
async fn the_last_few_are_kept_newest_attempt_first() {
    let db = db().await;
    let id = db.submit(&train("m", json!({}))).await;
    let worker = db.worker().await;
    let first = db.claim_one(worker).await;
    for step in [10, 20, 30] {
        assert!(db.take(&first, step).await.is_empty());
    }
    assert_eq!(db.take(&first, 40).await, [10]);
    assert!(db.take(&first, 40).await.is_empty(), "repeated");
    db.end(&first, TerminationReason::WorkerDrained).await;
    let second = db.claim_one(worker).await;
    let steps: Vec<u64> = second.checkpoints.iter().map(|c| c.step).collect();
    assert_eq!(steps, [40, 30, 20]);
    // The newest could not be read, so it went on from an older one.
    assert_eq!(db.take(&second, 25).await, [20]);
    db.end(&second, TerminationReason::WorkerDrained).await;
    let third = db.claim_one(worker).await;
    let steps: Vec<u64> = third.checkpoints.iter().map(|c| c.step).collect();
    assert_eq!(steps, [25, 40, 30]);
    let events = db.store.job_events(db.project, id, 0, 100).await.unwrap();
    let taken = events.iter().filter(|e| e.kind == EventKind::Checkpointed);
    assert_eq!(taken.count(), 5);
}

#[tokio::test]
async fn checkpoints_are_garbage_once_nothing_can_go_on_from_them() {
    let db = db().await;
    let id = db.submit(&train("m", json!({}))).await;
    let worker = db.worker().await;
    let first = db.claim_one(worker).await;
    let a = first.fence;
    db.take(&first, 1).await;
    // Uploaded, and about to be noted by the attempt that is current.
    let of_first = [(a, 1), (a, 2), (stranger(), 1)];
    assert_eq!(db.unneeded(&of_first).await, []);
    db.end(&first, TerminationReason::WorkerDrained).await;
    assert_eq!(db.unneeded(&of_first).await, [(a, 2)]);

    let second = db.claim_one(worker).await;
    let mut forged = a;
    forged.claim = second.fence.claim;
    assert_eq!(
        db.unneeded(&[(a, 1), (forged, 1)]).await,
        [(forged, 1)],
        "another claim's, even with the same epoch"
    );
    db.end(&second, TerminationReason::Diverged).await;
    assert_eq!(db.unneeded(&[(a, 1)]).await, [], "a client may retry");
    db.sql("UPDATE jobs SET finished_at = now() - interval '31 days'")
        .await;
    assert_eq!(db.unneeded(&[(a, 1)]).await, [(a, 1)]);
    // What is gone is not promised to a retry.
    db.retry(id).await.unwrap();
    let third = db.claim_one(worker).await;
    assert_eq!(third.checkpoints, []);
    db.take(&third, 5).await;
    db.publish(&third).await.unwrap();
    assert_eq!(db.unneeded(&[(third.fence, 5)]).await, [(third.fence, 5)]);
}

#[tokio::test]
async fn outputs_are_garbage_only_if_no_version_points_to_them() {
    let db = db().await;
    db.submit(&train("m", json!({}))).await;
    let worker = db.worker().await;
    let first = db.claim_one(worker).await;
    assert_eq!(db.garbage(&[first.fence, stranger()]).await.len(), 0);
    db.end(&first, TerminationReason::WorkerDrained).await;
    let second = db.claim_one(worker).await;
    let staged = |f: &Fence| format!("{}/{}-{}", f.job, f.epoch, f.claim);
    let mut version = Db::version(&second);
    version.manifest_uri = format!("s3://b/staging/{}/manifest.json", staged(&second.fence));
    let both = [first.fence, second.fence];
    assert_eq!(db.garbage(&both).await, HashSet::from([first.fence]));
    let published = db.store.publish_version(&second.fence, &version).await;
    let published = published.unwrap();
    assert_eq!(db.garbage(&both).await, HashSet::from([first.fence]));

    db.submit(&deploy("m")).await;
    let drained = db.claim_one(worker).await;
    db.end(&drained, TerminationReason::WorkerDrained).await;
    let current = db.claim_one(worker).await.fence;
    let mut served = artifact();
    served.prefix = format!("projects/p/serving/{}/", staged(&current));
    db.store
        .roll_out(
            &current,
            published.id,
            &deploy_spec("e", json!({})),
            &served,
        )
        .await
        .unwrap();
    let reason = TerminationReason::Unavailable;
    let end = crate::support::ended(reason);
    db.store.end_attempt(&current, &end).await.unwrap();
    let attempts = [drained.fence, current];
    assert_eq!(db.garbage(&attempts).await, HashSet::from([drained.fence]));
}

#[tokio::test]
async fn one_process_sweeps_per_interval_and_old_responses_are_forgotten() {
    let db = db().await;
    let other = db.second().await;
    let every = Duration::from_mins(10);
    let (a, b) = tokio::join!(db.store.begin_sweep(every), other.begin_sweep(every));
    assert_ne!(a.unwrap(), b.unwrap());
    assert!(!other.begin_sweep(every).await.unwrap());
    assert!(other.begin_sweep(Duration::ZERO).await.unwrap());

    let sql = "INSERT INTO idempotency_keys (project_id, key, fingerprint, status, body, created_at)
        SELECT id, n::text, '', 200, '{}', now() - n * interval '1 hour' FROM projects, generate_series(1, 5) n";
    db.sql(sql).await;
    let window = Duration::from_mins(3 * 60 - 1);
    assert_eq!(db.store.forget_old(window).await.unwrap(), 3);
    assert_eq!(
        db.texts("SELECT key FROM idempotency_keys ORDER BY key")
            .await,
        ["1", "2"]
    );
}
