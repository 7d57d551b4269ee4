//! A database per test, and the few words in which the tests speak.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nereid_core::{
    Name,
    ids::{JobId, ModelVersionId, ProjectId, WorkerId},
    jobs::{
        CheckpointRef, Claim, Fence, Job, JobKind, JobRequest, JobSpec, NewJob, Published,
        TerminationReason,
    },
    models::{Manifest, OptimisationReport, Runtime, ServingArtifact},
    spec::{DeploySpec, WeightFormat},
    validation::Violations,
    workers::{DeviceKind, NewWorker},
};
use nereid_local::ManagedPostgres;
use nereid_store::{
    Begun, Store, StoreError, StoreOptions, WriteTx,
    datasets::NewDatasetVersion,
    keys::DEFAULT_PROJECT,
    queue::{AttemptEnd, ClaimRequest, NewModelVersion},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::OnceCell;

mod waits;

/// Lease of a claim that does not expire within a test.
pub const LEASE: Duration = Duration::from_mins(1);

/// A store on a fresh database, with the dataset `digits` in it.
pub struct Db {
    pub store: Store,
    pub project: ProjectId,
    pub url: String,
}

pub async fn db() -> Db {
    static TEMPLATE: OnceCell<()> = OnceCell::const_new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let server = ManagedPostgres::ephemeral().await.unwrap();
    let mut admin = PgConnection::connect(&server.url()).await.unwrap();
    TEMPLATE
        .get_or_init(|| async {
            create_database(&server.url(), "CREATE DATABASE template_nereid").await;
            let store = connect(&server.url_of("template_nereid")).await;
            store.migrate().await.unwrap();
            store.close().await;
        })
        .await;
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let create = format!("CREATE DATABASE {name} TEMPLATE template_nereid");
    sqlx::raw_sql(AssertSqlSafe(create))
        .execute(&mut admin)
        .await
        .unwrap();
    let url = server.url_of(&name);
    let store = connect(&url).await;
    let project = store.project(DEFAULT_PROJECT).await.unwrap();
    let db = Db {
        store,
        project,
        url,
    };
    db.dataset("digits", "d1").await;
    db
}

async fn create_database(url: &str, create: &'static str) {
    let mut admin = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(create).execute(&mut admin).await.unwrap();
}

pub async fn connect(url: &str) -> Store {
    let options = StoreOptions {
        url: url.to_owned(),
        max_connections: 8,
        acquire_timeout: Duration::from_secs(30),
        application_name: "nereid-store tests".to_owned(),
    };
    Store::connect(&options).await.unwrap()
}

pub fn name(s: &str) -> Name {
    s.parse().unwrap()
}

/// A train job for `model`, with `extra` options.
pub fn train(model: &str, extra: Value) -> NewJob {
    let mut job = json!({
        "kind": "train",
        "spec": {
            "model": model, "dataset": "digits@1",
            "network": {"layers": [{"type": "Dense", "units": 10}]},
            "loss": {"type": "sparse_categorical_crossentropy"},
            "fit": {"seed": u64::MAX},
        }
    });
    if let (Value::Object(job), Value::Object(extra)) = (&mut job, extra) {
        job.extend(extra);
    }
    NewJob::read(job).unwrap_or_else(|e| panic!("{e:?}"))
}

/// A no-op job, with `extra` options.
pub fn noop(extra: Value) -> NewJob {
    let mut job = json!({"kind": "noop", "spec": {}});
    if let (Value::Object(job), Value::Object(extra)) = (&mut job, extra) {
        job.extend(extra);
    }
    NewJob::read(job).unwrap_or_else(|e| panic!("{e:?}"))
}

/// A deploy job for version 1 of `model`.
pub fn deploy(model: &str) -> NewJob {
    NewJob::read(json!({"kind": "deploy", "spec": {"model": model, "version": 1}})).unwrap()
}

/// What a deploy job asks of the endpoint "e".
pub fn deploy_spec(endpoint: &str, extra: Value) -> DeploySpec {
    let mut spec = json!({"model": "m", "version": 1, "endpoint": endpoint});
    let (Some(fields), Value::Object(extra)) = (spec.as_object_mut(), extra) else {
        panic!("both are objects")
    };
    fields.extend(extra);
    let mut violations = Violations::default();
    let read = DeploySpec::read(spec, "", &mut violations);
    violations.into_result(read.unwrap()).unwrap()
}

pub fn artifact() -> ServingArtifact {
    ServingArtifact {
        prefix: "serving/1".to_owned(),
        files: vec![],
        report: OptimisationReport {
            steps: vec![],
            before: vec![],
            after: vec![],
            bytes_before: 2,
            bytes_after: 1,
            samples: 1,
            agreement: 1.0,
            max_difference: 0.0,
            metric: None,
            weights: WeightFormat::default(),
            requested_weights: WeightFormat::default(),
            runtime: Runtime::default(),
            requested_runtime: None,
            runtimes: vec![],
            machine: None,
        },
    }
}

/// A request of a CPU worker that knows every kind.
pub fn claim_request(worker: WorkerId, limit: u32, lease: Duration) -> ClaimRequest {
    ClaimRequest {
        worker,
        device: DeviceKind::Cpu,
        limit,
        lease,
        kinds: JobKind::ALL.to_vec(),
    }
}

/// A checkpoint of `fence` at `step`.
pub fn checkpoint(fence: &Fence, step: u64) -> CheckpointRef {
    CheckpointRef {
        key: format!("{}-{}/{step}", fence.epoch, fence.claim),
        bytes: 1,
        sha256: "00".to_owned(),
        step,
    }
}

pub fn ended(reason: TerminationReason) -> AttemptEnd {
    AttemptEnd {
        reason,
        message: "as the test wants it \0".to_owned(),
        retry_delay: Duration::ZERO,
    }
}

impl Db {
    /// Another store on the same database.
    pub async fn second(&self) -> Store {
        connect(&self.url).await
    }

    pub async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// Runs a statement that no use case offers.
    pub async fn sql(&self, sql: &'static str) -> u64 {
        let mut conn = self.connection().await;
        sqlx::query(sql)
            .execute(&mut conn)
            .await
            .unwrap()
            .rows_affected()
    }

    /// Reads one column of text.
    pub async fn texts(&self, sql: &'static str) -> Vec<String> {
        let mut conn = self.connection().await;
        sqlx::query_scalar(sql).fetch_all(&mut conn).await.unwrap()
    }

    pub async fn write(&self) -> WriteTx {
        self.write_in(self.project).await
    }

    pub async fn write_in(&self, project: ProjectId) -> WriteTx {
        match self.store.begin(project, None).await.unwrap() {
            Begun::Fresh(tx) => tx,
            Begun::Replay(r) => panic!("nothing to replay: {r:?}"),
        }
    }

    pub async fn dataset(&self, dataset: &str, digest: &str) -> u32 {
        let file = json!({"uri": "s3://b/d.csv", "bytes": 1, "sha256": "00", "etag": "e"});
        let new = NewDatasetVersion {
            name: name(dataset),
            description: None,
            tags: BTreeMap::new(),
            source: serde_json::from_value(
                json!({"format": "csv", "files": {"data": "s3://b/d.csv"}}),
            )
            .unwrap(),
            files: serde_json::from_value(json!({"data": file})).unwrap(),
            digest: digest.to_owned(),
            inspection: serde_json::from_value(json!({
                "schema": {"shape": [2], "dtype": "FP64"},
                "statistics": {"rows": 1, "mean": [0.1], "std": [1.0], "min": [0.0], "max": [1.0]},
                "preview": [{"features": [0.5, 1e-300]}],
            }))
            .unwrap(),
        };
        let mut tx = self.write().await;
        let version = tx.register_dataset_version(&new).await.unwrap();
        tx.commit(201, &()).await.unwrap();
        version.version
    }

    pub async fn submit(&self, job: &NewJob) -> JobId {
        let mut tx = self.write().await;
        let job = tx.submit_job(job).await.unwrap();
        tx.commit(201, &job).await.unwrap();
        job.id
    }

    pub async fn request(&self, id: JobId, request: JobRequest) -> Result<Job, StoreError> {
        let mut tx = self.write().await;
        let job = tx.request_job(id, request).await;
        end(tx, job).await
    }

    pub async fn pause(&self, id: JobId) -> Result<Job, StoreError> {
        self.request(id, JobRequest::Pause).await
    }

    pub async fn stop(&self, id: JobId) -> Result<Job, StoreError> {
        self.request(id, JobRequest::Stop).await
    }

    pub async fn cancel(&self, id: JobId) -> Result<Job, StoreError> {
        self.request(id, JobRequest::Cancel).await
    }

    pub async fn resume(&self, id: JobId) -> Result<Job, StoreError> {
        let mut tx = self.write().await;
        let job = tx.resume_job(id).await;
        end(tx, job).await
    }

    pub async fn retry(&self, id: JobId) -> Result<Job, StoreError> {
        let mut tx = self.write().await;
        let job = tx.retry_job(id).await;
        end(tx, job).await
    }

    pub async fn job(&self, id: JobId) -> Job {
        self.store.job(self.project, id).await.unwrap()
    }

    pub async fn worker(&self) -> WorkerId {
        self.worker_with("host", DeviceKind::Cpu, &[]).await
    }

    pub async fn worker_with(
        &self,
        host: &str,
        device: DeviceKind,
        labels: &[(&str, &str)],
    ) -> WorkerId {
        let id = WorkerId::generate();
        let label = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        let new = NewWorker {
            id,
            host: host.to_owned(),
            device,
            labels: labels.iter().map(label).collect(),
            slots: 4,
            url: format!("http://{id}"),
            version: "0".to_owned(),
        };
        self.store.register_worker(&new).await.unwrap();
        id
    }

    pub async fn claim(&self, worker: WorkerId, limit: u32, lease: Duration) -> Vec<Claim> {
        let request = claim_request(worker, limit, lease);
        self.store.claim(&request).await.unwrap()
    }

    /// Claims the only job that waits.
    pub async fn claim_one(&self, worker: WorkerId) -> Claim {
        let mut claims = self.claim(worker, 10, LEASE).await;
        assert_eq!(claims.len(), 1);
        claims.remove(0)
    }

    /// What a claimed train job publishes.
    pub fn version(claim: &Claim) -> NewModelVersion {
        let JobSpec::Train(spec) = &claim.spec else {
            panic!("no train job: {claim:?}")
        };
        let manifest: Manifest = serde_json::from_value(json!({
            "manifest_version": 1, "model": spec.model, "spec": spec,
            "signature": {
                "inputs": [], "outputs": [],
                "preprocessing": {"normalization": "none", "offset": [0.0], "scale": [1.0]},
            },
            "metrics": {"loss": 0.1},
            "lineage": {
                "job_id": claim.fence.job, "dataset": "digits", "dataset_version": 1,
                "dataset_version_id": WorkerId::generate(), "dataset_digest": "d1",
                "nereid_version": "0", "framework_version": "0", "seed": u64::MAX,
            },
            "files": [],
        }))
        .unwrap();
        NewModelVersion {
            manifest_uri: "s3://b/manifest.json".to_owned(),
            manifest_sha256: "00".to_owned(),
            bytes: 1,
            manifest,
            reports: BTreeMap::new(),
            stopped_early: false,
        }
    }

    pub async fn publish(&self, claim: &Claim) -> Result<Published, StoreError> {
        let version = Self::version(claim);
        self.store.publish_version(&claim.fence, &version).await
    }

    /// Trains a version of `model` from submission to publication.
    pub async fn trained(&self, model: &str) -> Published {
        self.submit(&train(model, json!({}))).await;
        let worker = self.worker().await;
        let claim = self.claim_one(worker).await;
        self.store.retire_worker(worker).await.unwrap();
        self.publish(&claim).await.unwrap()
    }

    /// Submits and claims a deploy job for version 1 of `model`, and rolls `version` out to the endpoint "e".
    pub async fn rolled_out(
        &self,
        worker: WorkerId,
        model: &str,
        version: ModelVersionId,
        replicas: u32,
    ) -> (Fence, u32) {
        self.submit(&deploy(model)).await;
        let fence = self.claim_one(worker).await.fence;
        let generation = self
            .store
            .roll_out(
                &fence,
                version,
                &deploy_spec("e", json!({"replicas": replicas})),
                &artifact(),
            )
            .await;
        (fence, generation.unwrap())
    }
}

pub fn code(error: &StoreError) -> &str {
    match error {
        StoreError::Conflict { code, .. } => code,
        StoreError::LeaseLost => "lease_lost",
        StoreError::NotFound { .. } => "not_found",
        StoreError::AlreadyExists { .. } => "already_exists",
        StoreError::IdempotencyInFlight => "in_flight",
        StoreError::IdempotencyMismatch => "mismatch",
        other => panic!("{other}"),
    }
}

/// Commits what succeeded; what did not is undone before the test goes on, so that no lock of it
/// lets a claim pass the job by.
async fn end(tx: WriteTx, job: Result<Job, StoreError>) -> Result<Job, StoreError> {
    match job {
        Ok(job) => tx.commit(200, &job).await.map(|()| job),
        Err(e) => {
            tx.rollback().await?;
            Err(e)
        }
    }
}
