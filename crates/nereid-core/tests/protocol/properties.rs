//! What must hold of every step that can be taken.

use nereid_core::jobs::{JobRequest, JobStatus};

use crate::{
    database::{Answer, Request},
    steps::Step,
    world::{Stage, State},
};

/// A promise; its text is what a violation prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Property {
    OnlyTheCurrentAttemptWrites,
    OnlyTheCurrentAttemptEndsTheJob,
    AtMostOnePublication,
    OneAttemptComputes,
    OnlyAllowedTransitions,
    AnEndIsFinal,
    RequestsOnlyGetMoreFinal,
    ACancelledJobEndsStopped,
    EpochsRise,
    /// Checked over the whole graph: see `search`.
    NoJobRunsForEver,
}

/// Finds a promise that a step breaks.
pub(crate) fn broken_by(before: &State, step: Step, after: &State) -> Option<Property> {
    let (was, is) = (&before.database, &after.database);
    let computing = after.attempts.iter().filter(|a| a.stage == Stage::Training);
    // A failover may lose a claim before its worker can know: then two compute, until the first
    // one's trust ends. That is the price of a standby that lags; writes are fenced all the same.
    if computing.filter(|a| !a.forgotten).count() > 1 {
        return Some(Property::OneAttemptComputes);
    }
    if is.versions > 1 {
        return Some(Property::AtMostOnePublication);
    }
    if step == Step::Failover {
        return None;
    }
    if let Step::Serve(fence, request, Answer::Done(_))
    | Step::ServeUnanswered(fence, request, Answer::Done(_)) = step
    {
        let ends = matches!(request, Request::Publish { .. } | Request::End(_));
        if !was.is_current(fence) && ends {
            return Some(Property::OnlyTheCurrentAttemptEndsTheJob);
        }
        if !was.is_current(fence) {
            return Some(Property::OnlyTheCurrentAttemptWrites);
        }
        if is.versions > was.versions && was.requested == Some(JobRequest::Cancel) {
            return Some(Property::ACancelledJobEndsStopped);
        }
    }
    let moved = was.status != is.status;
    if moved && !was.status.may_become(is.status) {
        return Some(Property::OnlyAllowedTransitions);
    }
    if moved && was.status.is_final() && (step != Step::Retry || was.versions > 0) {
        return Some(Property::AnEndIsFinal);
    }
    // A pause is over with the rest it asked for.
    let paused = is.status == JobStatus::Paused && was.requested <= Some(JobRequest::Pause);
    if is.requested < was.requested && !paused && step != Step::Retry {
        return Some(Property::RequestsOnlyGetMoreFinal);
    }
    let cancelled = is.requested == Some(JobRequest::Cancel);
    if cancelled && is.status.is_final() && is.status != JobStatus::Stopped {
        return Some(Property::ACancelledJobEndsStopped);
    }
    let claims = matches!(step, Step::Claim | Step::ClaimUnanswered);
    if is.epoch < was.epoch + u8::from(claims) {
        return Some(Property::EpochsRise);
    }
    None
}
