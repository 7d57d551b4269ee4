//! `nereid worker`: trains, optimises and serves; any number, on any machine.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use nereid_core::{
    clock::SystemClock,
    ids::WorkerId,
    workers::{DeviceKind, WorkerStatus},
};
use nereid_store::{Store, workers::session_name};
use nereid_worker::{Worker, WorkerConfig};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{api::run_until_stopped, host_name};
use crate::{cli::WorkerArgs, config::Config, shutdown::Signals};

/// Time between two looks at whether a worker that is to end by itself has been drained.
const DRAINED_LOOK: Duration = Duration::from_secs(1);

/// Runs until a signal comes.
pub async fn run(config: &Config, args: &WorkerArgs) -> anyhow::Result<()> {
    let signals = Signals::listen()?;
    let mut settings = settings(config);
    let store = super::connect_store(config, &session_name(settings.id)).await?;
    store.check_schema().await?;
    let objects = super::connect_objects(config).await?;
    let shutdown = CancellationToken::new();
    let (wakeups, listening) = super::Listening::start(&store);
    settings.slots = args.slots.unwrap_or(settings.slots);
    settings.device = args.device.unwrap_or(settings.device);
    check_device(settings.device)?;
    settings.labels.extend(args.labels.iter().cloned());
    let id = settings.id;
    let (engine, clock) = (super::trainer::engine(config)?, Arc::new(SystemClock));
    let worker = Worker::new(settings, store.clone(), objects, engine, wakeups, clock);
    let mut ready = worker.ready();
    let mut tasks = JoinSet::new();
    let token = shutdown.clone();
    tasks.spawn(async move { Ok(worker.run(token).await?) });
    let token = shutdown.clone();
    tasks.spawn(async move {
        signals.cancel(token).await;
        Ok(())
    });
    let token = shutdown.clone();
    tasks.spawn(async move {
        if ready.wait_for(|ready| *ready).await.is_ok() {
            println!("worker {id} takes jobs");
        }
        token.cancelled().await;
        Ok(())
    });
    if args.exit_when_drained {
        let (token, store) = (shutdown.clone(), store.clone());
        tasks.spawn(async move {
            if token
                .run_until_cancelled(drained(&store, id))
                .await
                .is_some()
            {
                tracing::info!(worker = %id, "drained and done, so this worker ends");
                token.cancel();
            }
            Ok(())
        });
    }
    let result = run_until_stopped(tasks, &shutdown, super::stop_within(config)).await;
    listening.stop().await;
    super::close(&store).await;
    result
}

/// Waits until somebody has drained worker `id` and its last job has ended.
async fn drained(store: &Store, id: WorkerId) {
    loop {
        tokio::time::sleep(DRAINED_LOOK).await;
        match store.worker(id).await {
            Ok(w) if w.status == WorkerStatus::Draining && w.running == 0 => return,
            Ok(_) => {}
            Err(e) => tracing::debug!(error = %e, "cannot look whether this worker is drained"),
        }
    }
}

/// Refuses to start on a device that this build or this machine lacks: each job would fail there.
pub fn check_device(device: DeviceKind) -> anyhow::Result<()> {
    nereid_engine::check_device(device).with_context(|| format!("cannot work on device {device}"))
}

/// A worker's settings by the configuration.
pub fn settings(config: &Config) -> WorkerConfig {
    let from = &config.worker;
    let mut settings = WorkerConfig::new(host_name(), &from.data_dir);
    settings.device = from.device;
    settings.labels.clone_from(&from.labels);
    settings.slots = from.slots;
    settings.lease = from.lease;
    settings.heartbeat = from.heartbeat;
    settings.drain_timeout = from.drain_timeout;
    settings.storage_patience = from.storage_patience;
    settings.sweep_interval = from.sweep_interval;
    settings.checkpoint_retention = from.checkpoint_retention;
    settings.data.memory = from.data_memory.as_u64();
    settings.data.cache_limit = from.data_cache_limit.as_u64();
    settings.data.loader_threads = from.loader_threads;
    settings.inference_addr = from.listen;
    settings.advertise_url.clone_from(&from.advertise_url);
    settings
}
