//! Batch predictions: the plan that counts, and parts that count once and in their order.

use std::time::Duration;

use nereid_core::{
    batch_predictions::{BatchPart, BatchPlan},
    jobs::{Claim, JobResult, JobStatus, NewJob, TerminationReason},
};
use nereid_store::StoreError;
use serde_json::json;

use crate::support::{Db, LEASE, code, db, deploy, name};

fn predict(model: &str) -> NewJob {
    NewJob::read(json!({"kind": "batch_predict", "spec": {
        "model": model, "version": 1,
        "input": {"uri": "s3://b/in.csv", "format": "csv"},
        "output": {"uri": "s3://b/out/"},
    }}))
    .unwrap()
}

fn plan(digest: &str) -> BatchPlan {
    serde_json::from_value(json!({
        "source": {"format": "csv", "files": {"data": "s3://b/in.csv"}},
        "files": {}, "model_digest": digest,
    }))
    .unwrap()
}

fn done() -> JobResult {
    serde_json::from_value(json!({
        "kind": "batch_predict", "model": "m", "version": 1, "rows": 6, "rejected": 3,
        "output": "s3://b/out/", "manifest": "s3://b/out/_SUCCESS", "manifest_sha256": "x",
        "seconds": 1.5, "rows_per_second": 6.0,
    }))
    .unwrap()
}

fn part(part: u32) -> BatchPart {
    BatchPart {
        part,
        rows: 3,
        rejected: 1,
        seconds: 0.5,
        predictions: None,
        rejections: None,
    }
}

impl Db {
    /// A claimed batch prediction by version 1 of the model `m`.
    async fn predicting(&self, lease: Duration) -> Claim {
        self.trained("m").await;
        self.submit(&predict("m")).await;
        let worker = self.worker().await;
        self.claim(worker, 1, lease).await.remove(0)
    }
}

#[tokio::test]
async fn the_first_attempt_decides_and_the_next_goes_on_behind_the_last_part() {
    let db = db().await;
    let first = db.predicting(LEASE).await;
    let before = db.store.batch_prediction(&first.fence).await.unwrap();
    assert_eq!(before, None);
    let begin = async |claim: &Claim, digest| {
        let plan = plan(digest);
        db.store.begin_batch_prediction(&claim.fence, &plan).await
    };
    let state = begin(&first, "one").await.unwrap();
    assert!(state.parts.is_empty());
    let add = async |claim: &Claim, number| {
        let part = part(number);
        db.store.add_batch_part(&claim.fence, &part).await
    };
    add(&first, 0).await.unwrap();
    add(&first, 0).await.unwrap();
    let early = add(&first, 2).await.unwrap_err();
    assert_eq!(code(&early), "part_out_of_order");
    add(&first, 1).await.unwrap();

    db.sql("UPDATE job_leases SET expires_at = now() - interval '1 second'")
        .await;
    let late = add(&first, 2).await;
    assert!(matches!(late, Err(StoreError::LeaseLost)), "{late:?}");
    db.end(&first, TerminationReason::WorkerDrained).await;
    let worker = db.worker().await;
    let second = db.claim_one(worker).await;
    let state = begin(&second, "two").await.unwrap();
    assert_eq!(state.plan, plan("one"));
    assert_eq!(state.parts, [part(0), part(1)]);
    let zombie = db.store.batch_prediction(&first.fence).await;
    assert!(matches!(zombie, Err(StoreError::LeaseLost)));
    let again = add(&second, 1).await.unwrap_err();
    assert_eq!(code(&again), "part_out_of_order", "it is another attempt's");
    add(&second, 2).await.unwrap();
    let result = done();
    db.store.complete(&second.fence, &result).await.unwrap();
    let job = db.job(second.fence.job).await;
    assert_eq!(
        (job.status, job.result),
        (JobStatus::Succeeded, Some(result))
    );
}

#[tokio::test]
async fn a_version_stays_while_its_rows_are_predicted() {
    let db = db().await;
    db.predicting(LEASE).await;
    let model = name("m");
    let deleted = db.store.delete_model_version(db.project, &model, 1).await;
    assert_eq!(code(&deleted.unwrap_err()), "in_use");
}

#[tokio::test]
async fn the_model_stays_that_a_prediction_has_begun_with() {
    let db = db().await;
    let batch = db.predicting(LEASE).await;
    db.submit(&deploy("m")).await;
    let worker = db.worker().await;
    let made = db.claim_one(worker).await.fence;
    let mut plan = plan("x");
    plan.serving = Some(nereid_core::batch_predictions::PlannedArtifact {
        prefix: format!(
            "projects/p/serving/{}/{}-{}/",
            made.job, made.epoch, made.claim
        ),
        files: Vec::new(),
    });
    let begin = db.store.begin_batch_prediction(&batch.fence, &plan);
    begin.await.unwrap();
    let end = crate::support::ended(TerminationReason::WorkerDrained);
    db.store.end_attempt(&made, &end).await.unwrap();
    let garbage = async || db.store.unneeded_outputs(&[made]).await.unwrap().len();
    assert_eq!(garbage().await, 0);
    db.store.complete(&batch.fence, &done()).await.unwrap();
    assert_eq!(garbage().await, 1, "nobody asks it any more");
}
