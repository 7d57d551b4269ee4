//! Where the queue is measured: a database of its own, with an API and a worker in this process,
//! each with a pool and a LISTEN connection of its own, as in processes of their own.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use nereid_api::AuthMode;
use nereid_core::{clock::SystemClock, ids::ProjectId, jobs::NewJob, keys::Role};
use nereid_local::EmbeddedS3;
use nereid_objects::Objects;
use nereid_store::{Store, keys::DEFAULT_PROJECT};
use nereid_worker::{Tally, Worker};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{http::HttpClient, load::StoreClient};
use crate::{
    commands::keys,
    config::Config,
    roles::{self, embedded_s3},
};

/// Bucket and credentials of the S3 on loopback.
const BUCKET: &str = "bench";
const CREDENTIAL: &str = "nereid-bench";
/// Time for a role to end.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// The body of all submissions.
const JOB: &str = r#"{"kind":"noop","spec":{"seconds":0}}"#;

/// Starts an S3 that keeps its objects below `folder`.
pub async fn storage(folder: &Path) -> anyhow::Result<(Objects, EmbeddedS3)> {
    embedded_s3::start(embedded_s3::Options {
        root: folder.join("s3"),
        port: 0,
        bucket: BUCKET,
        access_key: CREDENTIAL,
        secret_key: CREDENTIAL,
        durable: false,
    })
    .await
}

/// A database with the schema, a key, and what the roles need.
pub struct Site<'a> {
    config: &'a Config,
    url: &'a str,
    folder: &'a Path,
    store: Store,
    project: ProjectId,
    secret: String,
    objects: Objects,
    /// Sends the wake-ups of submissions through the store.
    _listening: roles::Listening,
    /// Serves until dropped.
    _s3: EmbeddedS3,
}

/// A role that runs in this process until it is stopped.
pub struct Running {
    store: Store,
    shutdown: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
    listening: roles::Listening,
}

impl<'a> Site<'a> {
    /// Makes schema and key in the empty database at `url`; `folder` is for files.
    pub async fn open(config: &'a Config, url: &'a str, folder: &'a Path) -> anyhow::Result<Self> {
        let store = roles::connect_store_at(config, url, "nereid bench").await?;
        store.migrate().await?;
        let (_, listening) = roles::Listening::start(&store);
        let project = store.project(DEFAULT_PROJECT).await?;
        let key = keys::create(&store, Role::Trainer, None, DEFAULT_PROJECT).await?;
        let (objects, s3) = storage(folder).await?;
        Ok(Self {
            config,
            url,
            folder,
            store,
            project,
            secret: key.secret,
            objects,
            _listening: listening,
            _s3: s3,
        })
    }

    /// Starts an API that asks for keys, as in production.
    pub async fn api(&self) -> anyhow::Result<(SocketAddr, Running)> {
        let store = roles::connect_store_at(self.config, self.url, "nereid bench api").await?;
        let (wakeups, listening) = roles::Listening::start(&store);
        let listener = roles::api::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        let mut running = Running::new(store, listening);
        let parts = roles::api::Parts {
            store: running.store.clone(),
            objects: self.objects.clone(),
            wakeups,
            local: None,
            auth: AuthMode::Keys,
        };
        let listeners = roles::api::Listeners {
            rest: listener,
            grpc: None,
        };
        roles::api::spawn(parts, listeners, &running.shutdown, &mut running.tasks).await?;
        Ok((address, running))
    }

    /// Starts a worker and returns when it takes jobs.
    pub async fn worker(&self, slots: u32) -> anyhow::Result<(watch::Receiver<Tally>, Running)> {
        let store = roles::connect_store_at(self.config, self.url, "nereid bench worker").await?;
        let (wakeups, listening) = roles::Listening::start(&store);
        let mut settings = roles::worker::settings(self.config);
        settings.slots = slots;
        settings.data_dir = self.folder.join("worker");
        let worker = Worker::new(
            settings,
            store.clone(),
            self.objects.clone(),
            nereid_engine::engine(),
            wakeups,
            Arc::new(SystemClock),
        );
        let (tally, mut ready) = (worker.tally(), worker.ready());
        let mut running = Running::new(store, listening);
        let token = running.shutdown.clone();
        running
            .tasks
            .spawn(async move { Ok(worker.run(token).await?) });
        ready
            .wait_for(|ready| *ready)
            .await
            .context("the worker did not start")?;
        Ok((tally, running))
    }

    /// Returns clients of the store.
    pub fn store_clients(&self, count: u16) -> anyhow::Result<Vec<StoreClient>> {
        let job = NewJob::read(serde_json::from_str(JOB)?)
            .map_err(|e| anyhow::anyhow!("the job is refused: {e:?}"))?;
        let client = StoreClient {
            store: self.store.clone(),
            project: self.project,
            job,
        };
        Ok(vec![client; usize::from(count)])
    }

    /// Returns clients of the API at `address`, each connected.
    pub async fn http_clients(
        &self,
        address: SocketAddr,
        count: u16,
    ) -> anyhow::Result<Vec<HttpClient>> {
        let mut clients = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            clients.push(HttpClient::connect(address, &self.secret, JOB).await?);
        }
        Ok(clients)
    }
}

impl Running {
    fn new(store: Store, listening: roles::Listening) -> Self {
        Self {
            store,
            shutdown: CancellationToken::new(),
            tasks: JoinSet::new(),
            listening,
        }
    }

    /// Stops it in order.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        let result = roles::api::run_until_stopped(self.tasks, &self.shutdown, STOP_WITHIN).await;
        self.listening.stop().await;
        self.store.close().await;
        result
    }
}
