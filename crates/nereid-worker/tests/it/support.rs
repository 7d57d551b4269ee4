//! A database and a bucket per test, workers on them, and the few words in which tests speak.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nereid_core::{
    ids::{JobId, ProjectId},
    jobs::{Job, JobPhase, JobRequest, NewJob},
};
use nereid_local::{EmbeddedS3, EmbeddedS3Options, ManagedPostgres};
use nereid_objects::{ObjectStoreConfig, Objects, PutOptions, S3Uri, Stored};
use nereid_store::{
    Begun, Store, StoreOptions, WriteTx, datasets::NewDatasetVersion, keys::DEFAULT_PROJECT,
};
use nereid_worker::WorkerConfig;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::{
    engine::Scripted,
    gate::Gate,
    running::{Running, start},
};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);
const DATA: &str = "a,label\n1,x\n2,y\n";

/// What workers work on: a database, a bucket and a disk, with the dataset `digits` in them.
pub struct World {
    pub store: Store,
    pub objects: Objects,
    pub project: ProjectId,
    pub disk: TempDir,
    url: String,
    s3: EmbeddedS3,
}

pub async fn world() -> World {
    let url = database().await;
    let store = connect(&url).await;
    let disk = tempfile::tempdir().unwrap();
    let s3 = EmbeddedS3::start(EmbeddedS3Options {
        root: disk.path().join("s3"),
        addr: "127.0.0.1:0".parse().unwrap(),
        access_key: "access".to_owned(),
        secret_key: "secret-key".to_owned(),
        buckets: vec!["nereid".to_owned()],
        durable: false,
    })
    .await
    .unwrap();
    let world = World {
        objects: objects(s3.addr()).await,
        project: store.project(DEFAULT_PROJECT).await.unwrap(),
        store,
        disk,
        url,
        s3,
    };
    world.dataset().await;
    world
}

async fn objects(addr: SocketAddr) -> Objects {
    let mut config = ObjectStoreConfig::new("nereid", Some(format!("http://{addr}")));
    config.credentials = Some(("access".to_owned(), "secret-key".to_owned()));
    Objects::connect(config).await.unwrap()
}

/// Makes a database with all migrations applied and returns its URL.
async fn database() -> String {
    static TEMPLATE: OnceCell<()> = OnceCell::const_new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let server = ManagedPostgres::ephemeral().await.unwrap();
    TEMPLATE
        .get_or_init(|| async {
            sql_at(&server.url(), "CREATE DATABASE template_nereid").await;
            let store = connect(&server.url_of("template_nereid")).await;
            store.migrate().await.unwrap();
            store.close().await;
        })
        .await;
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let create = format!("CREATE DATABASE {name} TEMPLATE template_nereid");
    sql_at(&server.url(), &create).await;
    server.url_of(&name)
}

async fn sql_at(url: &str, sql: &str) {
    let mut conn = PgConnection::connect(url).await.unwrap();
    let sql = AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
}

async fn connect(url: &str) -> Store {
    let options = StoreOptions {
        url: url.to_owned(),
        max_connections: 8,
        acquire_timeout: Duration::from_secs(10),
        application_name: "nereid-worker tests".to_owned(),
    };
    Store::connect(&options).await.unwrap()
}

/// A train job for the model `digits`, with `extra` options.
pub fn train(extra: &Value) -> NewJob {
    let mut job = json!({
        "kind": "train",
        "spec": {
            "model": "digits", "dataset": "digits@1",
            "network": {"layers": [{"type": "Dense", "units": 2}]},
            "loss": {"type": "sparse_categorical_crossentropy"},
            "fit": {"seed": 42},
        }
    });
    let options = extra.as_object().unwrap().clone();
    job.as_object_mut().unwrap().extend(options);
    NewJob::read(job).unwrap_or_else(|e| panic!("{e:?}"))
}

/// A deploy job for version 1 of `digits`.
pub fn deploy() -> NewJob {
    NewJob::read(json!({"kind": "deploy", "spec": {"model": "digits", "version": 1}})).unwrap()
}

/// Asks again and again until there is an answer.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await;
    answer.unwrap_or_else(|_| panic!("in vain: {what}"))
}

impl World {
    /// Address of the dataset's file.
    pub fn data(&self) -> S3Uri {
        self.objects.own("data/digits.csv").unwrap()
    }

    /// Writes an object, whatever was there.
    pub async fn overwrite(&self, uri: &S3Uri, content: &'static str) -> Stored {
        let put = PutOptions::default();
        let stored = self.objects.put_bytes(uri, content.into(), &put);
        stored.await.unwrap()
    }

    async fn dataset(&self) {
        let uri = self.data();
        let stored = self.overwrite(&uri, DATA).await;
        let new = NewDatasetVersion {
            name: "digits".parse().unwrap(),
            description: None,
            tags: BTreeMap::new(),
            source: serde_json::from_value(json!({
                "format": "csv", "files": {"data": uri.to_string()}, "label_column": "label",
            }))
            .unwrap(),
            files: serde_json::from_value(json!({"data": {
                "uri": uri.to_string(), "bytes": stored.bytes,
                "sha256": stored.sha256, "etag": stored.etag,
            }}))
            .unwrap(),
            digest: "digest of digits".to_owned(),
            inspection: serde_json::from_value(json!({
                "schema": {
                    "shape": [1], "dtype": "INT64", "columns": ["a"],
                    "target": {"kind": "class", "name": "label", "classes": ["x", "y"]},
                },
                "statistics": {"rows": 2, "mean": [1.5], "std": [0.5], "min": [1.0], "max": [2.0]},
                "preview": [],
            }))
            .unwrap(),
        };
        let mut tx = self.write().await;
        tx.register_dataset_version(&new).await.unwrap();
        tx.commit(201, &()).await.unwrap();
    }

