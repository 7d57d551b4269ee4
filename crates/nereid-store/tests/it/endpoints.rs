//! Generations, replicas, routes: traffic shifts only to what is ready, and never to nothing.

use nereid_core::{
    batching::{Batching, VariantSettings},
    endpoints::{Assignment, EndpointSpec, EndpointStatus, ReplicaStatus, VariantSpec},
    ids::WorkerId,
    jobs::JobResult,
    rollouts::Rollout,
};

use serde_json::json;

use crate::support::{Db, artifact, code, db, deploy, deploy_spec, name};

pub fn spec(version: u32, replicas: u32) -> EndpointSpec {
    let variant = VariantSpec {
        name: name("main"),
        model: name("m"),
        version,
        alias: None,
        weight: 100,
        replicas,
        batching: Batching::default(),
        hedge_after_us: None,
        autoscaling: None,
    };
    EndpointSpec {
        variants: vec![variant],
        rollout: Rollout::default(),
    }
}

impl Db {
    /// Reconciles a worker and reports what it was given as ready.
    pub async fn settle(&self, worker: WorkerId) -> Vec<Assignment> {
        let assignments = self.store.reconcile(worker).await.unwrap();
        for a in assignments
            .iter()
            .filter(|a| a.status == ReplicaStatus::Loading)
        {
            let ready = ReplicaStatus::Ready;
            self.store
                .set_replica_status(a.replica, worker, ready, None)
                .await
                .unwrap();
        }
        assignments
    }

    /// Generation and number of replicas that get traffic, of the only endpoint.
    pub async fn traffic(&self) -> Option<(u32, usize)> {
        let routes = self.store.routes().await.unwrap();
        let (_, _, route) = routes.first()?;
        Some((route.generation, route.variants[0].replicas.len()))
    }

    pub async fn status(&self) -> (EndpointStatus, u32, Option<u32>) {
        let e = self.store.endpoint(self.project, &name("e")).await.unwrap();
        (e.status, e.generation, e.serving_generation)
    }
}

#[tokio::test]
async fn a_roll_out_shifts_traffic_when_ready_drains_the_old_and_rolls_back() {
    let db = db().await;
    let first = db.trained("m").await;
    let worker = db.worker().await;
    let (fence, generation) = db.rolled_out(worker, "m", first.id, 2).await;
    assert_eq!(generation, 1);
    let again = db
        .store
        .roll_out(
            &fence,
            first.id,
            &deploy_spec("e", json!({"replicas": 2})),
            &artifact(),
        )
        .await;
    assert_eq!(
        again.unwrap(),
        1,
        "a second attempt finds what the first one made"
    );
    assert_eq!(db.status().await, (EndpointStatus::Creating, 1, None));
    let used = db
        .store
        .delete_model_version(db.project, &name("m"), 1)
        .await
        .unwrap_err();
    assert_eq!(code(&used), "in_use");

    let assigned = db.store.reconcile(worker).await.unwrap();
    assert_eq!(assigned.len(), 2, "the only worker takes all on");
    assert_eq!(db.store.reconcile(worker).await.unwrap(), assigned);
    let ready = ReplicaStatus::Ready;
    db.store
        .set_replica_status(assigned[0].replica, worker, ready, None)
        .await
        .unwrap();
    assert_eq!(db.traffic().await, None, "one of two cannot carry the load");
    db.store
        .set_replica_status(assigned[1].replica, worker, ready, None)
        .await
        .unwrap();
    assert_eq!(db.traffic().await, Some((1, 2)));
    let result = JobResult::Deploy {
        endpoint: name("e"),
        model: name("m"),
        version: 1,
    };
    db.store.complete(&fence, &result).await.unwrap();
    assert_eq!(db.job(fence.job).await.result, Some(result));

    // Version 2: the old generation serves until the new one can.
    let second = db.trained("m").await;
    let not_deployed = db
        .store
        .update_endpoint(db.project, &name("e"), &spec(2, 1))
        .await;
    assert_eq!(code(&not_deployed.unwrap_err()), "not_deployed");
    db.rolled_out(worker, "m", second.id, 1).await;
    assert_eq!(db.status().await, (EndpointStatus::Updating, 2, Some(1)));
    let loading = db.store.reconcile(worker).await.unwrap();
    assert_eq!((loading.len(), db.traffic().await), (3, Some((1, 2))));
    db.settle(worker).await;
    assert_eq!(db.traffic().await, Some((2, 1)));
    assert_eq!(db.status().await, (EndpointStatus::InService, 2, Some(2)));
    let all = db.store.reconcile(worker).await.unwrap();
    let draining: Vec<_> = all
        .iter()
        .filter(|a| a.status == ReplicaStatus::Draining)
        .collect();
    assert_eq!(draining.len(), 2);
    // Late news of a draining replica does not bring it back.
    db.store
        .set_replica_status(draining[0].replica, worker, ready, None)
        .await
        .unwrap();
    for a in &draining {
        db.store.remove_replica(a.replica, worker).await.unwrap();
    }
    assert_eq!(db.store.reconcile(worker).await.unwrap().len(), 1);

    let mut tx = db.write().await;
    let back = tx.rollback_endpoint(&name("e")).await.unwrap();
    tx.commit(200, &back).await.unwrap();
    assert_eq!((back.generation, back.variants[0].spec.version), (3, 1));
    assert_eq!(db.traffic().await, Some((2, 1)));
    db.settle(worker).await;
    assert_eq!(db.traffic().await, Some((3, 2)));
}

