//! The orderly end of a worker: what it holds goes to others, and nobody waits for a lease.

use std::{sync::Arc, time::Duration};

use nereid_core::workers::WorkerStatus;
use nereid_store::PageRequest;
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    attempt::Order,
    worker::{Context, Parts},
};

/// Longest wait for one write of the shutdown.
const LAST_WRITE: Duration = Duration::from_secs(1);
/// Longest wait for the parts of a worker to end once nothing is left to do.
const LAST_STEPS: Duration = Duration::from_millis(500);

/// Comes to rest: nothing new, jobs handed back, replicas out of service, leave taken.
pub(crate) async fn drain(ctx: &Arc<Context>, mut parts: Parts) {
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
        while let Ok(Some(_)) = timeout_at(abandon_at, parts.intake.join_next()).await {}
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
    parts.closing.cancel();
    ctx.end.cancel();
    let last_steps = async { while parts.upkeep.join_next().await.is_some() {} };
    if timeout(LAST_STEPS, last_steps).await.is_err() {
        parts.upkeep.shutdown().await;
    }
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
