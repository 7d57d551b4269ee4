//! Who gets which job: kinds, devices, labels, fairness, ageing, and why a job waits.

use nereid_core::{
    jobs::{JobKind, WaitReason},
    workers::DeviceKind,
};
use serde_json::{Value, json};

use crate::support::{Db, LEASE, claim_request, db, noop, train};

impl Db {
    /// Submits many no-op jobs by copying one.
    async fn crowd(&self, options: Value) {
        self.submit(&noop(options)).await;
        let copied = self
            .sql(
                "WITH model AS (SELECT * FROM jobs ORDER BY id DESC LIMIT 1), copies AS (
                     INSERT INTO jobs (id, project_id, kind, spec_version, spec, priority, max_attempts, device,
                         worker_labels, status, queued_at, last_event_seq)
                     SELECT uuid_v7(), project_id, kind, spec_version, spec, priority, max_attempts, device,
                         worker_labels, 'queued', now(), 1
                     FROM model, generate_series(1, 4999) RETURNING id
                 )
                 INSERT INTO job_leases (job_id, project_id, kind, state, sort_key, available_at, device, labels, epoch)
                 SELECT c.id, l.project_id, l.kind, l.state, l.sort_key, l.available_at, l.device, l.labels, 0
                 FROM copies c, model m JOIN job_leases l ON l.job_id = m.id",
            )
            .await;
        assert_eq!(copied, 4999);
    }
}

#[tokio::test]
async fn jobs_that_a_worker_cannot_take_block_none_that_it_can() {
    let db = db().await;
    db.crowd(json!({"priority": 100, "device": "gpu", "worker_labels": {"rack": "b"}}))
        .await;
    let plain = db.submit(&train("m", json!({"priority": 0}))).await;
    let worker = db.worker().await;
    assert_eq!(db.job(plain).await.waiting.unwrap().position, 1);
    assert_eq!(db.claim_one(worker).await.fence.job, plain);

    let labels = [("rack", "b"), ("disk", "ssd")];
    let other = db.worker_with("big", DeviceKind::Gpu, &labels).await;
    let mut request = claim_request(other, 2, LEASE);
    request.kinds = vec![JobKind::Train];
    assert_eq!(db.store.claim(&request).await.unwrap().len(), 0);
    (request.kinds, request.device) = (vec![JobKind::Noop], DeviceKind::Gpu);
    assert_eq!(db.store.claim(&request).await.unwrap().len(), 2);
}

#[tokio::test]
async fn one_projects_thousand_jobs_do_not_starve_anothers_one_even_while_they_run() {
    let db = db().await;
    db.crowd(json!({"priority": 100})).await;
    let worker = db.worker().await;
    assert_eq!(db.claim(worker, 3, LEASE).await.len(), 3);
    db.sql("INSERT INTO projects (name) VALUES ('other')").await;
    let other = db.store.project("other").await.unwrap();
    let mut lone = db.write_in(other).await;
    let lone_job = lone
        .submit_job(&noop(json!({"priority": 0})))
        .await
        .unwrap();
    lone.commit(201, &lone_job).await.unwrap();
    let waiting = db.store.job(other, lone_job.id).await.unwrap().waiting;
    assert_eq!(waiting.unwrap().position, 1);
    assert_eq!(db.claim(worker, 1, LEASE).await[0].fence.job, lone_job.id);
}

#[tokio::test]
async fn a_job_of_low_priority_is_overtaken_for_a_while_but_not_for_ever() {
    let db = db().await;
    let old = db.submit(&noop(json!({"priority": 40}))).await;
    let urgent = db.submit(&noop(json!({"priority": 50}))).await;
    assert_eq!(db.job(old).await.waiting.unwrap().position, 2);
    db.sql("UPDATE job_leases SET sort_key = sort_key - interval '101 minutes' WHERE job_id = (SELECT id FROM jobs WHERE priority = 40)")
        .await;
    assert_eq!(db.job(old).await.waiting.unwrap().position, 1);
    let worker = db.worker().await;
    let claims = db.claim(worker, 2, LEASE).await;
    let order: Vec<_> = claims.iter().map(|c| c.fence.job).collect();
    assert_eq!(order, [old, urgent]);
}

#[tokio::test]
async fn a_waiting_job_says_what_is_missing() {
    let db = db().await;
    let wants = json!({"device": "gpu", "worker_labels": {"rack": "b"}, "max_queue_seconds": 60});
    let id = db.submit(&noop(wants)).await;
    let why = async |id| {
        let waiting = db.job(id).await.waiting.unwrap();
        (waiting.reason, waiting.detail)
    };
    let (reason, detail) = why(id).await;
    assert_eq!(
        (reason, detail.as_str()),
        (WaitReason::NoWorker, "no worker is active")
    );

    db.worker_with("one", DeviceKind::Cpu, &[("rack", "b")])
        .await;
    db.worker_with("two", DeviceKind::Gpu, &[("rack", "a")])
        .await;
    let (reason, detail) = why(id).await;
    assert_eq!(reason, WaitReason::NoMatchingWorker);
    assert_eq!(
        detail,
        "no active worker has device gpu and label rack=b; 2 active workers: one (cpu, rack=b), two (gpu, rack=a)"
    );

    let worker = db
        .worker_with("three", DeviceKind::Gpu, &[("rack", "b")])
        .await;
    let mut ahead = Vec::new();
    for _ in 0..4 {
        ahead.push(
            db.submit(&noop(json!({"device": "gpu", "priority": 60})))
                .await,
        );
    }
    let waiting = db.job(id).await.waiting.unwrap();
    assert_eq!(
        (waiting.reason, waiting.position),
        (WaitReason::WorkersBusy, 5)
    );
    assert_eq!(
        waiting.detail,
        "0 of 4 slots of the 1 worker that can take it are taken; 4 jobs are before it"
    );
    assert!(waiting.gives_up_at > Some(waiting.since) && waiting.not_before.is_none());
    assert_eq!(why(ahead[3]).await.0, WaitReason::Starting);

    let mut request = claim_request(worker, 4, LEASE);
    request.device = DeviceKind::Gpu;
    assert_eq!(db.store.claim(&request).await.unwrap().len(), 4);
    let (reason, detail) = why(id).await;
    assert_eq!(reason, WaitReason::WorkersBusy);
    assert!(
        detail.starts_with("4 of 4 slots of the 1 worker"),
        "{detail}"
    );
    let listed = db
        .store
        .jobs(
            db.project,
            &nereid_store::jobs::JobFilter::default(),
            &nereid_store::PageRequest {
                size: 10,
                after: None,
            },
        )
        .await
        .unwrap();
    assert!(listed.items.iter().all(|j| j.waiting.is_none()));
}
