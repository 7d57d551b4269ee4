//! `nereid api`: the REST API and the inference gateway; stateless, any number.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use nereid_api::{ApiConfig, ApiParts, ApiState, AuthMode};
use nereid_core::{clock::SystemClock, engine::LocalReplicas};
use nereid_objects::Objects;
use nereid_store::{Store, notify::Wakeups};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{cli::ApiArgs, config::Config, shutdown::Signals};

/// Runs until a signal comes.
pub async fn run(config: &Config, args: &ApiArgs) -> anyhow::Result<()> {
    let signals = Signals::listen()?;
    let listen = args.listen.unwrap_or(config.api.listen);
    let listener = bind(listen).await?;
    let grpc = bind_grpc(config, listen, args.grpc_port).await?;
    let store = super::connect_store(config, "nereid api").await?;
    store.check_schema().await?;
    if !store.has_keys().await? {
        bail!(
            "refusing to start without authentication: make a key first with `nereid key create --role admin`"
        );
    }
    let objects = super::connect_objects(config).await?;
    let shutdown = CancellationToken::new();
    let (wakeups, listening) = super::Listening::start(&store);
    let mut tasks = JoinSet::new();
    let address = listener.local_addr()?;
    let grpc_address = grpc.as_ref().map(TcpListener::local_addr).transpose()?;
    let local = None;
    let parts = Parts {
        store: store.clone(),
        objects,
        wakeups,
        local,
        auth: AuthMode::Keys,
    };
    let listeners = Listeners {
        rest: listener,
        grpc,
    };
    spawn(parts, listeners, &shutdown, &mut tasks).await?;
    // Jobs of dead workers are queued again even while no other worker is there to notice.
    let reaper = store.reaper(config.worker.lease, shutdown.clone());
    tasks.spawn(async move {
        reaper.await;
        Ok(())
    });
    println!("  API        http://{address}");
    if let Some(grpc) = grpc_address {
        println!("  gRPC       {grpc}");
    }
    tasks.spawn({
        let shutdown = shutdown.clone();
        async move {
            signals.cancel(shutdown).await;
            Ok(())
        }
    });
    let result = run_until_stopped(tasks, &shutdown, super::stop_within(config)).await;
    listening.stop().await;
    super::close(&store).await;
    result
}

/// What differs between `api` and `dev`.
pub struct Parts {
    pub store: Store,
    pub objects: Objects,
    pub wakeups: Wakeups,
    pub local: Option<Arc<dyn LocalReplicas>>,
    pub auth: AuthMode,
}

/// Binds a listener; a busy port is named.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; if it is in use, choose another port (0 picks one)")
    })
}

/// Binds the listener of gRPC beside that of REST, unless the configuration has it off.
///
/// Where REST takes any free port, so does gRPC unless told otherwise: several processes may run.
pub async fn bind_grpc(
    config: &Config,
    rest: SocketAddr,
    port: Option<u16>,
) -> anyhow::Result<Option<TcpListener>> {
    // Whoever names a port wants it.
    if !config.api.grpc && port.is_none() {
        return Ok(None);
    }
    let usual = if rest.port() == 0 {
        0
    } else {
        config.api.grpc_port
    };
    let listener = bind(SocketAddr::new(rest.ip(), port.unwrap_or(usual))).await;
    listener
        .context("gRPC (--grpc-port, api.grpc_port)")
        .map(Some)
}

/// Where the API is reached.
pub struct Listeners {
    pub rest: TcpListener,
    pub grpc: Option<TcpListener>,
}

/// Starts the API's tasks.
pub async fn spawn(
    parts: Parts,
    listeners: Listeners,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let state = ApiState::new(ApiParts {
        cluster_secret: parts.store.cluster_secret().await?,
        store: parts.store,
        objects: parts.objects,
        inspector: nereid_engine::engine().inspector,
        images: nereid_engine::image_decoder(),
        wakeups: parts.wakeups,
        local: parts.local,
        clock: Arc::new(SystemClock),
        shutdown: shutdown.clone(),
        config: ApiConfig::new(parts.auth),
    })?;
    let gateway = state.gateway.clone();
    let token = shutdown.clone();
    tasks.spawn(async move {
        gateway.run(token).await;
        Ok(())
    });
    let Listeners { rest, grpc } = listeners;
    if let Some(grpc) = grpc {
        let (state, token) = (state.clone(), shutdown.clone());
        tasks.spawn(async move { Ok(nereid_api::grpc::serve(grpc, state, token).await?) });
    }
    let router = nereid_api::router(state);
    let token = shutdown.clone();
    tasks.spawn(async move { Ok(nereid_api::serve(rest, router, token).await?) });
    Ok(())
}

/// Waits for all tasks; the first one that ends, however it does, ends the others.
pub async fn run_until_stopped(
    mut tasks: JoinSet<anyhow::Result<()>>,
    shutdown: &CancellationToken,
    within: Duration,
) -> anyhow::Result<()> {
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        shutdown.cancel();
        let ended = ended.context("a task panicked").and_then(|r| r);
        if result.is_ok() {
            result = ended;
        }
        let drained = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(within, drained).await.is_err() {
            tracing::warn!("not everything ended in time; leaving it behind");
            tasks.abort_all();
        }
    }
    result
}
