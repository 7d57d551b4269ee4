//! What may happen next, in any state.

use nereid_core::jobs::{JobRequest, JobStatus, TerminationReason};

use crate::{
    database::{Answer, Database, Fence, Request},
    world::{Attempt, Call, Guard, Stage, State, World},
};

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Time passes, for everybody alike.
    Tick,
    Claim,
    /// The claim's answer is lost.
    ClaimUnanswered,
    /// The training comes to its end, or is ended early as a client asked.
    TrainToEnd(Fence),
    /// The attempt ends as a client asked.
    Obey(Fence),
    Send(Fence, Request),
    /// A call arrives; all answers but a heartbeat's come back at once.
    Serve(Fence, Request, Answer),
    /// A call arrives; its answer is lost, so that the worker sends it again.
    ServeUnanswered(Fence, Request, Answer),
    /// A heartbeat's answer comes back.
    Hear(Fence, Answer),
    Reap,
    /// The job has waited for too long.
    GiveUp,
    Ask(JobRequest),
    Resume,
    Retry,
    Fault(Fence, TerminationReason),
    Drain(Fence),
    /// `kill -9`; what it sent still arrives.
    Kill(Fence),
    /// The standby receives what the primary has, for the last time.
    Replicate,
    /// The standby takes over: later transactions are lost.
    Failover,
}

impl Step {
    /// Tells whether the system takes this step by itself, in the end, if all goes well.
    pub(crate) fn goes_well(self) -> bool {
        use Step::{Claim, Hear, Obey, Reap, Send, Serve, Tick, TrainToEnd};
        matches!(
            self,
            Tick | Claim | TrainToEnd(_) | Obey(_) | Send(..) | Serve(..) | Hear(..) | Reap
        )
    }

    /// Tells whether a write is refused because the attempt has lost the job.
    pub(crate) fn is_refused(self) -> bool {
        matches!(
            self,
            Self::Serve(.., Answer::Lost) | Self::ServeUnanswered(.., Answer::Lost)
        )
    }
}

impl World {
    /// Everything that may happen next.
    pub(crate) fn steps(&self, now: &State) -> Vec<(Step, State)> {
        let mut next = Next {
            world: self,
            now,
            steps: Vec::with_capacity(16),
        };
        next.time();
        next.queue();
        for index in 0..now.attempts.len() {
            next.attempt(index);
        }
        for index in 0..now.calls.len() {
            next.call(index);
        }
        next.clients();
        next.disasters();
        next.steps
    }
}

/// Collects what may happen next.
struct Next<'a> {
    world: &'a World,
    now: &'a State,
    steps: Vec<(Step, State)>,
}