#[tokio::test]
async fn replicas_spread_move_off_draining_workers_and_survive_their_death() {
    let db = db().await;
    let version = db.trained("m").await;
    let (a, b) = (db.worker().await, db.worker().await);
    db.rolled_out(a, "m", version.id, 2).await;
    let (of_a, of_b) = tokio::join!(db.store.reconcile(a), db.store.reconcile(b));
    let taken = of_a.unwrap().len() + of_b.unwrap().len();
    assert!(taken <= 2);
    assert_eq!((db.settle(a).await.len(), db.settle(b).await.len()), (1, 1));
    assert_eq!(db.traffic().await, Some((1, 2)));

    db.store.drain_worker(a).await.unwrap();
    assert_eq!(
        db.settle(b).await.len(),
        2,
        "b makes up for what a is to lose"
    );
    let of_a = db.store.reconcile(a).await.unwrap();
    assert_eq!(of_a[0].status, ReplicaStatus::Draining);
    assert_eq!(db.traffic().await, Some((1, 2)));
    db.store.retire_worker(a).await.unwrap();

    // b falls silent: nothing is routed to it, and another takes over.
    db.sql("UPDATE workers SET heartbeat_at = heartbeat_at - interval '1 minute', expires_at = now() - interval '1 minute'").await;
    assert_eq!(db.traffic().await, None);
    let c = db.worker().await;
    db.store.reap(std::time::Duration::ZERO).await.unwrap();
    assert_eq!(db.settle(c).await.len(), 2);
    assert_eq!(db.traffic().await, Some((1, 2)));
    assert!(db.store.reconcile(b).await.unwrap().is_empty());
    // Merely silent, it comes back by a heartbeat.
    db.store
        .heartbeat(b, crate::support::LEASE, &[])
        .await
        .unwrap();
    let status = db.store.worker(b).await.unwrap().status;
    assert_eq!(status, nereid_core::workers::WorkerStatus::Active);
}

