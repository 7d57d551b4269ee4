//! Runs one claimed job from its first phase to the write that ends the attempt.

use std::{pin::Pin, sync::Arc, time::Duration};

use nereid_core::{
    events::LogLevel,
    jobs::{Claim, JobKind, JobResult, JobSpec, TerminationReason, retry_delay},
};
use nereid_store::queue::{AttemptEnd, NewModelVersion};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    attempt::{Attempt, Order},
    batch_predict, checkpoints, deploy,
    error::RunError,
    leases::Registration,
    noop,
    outbox::shorten,
    reporter::Reporter,
    train,
    worker::Context,
};

/// Longest error message kept, in bytes.
const MAX_ERROR: usize = 4 << 10;

/// What a successful run made, complete but for the write that ends the attempt.
enum Made {
    Version(Box<NewModelVersion>),
    Result(JobResult),
}

/// Runs a claimed job and ends its attempt; slot and lease are given back however it goes.
pub(crate) async fn run(
    ctx: Arc<Context>,
    claim: Claim,
    attempt: Arc<Attempt>,
    registration: Registration,
    slot: OwnedSemaphorePermit,
) {
    let (job, kind) = (claim.fence.job, claim.spec.kind());
    tracing::info!(%job, %kind, epoch = claim.fence.epoch, "job started");
    ctx.tally.send_modify(|t| t.started += 1);
    let made = work(&ctx, &attempt, &claim).await;
    let ended = match made {
        Ok(made) => end_well(&ctx, &attempt, made).await,
        Err(e) => Err(e),
    };
    match ended {
        Ok(()) => {
            tracing::info!(%job, %kind, "job succeeded");
            drop((registration, slot));
            if kind == JobKind::Train {
                checkpoints::forget(&ctx, &claim).await;
            }
        }
        Err(e) => {
            end_badly(&ctx, &attempt, &claim, &e).await;
            drop((registration, slot));
        }
    }
    ctx.tally.send_modify(|t| t.ended += 1);
}

/// Does what the job asks for; boxed, because the futures of all its steps are large.
async fn work(ctx: &Arc<Context>, attempt: &Arc<Attempt>, claim: &Claim) -> Result<Made, RunError> {
    match &claim.spec {
        JobSpec::Train(spec) => {
            let run = Box::pin(train::run(ctx, attempt, claim, spec));
            let version = reported(ctx, attempt, run).await?;
            Ok(Made::Version(Box::new(version)))
        }
        JobSpec::Deploy(spec) => {
            let run = Box::pin(deploy::run(ctx, attempt, claim, spec));
            Ok(Made::Result(reported(ctx, attempt, run).await?))
        }
        JobSpec::BatchPredict(spec) => {
            let run = Box::pin(batch_predict::run(ctx, attempt, claim, spec));
            Ok(Made::Result(reported(ctx, attempt, run).await?))
        }
        JobSpec::Noop(spec) => Ok(Made::Result(noop::run(attempt, *spec).await?)),
    }
}

/// Does work while a reporter writes what there is to tell about it.
async fn reported<T>(
    ctx: &Context,
    attempt: &Arc<Attempt>,
    work: Pin<Box<impl Future<Output = Result<T, RunError>>>>,
) -> Result<T, RunError> {
    let reporter = Reporter::start(&ctx.runs, ctx.store.clone(), Arc::clone(attempt));
    let made = tokio::select! {
        made = work => made,
        // Drained, and not done in time: what still runs is left to itself.
        () = ctx.abandon.cancelled() => Err(RunError::Halted),
    };
    if let Err(e) = &made
        && e.reason().is_some()
    {
        let message = format!("the attempt failed: {}", e.describe());
        attempt.log(LogLevel::Error, message);
    }
    // After its end an attempt can write nothing more.
    reporter.finish().await;
    made
}

async fn end_well(ctx: &Context, attempt: &Attempt, made: Made) -> Result<(), RunError> {
    let fence = &attempt.fence;
    // Once begun it is not broken off: nobody could tell whether it was committed.
    if attempt.order() >= Order::Expire {
        return Err(RunError::Halted);
    }
    match made {
        Made::Version(version) => {
            let published = attempt
                .insist(|| ctx.store.publish_version(fence, &version))
                .await?;
            let (model, version) = (&version.manifest.model, published.version);
            tracing::info!(job = %fence.job, %model, version, "version published");
        }
        Made::Result(result) => {
            attempt
                .insist(|| ctx.store.complete(fence, &result))
                .await?;
        }
    }
    Ok(())
}

