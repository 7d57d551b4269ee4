//! Brings what this process holds in line with what the store assigns to it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use nereid_core::{
    endpoints::{Assignment, ReplicaStatus},
    ids::ReplicaId,
    jobs::TerminationReason,
};
use nereid_store::{StoreError, notify::Wake};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{join_reason, load::Models};
use crate::{
    attempt::LONGEST_CALL,
    error::RunError,
    sync::{Backoff, Waker, jittered},
    threads::on_thread,
    worker::Context,
};

/// Longest time between two looks at the assignments.
const LOOK: Duration = Duration::from_secs(3);
/// How long a drained replica still answers gateways that have not heard of it.
const LINGER: Duration = Duration::from_secs(1);
/// Longest wait for requests that a drained replica is answering.
const LAST_REQUESTS: Duration = Duration::from_secs(30);
/// Tries to load a replica while storage fails.
const TRIES: u32 = 5;

/// What is being done for a replica.
struct Task {
    draining: bool,
    cancel: CancellationToken,
    id: tokio::task::Id,
}

struct Reconciler {
    ctx: Arc<Context>,
    models: Arc<Models>,
    running: JoinSet<()>,
    tasks: HashMap<ReplicaId, Task>,
}

/// Reconciles until `stop`.
pub(crate) async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    let mut waker = Waker::new(&ctx.wakeups);
    let mut reconciler = Reconciler {
        ctx,
        models: Arc::default(),
        running: JoinSet::new(),
        tasks: HashMap::new(),
    };
    loop {
        match tokio::time::timeout(LONGEST_CALL, reconciler.look()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!(error = %e, "cannot look up the assigned replicas"),
            Err(_) => tracing::warn!("looking up the assigned replicas took too long"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = waker.until(|wake| *wake == Wake::Endpoints) => {}
            () = tokio::time::sleep(jittered(LOOK)) => {}
            Some(ended) = reconciler.running.join_next_with_id() => reconciler.ended(ended),
        }
    }
}

impl Reconciler {
    /// Compares what is assigned with what is held, and starts what is missing.
    async fn look(&mut self) -> Result<(), StoreError> {
        let assigned = self.ctx.store.reconcile(self.ctx.config.id).await?;
        let known: HashSet<_> = assigned.iter().map(|a| a.replica).collect();
        for assignment in assigned {
            self.attend(assignment);
        }
        let held = self.ctx.registry.ids().into_iter();
        let loading = self.tasks.keys().copied();
        let orphans: Vec<_> = held.chain(loading).filter(|r| !known.contains(r)).collect();
        for replica in orphans {
            // Its endpoint was deleted, or this worker was thought dead.
            self.drain(replica);
        }
        Ok(())
    }

    fn attend(&mut self, assignment: Assignment) {
        let replica = assignment.replica;
        match assignment.status {
            ReplicaStatus::Loading | ReplicaStatus::Ready => {
                let held = self.ctx.registry.contains(replica);
                let done = held && assignment.status == ReplicaStatus::Ready;
                if !done && !self.tasks.contains_key(&replica) {
                    self.load(assignment);
                }
            }
            ReplicaStatus::Draining => self.drain(replica),
            ReplicaStatus::Failed => {}
        }
    }

    fn load(&mut self, assignment: Assignment) {
        let replica = assignment.replica;
        let (ctx, models) = (Arc::clone(&self.ctx), Arc::clone(&self.models));
        self.begin(replica, false, async move {
            bring_up(&ctx, &models, &assignment).await;
        });
    }

    /// Takes a replica out of service; what is just loading it is cancelled.
    fn drain(&mut self, replica: ReplicaId) {
        if let Some(task) = self.tasks.get(&replica) {
            if !task.draining {
                // Drained at the next look, once its loading has ended.
                task.cancel.cancel();
            }
            return;
        }
        let ctx = Arc::clone(&self.ctx);
        self.begin(replica, true, async move {
            take_down(&ctx, replica).await;
        });
    }

    fn begin(
        &mut self,
        replica: ReplicaId,
        draining: bool,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let cancel = CancellationToken::new();
        let cancelled = cancel.clone();
        let task = self.running.spawn(async move {
            cancelled.run_until_cancelled(work).await;
        });
        let task = Task {
            draining,
            cancel,
            id: task.id(),
        };
        self.tasks.insert(replica, task);
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(e) => {
                // The next look begins anew what is still missing.
                tracing::error!(error = %e, "a replica's task ended badly");
                e.id()
            }
        };
        self.tasks.retain(|_, task| task.id != id);
    }
}

/// Loads a replica, lets it answer and says so.
async fn bring_up(ctx: &Context, models: &Models, assignment: &Assignment) {
    let replica = assignment.replica;
    let started = Instant::now();
    match load(ctx, models, assignment).await {
        Ok(()) => {
            let took = started.elapsed();
            tracing::info!(%replica, version = %assignment.version, ?took, "replica loaded");
            say(ctx, replica, ReplicaStatus::Ready, None).await;
        }
        Err(e) => {
            tracing::error!(%replica, version = %assignment.version, error = %e, "replica failed");
            let error = join_reason(&e);
            say(ctx, replica, ReplicaStatus::Failed, Some(&error)).await;
        }
    }
}

async fn load(ctx: &Context, models: &Models, assignment: &Assignment) -> Result<(), RunError> {
    if ctx.registry.contains(assignment.replica) {
        return Ok(());
    }
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut tries = 1;
    loop {
        match models.load(ctx, &assignment.artifact).await {
            Ok((model, fresh)) => {
                let batcher = ctx.registry.batcher(model, &assignment.settings);
                let warm_up = move || batcher.warm_up(fresh).map(|()| batcher);
                let batcher = on_thread("warm-up", "warm-up thread", warm_up).await??;
                ctx.registry.insert(assignment.replica, batcher);
                return Ok(());
            }
            Err(e) if tries < TRIES && e.reason() == Some(TerminationReason::Unavailable) => {
                tracing::warn!(replica = %assignment.replica, error = %e, "loading is tried again");
                tries += 1;
                tokio::time::sleep(backoff.pause()).await;
            }
            Err(e) => return Err(e),
        }
    }
}

/// Records where a replica stands; what cannot be recorded now is said again at a later look.
async fn say(ctx: &Context, replica: ReplicaId, status: ReplicaStatus, error: Option<&str>) {
    let worker = ctx.config.id;
    let call = ctx.store.set_replica_status(replica, worker, status, error);
    match call.await {
        Ok(()) => {}
        Err(StoreError::NotFound { .. } | StoreError::Conflict { .. }) => {
            tracing::info!(%replica, "replica is no longer wanted");
            ctx.registry.remove(replica);
        }
        Err(e) => tracing::warn!(%replica, error = %e, "cannot record where a replica stands"),
    }
}

/// Lets a replica finish what it is answering, then unloads it.
async fn take_down(ctx: &Context, replica: ReplicaId) {
    if ctx.registry.contains(replica) {
        tokio::time::sleep(LINGER).await;
        let last = async {
            while ctx.registry.is_busy(replica) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(LAST_REQUESTS, last).await.is_err() {
            tracing::warn!(%replica, "replica is unloaded while it answers");
        }
        ctx.registry.remove(replica);
        tracing::info!(%replica, "replica unloaded");
    }
    match ctx.store.remove_replica(replica, ctx.config.id).await {
        Ok(()) => {}
        // It is still assigned as draining, so the next look begins anew.
        Err(e) => tracing::warn!(%replica, error = %e, "cannot record that a replica is gone"),
    }
}
