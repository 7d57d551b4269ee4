//! `nereid pool`: keeps as many workers as the queue needs, through a capacity provider.
//!
//! The number is chosen by the same controller that scales endpoints: target tracking on the jobs
//! for each slot. Before a worker is taken away it is drained, which lets its jobs end.

mod kubernetes;
mod local;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, ensure};
use nereid_core::{
    autoscaling::{Autoscaling, Memory, Observation, ScalingMetric, decide},
    clock::{Clock, SystemClock},
    ids::WorkerId,
    workers::WorkerStatus,
};
use nereid_store::{
    Store,
    notify::{Wake, Wakeups},
    workers::{PoolLoad, PoolMember},
};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{PoolArgs, Provider},
    config::Config,
    shutdown::Signals,
};

/// Label by which a pool knows its workers.
pub const LABEL: &str = "nereid.pool";
/// Time between two looks while no wake-up comes.
const LOOK: Duration = Duration::from_secs(2);
/// Least time between two looks.
const LEAST_LOOK: Duration = Duration::from_millis(200);

/// Brings machines or processes for workers, and takes them away.
enum Capacity {
    Local(local::Processes),
    Kubernetes(Box<kubernetes::Deployment>),
}

impl Capacity {
    /// Number of workers that were asked for and are there, or on their way.
    async fn current(&mut self, load: &PoolLoad) -> anyhow::Result<u32> {
        match self {
            Self::Local(processes) => Ok(processes.current(load)),
            Self::Kubernetes(deployment) => deployment.replicas().await,
        }
    }

    async fn grow(&mut self, to: u32, by: u32) -> anyhow::Result<()> {
        match self {
            Self::Local(processes) => processes.start(by),
            Self::Kubernetes(deployment) => deployment.scale(to).await,
        }
    }

    /// Takes workers away that have nothing left to do.
    async fn remove(&mut self, to: u32, drained: &[PoolMember]) -> anyhow::Result<()> {
        match self {
            // A drained worker of a pool ends by itself.
            Self::Local(_) => Ok(()),
            Self::Kubernetes(deployment) => deployment.remove(to, drained).await,
        }
    }
}

/// Runs until a signal comes; the workers stay, and the next start finds them.
pub async fn run(config: &Config, args: &PoolArgs) -> anyhow::Result<()> {
    let policy = policy(args)?;
    let signals = Signals::listen()?;
    let store = super::connect_store(config, &format!("nereid pool {}", args.name)).await?;
    store.check_schema().await?;
    let mut labels = BTreeMap::from([(LABEL.to_owned(), args.name.to_string())]);
    labels.extend(args.labels.iter().cloned());
    let capacity = match args.provider {
        Provider::Local => Capacity::Local(local::Processes::new(args, &labels)?),
        Provider::Kubernetes => {
            let deployment = kubernetes::Deployment::connect(args).await?;
            Capacity::Kubernetes(Box::new(deployment))
        }
    };
    let shutdown = CancellationToken::new();
    let (wakeups, listening) = super::Listening::start(&store);
    let mut pool = Pool {
        store: store.clone(),
        args: args.clone(),
        labels,
        policy,
        memory: Memory::default(),
        capacity,
    };
    println!("pool {} watches the queue", args.name);
    tokio::select! {
        () = pool.keep(&wakeups) => {}
        () = signals.cancel(shutdown) => {}
    }
    listening.stop().await;
    super::close(&store).await;
    Ok(())
}

fn policy(args: &PoolArgs) -> anyhow::Result<Autoscaling> {
    ensure!(
        args.min <= args.max,
        "--min {} is above --max {}",
        args.min,
        args.max
    );
    Ok(Autoscaling {
        min_capacity: args.min,
        max_capacity: args.max,
        metric: ScalingMetric::Concurrency,
        target_value: f64::from(args.slots),
        scale_out_cooldown: args.scale_out_cooldown,
        scale_in_cooldown: args.scale_in_cooldown,
        disable_scale_in: false,
        schedules: Vec::new(),
    })
}

