//! What Postgres holds of one job, and the transactions on it, as `nereid-store` has them.
//!
//! A transaction is one atomic step here, as the lock on the lease makes it there. What core
//! decides is asked of core.

use nereid_core::jobs::{JobRequest, JobStatus, Outcome, TerminationReason, after_attempt};

use crate::world::{Guard, LEASE, World};

/// Failures that end a job: so few that every way to use them up is looked at.
const MAX_ATTEMPTS: u8 = 2;
/// Lost leases that end a job.
const MAX_LOSSES: u8 = 2;

/// What a write of an attempt must match.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Fence {
    pub(crate) epoch: u8,
    pub(crate) claim: u8,
}

impl std::fmt::Debug for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "epoch {} claim {}", self.epoch, self.claim)
    }
}

/// What a call of a worker asks of Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Request {
    /// Renew the lease.
    Beat,
    /// A checkpoint; metrics, logs and progress are fenced alike.
    Checkpoint,
    /// Publish the version and end the job, as stopped early or as succeeded.
    Publish { early: bool },
    /// End the attempt without a result.
    End(TerminationReason),
}

/// What Postgres answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Answer {
    /// Done; this is what a client asks of the job.
    Done(Option<JobRequest>),
    /// This very attempt has published before; nothing changes.
    DoneBefore,
    /// Refused: the attempt is not current, or its lease has run out.
    Lost,
    /// Refused: a client has cancelled the job.
    Cancelled,
}

/// One job and its lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Database {
    pub(crate) status: JobStatus,
    pub(crate) epoch: u8,
    /// Claim that holds the lease; none unless running.
    pub(crate) claim: Option<u8>,
    /// Time left of the lease.
    pub(crate) lease: u8,
    pub(crate) requested: Option<JobRequest>,
    pub(crate) attempts: u8,
    pub(crate) losses: u8,
    pub(crate) checkpoint: bool,
    pub(crate) versions: u8,
    published_by: Option<Fence>,
}

impl Database {
    /// A job just submitted.
    pub(crate) fn submitted() -> Self {
        Self {
            status: JobStatus::Queued,
            epoch: 0,
            claim: None,
            lease: 0,
            requested: None,
            attempts: 0,
            losses: 0,
            checkpoint: false,
            versions: 0,
            published_by: None,
        }
    }

    /// Tells whether `fence` is the one and only current attempt: what the fence is to find out.
    pub(crate) fn is_current(&self, fence: Fence) -> bool {
        self.claim == Some(fence.claim) && self.epoch == fence.epoch
    }

    /// The fence as the store has it: job, state, epoch and claim id of `job_leases`.
    fn lets_through(&self, fence: Fence, world: &World) -> bool {
        self.status == JobStatus::Running
            && (!world.has(Guard::Epoch) || self.epoch == fence.epoch)
            && (!world.has(Guard::ClaimId) || self.claim == Some(fence.claim))
    }

    /// `claim.sql`: epoch raised, claim id drawn, lease begun.
    pub(crate) fn claim(&mut self, claim: u8) -> Fence {
        self.status = JobStatus::Running;
        self.epoch += 1;
        self.claim = Some(claim);
        self.lease = LEASE;
        Fence {
            epoch: self.epoch,
            claim,
        }
    }

    /// Does what a worker's call asks for, if the fence lets it through.
    pub(crate) fn serve(&mut self, fence: Fence, request: Request, world: &World) -> Answer {
        if !self.lets_through(fence, world) {
            let publishes = matches!(request, Request::Publish { .. });
            return if publishes && self.published_by == Some(fence) {
                Answer::DoneBefore
            } else {
                Answer::Lost
            };
        }
        match request {
            Request::Beat => self.lease = LEASE,
            Request::Checkpoint => self.checkpoint = true,
            Request::Publish { early } => return self.publish(fence, early, world),
            Request::End(reason) => self.end_attempt(reason, world),
        }
        Answer::Done(self.requested)
    }

