//! A worker in this process, from its start to its orderly end.

use std::sync::Arc;

use nereid_core::{clock::SystemClock, engine::LocalReplicas, ids::WorkerId};
use nereid_objects::Objects;
use nereid_store::Store;
use nereid_worker::{Worker, WorkerConfig, WorkerError};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::engine::Scripted;

/// A running worker; it is cut off if dropped.
pub struct Running {
    pub shutdown: CancellationToken,
    pub replicas: Arc<dyn LocalReplicas>,
    pub id: WorkerId,
    /// Folder of the socket by which it reaches Postgres, if not the server's own.
    pub socket: Option<TempDir>,
    tasks: JoinSet<Result<(), WorkerError>>,
}

/// Starts a worker and waits until it is ready.
pub async fn start(
    config: WorkerConfig,
    store: Store,
    objects: Objects,
    engine: &Scripted,
) -> Running {
    let (shutdown, listening) = (CancellationToken::new(), CancellationToken::new());
    let (wakeups, listen) = store.listen(listening.clone());
    let (id, clock) = (config.id, Arc::new(SystemClock));
    let worker = Worker::new(config, store, objects, engine.engine(), wakeups, clock);
    let (replicas, mut ready) = (worker.replicas(), worker.ready());
    let mut tasks = JoinSet::new();
    let stop = shutdown.clone();
    tasks.spawn(async move {
        let result = worker.run(stop).await;
        listening.cancel();
        result
    });
    tasks.spawn(async move {
        listen.await;
        Ok(())
    });
    ready.wait_for(|&ready| ready).await.unwrap();
    Running {
        shutdown,
        replicas,
        id,
        socket: None,
        tasks,
    }
}

impl Running {
    /// Asks the worker to leave and waits until it has.
    pub async fn leave(mut self) {
        self.shutdown.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
    }
}
