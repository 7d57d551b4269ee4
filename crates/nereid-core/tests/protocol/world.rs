//! What there is around the database: attempts as their workers see them, and calls in flight.

use nereid_core::jobs::{JobRequest, TerminationReason};

use crate::database::{Answer, Database, Fence, Request};

/// Time of a lease. A worker's margin is one unit: it may compute for that long before it looks.
pub(crate) const LEASE: u8 = 2;
/// Time for which a worker trusts its lease, from before it sent the call (80 % in the product).
const TRUST: u8 = 1;

/// What keeps the protocol safe; a broken variant lacks one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The fence compares the epoch.
    Epoch,
    /// The fence compares the claim id.
    ClaimId,
    /// A worker stops by itself once it can no longer trust its lease.
    SelfFencing,
    /// The trust counts from before the call was sent, not from its answer.
    TrustFromSending,
    /// The trust is shorter than the lease.
    Margin,
    /// Postgres hands back what workers left behind.
    Reaper,
    /// It takes no lease that has not run out.
    ReapOnlyExpired,
    /// Nothing is published under a lease that has run out.
    UnexpiredToPublish,
    /// Nothing is published once a cancel was accepted.
    CancelBarsPublication,
    /// A retry leaves the epoch as it is.
    RetryKeepsEpoch,
    /// A stop that is accepted while the worker obeys a pause is not forgotten.
    StopOvertakesPause,
    /// A job that has published is not tried again.
    ResultIsFinal,
}

/// How much of everything happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct World {
    /// Attempts that workers can run at a time.
    pub(crate) slots: usize,
    /// Calls in flight at a time.
    pub(crate) calls: usize,
    /// Why attempts fail.
    pub(crate) faults: &'static [TerminationReason],
    pub(crate) budget: Budget,
    pub(crate) missing: &'static [Guard],
}

/// What happens only so often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// Requests of clients.
    pub(crate) clients: u8,
    /// Workers that drain while they run the job.
    pub(crate) drains: u8,
    /// Failovers of Postgres to an older state.
    pub(crate) failovers: u8,
}

/// What an attempt is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Stage {
    Training,
    /// Done with it: insists on this write until it is answered.
    Ending(Request),
}

/// An attempt as its worker sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Attempt {
    pub(crate) fence: Fence,
    pub(crate) stage: Stage,
    /// Time for which the worker trusts its lease, by its own clock.
    pub(crate) trust: u8,
    /// The most urgent thing that it was told a client asks.
    pub(crate) order: Option<JobRequest>,
    /// Its lease was last confirmed by a Postgres that has since failed over.
    pub(crate) forgotten: bool,
}

/// A call on its way to Postgres, or a heartbeat's answer on its way back.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Call {
    pub(crate) fence: Fence,
    pub(crate) request: Request,
    pub(crate) answer: Option<Answer>,
    /// What is left of the trust that a heartbeat earns, from when it was sent.
    pub(crate) trust: u8,
    pub(crate) forgotten: bool,
}

/// All there is at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) database: Database,
    /// What a standby has received so far.
    pub(crate) standby: Option<Database>,
    /// Kept in order: workers have no names.
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) calls: Vec<Call>,
    /// Claim ids drawn so far; a failover does not take them back.
    pub(crate) claims: u8,
    pub(crate) budget: Budget,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Database {
            status,
            epoch,
            lease,
            ..
        } = &self.database;
        write!(f, "{status}, epoch {epoch}, lease {lease}")?;
        for Attempt {
            fence,
            trust,
            stage,
            ..
        } in &self.attempts
        {
            let does = if *stage == Stage::Training {
                "trains"
            } else {
                "ends"
            };
            write!(f, "; claim {} {does}, trust {trust}", fence.claim)?;
        }
        Ok(())
    }
}

impl World {
    pub(crate) fn has(&self, guard: Guard) -> bool {
        !self.missing.contains(&guard)
    }

    pub(crate) fn start(&self) -> State {
        State {
            database: Database::submitted(),
            standby: None,
            attempts: Vec::new(),
            calls: Vec::new(),
            claims: 0,
            budget: self.budget,
        }
    }

    pub(crate) fn trust(&self) -> u8 {
        if self.has(Guard::Margin) {
            TRUST
        } else {
            LEASE
        }
    }
}

impl State {
    /// An attempt hears what became of a write.
    pub(crate) fn hear(&mut self, fence: Fence, request: Request, answer: Answer) {
        let Some(index) = self.attempts.iter().position(|a| a.fence == fence) else {
            return;
        };
        match (request, answer) {
            (Request::Checkpoint, Answer::Done(_)) => {}
            (_, Answer::Cancelled) => {
                let end = Request::End(TerminationReason::Cancelled);
                self.attempts[index].stage = Stage::Ending(end);
            }
            (_, Answer::Done(_) | Answer::DoneBefore | Answer::Lost) => {
                self.attempts.remove(index);
            }
        }
    }

    /// An attempt hears what its heartbeat brought.
    pub(crate) fn hear_beat(&mut self, fence: Fence, answer: Answer, trust: u8, forgotten: bool) {
        let Answer::Done(requested) = answer else {
            return self.attempts.retain(|a| a.fence != fence);
        };
        if let Some(attempt) = self.attempts.iter_mut().find(|a| a.fence == fence) {
            attempt.trust = attempt.trust.max(trust);
            if urgency(requested) > urgency(attempt.order) {
                attempt.order = requested;
            }
            attempt.forgotten &= forgotten;
        }
    }

    /// Makes states that differ in nothing that matters the same one.
    pub(crate) fn tidy(&mut self) {
        let attempts = &self.attempts;
        let awaited = |fence| attempts.iter().any(|a| a.fence == fence);
        self.calls
            .retain(|c| c.answer.is_none() || awaited(c.fence));
        self.attempts.sort_unstable();
        self.calls.sort_unstable();
    }
}

/// How a worker ranks what it is told: it goes on suspending when a stop comes after the pause.
fn urgency(order: Option<JobRequest>) -> u8 {
    match order {
        None => 0,
        Some(JobRequest::Stop) => 1,
        Some(JobRequest::Pause) => 2,
        Some(JobRequest::Cancel) => 3,
    }
}