struct Pool {
    store: Store,
    args: PoolArgs,
    labels: BTreeMap<String, String>,
    policy: Autoscaling,
    memory: Memory,
    capacity: Capacity,
}

impl Pool {
    async fn keep(&mut self, wakeups: &Wakeups) {
        let mut wakes = wakeups.subscribe();
        loop {
            if let Err(e) = self.look().await {
                tracing::warn!(error = format!("{e:#}"), "the pool cannot be looked after");
            }
            // Many jobs at once make for one look.
            tokio::time::sleep(LEAST_LOOK).await;
            let woken = async {
                loop {
                    match wakes.recv().await {
                        Ok(Wake::Queue | Wake::Resync) | Err(RecvError::Lagged(_)) => return,
                        Ok(_) => {}
                        // No more wake-ups will come; the slow look goes on.
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        let load = self.store.pool_load(self.args.device, &self.labels).await?;
        self.memory.desired = self.capacity.current(&load).await?;
        let draining: Vec<_> = load.members.iter().filter(|m| is_draining(m)).collect();
        self.memory.desired -= self.memory.desired.min(count(draining.len()));
        let decision = decide(
            &self.policy,
            &mut self.memory,
            observe(&load),
            SystemClock.now(),
        );
        if let Some(decision) = decision {
            let (from, to) = (decision.from, decision.to);
            tracing::info!(pool = %self.args.name, from, to, reason = decision.reason, "pool scales");
            if to > from {
                self.capacity
                    .grow(to + count(draining.len()), to - from)
                    .await?;
            } else {
                self.drain(&load, from - to).await?;
            }
        }
        let done = |m: &&PoolMember| is_draining(m) && m.running == 0 && m.replicas == 0;
        let drained: Vec<_> = load.members.iter().filter(done).cloned().collect();
        if !drained.is_empty() {
            let to = self.memory.desired + count(draining.len() - drained.len());
            self.capacity.remove(to, &drained).await?;
        }
        Ok(())
    }

    /// Has the workers with the least to do take nothing new.
    async fn drain(&self, load: &PoolLoad, surplus: u32) -> anyhow::Result<()> {
        let active = load.members.iter().filter(|m| !is_draining(m));
        for member in active.take(surplus as usize) {
            let id: WorkerId = member.id;
            self.store
                .drain_worker(id)
                .await
                .with_context(|| format!("draining worker {id}"))?;
        }
        Ok(())
    }
}

fn is_draining(member: &PoolMember) -> bool {
    member.status == WorkerStatus::Draining
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Jobs for each worker that takes some.
#[expect(clippy::cast_precision_loss, reason = "numbers of jobs")]
fn observe(load: &PoolLoad) -> Observation {
    let active = load.members.iter().filter(|m| !is_draining(m));
    let (ready, running) = active.fold((0, 0), |(n, running), m| {
        (n + 1, running + u64::from(m.running))
    });
    let jobs = load.queued + running;
    Observation {
        ready,
        value: (jobs > 0 && ready > 0).then(|| jobs as f64 / f64::from(ready)),
        held: load.queued > 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(status: WorkerStatus, running: u32) -> PoolMember {
        PoolMember {
            id: WorkerId::generate(),
            host: "h".to_owned(),
            status,
            running,
            replicas: 0,
        }
    }

    #[test]
    fn jobs_are_counted_for_the_workers_that_take_some() {
        let load = PoolLoad {
            queued: 5,
            members: vec![
                member(WorkerStatus::Active, 1),
                member(WorkerStatus::Active, 2),
                member(WorkerStatus::Draining, 1),
            ],
        };
        let seen = observe(&load);
        assert_eq!((seen.ready, seen.value), (2, Some(4.0)));
        let waiting = PoolLoad {
            queued: 5,
            members: Vec::new(),
        };
        let seen = observe(&waiting);
        assert_eq!((seen.ready, seen.value, seen.held), (0, None, true));
        assert_eq!(observe(&PoolLoad::default()), Observation::default());
    }
}
