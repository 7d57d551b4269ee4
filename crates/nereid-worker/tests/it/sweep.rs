//! The garbage sweep: it takes what nothing needs, and nothing else, whatever is going on.

use std::{collections::BTreeMap, time::Duration};

use nereid_core::{
    ids::WorkerId,
    jobs::{CheckpointRef, Claim, Fence, JobStatus, Lineage, TerminationReason},
    models::{ArtifactFile, Manifest},
    workers::{DeviceKind, NewWorker},
};
use nereid_store::queue::{AttemptEnd, ClaimRequest, NewModelVersion};
use nereid_worker::WorkerConfig;
use serde_json::json;

use crate::{
    engine::{Scripted, short, signature},
    support::{World, eventually, train, world},
};

/// A worker of the test's own, which does nothing but what the test says.
struct Puppet<'a> {
    world: &'a World,
    id: WorkerId,
}

impl<'a> Puppet<'a> {
    async fn new(world: &'a World) -> Self {
        let info = NewWorker {
            id: WorkerId::generate(),
            host: "puppet".to_owned(),
            device: DeviceKind::Cpu,
            labels: labels(),
            slots: 1,
            url: "http://127.0.0.1:1".to_owned(),
            version: "1".to_owned(),
        };
        world.store.register_worker(&info).await.unwrap();
        let hour = Duration::from_hours(1);
        world.store.heartbeat(info.id, hour, &[]).await.unwrap();
        Self { world, id: info.id }
    }

    /// Claims the one job that waits, for an hour.
    async fn claim(&self) -> Claim {
        let request = ClaimRequest {
            worker: self.id,
            device: DeviceKind::Cpu,
            limit: 1,
            lease: Duration::from_hours(1),
            kinds: nereid_core::jobs::JobKind::ALL.to_vec(),
        };
        self.world.store.claim(&request).await.unwrap().remove(0)
    }

    /// Submits a job that only the puppet takes, and claims it.
    async fn begin(&self) -> Claim {
        let job = train(&json!({"worker_labels": labels()}));
        self.world.submit(&job).await;
        self.claim().await
    }

    async fn end(&self, claim: &Claim, reason: TerminationReason) -> JobStatus {
        let end = AttemptEnd {
            reason,
            message: "as the test says".to_owned(),
            retry_delay: Duration::ZERO,
        };
        let ended = self.world.store.end_attempt(&claim.fence, &end);
        ended.await.unwrap()
    }

    /// Uploads a file of a model, as an attempt does before it publishes.
    async fn upload(&self, claim: &Claim) -> String {
        let project = self.world.project;
        let attempt = attempt(&claim.fence);
        let job = claim.fence.job;
        self.put(format!(
            "projects/{project}/models/digits/staging/{job}/{attempt}/manifest.json"
        ))
        .await
    }

    /// Stores a checkpoint, and tells of it if it is `known`.
    async fn checkpoint(&self, claim: &Claim, step: u64, known: bool) -> String {
        let (project, job) = (self.world.project, claim.fence.job);
        let attempt = attempt(&claim.fence);
        let key = format!("projects/{project}/jobs/{job}/checkpoints/{attempt}/{step}");
        let key = self.put(key).await;
        if known {
            let checkpoint = CheckpointRef {
                key: key.clone(),
                bytes: 7,
                sha256: "not looked at".to_owned(),
                step,
            };
            let store = &self.world.store;
            let forgotten = store.set_checkpoint(&claim.fence, &checkpoint);
            assert_eq!(forgotten.await.unwrap(), []);
        }
        key
    }

    async fn put(&self, key: String) -> String {
        let uri = self.world.objects.own(&key).unwrap();
        self.world.overwrite(&uri, "content").await;
        key
    }

    /// Publishes what an attempt has uploaded.
    async fn publish(&self, claim: &Claim, key: &str) {
        let new = version(self.world, claim, key).await;
        let published = self.world.store.publish_version(&claim.fence, &new);
        published.await.unwrap();
    }

    /// Waits until a sweep that began after now has looked at everything.
    async fn swept(&self) {
        // What is deleted together is not deleted at once: two rounds.
        for _ in 0..2 {
            let claim = self.begin().await;
            let marker = self.upload(&claim).await;
            self.end(&claim, TerminationReason::Diverged).await;
            self.gone(&marker).await;
        }
    }

    async fn gone(&self, key: &str) {
        eventually("garbage to be swept", || async {
            (!self.is_there(key).await).then_some(())
        })
        .await;
    }

    async fn is_there(&self, key: &str) -> bool {
        let uri = self.world.objects.own(key).unwrap();
        self.world.objects.head(&uri).await.is_ok()
    }
}

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("for".to_owned(), "puppet".to_owned())])
}

fn attempt(fence: &Fence) -> String {
    format!("{}-{}", fence.epoch, fence.claim)
}

async fn version(world: &World, claim: &Claim, key: &str) -> NewModelVersion {
    let name = "digits".parse().unwrap();
    let dataset = world
        .store
        .dataset_version(world.project, &name, Some(1))
        .await;
    let dataset = dataset.unwrap();
    let nereid_core::jobs::JobSpec::Train(spec) = claim.spec.clone() else {
        panic!("{:?}", claim.spec)
    };
    NewModelVersion {
        manifest_uri: world.objects.own(key).unwrap().to_string(),
        manifest_sha256: "not looked at".to_owned(),
        bytes: 7,
        manifest: Manifest {
            manifest_version: 1,
            model: name,
            spec,
            signature: signature(),
            metrics: BTreeMap::new(),
            lineage: Lineage {
                job_id: claim.fence.job,
                dataset: dataset.dataset,
                dataset_version: 1,
                dataset_version_id: dataset.id,
                dataset_digest: dataset.digest,
                initialized_from: None,
                nereid_version: "1".to_owned(),
                framework_version: "1".to_owned(),
                seed: 1,
            },
            files: Vec::<ArtifactFile>::new(),
        },
        reports: BTreeMap::new(),
        stopped_early: false,
    }
}

