//! Writes what a running attempt has to tell: batched, fenced, beside the work itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nereid_core::events::LogLevel;
use nereid_store::{Store, StoreError};
use tokio::time::timeout;
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use crate::{
    attempt::{Attempt, LONGEST_CALL, Order},
    outbox::Batch,
    sync::Backoff,
};

/// Longest time that metrics and log lines wait for others to be written with.
const FLUSH: Duration = Duration::from_millis(200);
/// Time between two writes of progress that nothing else asks for.
const PROGRESS: Duration = Duration::from_secs(1);
/// Longest time that the last flush may take.
const LAST_FLUSH: Duration = Duration::from_secs(10);

/// The reporter of one attempt; dropping it ends it at once.
pub(crate) struct Reporter {
    closing: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// What came of a flush.
#[derive(Debug, PartialEq, Eq)]
enum Flushed {
    /// All is written (or beyond saving).
    Done,
    /// Postgres is away; what is left was put back.
    Later,
    /// The attempt is no longer current.
    Lost,
}

impl Reporter {
    pub(crate) fn start(tracker: &TaskTracker, store: Store, attempt: Arc<Attempt>) -> Self {
        let closing = CancellationToken::new();
        let token = closing.clone();
        let task = tracker.spawn(async move {
            tokio::select! {
                biased;
                // A write that hangs must not keep the slot of an attempt that is lost.
                () = attempt.ordered(Order::Lost) => {}
                () = run(&store, &attempt, token) => {}
            }
        });
        Self {
            closing,
            task: AbortOnDropHandle::new(task),
        }
    }

    /// Writes what is left, as long as the lease holds and it does not take all too long.
    pub(crate) async fn finish(self) {
        self.closing.cancel();
        if timeout(LAST_FLUSH, self.task).await.is_err() {
            tracing::warn!("the last metrics and log lines of an attempt were given up");
        }
    }
}

async fn run(store: &Store, attempt: &Attempt, closing: CancellationToken) {
    let mut backoff = new_backoff();
    let mut progress_at = Instant::now();
    loop {
        tokio::select! {
            () = closing.cancelled() => break,
            () = attempt.outbox.urgent() => {}
            () = tokio::time::sleep(FLUSH) => {}
        }
        let progress_due = progress_at.elapsed() >= PROGRESS;
        match flush(store, attempt, progress_due).await {
            Flushed::Done => {
                backoff = new_backoff();
                if progress_due {
                    progress_at = Instant::now();
                }
            }
            Flushed::Later => {
                let pause = backoff.pause();
                tokio::select! {
                    () = closing.cancelled() => break,
                    () = tokio::time::sleep(pause) => {}
                }
            }
            Flushed::Lost => return,
        }
    }
    backoff = new_backoff();
    while !attempt.outbox.is_empty() && !attempt.is_lost() {
        match flush(store, attempt, true).await {
            Flushed::Done => {}
            Flushed::Later => tokio::time::sleep(backoff.pause()).await,
            Flushed::Lost => return,
        }
    }
}

fn new_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(200), Duration::from_secs(5))
}

/// Writes everything that waits: batch after batch, then phase and, if due, progress.
async fn flush(store: &Store, attempt: &Attempt, progress_due: bool) -> Flushed {
    let dropped = attempt.outbox.take_dropped();
    if dropped > 0 {
        let message =
            format!("{dropped} metric points, reports or log lines came too fast and are lost");
        attempt.log(LogLevel::Warn, message);
    }
    loop {
        if attempt.is_lost() {
            return Flushed::Lost;
        }
        let batch = attempt.outbox.take_batch();
        if batch.is_empty() {
            break;
        }
        match write_batch(store, attempt, batch).await {
            Flushed::Done => {}
            other => return other,
        }
    }
    write_status(store, attempt, progress_due).await
}

async fn write_batch(store: &Store, attempt: &Attempt, mut batch: Batch) -> Flushed {
    if !batch.points.is_empty() {
        let write = store.append_metrics(&attempt.fence, &batch.points);
        match judge(attempt, write, "metric points").await {
            Flushed::Done => {
                attempt.outbox.points_written(batch.points.len());
                batch.points.clear();
            }
            Flushed::Later => {
                attempt.outbox.restore_batch(batch);
                return Flushed::Later;
            }
            Flushed::Lost => return Flushed::Lost,
        }
    }
    if !batch.rules.is_empty() {
        let write = store.append_rules(&attempt.fence, &batch.rules);
        match judge(attempt, write, "reports of rules").await {
            Flushed::Done => {
                attempt.outbox.rules_written(batch.rules.len());
                batch.rules.clear();
            }
            Flushed::Later => {
                attempt.outbox.restore_batch(batch);
                return Flushed::Later;
            }
            Flushed::Lost => return Flushed::Lost,
        }
    }
    if batch.lines.is_empty() {
        return Flushed::Done;
    }
    let write = store.append_logs(&attempt.fence, &batch.lines);
    let flushed = judge(attempt, write, "log lines").await;
    if flushed == Flushed::Later {
        attempt.outbox.restore_batch(batch);
    }
    flushed
}

async fn write_status(store: &Store, attempt: &Attempt, progress_due: bool) -> Flushed {
    if !progress_due && !attempt.outbox.has_phase() {
        return Flushed::Done;
    }
    let _reporting = attempt.reporting.lock().await;
    let status = attempt.outbox.take_status();
    if status.is_empty() {
        return Flushed::Done;
    }
    let beat = attempt.beat(&status);
    let flushed = judge(attempt, store.report(&beat), "progress").await;
    if flushed == Flushed::Later {
        attempt.outbox.restore_status(status);
    }
    flushed
}

/// Decides what becomes of a write: what Postgres refuses for good is not worth a second try.
async fn judge(
    attempt: &Attempt,
    write: impl Future<Output = Result<(), StoreError>>,
    what: &str,
) -> Flushed {
    let job = attempt.fence.job;
    match timeout(LONGEST_CALL, write).await {
        Ok(Ok(())) => Flushed::Done,
        Ok(Err(StoreError::LeaseLost)) => {
            attempt.give(Order::Lost);
            Flushed::Lost
        }
        Ok(Err(e)) if e.is_unavailable() => {
            tracing::warn!(%job, error = %e, "cannot write {what} now");
            Flushed::Later
        }
        Ok(Err(e)) => {
            tracing::error!(%job, error = %e, "{what} are lost");
            Flushed::Done
        }
        Err(_) => {
            tracing::warn!(%job, "writing {what} took too long");
            Flushed::Later
        }
    }
}
