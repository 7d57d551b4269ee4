//! One claim of a job in this process: its fence, how long it may trust its lease, its orders.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use nereid_core::{
    clock::Clock,
    events::{LogLevel, NewLogLine},
    jobs::{Claim, Directive, Fence, JobRequest},
};
use nereid_store::{StoreError, queue::Beat};
use tokio::{sync::watch, time::timeout};

use crate::{
    error::RunError,
    moment::Moment,
    outbox::{Outbox, Status},
    sync::{Backoff, lock},
};

/// Longest wait for an answer of the store: the connection is dead, though nobody said so.
pub(crate) const LONGEST_CALL: Duration = Duration::from_secs(30);
/// Code of the conflict by which the store refuses the result of a cancelled job.
const CANCELLED: &str = "cancel_requested";

/// What a running attempt is asked to do; it only ever gets more urgent.
///
/// What becomes of the job is not decided here but by the store, which knows what a client asked
/// last: an attempt that suspends its work is right under every order above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// Go on.
    Continue,
    /// End the training here and publish it: a client asked.
    Finish,
    /// Save the state and give the slot back: a client asked.
    Pause,
    /// Save the state and hand the job back: this worker shuts down, another one goes on.
    Drain,
    /// End: the job has used up its running time.
    Expire,
    /// End: a client asked.
    Cancel,
    /// The attempt is no longer current: stop at once and write nothing.
    Lost,
}

impl From<JobRequest> for Order {
    fn from(request: JobRequest) -> Self {
        match request {
            JobRequest::Pause => Self::Pause,
            JobRequest::Stop => Self::Finish,
            JobRequest::Cancel => Self::Cancel,
        }
    }
}

/// A running attempt, shared by its run, its training thread, its reporter and the lease keeper.
pub(crate) struct Attempt {
    pub(crate) fence: Fence,
    pub(crate) outbox: Outbox,
    /// Held while phase and progress are written, so that an older one never lands on a newer.
    pub(crate) reporting: tokio::sync::Mutex<()>,
    order: watch::Sender<Order>,
    trusted_until: Mutex<Moment>,
    /// End of the running time that the job has left.
    runs_until: Option<Moment>,
    clock: Arc<dyn Clock>,
}

impl Attempt {
    pub(crate) fn new(claim: &Claim, trusted_until: Moment, clock: Arc<dyn Clock>) -> Self {
        let order = claim.requested.map_or(Order::Continue, Order::from);
        Self {
            fence: claim.fence,
            outbox: Outbox::default(),
            reporting: tokio::sync::Mutex::default(),
            order: watch::Sender::new(order),
            trusted_until: Mutex::new(trusted_until),
            runs_until: claim.runtime_left.map(|left| Moment::now() + left),
            clock,
        }
    }

    /// Makes the order at least as urgent as `order`.
    pub(crate) fn give(&self, order: Order) {
        self.order.send_if_modified(|current| {
            let more_urgent = order > *current;
            *current = order.max(*current);
            more_urgent
        });
    }

    /// What the attempt is to do now; [`Order::Lost`] as soon as its lease cannot be trusted.
    ///
    /// It reads the clock itself, so that a thread learns of a lost lease even if the whole
    /// runtime hangs and nobody could tell it.
    pub(crate) fn order(&self) -> Order {
        let order = *self.order.borrow();
        if order == Order::Lost {
            return order;
        }
        let now = Moment::now();
        let due = if now >= *lock(&self.trusted_until) {
            Order::Lost
        } else if self.runs_until.is_some_and(|end| now >= end) {
            Order::Expire
        } else {
            return order;
        };
        self.give(due);
        order.max(due)
    }