/// A worker that takes none of the puppet's jobs and sweeps all the time.
fn sweeper(world: &World) -> WorkerConfig {
    let mut config = world.config();
    config.lease = Duration::from_secs(1);
    config.sweep_interval = Duration::from_millis(50);
    config
}

#[tokio::test]
async fn what_nothing_needs_is_swept_and_all_else_stays() {
    let world = world().await;
    let puppet = Puppet::new(&world).await;
    let (mut garbage, mut needed) = (Vec::new(), Vec::new());
    // Lost, drained and failed attempts, and the one that published at last.
    let lost = puppet.begin().await;
    garbage.push(puppet.upload(&lost).await);
    world
        .sql("UPDATE job_leases SET expires_at = now() - interval '1 second'")
        .await;
    let worker = world
        .worker_with(sweeper(&world), &Scripted::new(short))
        .await;
    world
        .job_when(lost.fence.job, |job| job.status == JobStatus::Queued)
        .await;
    let drained = puppet.claim().await;
    garbage.push(puppet.upload(&drained).await);
    garbage.push(puppet.checkpoint(&drained, 7, true).await);
    puppet.end(&drained, TerminationReason::WorkerDrained).await;
    let failed = puppet.claim().await;
    garbage.push(puppet.upload(&failed).await);
    puppet.end(&failed, TerminationReason::Unavailable).await;
    let winner = puppet.claim().await;
    assert_eq!(winner.fence.job, lost.fence.job);
    let published = puppet.upload(&winner).await;
    puppet.publish(&winner, &published).await;
    needed.push(published);
    // A running attempt, of a job that was drained before.
    let drained = puppet.begin().await;
    needed.push(puppet.checkpoint(&drained, 1, true).await);
    garbage.push(puppet.checkpoint(&drained, 2, false).await);
    puppet.end(&drained, TerminationReason::WorkerDrained).await;
    let running = puppet.claim().await;
    needed.push(puppet.upload(&running).await);
    needed.push(puppet.checkpoint(&running, 3, false).await);
    // A job that failed, and may be retried.
    let diverged = puppet.begin().await;
    garbage.push(puppet.upload(&diverged).await);
    needed.push(puppet.checkpoint(&diverged, 4, true).await);
    puppet.end(&diverged, TerminationReason::Diverged).await;
    // What no attempt of a known job wrote.
    let job = nereid_core::ids::JobId::generate();
    let unknown = format!(
        "projects/{0}/jobs/{job}/checkpoints/1-{job}/1",
        world.project
    );
    needed.push(puppet.put(unknown).await);
    needed.push(world.data().key().to_owned());

    puppet.swept().await;
    for key in garbage {
        assert!(!puppet.is_there(&key).await, "left: {key}");
    }
    for key in needed {
        assert!(puppet.is_there(&key).await, "swept away: {key}");
    }
    worker.leave().await;
}

#[tokio::test]
async fn checkpoints_of_a_job_that_failed_long_ago_are_swept() {
    let world = world().await;
    let puppet = Puppet::new(&world).await;
    let diverged = puppet.begin().await;
    let key = puppet.checkpoint(&diverged, 4, true).await;
    puppet.end(&diverged, TerminationReason::Diverged).await;
    let mut config = sweeper(&world);
    config.checkpoint_retention = Duration::ZERO;
    let worker = world.worker_with(config, &Scripted::new(short)).await;
    puppet.gone(&key).await;
    // A retry starts over, and does not look for what is gone.
    world.retry(diverged.fence.job).await;
    assert_eq!(puppet.claim().await.checkpoints, []);
    worker.leave().await;
}

#[tokio::test]
async fn a_publication_between_list_and_deletion_survives() {
    let world = world().await;
    let puppet = Puppet::new(&world).await;
    let engine = Scripted::new(short);
    let (worker, s3) = world.worker_behind_s3_gate(sweeper(&world), &engine).await;
    let claim = puppet.begin().await;
    let key = puppet.upload(&claim).await;
    // The list is made, and on its way to the sweep.
    s3.hold_answers();
    s3.stopped(1).await;
    puppet.publish(&claim, &key).await;
    s3.open();
    puppet.swept().await;
    assert!(puppet.is_there(&key).await);
    worker.leave().await;
}

#[tokio::test]
async fn a_publication_that_is_not_committed_yet_survives() {
    let world = world().await;
    let puppet = Puppet::new(&world).await;
    let claim = puppet.begin().await;
    let key = puppet.upload(&claim).await;
    let mut blocker = world.connection().await;
    // Keeps the publication from its last steps; the sweep only reads.
    sqlx::raw_sql("BEGIN; LOCK TABLE model_versions IN SHARE MODE")
        .execute(&mut blocker)
        .await
        .unwrap();
    let publish = puppet.publish(&claim, &key);
    let meanwhile = async {
        eventually("the publication to wait", || async {
            let waiting = world.count(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND database =
                     (SELECT oid FROM pg_database WHERE datname = current_database())",
            );
            (waiting.await > 0).then_some(())
        })
        .await;
        let config = sweeper(&world);
        let worker = world.worker_with(config, &Scripted::new(short)).await;
        puppet.swept().await;
        assert!(puppet.is_there(&key).await);
        sqlx::raw_sql("COMMIT").execute(&mut blocker).await.unwrap();
        worker
    };
    let ((), worker) = tokio::join!(publish, meanwhile);
    puppet.swept().await;
    assert!(puppet.is_there(&key).await);
    worker.leave().await;
}
