//! A worker from its start to its orderly end.

use std::{net::SocketAddr, sync::Arc};

use nereid_core::{
    VERSION,
    clock::Clock,
    engine::{Engine, LocalReplicas},
    workers::NewWorker,
};
use nereid_objects::Objects;
use nereid_store::{Store, notify::Wakeups};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    cache::Cache,
    claims,
    config::WorkerConfig,
    drain::drain,
    error::WorkerError,
    leases::{self, Leases},
    replicas::{self, Registry, ReplicaStatistics},
    scaling,
    scratch::Scratch,
    server::{self, Inference},
    sweep,
};

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
    pub(crate) tally: watch::Sender<Tally>,
    /// Runs of jobs, and their reporters.
    pub(crate) runs: TaskTracker,
    /// Nothing new is begun.
    pub(crate) shutdown: CancellationToken,
    /// Runs that have not ended hand their jobs back now.
    pub(crate) abandon: CancellationToken,
    /// Runs that are still there are dropped: nothing of a worker outlives it.
    pub(crate) end: CancellationToken,
}

/// Jobs that a worker has begun and ended since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Runs that have begun.
    pub started: u64,
    /// Runs that are over, their ends recorded.
    pub ended: u64,
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
    tally: watch::Sender<Tally>,
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
            tally: watch::Sender::default(),
        }
    }

    /// Returns the replicas this worker holds, for a gateway in the same process.
    pub fn replicas(&self) -> Arc<dyn LocalReplicas> {
        Arc::clone(&self.registry) as Arc<dyn LocalReplicas>
    }

    /// Returns what happened to the requests of each replica it holds, whenever asked.
    pub fn statistics(&self) -> impl Fn() -> Vec<ReplicaStatistics> + Send + Sync + use<> {
        let registry = Arc::clone(&self.registry);
        move || registry.statistics()
    }

    /// Tells, now and at each change, whether the worker is registered and takes jobs.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Counts, now and at each change, the jobs that this worker runs.
    pub fn tally(&self) -> watch::Receiver<Tally> {
        self.tally.subscribe()
    }

    /// Works until `shutdown`, then hands back what is not done within the drain timeout.
    ///
    /// The future of [`Store::listen`] should outlive this one: it is what tells the others.
    ///
    /// # Errors
    /// [`WorkerError`] if it could not start, or a part of it ended by itself.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), WorkerError> {
        let ready = self.ready.clone();
        let (ctx, mut parts) = Box::pin(self.start()).await?;
        ready.send_replace(true);
        tracing::info!(worker = %ctx.config.id, url = ctx.info.url, "worker started");
        let result = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            error = parts.failed() => Err(error),
        };
        ready.send_replace(false);
        if let Err(error) = &result {
            tracing::error!(%error, "worker gives up");
        }
        drain(&ctx, parts).await;
        result
    }

    /// Opens all it needs, registers the worker and starts its parts.
    async fn start(self) -> Result<(Arc<Context>, Parts), WorkerError> {
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
        let secret = self.store.cluster_secret().await?;
        // Last of what can fail: whoever is registered is given work.
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
            tally: self.tally,
            runs: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            abandon: CancellationToken::new(),
            end: CancellationToken::new(),
        };
        let ctx = Arc::new(context);
        let inference = Inference::new(Arc::clone(&ctx.registry), secret);
        let parts = Parts::start(&ctx, listener, Arc::new(inference));
        Ok((ctx, parts))
    }
}

/// The tasks that a worker consists of, beside its runs.
pub(crate) struct Parts {
    /// Begin new work; end with [`Context::shutdown`].
    pub(crate) intake: JoinSet<&'static str>,
    /// Keep alive what runs; end with `closing`.
    pub(crate) upkeep: JoinSet<&'static str>,
    pub(crate) closing: CancellationToken,
}

impl Parts {
    fn start(ctx: &Arc<Context>, listener: TcpListener, inference: Arc<Inference>) -> Self {
        let closing = CancellationToken::new();
        let mut intake = JoinSet::new();
        intake.spawn(named("claim loop", claims::run(Arc::clone(ctx))));
        let reaper = ctx.store.reaper(ctx.config.lease, ctx.shutdown.clone());
        intake.spawn(named("reaper", reaper));
        intake.spawn(named("sweep", sweep::run(Arc::clone(ctx))));
        intake.spawn(named("autoscaler", scaling::run(Arc::clone(ctx))));
        let mut upkeep = JoinSet::new();
        let keeper = leases::keep(Arc::clone(ctx), closing.clone());
        upkeep.spawn(named("lease keeper", keeper));
        let reconciler = replicas::run(Arc::clone(ctx), closing.clone());
        upkeep.spawn(named("reconciler", reconciler));
        let serve = server::run(listener, inference, closing.clone());
        upkeep.spawn(named("inference server", async {
            if let Err(e) = serve.await {
                tracing::error!(error = %e, "inference server failed");
            }
        }));
        Self {
            intake,
            upkeep,
            closing,
        }
    }

    /// Waits until a part ends, which none should before it is asked to.
    async fn failed(&mut self) -> WorkerError {
        let ended = tokio::select! {
            Some(ended) = self.intake.join_next() => ended,
            Some(ended) = self.upkeep.join_next() => ended,
            else => Ok("parts"),
        };
        match ended {
            Ok(task) => WorkerError::Ended {
                task,
                cause: "it returned".to_owned(),
            },
            // Which one panicked shows in the panic's message.
            Err(e) => WorkerError::Ended {
                task: "part",
                cause: e.to_string(),
            },
        }
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
