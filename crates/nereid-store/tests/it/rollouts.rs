//! Rollouts in shares: what is due happens once, what goes wrong is undone without a wait.

use nereid_core::{
    endpoints::{EndpointEvent, EndpointStatus, ReplicaStatus, RolloutState, RouteVariant},
    ids::{VariantId, WorkerId},
    models::ArtifactFile,
    rollouts::RolloutStatus,
    statistics::Histogram,
    traffic::{Scores, VariantWindow, Window},
};
use nereid_store::PageRequest;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    endpoints::spec,
    support::{Db, artifact, code, db, deploy, deploy_spec, name},
};

impl Db {
    /// An endpoint "e" that serves version 1 of "m" with one replica.
    pub async fn serving(&self) -> WorkerId {
        let first = self.trained("m").await;
        let worker = self.worker().await;
        self.rolled_out(worker, "m", first.id, 1).await;
        self.settle(worker).await;
        assert_eq!(self.traffic().await, Some((1, 1)));
        worker
    }

    /// Deploys a newer version of "m" by a policy and reports its replica as ready.
    async fn update_by(&self, worker: WorkerId, rollout: Value) -> u32 {
        let next = self.trained("m").await;
        self.submit(&deploy("m")).await;
        let fence = self.claim_one(worker).await.fence;
        let spec = deploy_spec("e", json!({"rollout": rollout}));
        let artifact = artifact();
        let generation = self.store.roll_out(&fence, next.id, &spec, &artifact);
        let generation = generation.await.unwrap();
        assert_eq!(
            self.rollout(generation).await.status,
            RolloutStatus::Warming
        );
        self.settle(worker).await;
        generation
    }

    async fn rollout(&self, generation: u32) -> RolloutState {
        let endpoint = name("e");
        let rollout = self.store.rollout(self.project, &endpoint, generation);
        rollout.await.unwrap()
    }

    /// Lets the present state of the rollout be over, and reconciles.
    async fn pass_time(&self, worker: WorkerId) {
        self.sql("UPDATE endpoint_rollouts SET due_at = now() WHERE due_at IS NOT NULL")
            .await;
        self.store.reconcile(worker).await.unwrap();
    }

    /// What happened to the endpoint, oldest first.
    pub async fn events(&self) -> Vec<EndpointEvent> {
        let page = PageRequest {
            size: 100,
            after: None,
        };
        let endpoint = name("e");
        let page = self.store.endpoint_events(self.project, &endpoint, &page);
        let mut events = page.await.unwrap().items;
        events.reverse();
        events
    }

    pub async fn routed(&self) -> Vec<RouteVariant> {
        self.store.routes().await.unwrap().remove(0).2.variants
    }

    /// Has a gateway report requests, of which some failed.
    pub async fn report(&self, variant: VariantId, requests: u64, errors: u64, micros: u64) {
        let latency = Histogram::default();
        for _ in 0..requests {
            latency.record(micros);
        }
        let window = Window {
            requests,
            errors,
            latency: latency.snapshot(),
            scores: Scores {
                count: requests,
                ..Scores::default()
            },
            ..Window::default()
        };
        let windows = [VariantWindow { variant, window }];
        let reported = self.store.record_windows(Uuid::new_v4(), &windows);
        reported.await.unwrap();
    }
}

#[tokio::test]
async fn a_linear_rollout_gives_share_by_share_and_keeps_the_old_for_a_while() {
    let db = db().await;
    let worker = db.serving().await;
    let policy =
        json!({"type": "linear", "linear_step_size": 40, "termination_wait_in_seconds": 60});
    let generation = db.update_by(worker, policy).await;
    let share = async || {
        let (_, _, route) = db.store.routes().await.unwrap().remove(0);
        let generations: Vec<_> = route.variants.iter().map(|v| v.generation).collect();
        (route.candidate.map(|c| c.share), generations)
    };
    assert_eq!(share().await, (Some(40), vec![1, 2]));
    db.store.reconcile(worker).await.unwrap();
    assert_eq!(share().await.0, Some(40), "not before it is due");
    db.pass_time(worker).await;
    assert_eq!(share().await.0, Some(80));
    db.pass_time(worker).await;
    assert_eq!(share().await, (None, vec![2]));
    let state = db.rollout(generation).await;
    assert_eq!((state.status, state.share), (RolloutStatus::Baking, 100));
    let held = db.store.reconcile(worker).await.unwrap();
    assert_eq!(held.len(), 2, "the old generation stays loaded");
    db.pass_time(worker).await;
    assert_eq!(
        db.rollout(generation).await.status,
        RolloutStatus::Completed
    );
    let events = db.events().await;
    let shares: Vec<_> = events
        .iter()
        .filter(|e| e.data["generation"] == 2)
        .map(|e| e.data["share"].as_u64())
        .collect();
    assert_eq!(shares, [None, Some(40), Some(80), Some(100), Some(100)]);
}