#[tokio::test]
async fn a_generation_that_cannot_be_loaded_fails_and_the_old_one_goes_on_serving() {
    let db = db().await;
    let version = db.trained("m").await;
    let worker = db.worker().await;
    db.rolled_out(worker, "m", version.id, 1).await;
    db.settle(worker).await;
    let mut other = spec(1, 2);
    other.variants[0].batching.max_batch_size = 8;
    db.store
        .update_endpoint(db.project, &name("e"), &other)
        .await
        .unwrap();
    let assigned = db.store.reconcile(worker).await.unwrap();
    let (failed, why) = (ReplicaStatus::Failed, Some("out of memory"));
    for a in assigned
        .iter()
        .filter(|a| a.status == ReplicaStatus::Loading)
    {
        db.store
            .set_replica_status(a.replica, worker, failed, why)
            .await
            .unwrap();
    }
    assert_eq!(db.status().await, (EndpointStatus::Failed, 2, Some(1)));
    assert_eq!(db.traffic().await, Some((1, 1)));
    assert_eq!(
        db.store.reconcile(worker).await.unwrap().len(),
        1,
        "not tried again for ever"
    );
    let endpoint = db.store.endpoint(db.project, &name("e")).await.unwrap();
    assert_eq!(
        endpoint.variants[0].replicas_status[0].error.as_deref(),
        why
    );

    db.store
        .update_endpoint(db.project, &name("e"), &spec(1, 1))
        .await
        .unwrap();
    let back = (EndpointStatus::InService, 3, Some(3));
    assert_eq!(db.status().await, back, "what serves already takes over");

    db.store
        .delete_endpoint(db.project, &name("e"))
        .await
        .unwrap();
    assert_eq!(db.traffic().await, None);
    let last = db.store.reconcile(worker).await.unwrap();
    assert!(last.iter().all(|a| a.status == ReplicaStatus::Draining));
    let mut tx = db.write().await;
    let anew = tx.create_endpoint(&name("e"), &spec(1, 1)).await.unwrap();
    assert_eq!(
        (anew.generation, anew.status),
        (1, EndpointStatus::Creating)
    );
    let taken = tx
        .create_endpoint(&name("e"), &spec(1, 1))
        .await
        .unwrap_err();
    assert_eq!(code(&taken), "already_exists");
    let none = tx.rollback_endpoint(&name("e")).await.unwrap_err();
    assert_eq!(code(&none), "no_previous");
}

#[tokio::test]
async fn what_a_deploy_job_needs_cannot_be_deleted_under_it() {
    let db = db().await;
    db.trained("m").await;
    let id = db.submit(&deploy("m")).await;
    let used = db
        .store
        .delete_model_version(db.project, &name("m"), 1)
        .await
        .unwrap_err();
    assert_eq!(code(&used), "in_use");
    db.stop(id).await.unwrap();
    db.store
        .delete_model_version(db.project, &name("m"), 1)
        .await
        .unwrap();
    assert_eq!(code(&db.retry(id).await.unwrap_err()), "not_found");
}

#[tokio::test]
async fn settings_reach_replicas_and_gateway_and_come_back_with_a_rollback() {
    let db = db().await;
    let version = db.trained("m").await;
    let worker = db.worker().await;
    let settings = VariantSettings {
        batching: Batching {
            max_batch_size: 8,
            preferred_batch_sizes: vec![4, 8],
            ..Batching::default()
        },
        hedge_after_us: Some(500),
        autoscaling: None,
    };
    db.submit(&deploy("m")).await;
    let fence = db.claim_one(worker).await.fence;
    let (endpoint, artifact) = (name("e"), artifact());
    let asked = json!({"batching": settings.batching, "hedge_after_us": 500});
    let asked = deploy_spec("e", asked);
    let rolled_out = db.store.roll_out(&fence, version.id, &asked, &artifact);
    rolled_out.await.unwrap();
    let assigned = db.settle(worker).await;
    assert_eq!(assigned[0].settings, settings);
    let routed = async || {
        let (_, _, route) = db.store.routes().await.unwrap().remove(0);
        let variant = route.variants.into_iter().next().unwrap();
        (variant.settings, variant.digest)
    };
    let (first, digest) = routed().await;
    assert_eq!((first, digest.len()), (settings.clone(), 64));

    let plain = spec(1, 1);
    let updated = db.store.update_endpoint(db.project, &endpoint, &plain);
    let updated = updated.await.unwrap();
    assert_eq!(updated.variants[0].spec, plain.variants[0]);
    db.settle(worker).await;
    assert_eq!(routed().await, (VariantSettings::default(), digest.clone()));

    let mut tx = db.write().await;
    let back = tx.rollback_endpoint(&endpoint).await.unwrap();
    tx.commit(200, &back).await.unwrap();
    assert_eq!(back.variants[0].spec.settings(), settings);
    db.settle(worker).await;
    assert_eq!(routed().await, (settings, digest));
}
