//! Keeps the leases of all running attempts: one statement per heartbeat, for all of them.
//!
//! What the control plane wants of an attempt comes back with it. An attempt that is not renewed
//! in time fences itself (see [`Attempt::order`]); this file need not get to run for that.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use nereid_core::{ids::JobId, jobs::Standing};
use nereid_store::{ResourceKind, StoreError, notify::Wake};
use tokio_util::sync::CancellationToken;

use crate::{
    attempt::{Attempt, Order},
    moment::Moment,
    outbox::Status,
    sync::{Backoff, Waker, lock},
    worker::Context,
};

/// Least time between two heartbeats, however many wake-ups come: each report of progress is
/// one, and only a request to stop would be worth an early heartbeat.
const LEAST_GAP: Duration = Duration::from_secs(1);

/// The attempts that run in this process, the newest of each job.
#[derive(Default)]
pub(crate) struct Leases {
    attempts: Mutex<HashMap<JobId, Arc<Attempt>>>,
}

/// Keeps an attempt's lease renewed until dropped, however its run ends.
pub(crate) struct Registration {
    leases: Arc<Leases>,
    attempt: Arc<Attempt>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let fence = self.attempt.fence;
        let mut attempts = lock(&self.leases.attempts);
        if attempts.get(&fence.job).is_some_and(|a| a.fence == fence) {
            attempts.remove(&fence.job);
        }
        drop(attempts);
        // A thread that outlived its run must come to rest too.
        self.attempt.give(Order::Lost);
    }
}

impl Leases {
    pub(crate) fn register(self: &Arc<Self>, attempt: &Arc<Attempt>) -> Registration {
        let earlier = lock(&self.attempts).insert(attempt.fence.job, Arc::clone(attempt));
        // Whoever claims a job anew knows that any earlier claim of it is void.
        if let Some(earlier) = earlier {
            earlier.give(Order::Lost);
        }
        Registration {
            leases: Arc::clone(self),
            attempt: Arc::clone(attempt),
        }
    }

    /// Gives an order to all running attempts.
    pub(crate) fn order_all(&self, order: Order) {
        for attempt in lock(&self.attempts).values() {
            attempt.give(order);
        }
    }

    fn current(&self) -> Vec<Arc<Attempt>> {
        let attempts = lock(&self.attempts);
        let current = attempts.values().filter(|a| !a.is_lost());
        current.cloned().collect()
    }

    fn runs(&self, job: JobId) -> bool {
        lock(&self.attempts).contains_key(&job)
    }
}

/// Sends heartbeats until `stop`.
pub(crate) async fn keep(ctx: Arc<Context>, stop: CancellationToken) {
    let mut waker = Waker::new(&ctx.wakeups);
    // Postgres may be back just before the leases are lost.
    let retries = || Backoff::new(ctx.config.heartbeat / 20, ctx.config.heartbeat / 4);
    let mut backoff = retries();
    loop {
        let pause = if beat(&ctx).await {
            backoff = retries();
            let share = 0.8 + 0.2 * rand::random::<f64>();
            ctx.config.heartbeat.mul_f64(share)
        } else {
            backoff.pause()
        };
        let relevant = |wake: &Wake| matches!(wake, Wake::Job(job) if ctx.leases.runs(*job));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = async {
                tokio::time::sleep(LEAST_GAP.min(ctx.config.heartbeat)).await;
                waker.until(relevant).await;
            } => {}
        }
    }
}

/// Sends one heartbeat and passes on what it brings back; false if it failed.
async fn beat(ctx: &Context) -> bool {
    let attempts = ctx.leases.current();
    let mut beats = Vec::with_capacity(attempts.len());
    let mut carried = Vec::with_capacity(attempts.len());
    for attempt in &attempts {
        // If the reporter is just writing, it writes what is newest.
        let guard = attempt.reporting.try_lock().ok();
        let status = match guard {
            Some(_) => attempt.outbox.take_status(),
            None => Status::default(),
        };
        beats.push(attempt.beat(&status));
        carried.push((guard, status));
    }
    // The lease counts from before the statement, so that the trust ends before the lease does.
    let trusted_until = Moment::now() + ctx.config.trusted_lease();
    let limit = ctx.config.heartbeat.max(Duration::from_secs(1));
    let call = ctx.store.heartbeat(ctx.config.id, ctx.config.lease, &beats);
    let result = tokio::time::timeout(limit, call).await;
    if let Ok(Ok(standings)) = result {
        for attempt in &attempts {
            let standing = standings.get(&attempt.fence.job).copied();
            heed(attempt, standing, trusted_until);
        }
        return true;
    }
    for (attempt, (_guard, status)) in attempts.iter().zip(carried) {
        attempt.outbox.restore_status(status);
    }
    if let Ok(Err(e)) = result {
        recover(ctx, e).await;
    } else {
        tracing::warn!(?limit, "heartbeat took too long");
    }
    false
}

/// Handles a refused heartbeat.
async fn recover(ctx: &Context, error: StoreError) {
    let forgotten = matches!(
        error,
        StoreError::NotFound {
            kind: ResourceKind::Worker,
            ..
        }
    );
    if !forgotten || ctx.shutdown.is_cancelled() {
        tracing::warn!(%error, "heartbeat failed");
        return;
    }
    tracing::warn!("this worker was forgotten and registers again");
    let register = ctx.store.register_worker(&ctx.info);
    match tokio::time::timeout(ctx.config.heartbeat, register).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "registration failed"),
        Err(_) => tracing::warn!("registration took too long"),
    }
}

fn heed(attempt: &Attempt, standing: Option<Standing>, trusted_until: Moment) {
    let job = attempt.fence.job;
    match standing {
        Some(Standing::Current(requested)) => {
            attempt.renewed(trusted_until);
            let order = requested.map_or(Order::Continue, Order::from);
            if attempt.order() < order {
                tracing::info!(%job, ?requested, "a client asks");
            }
            attempt.give(order);
        }
        // Its lease was locked for the moment: it goes on for as long as its last renewal allows.
        None => tracing::debug!(%job, "lease not renewed this time"),
        // It may just have ended by itself, so this is no warning.
        Some(Standing::Lost) => {
            tracing::info!(%job, "attempt is no longer current");
            attempt.give(Order::Lost);
        }
    }
}