    /// Tells whether the attempt must not write any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.order() == Order::Lost
    }

    /// Order in the engine's terms.
    pub(crate) fn directive(&self) -> Directive {
        match self.order() {
            Order::Continue => Directive::Continue,
            Order::Finish => Directive::Finish,
            Order::Pause | Order::Drain => Directive::Suspend,
            Order::Expire | Order::Cancel | Order::Lost => Directive::Stop,
        }
    }

    /// Notes that the lease was renewed; it never gets shorter by that.
    pub(crate) fn renewed(&self, trusted_until: Moment) {
        let mut current = lock(&self.trusted_until);
        *current = trusted_until.max(*current);
    }

    /// Waits until the order is at least as urgent as `order`.
    pub(crate) async fn ordered(&self, order: Order) {
        let mut changes = self.order.subscribe();
        loop {
            if self.order() >= order {
                return;
            }
            let trusted_until = *lock(&self.trusted_until);
            let end = self.runs_until.filter(|_| order <= Order::Expire);
            let due = end.map_or(trusted_until, |end| end.min(trusted_until));
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(due.until()) => {}
            }
        }
    }

    /// Runs `work` unless and until the order is at least as urgent as `order`.
    pub(crate) async fn unless<T, E>(
        &self,
        order: Order,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, RunError>
    where
        RunError: From<E>,
    {
        tokio::select! {
            biased;
            () = self.ordered(order) => Err(RunError::Halted),
            result = work => Ok(result?),
        }
    }

    /// Calls the store, again and again while Postgres is away and the lease still holds.
    ///
    /// The call may have been made though its answer was lost: it has to bear repetition.
    pub(crate) async fn insist<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T, RunError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        loop {
            let result = tokio::select! {
                biased;
                () = self.ordered(Order::Lost) => return Err(RunError::Halted),
                result = timeout(LONGEST_CALL, call()) => result,
            };
            let Ok(result) = result else {
                tracing::warn!(job = %self.fence.job, "a call took too long and is tried again");
                continue;
            };
            match result {
                Ok(value) => return Ok(value),
                Err(e) if e.is_unavailable() => {
                    tracing::warn!(job = %self.fence.job, error = %e, "call is tried again");
                    tokio::time::sleep(backoff.pause()).await;
                }
                Err(StoreError::LeaseLost) => {
                    self.give(Order::Lost);
                    return Err(RunError::Halted);
                }
                // Accepted before the result was: nothing may be published any more.
                Err(StoreError::Conflict { code, .. }) if code == CANCELLED => {
                    self.give(Order::Cancel);
                    return Err(RunError::Halted);
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Adds a line to the job's log.
    pub(crate) fn log(&self, level: LogLevel, message: impl Into<String>) {
        self.outbox.line(NewLogLine {
            level,
            message: message.into(),
            at: self.clock.now(),
        });
    }

    /// Packs up what is to be written about where the attempt stands.
    pub(crate) fn beat(&self, status: &Status) -> Beat {
        Beat {
            fence: self.fence,
            phase: status.phase,
            progress: status.progress.clone(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use nereid_core::{
        batching::Batching,
        clock::SystemClock,
        ids::{ClaimId, JobId, ProjectId},
        jobs::JobSpec,
        rollouts::Rollout,
        spec::{DeploySpec, Tolerance, WeightFormat},
    };

    use super::*;

    /// A claimed deployment.
    pub(crate) fn claim() -> Claim {
        let model: nereid_core::Name = "digits".parse().unwrap();
        Claim {
            fence: Fence {
                job: JobId::generate(),
                epoch: 1,
                claim: ClaimId::generate(),
            },
            project: ProjectId::generate(),
            spec: JobSpec::Deploy(DeploySpec {
                endpoint: model.clone(),
                model,
                version: 1,
                alias: None,
                replicas: 1,
                tolerance: Tolerance::default(),
                batching: Batching::default(),
                hedge_after_us: None,
                autoscaling: None,
                rollout: Rollout::default(),
                weights: WeightFormat::default(),
                runtime: None,
            }),
            attempts: 0,
            requested: None,
            runtime_left: None,
            checkpoints: Vec::new(),
        }
    }

    /// An attempt that trusts its lease for `lease`.
    pub(crate) fn attempt(lease: Duration) -> Arc<Attempt> {
        of(&claim(), lease)
    }

    fn of(claim: &Claim, lease: Duration) -> Arc<Attempt> {
        let until = Moment::now() + lease;
        Arc::new(Attempt::new(claim, until, Arc::new(SystemClock)))
    }

    #[test]
    fn orders_only_get_more_urgent() {
        let mut claim = claim();
        claim.requested = Some(JobRequest::Stop);
        let attempt = of(&claim, Duration::from_mins(1));
        assert_eq!(attempt.directive(), Directive::Finish);
        attempt.give(Order::Drain);
        attempt.give(Order::from(JobRequest::Pause));
        assert_eq!(attempt.order(), Order::Drain);
        assert_eq!(attempt.directive(), Directive::Suspend);
        attempt.give(Order::from(JobRequest::Cancel));
        attempt.give(Order::Drain);
        assert_eq!(attempt.order(), Order::Cancel);
        assert_eq!(attempt.directive(), Directive::Stop);
        attempt.give(Order::Lost);
        assert_eq!(attempt.order(), Order::Lost);
    }

    #[tokio::test]
    async fn used_up_running_time_ends_the_work_without_anybody_telling() {
        let mut claim = claim();
        claim.runtime_left = Some(Duration::from_millis(50));
        let attempt = of(&claim, Duration::from_mins(1));
        assert_eq!(attempt.order(), Order::Continue);
        attempt.ordered(Order::Pause).await;
        assert_eq!(attempt.order(), Order::Expire);
        claim.runtime_left = Some(Duration::ZERO);
        let attempt = of(&claim, Duration::from_mins(1));
        let work = async { Ok::<_, RunError>(()) };
        let ended = attempt.unless(Order::Pause, work).await;
        assert!(matches!(ended, Err(RunError::Halted)));
    }

    #[tokio::test]
    async fn a_lease_without_renewal_is_lost_without_anybody_telling() {
        let attempt = attempt(Duration::from_millis(50));
        assert_eq!(attempt.directive(), Directive::Continue);
        attempt.ordered(Order::Lost).await;
        assert_eq!(attempt.directive(), Directive::Stop);
        // Too late: somebody else may have it by now.
        attempt.renewed(Moment::now() + Duration::from_mins(1));
        assert!(attempt.is_lost());
    }

    #[tokio::test]
    async fn a_renewal_prolongs_the_trust() {
        let attempt = attempt(Duration::from_millis(50));
        attempt.renewed(Moment::now() + Duration::from_mins(1));
        let lost = attempt.ordered(Order::Drain);
        assert!(timeout(Duration::from_millis(120), lost).await.is_err());
    }

    #[tokio::test]
    async fn calls_are_repeated_while_it_may_help_and_the_lease_holds() {
        let attempt = attempt(Duration::from_mins(1));
        let mut results: BTreeMap<u8, Result<u8, StoreError>> = BTreeMap::from([
            (0, Err(StoreError::Database(sqlx::Error::PoolTimedOut))),
            (1, Ok(7)),
        ]);
        let written = attempt
            .insist(|| std::future::ready(results.pop_first().unwrap().1))
            .await;
        assert_eq!(written.unwrap(), 7);
        let refused = || StoreError::Conflict {
            code: "cancel_requested",
            what: "the job has been cancelled".to_owned(),
        };
        let cancelled = attempt
            .insist(|| std::future::ready(Err::<u8, _>(refused())))
            .await;
        assert!(matches!(cancelled, Err(RunError::Halted)));
        assert_eq!(attempt.order(), Order::Cancel);
        let lost = attempt
            .insist(|| std::future::ready(Err::<u8, _>(StoreError::LeaseLost)))
            .await;
        assert!(matches!(lost, Err(RunError::Halted)));
        assert!(attempt.is_lost());
    }
}
