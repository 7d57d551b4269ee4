//! Autoscaling on what gateways report: out, in, asleep and awake again.

use nereid_core::{
    endpoints::{EndpointEventKind, ReplicaStatus},
    ids::WorkerId,
};
use serde_json::{Value, json};

use crate::support::{Db, artifact, db, deploy, deploy_spec, name};

impl Db {
    /// An endpoint "e" whose only variant scales by a policy.
    async fn scaled_by(&self, policy: Value) -> WorkerId {
        let version = self.trained("m").await;
        let worker = self.worker().await;
        self.submit(&deploy("m")).await;
        let fence = self.claim_one(worker).await.fence;
        let spec = deploy_spec("e", json!({"autoscaling": policy}));
        let artifact = artifact();
        let made = self.store.roll_out(&fence, version.id, &spec, &artifact);
        made.await.unwrap();
        self.settle(worker).await;
        worker
    }

    /// Has the controller look again, as after some time.
    async fn look(&self) {
        self.sql("UPDATE variant_scaling SET evaluated_at = now() - interval '1 minute'")
            .await;
        self.store.autoscale().await.unwrap();
    }

    async fn desired(&self) -> u32 {
        let endpoint = self.store.endpoint(self.project, &name("e")).await;
        endpoint.unwrap().variants[0].desired_replicas
    }

    /// Lets all that was remembered have happened a minute earlier.
    async fn age(&self) {
        self.sql(
            "UPDATE variant_scaling SET held_at = held_at - interval '61 seconds', memory = jsonb_build_object(
                 'scaled_out_at', (memory->>'scaled_out_at')::timestamptz - interval '61 seconds',
                 'recommendations', COALESCE((
                     SELECT jsonb_agg(jsonb_build_object(
                         'capacity', r->'capacity', 'at', (r->>'at')::timestamptz - interval '61 seconds'))
                     FROM jsonb_array_elements(memory->'recommendations') r), '[]'))",
        )
        .await;
        self.sql("DELETE FROM variant_windows").await;
    }
}

#[tokio::test]
async fn load_brings_replicas_and_its_absence_takes_them_away() {
    let db = db().await;
    let policy = json!({
        "min_capacity": 1, "max_capacity": 6, "target_value": 2, "scale_in_cooldown": 60, "scale_out_cooldown": 10,
    });
    let worker = db.scaled_by(policy).await;
    db.look().await;
    assert_eq!(db.desired().await, 1, "without a request nothing is done");
    // Ten seconds of requests that together took 60: a concurrency of six on one replica.
    let variant = db.routed().await[0].id;
    db.report(variant, 600, 0, 100_000).await;
    db.look().await;
    assert_eq!(db.desired().await, 3);
    db.settle(worker).await;
    assert_eq!(db.traffic().await, Some((1, 3)));

    for _ in 0..2 {
        db.age().await;
        db.look().await;
    }
    assert_eq!(db.desired().await, 1);
    let held = db.store.reconcile(worker).await.unwrap();
    let of = |status| held.iter().filter(|a| a.status == status).count();
    assert_eq!(
        (of(ReplicaStatus::Ready), of(ReplicaStatus::Draining)),
        (1, 2)
    );

    let events = db.events().await;
    let steps: Vec<_> = events
        .iter()
        .filter(|e| e.kind == EndpointEventKind::Scaled)
        .map(|e| {
            (
                e.data["from"].as_u64().unwrap(),
                e.data["to"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(steps, [(1, 3), (3, 1)]);
    let why = events[events.len() - 1].data["reason"].as_str().unwrap();
    assert!(why.contains("60 s"), "{why}");
}

#[tokio::test]
async fn an_idle_variant_sleeps_and_the_first_request_wakes_it() {
    let db = db().await;
    let policy =
        json!({"min_capacity": 0, "max_capacity": 2, "target_value": 1, "scale_in_cooldown": 30});
    let worker = db.scaled_by(policy).await;
    assert_eq!(db.traffic().await, Some((1, 1)), "it is loaded once first");
    db.look().await;
    db.age().await;
    db.look().await;
    assert_eq!(db.desired().await, 0);
    let held = db.store.reconcile(worker).await.unwrap();
    assert_eq!(held[0].status, ReplicaStatus::Draining);
    db.store
        .remove_replica(held[0].replica, worker)
        .await
        .unwrap();
    let asleep = db.routed().await.remove(0);
    assert!(asleep.asleep && asleep.replicas.is_empty());

    assert!(db.store.wake_variant(asleep.id).await.unwrap());
    assert!(
        !db.store.wake_variant(asleep.id).await.unwrap(),
        "once only"
    );
    assert_eq!(db.desired().await, 1);
    db.settle(worker).await;
    let awake = db.routed().await.remove(0);
    assert_eq!((awake.asleep, awake.replicas.len()), (false, 1));
    db.look().await;
    assert_eq!(db.desired().await, 1, "it does not fall asleep at once");
}