impl Next<'_> {
    /// Adds a step unless `change` says that it cannot be taken.
    fn step(&mut self, step: Step, change: impl FnOnce(&mut State) -> bool) {
        let mut after = self.now.clone();
        if change(&mut after) {
            after.tidy();
            self.steps.push((step, after));
        }
    }

    fn time(&mut self) {
        let fences = self.world.has(Guard::SelfFencing);
        self.step(Step::Tick, |after| {
            let standby = after.standby.as_mut().map(|s| &mut s.lease);
            let calls = after.calls.iter_mut().map(|call| &mut call.trust);
            for time in calls.chain(standby).chain([&mut after.database.lease]) {
                *time = time.saturating_sub(1);
            }
            // One without trust computes until it looks at its clock, which is within this time.
            after.attempts.retain(|a| a.trust > 0 || !fences);
            for attempt in &mut after.attempts {
                attempt.trust = attempt.trust.saturating_sub(1);
            }
            true
        });
    }

    fn queue(&mut self) {
        let world = self.world;
        let queued = self.now.database.status == JobStatus::Queued;
        if queued && self.now.attempts.len() < world.slots {
            let claim = |after: &mut State| {
                after.claims += 1;
                after.database.claim(after.claims)
            };
            self.step(Step::Claim, |after| {
                let fence = claim(after);
                after.attempts.push(Attempt {
                    fence,
                    stage: Stage::Training,
                    trust: world.trust(),
                    order: after.database.requested,
                    forgotten: false,
                });
                true
            });
            self.step(Step::ClaimUnanswered, |after| {
                claim(after);
                true
            });
        }
        self.step(Step::Reap, |after| after.database.reap(world));
        self.step(Step::GiveUp, |after| after.database.give_up());
    }

    fn attempt(&mut self, index: usize) {
        let now = self.now;
        let attempt = &now.attempts[index];
        let (fence, order) = (attempt.fence, attempt.order);
        self.step(Step::Kill(fence), |after| {
            after.attempts.remove(index);
            true
        });
        // Before each write it looks at its clock.
        if attempt.trust == 0 && self.world.has(Guard::SelfFencing) {
            return;
        }
        self.send(attempt, Request::Beat);
        let ending = match attempt.stage {
            Stage::Ending(request) => return self.send(attempt, request),
            Stage::Training => |request| {
                move |after: &mut State| {
                    after.attempts[index].stage = Stage::Ending(request);
                    true
                }
            },
        };
        // Later ones would change nothing that is modelled.
        if !now.database.checkpoint {
            self.send(attempt, Request::Checkpoint);
        }
        if order != Some(JobRequest::Cancel) {
            let early = order == Some(JobRequest::Stop);
            self.step(Step::TrainToEnd(fence), ending(Request::Publish { early }));
        }
        match order {
            Some(JobRequest::Pause) => {
                let end = Request::End(TerminationReason::Paused);
                self.step(Step::Obey(fence), ending(end));
            }
            Some(JobRequest::Cancel) => {
                let end = Request::End(TerminationReason::Cancelled);
                self.step(Step::Obey(fence), ending(end));
            }
            Some(JobRequest::Stop) | None => {}
        }
        for &reason in self.world.faults {
            self.step(Step::Fault(fence, reason), ending(Request::End(reason)));
        }
        if self.now.budget.drains > 0 {
            let end = ending(Request::End(TerminationReason::WorkerDrained));
            self.step(Step::Drain(fence), |after| {
                after.budget.drains -= 1;
                end(after)
            });
        }
    }

    fn send(&mut self, attempt: &Attempt, request: Request) {
        let call = Call {
            fence: attempt.fence,
            request,
            answer: None,
            trust: if request == Request::Beat {
                self.world.trust()
            } else {
                0
            },
            forgotten: false,
        };
        let is_same = |c: &Call| (c.fence, c.request, c.answer) == (call.fence, request, None);
        if self.now.calls.len() < self.world.calls && !self.now.calls.iter().any(is_same) {
            self.step(Step::Send(attempt.fence, request), |after| {
                after.calls.push(call);
                true
            });
        }
    }

    fn call(&mut self, index: usize) {
        let Call {
            fence,
            request,
            answer,
            trust,
            forgotten,
        } = self.now.calls[index];
        let world = self.world;
        if let Some(answer) = answer {
            return self.step(Step::Hear(fence, answer), |after| {
                after.calls.remove(index);
                let trust = if world.has(Guard::TrustFromSending) {
                    trust
                } else {
                    world.trust()
                };
                after.hear_beat(fence, answer, trust, forgotten);
                true
            });
        }
        let mut served = self.now.clone();
        let answer = served.database.serve(fence, request, world);
        served.calls.remove(index);
        // A heartbeat's answer is lost by never being heard; a checkpoint's tells nothing.
        if matches!(request, Request::Publish { .. } | Request::End(_)) {
            let unanswered = Step::ServeUnanswered(fence, request, answer);
            self.steps.push((unanswered, served.clone()));
        }
        self.step(Step::Serve(fence, request, answer), |after| {
            *after = served;
            if request == Request::Beat {
                let call = Call {
                    fence,
                    request,
                    answer: Some(answer),
                    trust,
                    forgotten: false,
                };
                after.calls.push(call);
            } else {
                after.hear(fence, request, answer);
            }
            true
        });
    }

    fn clients(&mut self) {
        if self.now.budget.clients == 0 {
            return;
        }
        let world = self.world;
        for &request in JobRequest::ALL {
            self.client(Step::Ask(request), |job| job.ask(request));
        }
        self.client(Step::Resume, Database::resume);
        self.client(Step::Retry, |job| job.retry(world));
    }

    fn client(&mut self, step: Step, call: impl FnOnce(&mut Database) -> bool) {
        self.step(step, |after| {
            after.budget.clients -= 1;
            call(&mut after.database)
        });
    }

    fn disasters(&mut self) {
        if self.now.budget.failovers == 0 {
            return;
        }
        self.step(Step::Replicate, |after| {
            after.standby.replace(after.database.clone()).is_none()
        });
        self.step(Step::Failover, |after| {
            let Some(standby) = after.standby.take() else {
                return false;
            };
            after.database = standby;
            after.budget.failovers -= 1;
            for attempt in &mut after.attempts {
                attempt.forgotten = true;
            }
            for call in &mut after.calls {
                call.forgotten |= call.answer.is_some();
            }
            true
        });
    }
}
