//! A worker from its start to its orderly end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use nereid_core::{
    VERSION,
    clock::Clock,
    engine::{Engine, LocalReplicas},
    workers::{NewWorker, WorkerStatus},
};
use nereid_objects::Objects;
use nereid_store::{PageRequest, Store, notify::Wakeups};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    attempt::Order,
    cache::Cache,
    claims,
    config::WorkerConfig,
    error::WorkerError,
    leases::{self, Leases},
    reaper,
    replicas::{self, Registry},
    scratch::Scratch,
    server::{self, Inference},
};

/// Longest wait for one write of the shutdown.
const LAST_WRITE: Duration = Duration::from_secs(1);
/// Longest wait for the parts of a worker to end once nothing is left to do.
const LAST_STEPS: Duration = Duration::from_millis(500);

/// What everything in a running worker shares.
pub(crate) struct Context {
    pub(crate) config: WorkerConfig,
    pub(crate) store: Store,
    pub(crate) objects: Objects,
    pub(crate) engine: Engine,
    pub(crate) wakeups: Wakeups,
    pub(crate) clock: Arc<dyn Clock>,
    /// What this worker said of itself, to be said again should it be forgotten.
    pub(crate) info: NewWorker,
    pub(crate) leases: Arc<Leases>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) cache: Cache,
    pub(crate) scratch: Scratch,
    /// Runs of jobs, and their reporters.
    pub(crate) runs: TaskTracker,
    /// Nothing new is begun.
    pub(crate) shutdown: CancellationToken,
    /// Runs that have not ended hand their jobs back now.
    pub(crate) abandon: CancellationToken,
}

/// A process that runs jobs and holds replicas.
pub struct Worker {
    config: WorkerConfig,
    store: Store,
    objects: Objects,
    engine: Engine,
    wakeups: Wakeups,
    clock: Arc<dyn Clock>,
    registry: Arc<Registry>,
    ready: watch::Sender<bool>,
}

impl Worker {
    /// Makes a worker; nothing happens before [`Worker::run`].
    pub fn new(
        config: WorkerConfig,
        store: Store,
        objects: Objects,
        engine: Engine,
        wakeups: Wakeups,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            config,
            store,
            objects,
            engine,
            wakeups,
            clock,
            registry: Arc::default(),
            ready: watch::Sender::new(false),
        }
    }

    /// Returns the replicas this worker holds, for a gateway in the same process.
    pub fn replicas(&self) -> Arc<dyn LocalReplicas> {
        Arc::clone(&self.registry) as Arc<dyn LocalReplicas>
    }

    /// Tells, now and at each change, whether the worker is registered and takes jobs.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Works until `shutdown`, then hands back what is not done within the drain timeout.
    ///
    /// The future of [`Store::listen`] should outlive this one: it is what tells the others.
    ///
    /// # Errors
    /// [`WorkerError`] if it could not start, or a part of it ended by itself.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), WorkerError> {
        let ready = self.ready.clone();
        let (ctx, listener) = Box::pin(self.start(shutdown.child_token())).await?;
        let secret = ctx.store.cluster_secret().await?;
        let inference = Arc::new(Inference::new(Arc::clone(&ctx.registry), secret));
        let closing = CancellationToken::new();

        let mut intake = JoinSet::new();
        intake.spawn(claims::run(Arc::clone(&ctx)));
        intake.spawn(reaper::run(Arc::clone(&ctx)));
        let mut parts = JoinSet::new();
        parts.spawn(named(
            "lease keeper",
            leases::keep(Arc::clone(&ctx), closing.clone()),
        ));
        parts.spawn(named(
            "reconciler",
            replicas::run(Arc::clone(&ctx), closing.clone()),
        ));
        let serve = server::run(listener, inference, closing.clone());
        parts.spawn(named("inference server", async {
            if let Err(e) = serve.await {
                tracing::error!(error = %e, "inference server failed");
            }
        }));
        ready.send_replace(true);
        tracing::info!(worker = %ctx.config.id, url = ctx.info.url, "worker started");

        let result = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            Some(ended) = intake.join_next() => Err(unexpected("queue", ended.map(|()| ""))),
            Some(ended) = parts.join_next() => Err(unexpected("part", ended)),
        };
        ready.send_replace(false);
        if let Err(error) = &result {
            tracing::error!(%error, "worker gives up");
        }
        drain(&ctx, intake, parts, closing).await;
        result
    }

    /// Registers the worker and opens all it needs.
    async fn start(
        self,
        shutdown: CancellationToken,
    ) -> Result<(Arc<Context>, TcpListener), WorkerError> {
        self.config.check()?;
        let (scratch, cache) = open_folders(&self.config)?;
        let addr = self.config.inference_addr;
        let (listener, bound) = bind(addr)
            .await
            .map_err(|source| WorkerError::Listen { addr, source })?;
        let info = NewWorker {
            id: self.config.id,
            host: self.config.host.clone(),
            device: self.config.device,
            labels: self.config.labels.clone(),
            slots: self.config.slots,
            url: self.config.url(bound),
            version: VERSION.to_owned(),
        };
        self.store.register_worker(&info).await?;
        let context = Context {
            config: self.config,
            store: self.store,
            objects: self.objects,
            engine: self.engine,
            wakeups: self.wakeups,
            clock: self.clock,
            info,
            leases: Arc::default(),
            registry: self.registry,
            cache,
            scratch,
            runs: TaskTracker::new(),
            shutdown,
            abandon: CancellationToken::new(),
        };
        Ok((Arc::new(context), listener))
    }
}