/// Errors of the new generation send the traffic back, with the replicas that never left.
#[tokio::test]
async fn a_broken_rule_sends_the_traffic_back_at_once() {
    let db = db().await;
    let worker = db.serving().await;
    let before = db.routed().await.remove(0);
    let rules = json!([{"metric": "error_rate", "threshold": 0.05, "min_requests": 20}]);
    let policy = json!({"type": "canary", "auto_rollback": rules});
    let generation = db.update_by(worker, policy).await;
    let canary = db.routed().await.into_iter().find(|v| v.generation == 2);
    let canary = canary.unwrap().id;
    db.report(before.id, 1_000, 900, 1_000).await;
    db.report(canary, 19, 19, 1_000).await;
    db.store.reconcile(worker).await.unwrap();
    let state = db.rollout(generation).await;
    assert_eq!(state.status, RolloutStatus::Shifting, "too few requests");
    db.report(canary, 10, 1, 1_000).await;
    db.store.reconcile(worker).await.unwrap();
    let state = db.rollout(generation).await;
    assert_eq!(state.status, RolloutStatus::RolledBack);
    assert!(state.reason.unwrap().contains("error_rate"));
    let after = db.routed().await;
    assert_eq!((after.len(), after[0].generation), (1, 3));
    assert_eq!(after[0].replicas, before.replicas);
    assert_eq!(after[0].version, before.version);
    assert_eq!(db.status().await, (EndpointStatus::InService, 3, Some(3)));
    let held = db.store.reconcile(worker).await.unwrap();
    let ready = held.iter().filter(|a| a.status == ReplicaStatus::Ready);
    assert_eq!(ready.count(), 1, "the canary is let go");
}

#[tokio::test]
async fn a_client_promotes_or_rolls_back_in_one_call() {
    let db = db().await;
    let worker = db.serving().await;
    let none = db.write().await.promote_rollout(&name("e")).await;
    assert_eq!(code(&none.unwrap_err()), "not_shifting");
    db.update_by(worker, json!({"type": "shadow", "shadow_sample": 30}))
        .await;
    let (_, _, route) = db.store.routes().await.unwrap().remove(0);
    let candidate = route.candidate.unwrap();
    assert_eq!((candidate.share, candidate.shadow), (0, 30));
    let mut tx = db.write().await;
    let promoted = tx.promote_rollout(&name("e")).await.unwrap();
    tx.commit(200, &promoted).await.unwrap();
    assert_eq!(promoted.status, RolloutStatus::Completed);
    assert_eq!(db.traffic().await, Some((2, 1)));

    let old = db.routed().await.remove(0);
    db.update_by(worker, json!({"type": "blue_green"})).await;
    assert_eq!(db.traffic().await, Some((3, 1)));
    let mut tx = db.write().await;
    let back = tx.rollback_endpoint(&name("e")).await.unwrap();
    tx.commit(200, &back).await.unwrap();
    let now = db.routed().await.remove(0);
    assert_eq!((now.generation, now.version), (4, old.version));
    assert_eq!(now.replicas, old.replicas, "nothing was loaded for it");
}

#[tokio::test]
async fn an_update_of_the_same_versions_keeps_the_replicas_and_a_newer_one_supersedes() {
    let db = db().await;
    let worker = db.serving().await;
    let before = db.routed().await.remove(0);
    let (endpoint, three) = (name("e"), spec(1, 3));
    let scaled = db.store.update_endpoint(db.project, &endpoint, &three);
    let scaled = scaled.await.unwrap();
    assert_eq!((scaled.generation, scaled.serving_generation), (2, Some(2)));
    assert_eq!(db.routed().await[0].replicas, before.replicas);
    db.settle(worker).await;
    assert_eq!(db.traffic().await, Some((2, 3)));

    let first = db.update_by(worker, json!({"type": "canary"})).await;
    let second = db.update_by(worker, json!({})).await;
    assert_eq!(db.rollout(first).await.status, RolloutStatus::Superseded);
    assert_eq!(db.rollout(second).await.status, RolloutStatus::Completed);
    assert_eq!(db.traffic().await, Some((4, 1)));
}

/// Deployed again with other weights, the version has other files; what serves keeps its own, and a
/// rollback finds them again.
#[tokio::test]
async fn each_generation_keeps_the_artifact_it_was_made_with() {
    let db = db().await;
    let worker = db.serving().await;
    db.submit(&deploy("m")).await;
    let fence = db.claim_one(worker).await.fence;
    let version = db.store.model_version(db.project, &name("m"), 1).await;
    let mut other = artifact();
    other.prefix = "serving/2".to_owned();
    other.files = vec![ArtifactFile {
        path: "weights".to_owned(),
        bytes: 1,
        sha256: "0".repeat(64),
    }];
    let spec = deploy_spec("e", json!({}));
    let made = db
        .store
        .roll_out(&fence, version.unwrap().id, &spec, &other);
    assert_eq!(made.await.unwrap(), 2);
    let held = db.settle(worker).await;
    let prefixes: Vec<_> = held.iter().map(|a| a.artifact.prefix.as_str()).collect();
    assert_eq!(prefixes, ["serving/1", "serving/2"]);
    assert_eq!(db.traffic().await, Some((2, 1)));
    let mut tx = db.write().await;
    let back = tx.rollback_endpoint(&name("e")).await.unwrap();
    tx.commit(200, &back).await.unwrap();
    let held = db.settle(worker).await;
    let newest = held.last().unwrap();
    assert_eq!(newest.artifact.prefix, "serving/1");
    assert_eq!(db.traffic().await, Some((3, 1)));
}