    fn publish(&mut self, fence: Fence, early: bool, world: &World) -> Answer {
        if world.has(Guard::UnexpiredToPublish) && self.lease == 0 {
            return Answer::Lost;
        }
        if world.has(Guard::CancelBarsPublication) && self.requested == Some(JobRequest::Cancel) {
            return Answer::Cancelled;
        }
        self.versions += 1;
        self.published_by = Some(fence);
        self.attempts += 1;
        self.rest(if early {
            TerminationReason::StoppedEarly
        } else {
            TerminationReason::Completed
        });
        Answer::Done(self.requested)
    }

    /// Ends the attempt without a result; core decides what becomes of the job.
    fn end_attempt(&mut self, reason: TerminationReason, world: &World) {
        self.attempts += u8::from(reason.uses_up_attempt());
        let left = if reason == TerminationReason::LeaseLost {
            self.losses += 1;
            self.losses < MAX_LOSSES
        } else {
            self.attempts < MAX_ATTEMPTS
        };
        let pauses = reason == TerminationReason::Paused && !world.has(Guard::StopOvertakesPause);
        let outcome = if pauses {
            Outcome::Rest(reason)
        } else {
            after_attempt(reason, self.requested, left)
        };
        // The store's own rule: a training that is to be stopped needs something to keep.
        let in_vain = self.requested == Some(JobRequest::Stop) && !self.checkpoint;
        match outcome {
            Outcome::Requeue if in_vain => self.rest(TerminationReason::Cancelled),
            Outcome::Requeue => self.release(JobStatus::Queued),
            Outcome::Rest(reason) => self.rest(reason),
        }
    }

    /// Ends the job, or puts it aside.
    fn rest(&mut self, reason: TerminationReason) {
        self.release(reason.final_status());
        if self.status == JobStatus::Paused {
            self.requested = None;
        }
    }

    fn release(&mut self, status: JobStatus) {
        self.status = status;
        self.claim = None;
        self.lease = 0;
    }

    /// Hands a lease back that has run out; false if there is none.
    pub(crate) fn reap(&mut self, world: &World) -> bool {
        let expired = self.lease == 0 || !world.has(Guard::ReapOnlyExpired);
        let reaps = world.has(Guard::Reaper) && self.status == JobStatus::Running && expired;
        if reaps {
            self.end_attempt(TerminationReason::LeaseLost, world);
        }
        reaps
    }

    /// Fails a job that has waited for too long; false if it does not wait.
    pub(crate) fn give_up(&mut self) -> bool {
        let waits = self.status == JobStatus::Queued;
        if waits {
            self.rest(TerminationReason::MaxQueueTimeExceeded);
        }
        waits
    }

    /// A client's request; false if it is refused or changes nothing.
    pub(crate) fn ask(&mut self, request: JobRequest) -> bool {
        let paused_again = (self.status, request) == (JobStatus::Paused, JobRequest::Pause);
        if self.status.is_final() || self.requested >= Some(request) || paused_again {
            return false;
        }
        self.requested = Some(request);
        match (self.status, request) {
            (JobStatus::Running, _) => {}
            (_, JobRequest::Pause) => self.rest(TerminationReason::Paused),
            // Something was trained: one more attempt publishes it.
            (_, JobRequest::Stop) if self.checkpoint => self.release(JobStatus::Queued),
            (_, JobRequest::Stop | JobRequest::Cancel) => self.rest(TerminationReason::Cancelled),
        }
        true
    }

    /// Lets a paused job go on; false if it is not.
    pub(crate) fn resume(&mut self) -> bool {
        let paused = self.status == JobStatus::Paused;
        if paused {
            self.release(JobStatus::Queued);
        }
        paused
    }

    /// Tries a job again that has ended without a result, with fresh budgets; false if refused.
    pub(crate) fn retry(&mut self, world: &World) -> bool {
        let ended = matches!(self.status, JobStatus::Failed | JobStatus::Stopped);
        if !ended || (world.has(Guard::ResultIsFinal) && self.versions > 0) {
            return false;
        }
        self.release(JobStatus::Queued);
        (self.requested, self.attempts, self.losses) = (None, 0, 0);
        if !world.has(Guard::RetryKeepsEpoch) {
            self.epoch = 0;
        }
        true
    }
}
