//! Claims jobs: as many as there are free slots, woken by notifications, polling as a safety net.

use std::{sync::Arc, time::Duration};

use nereid_core::jobs::{Claim, JobKind};
use nereid_store::{StoreError, notify::Wake, queue::ClaimRequest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    attempt::{Attempt, Order},
    jobs,
    moment::Moment,
    sync::{Backoff, Waker, jittered},
    worker::Context,
};

/// Most jobs claimed at once: of many short ones, some run and end while the next are claimed.
const BATCH: usize = 512;

/// First pause after a claim that failed.
const RETRY: Duration = Duration::from_millis(100);

/// Claims and starts jobs until shutdown.
pub(crate) async fn run(ctx: Arc<Context>) {
    let slots = Arc::new(Semaphore::new(ctx.config.slots as usize));
    let mut waker = Waker::new(&ctx.wakeups);
    // A restarted Postgres answers again long before the next poll, and says nothing of it.
    let retries = || Backoff::new(RETRY.min(ctx.config.poll), ctx.config.poll);
    let mut backoff = retries();
    loop {
        let free = tokio::select! {
            () = ctx.shutdown.cancelled() => return,
            free = free_slots(&slots) => free,
        };
        if free.is_empty() {
            return;
        }
        // Not raced against the shutdown: a claim whose answer is dropped would be nobody's.
        // But after a whole lease without an answer it is nobody's in any case.
        let claimed = tokio::time::timeout(ctx.config.lease, claim(&ctx, free)).await;
        let pause = match claimed {
            Ok(Ok(jobs)) => {
                backoff = retries();
                // One wake-up may stand for many jobs: on until there are none.
                if jobs > 0 {
                    continue;
                }
                jittered(ctx.config.poll)
            }
            Ok(Err(e)) => {
                tracing::warn!(error = %e, "cannot claim jobs");
                backoff.pause()
            }
            Err(_) => {
                tracing::warn!("a claim took too long");
                backoff.pause()
            }
        };
        tokio::select! {
            () = ctx.shutdown.cancelled() => return,
            () = waker.until(|wake| *wake == Wake::Queue) => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Waits for a free slot and takes all that are free, up to a batch.
async fn free_slots(slots: &Arc<Semaphore>) -> Vec<OwnedSemaphorePermit> {
    // The semaphore is never closed.
    let first = Arc::clone(slots).acquire_owned().await.ok();
    let more = std::iter::from_fn(|| Arc::clone(slots).try_acquire_owned().ok());
    first.into_iter().chain(more).take(BATCH).collect()
}

/// Claims a job for each slot at most and starts what it got; returns how many.
async fn claim(
    ctx: &Arc<Context>,
    mut free: Vec<OwnedSemaphorePermit>,
) -> Result<usize, StoreError> {
    let request = ClaimRequest {
        worker: ctx.config.id,
        device: ctx.config.device,
        limit: u32::try_from(free.len()).unwrap_or(u32::MAX),
        lease: ctx.config.lease,
        kinds: JobKind::ALL.to_vec(),
    };
    let trusted_until = Moment::now() + ctx.config.trusted_lease();
    let claims = ctx.store.claim(&request).await?;
    let count = claims.len();
    for claim in claims {
        let Some(slot) = free.pop() else {
            // Cannot be; its lease would run out and somebody else would take it.
            tracing::error!(job = %claim.fence.job, "claimed more jobs than there are slots");
            break;
        };
        start(ctx, claim, trusted_until, slot);
    }
    Ok(count)
}

fn start(ctx: &Arc<Context>, claim: Claim, trusted_until: Moment, slot: OwnedSemaphorePermit) {
    let clock = Arc::clone(&ctx.clock);
    let attempt = Arc::new(Attempt::new(&claim, trusted_until, clock));
    let registration = ctx.leases.register(&attempt);
    // Asked after the registration: either this sees the shutdown, or the shutdown this attempt.
    if ctx.shutdown.is_cancelled() {
        attempt.give(Order::Drain);
    }
    let run = Box::pin(jobs::run(
        Arc::clone(ctx),
        claim,
        attempt,
        registration,
        slot,
    ));
    let end = ctx.end.clone();
    ctx.runs
        .spawn(async move { end.run_until_cancelled(run).await });
}