/// Ends an attempt that did not succeed; one that is no longer current is left alone.
async fn end_badly(ctx: &Context, attempt: &Attempt, claim: &Claim, error: &RunError) {
    let job = claim.fence.job;
    let Some(end) = describe_end(attempt.order(), claim, error) else {
        tracing::info!(%job, "attempt was lost; nothing more is written");
        return;
    };
    if end.reason == TerminationReason::Internal {
        tracing::error!(%job, reason = %end.reason, error = ?error, "attempt failed");
    } else {
        tracing::info!(%job, reason = %end.reason, %error, "attempt ended");
    }
    match attempt
        .insist(|| ctx.store.end_attempt(&claim.fence, &end))
        .await
    {
        Ok(status) => {
            tracing::info!(%job, %status, "job left");
        }
        Err(RunError::Halted) => tracing::info!(%job, "attempt was lost before its end"),
        Err(e) => tracing::error!(%job, error = ?e, "the end of an attempt is not recorded"),
    }
}

/// How to record the end; none if nothing may be recorded.
fn describe_end(order: Order, claim: &Claim, error: &RunError) -> Option<AttemptEnd> {
    let (reason, mut message) = match (order, error.reason()) {
        (Order::Lost, _) => return None,
        (_, Some(reason)) => (reason, error.describe()),
        (order, None) => {
            let (reason, message) = halted_by(order);
            (reason, message.to_owned())
        }
    };
    shorten(&mut message, MAX_ERROR);
    let retry_delay = match reason {
        // The job is not to blame, so it need not wait.
        TerminationReason::WorkerDrained => Duration::ZERO,
        _ => Duration::from_secs_f64(retry_delay(claim.attempts + 1, rand::random())),
    };
    Some(AttemptEnd {
        reason,
        message,
        retry_delay,
    })
}

/// Why an attempt ended that did as it was ordered.
const fn halted_by(order: Order) -> (TerminationReason, &'static str) {
    match order {
        Order::Continue | Order::Finish => (
            TerminationReason::Internal,
            "it stopped without being asked to",
        ),
        Order::Pause => (TerminationReason::Paused, "paused as a client asked"),
        Order::Drain => (
            TerminationReason::WorkerDrained,
            "the worker shuts down; another one goes on",
        ),
        Order::Expire => (
            TerminationReason::MaxRuntimeExceeded,
            "the job ran for as long as max_runtime_seconds allows",
        ),
        Order::Cancel => (TerminationReason::Cancelled, "cancelled as a client asked"),
        Order::Lost => (TerminationReason::LeaseLost, "the lease was lost"),
    }
}

#[cfg(test)]
mod tests {
    use nereid_core::engine::EngineError;

    use super::*;
    use crate::attempt::tests::claim;

    fn reason(order: Order, error: &RunError) -> Option<TerminationReason> {
        describe_end(order, &claim(), error).map(|end| end.reason)
    }

    #[test]
    fn who_asked_decides_why_an_attempt_was_halted() {
        use TerminationReason::{Cancelled, Internal, MaxRuntimeExceeded, Paused, WorkerDrained};
        let stopped = RunError::Engine(EngineError::Stopped);
        for error in [RunError::Halted, stopped] {
            assert_eq!(reason(Order::Pause, &error), Some(Paused));
            assert_eq!(reason(Order::Drain, &error), Some(WorkerDrained));
            assert_eq!(reason(Order::Expire, &error), Some(MaxRuntimeExceeded));
            assert_eq!(reason(Order::Cancel, &error), Some(Cancelled));
            assert_eq!(reason(Order::Lost, &error), None);
            // A job that nobody stopped must not be tried again for ever.
            assert_eq!(reason(Order::Continue, &error), Some(Internal));
        }
    }

    #[test]
    fn a_lost_attempt_records_not_even_an_error() {
        let error = RunError::Internal("broken".to_owned());
        assert_eq!(reason(Order::Lost, &error), None);
        let internal = Some(TerminationReason::Internal);
        assert_eq!(reason(Order::Continue, &error), internal);
        assert_eq!(reason(Order::Drain, &error), internal);
    }

    #[test]
    fn a_drained_job_need_not_wait() {
        let end = describe_end(Order::Drain, &claim(), &RunError::Halted).unwrap();
        assert_eq!(end.retry_delay, Duration::ZERO);
        assert!(!end.reason.uses_up_attempt());
    }
}