    async fn write(&self) -> WriteTx {
        match self.store.begin(self.project, None).await.unwrap() {
            Begun::Fresh(tx) => tx,
            Begun::Replay(r) => panic!("nothing to replay: {r:?}"),
        }
    }

    /// Settings of a worker that beats fast.
    pub fn config(&self) -> WorkerConfig {
        let mut config = WorkerConfig::new("test", self.disk.path().join("worker"));
        config.heartbeat = Duration::from_millis(200);
        config.poll = Duration::from_millis(300);
        config
    }

    /// Starts a worker that beats fast, and waits until it is ready.
    pub async fn worker(&self, engine: &Scripted) -> Running {
        self.worker_with(self.config(), engine).await
    }

    pub async fn worker_with(&self, config: WorkerConfig, engine: &Scripted) -> Running {
        let store = connect(&self.url).await;
        start(config, store, self.objects.clone(), engine).await
    }

    /// Starts a worker that reaches Postgres through a gate.
    pub async fn worker_behind_postgres_gate(
        &self,
        config: WorkerConfig,
        engine: &Scripted,
    ) -> (Running, Gate) {
        let (url, host) = self.url.split_once("host=").unwrap();
        let (host, options) = host.split_once('&').unwrap();
        let (gate, folder) = Gate::postgres(Path::new(host));
        let url = format!("{url}host={}&{options}", folder.path().display());
        let objects = self.objects.clone();
        let mut running = start(config, connect(&url).await, objects, engine).await;
        running.socket = Some(folder);
        (running, gate)
    }

    /// Starts a worker that reaches S3 through a gate.
    pub async fn worker_behind_s3_gate(
        &self,
        config: WorkerConfig,
        engine: &Scripted,
    ) -> (Running, Gate) {
        let (gate, addr) = Gate::tcp(self.s3.addr()).await;
        let store = connect(&self.url).await;
        let running = start(config, store, objects(addr).await, engine).await;
        (running, gate)
    }

    pub async fn submit(&self, job: &NewJob) -> JobId {
        let mut tx = self.write().await;
        let job = tx.submit_job(job).await.unwrap();
        tx.commit(201, &job).await.unwrap();
        job.id
    }

    pub async fn request(&self, id: JobId, request: JobRequest) {
        let mut tx = self.write().await;
        let job = tx.request_job(id, request).await.unwrap();
        tx.commit(200, &job).await.unwrap();
    }

    pub async fn resume(&self, id: JobId) {
        let mut tx = self.write().await;
        let job = tx.resume_job(id).await.unwrap();
        tx.commit(200, &job).await.unwrap();
    }

    pub async fn retry(&self, id: JobId) {
        let mut tx = self.write().await;
        let job = tx.retry_job(id).await.unwrap();
        tx.commit(200, &job).await.unwrap();
    }

    pub async fn job(&self, id: JobId) -> Job {
        self.store.job(self.project, id).await.unwrap()
    }

    /// Waits until `accept` likes the job.
    pub async fn job_when(&self, id: JobId, accept: impl Fn(&Job) -> bool) -> Job {
        eventually("the job to get there", || async {
            Some(self.job(id).await).filter(&accept)
        })
        .await
    }

    /// Waits until the job is over.
    pub async fn finished(&self, id: JobId) -> Job {
        self.job_when(id, |job| job.status.is_final()).await
    }

    /// Waits until the job trains.
    pub async fn training(&self, id: JobId) -> Job {
        self.job_when(id, |job| job.phase == Some(JobPhase::Training))
            .await
    }

    /// Steps of the job's metric points.
    pub async fn steps(&self, id: JobId) -> Vec<u64> {
        let points = self.store.job_metrics(self.project, id, 10_000).await;
        points.unwrap().iter().map(|point| point.step).collect()
    }

    /// Messages of the job's log.
    pub async fn log(&self, id: JobId) -> Vec<String> {
        let page = nereid_store::PageRequest {
            size: 200,
            after: None,
        };
        let logs = self.store.job_logs(self.project, id, None, &page);
        let lines = logs.await.unwrap().items;
        lines.into_iter().map(|line| line.message).collect()
    }

    /// Keys of all objects below a prefix of the project's.
    pub async fn keys(&self, prefix: &str) -> Vec<String> {
        use futures::TryStreamExt;
        let prefix = format!("projects/{}/{prefix}", self.project);
        let listed = self.objects.list(self.objects.bucket(), &prefix);
        let objects: Vec<_> = listed.try_collect().await.unwrap();
        objects.iter().map(|o| o.uri.key().to_owned()).collect()
    }

    /// Keeps everybody from a table, until dropped.
    pub async fn block(&self, table: &str) -> PgConnection {
        let mut conn = self.connection().await;
        let sql = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
        let lock = sqlx::raw_sql(AssertSqlSafe(sql));
        lock.execute(&mut conn).await.unwrap();
        conn
    }

    pub async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// Asks for a number that no use case offers.
    pub async fn count(&self, sql: &'static str) -> i64 {
        let mut conn = self.connection().await;
        let count = sqlx::query_scalar(sql);
        count.fetch_one(&mut conn).await.unwrap()
    }

    /// Runs a statement that no use case offers.
    pub async fn sql(&self, sql: &str) {
        sql_at(&self.url, sql).await;
    }
}