async fn bind(addr: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(addr).await?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

fn open_folders(config: &WorkerConfig) -> Result<(Scratch, Cache), WorkerError> {
    let error = |source| WorkerError::DataDir {
        path: config.data_dir.clone(),
        source,
    };
    let scratch = Scratch::open(&config.data_dir, config.id).map_err(error)?;
    let cache = Cache::open(&config.data_dir).map_err(error)?;
    Ok((scratch, cache))
}

async fn named(name: &'static str, part: impl Future<Output = ()>) -> &'static str {
    part.await;
    name
}

fn unexpected(
    task: &'static str,
    ended: Result<&'static str, tokio::task::JoinError>,
) -> WorkerError {
    match ended {
        Ok("") => WorkerError::Ended {
            task,
            cause: "it returned".to_owned(),
        },
        Ok(task) => WorkerError::Ended {
            task,
            cause: "it returned".to_owned(),
        },
        Err(e) => WorkerError::Ended {
            task,
            cause: e.to_string(),
        },
    }
}

/// Comes to rest: nothing new, jobs handed back, replicas out of service, leave taken.
async fn drain(
    ctx: &Arc<Context>,
    mut intake: JoinSet<()>,
    mut parts: JoinSet<&'static str>,
    closing: CancellationToken,
) {
    let started = Instant::now();
    let deadline = started + ctx.config.drain_timeout;
    // The rest of the time is for recording how the attempts ended.
    let abandon_at = started + ctx.config.drain_timeout.mul_f64(0.75);
    ctx.shutdown.cancel();
    ctx.leases.order_all(Order::Drain);
    let handover = async {
        match timeout(LAST_WRITE, ctx.store.drain_worker(ctx.config.id)).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => tracing::warn!(error = %e, "cannot announce the shutdown"),
            Err(_) => tracing::warn!("announcing the shutdown took too long"),
        }
        hand_over_replicas(ctx, abandon_at).await;
    };
    let runs = async {
        // A claim under way may still start a run, which learns of the shutdown at once.
        while let Ok(Some(_)) = timeout_at(abandon_at, intake.join_next()).await {}
        ctx.runs.close();
        if timeout_at(abandon_at, ctx.runs.wait()).await.is_err() {
            tracing::warn!("jobs that did not stop in time are handed back as they are");
            ctx.abandon.cancel();
            if timeout_at(deadline, ctx.runs.wait()).await.is_err() {
                tracing::error!("some jobs could not be handed back; their leases will expire");
            }
        }
    };
    tokio::join!(handover, runs);
    closing.cancel();
    while let Ok(Some(_)) = timeout(LAST_STEPS, parts.join_next()).await {}
    parts.shutdown().await;
    // After the last heartbeat, which would bring the worker back to life.
    match timeout(LAST_WRITE, ctx.store.retire_worker(ctx.config.id)).await {
        Ok(Ok(())) => tracing::info!(took = ?started.elapsed(), "worker left"),
        Ok(Err(e)) => tracing::warn!(error = %e, "cannot take leave; others will notice"),
        Err(_) => tracing::warn!("taking leave took too long; others will notice"),
    }
}

/// Answers until other workers have taken over, if there are any, and nothing is under way.
async fn hand_over_replicas(ctx: &Context, until: Instant) {
    let others = if ctx.registry.len() == 0 {
        false
    } else {
        has_successor(ctx).await
    };
    let waiting = || ctx.registry.any_busy() || (others && ctx.registry.len() > 0);
    while waiting() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Tells whether another worker could hold this one's replicas.
async fn has_successor(ctx: &Context) -> bool {
    let page = PageRequest {
        size: 200,
        after: None,
    };
    match timeout(LAST_WRITE, ctx.store.workers(&page)).await {
        Ok(Ok(workers)) => workers
            .items
            .iter()
            .any(|worker| worker.status == WorkerStatus::Active && worker.info.id != ctx.config.id),
        _ => false,
    }
}
