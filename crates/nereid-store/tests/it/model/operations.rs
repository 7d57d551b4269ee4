//! What workers and clients do at random.

use nereid_core::jobs::{JobRequest, TerminationReason};
use proptest::prelude::*;

/// Something that a worker or a client does; numbers choose among what is there.
#[derive(Debug, Clone, Copy)]
pub enum Op {
    Submit {
        trains: bool,
        max_attempts: u32,
    },
    Claim,
    /// The lease of a running attempt ends unnoticed.
    Expire(usize),
    Reap,
    Heartbeat(usize),
    Checkpoint(usize),
    Publish {
        attempt: usize,
        early: bool,
    },
    Complete(usize),
    End(usize, TerminationReason),
    Request(usize, JobRequest),
    Resume(usize),
    Retry(usize),
}

pub fn op() -> impl Strategy<Value = Op> {
    let which = 0..usize::MAX;
    let reasons = [
        TerminationReason::Unavailable,
        TerminationReason::Diverged,
        TerminationReason::LeaseLost,
        TerminationReason::WorkerDrained,
        TerminationReason::Paused,
        TerminationReason::Cancelled,
    ];
    prop_oneof![
        2 => (any::<bool>(), 1..3_u32).prop_map(|(trains, max_attempts)| Op::Submit { trains, max_attempts }),
        4 => Just(Op::Claim),
        2 => which.clone().prop_map(Op::Expire),
        3 => Just(Op::Reap),
        1 => which.clone().prop_map(Op::Heartbeat),
        3 => which.clone().prop_map(Op::Checkpoint),
        2 => (which.clone(), any::<bool>()).prop_map(|(attempt, early)| Op::Publish { attempt, early }),
        1 => which.clone().prop_map(Op::Complete),
        3 => (which.clone(), prop::sample::select(reasons.to_vec())).prop_map(|(a, r)| Op::End(a, r)),
        4 => (which.clone(), prop::sample::select(JobRequest::ALL)).prop_map(|(j, r)| Op::Request(j, r)),
        2 => which.clone().prop_map(Op::Resume),
        2 => which.prop_map(Op::Retry),
    ]
}
