//! The life of a job as a model, small enough that every way it can go is looked at.
//!
//! **What is modelled.** One job (jobs share nothing but workers), its row in Postgres, a standby
//! that lags, and workers that claim, train, send heartbeats and writes, obey clients, fail, drain
//! and die. Each step is one thing that happens: a transaction, a decision of a worker, a unit of
//! time. What core decides (which status may follow, what becomes of a job after an attempt) is
//! asked of core itself; `database.rs` mirrors the transactions of `nereid-store`, `world.rs`
//! and `steps.rs` the lease keeping of `nereid-worker`; who changes those changes these.
//!
//! **What goes wrong.** A call may take as long as it likes, and so arrive when its attempt is long
//! over: the zombie. Its answer may be lost, so that the worker sends it again. A worker may take
//! no step for as long as it likes (`SIGSTOP`), or none ever again (`kill -9`). Postgres may fail
//! over to an older state, after which it gives the same epoch out a second time.
//!
//! **What is assumed.** A transaction is atomic, as the lock on the lease makes it. Real time
//! passes alike for all; no two clocks need to agree on what time it is. While a worker computes it
//! looks at its clock at least once in the margin that its trust is shorter than its lease; the
//! process that trains counts as part of its worker, so it must hold to that even if the worker
//! cannot tell it any more. In a failover that loses a claim or a renewal, two workers may compute
//! until the first one's trust ends (see `properties.rs`); only one of them can write.
//!
//! **What is promised** is in `properties.rs`, and that a job always can come to rest is checked
//! over the whole graph in `search.rs`. A plain search rather than a model checker from a library:
//! promises here are about steps and about ways on through a graph with cycles, where
//! `stateright`'s properties are about states, and its `eventually` about paths without cycles.
//!
//! **Whether the model can fail** is what the broken variants show: each lacks one guard, and the
//! search must find out. `cargo test --test protocol -- --nocapture` prints how.

mod database;
mod properties;
mod search;
mod steps;
mod world;

use nereid_core::jobs::{
    JobStatus,
    TerminationReason::{self, Diverged, Unavailable},
};

use self::{
    properties::Property,
    search::{Counterexample, Seen, search},
    world::{Budget, Guard, World},
};

/// Workers that fail, die, drain and fall silent, two calls under way at a time.
const SILENCE: World = world(2, 2, &[Unavailable, Diverged], budget(0, 1, 0));
/// The same with more of them under way.
const DELAYS: World = world(2, 3, &[Unavailable, Diverged], budget(0, 0, 0));
/// Clients who change their minds, and ask for more.
const CLIENTS: World = world(2, 1, &[Unavailable], budget(2, 0, 0));
/// Postgres loses what it had committed.
const FAILOVER: World = world(2, 1, &[Unavailable], budget(0, 0, 1));

const fn world(
    slots: usize,
    calls: usize,
    faults: &'static [TerminationReason],
    budget: Budget,
) -> World {
    World {
        slots,
        calls,
        faults,
        budget,
        missing: &[],
    }
}

const fn budget(clients: u8, drains: u8, failovers: u8) -> Budget {
    Budget {
        clients,
        drains,
        failovers,
    }
}

/// Looks at all that can happen; nothing of it may break a promise.
fn holds(world: &World) -> Seen {
    let seen = search(world, None).unwrap_or_else(|broken| panic!("{broken}"));
    assert!(seen.refused > 0, "no zombie ever wrote");
    seen
}

/// Finds the shortest way to break `property` without some guards.
fn breaks(world: World, missing: &'static [Guard], property: Property) -> Counterexample {
    let broken = search(&World { missing, ..world }, Some(property)).err();
    let broken = broken.unwrap_or_else(|| panic!("{property:?} holds without {missing:?}"));
    assert_eq!(broken.property, property, "without {missing:?}: {broken}");
    broken
}

#[test]
fn silent_failing_and_draining_workers_break_no_promise() {
    println!("{}", holds(&SILENCE));
}

#[test]
fn late_calls_break_no_promise() {
    println!("{}", holds(&DELAYS));
}

#[test]
fn requests_of_clients_break_no_promise() {
    let seen = holds(&CLIENTS);
    println!("{seen}");
    // The table allows no more than what happens, and the model leaves nothing of it out.
    for &from in JobStatus::ALL {
        for &to in JobStatus::ALL {
            let happens = seen.transitions.contains_key(&(from, to));
            assert_eq!(happens, from.may_become(to), "{from} to {to}");
        }
    }
}

#[test]
fn a_failover_breaks_no_promise() {
    println!("{}", holds(&FAILOVER));
}

#[test]
#[ignore = "takes a minute: the same with more of everything"]
fn more_of_everything_breaks_no_promise() {
    for world in [
        world(2, 1, &[Unavailable], budget(3, 0, 0)),
        world(2, 2, &[Unavailable], budget(1, 1, 0)),
        world(2, 2, &[Unavailable], budget(0, 0, 1)),
        world(2, 1, &[Unavailable], budget(1, 0, 1)),
        world(3, 3, &[Unavailable], budget(0, 0, 0)),
    ] {
        println!("{world:?}: {}", holds(&world));
    }
}

/// What most job queues do: a job that runs may be ended by whoever once ran it.
#[test]
fn a_fence_of_job_and_state_lets_a_zombie_end_the_job() {
    let missing = &[Guard::Epoch, Guard::ClaimId];
    for property in [
        Property::OnlyTheCurrentAttemptWrites,
        Property::OnlyTheCurrentAttemptEndsTheJob,
    ] {
        println!("{}", breaks(SILENCE, missing, property));
    }
}

/// Epochs repeat after a failover, or if a retry starts them afresh.
#[test]
fn a_fence_without_claim_id_lets_a_zombie_end_the_job() {
    let property = Property::OnlyTheCurrentAttemptEndsTheJob;
    println!("{}", breaks(FAILOVER, &[Guard::ClaimId], property));
    let missing = &[Guard::ClaimId, Guard::RetryKeepsEpoch];
    println!("{}", breaks(CLIENTS, missing, property));
}

/// The claim id would cover up for it, but no longer would epochs tell attempts apart.
#[test]
fn a_retry_that_resets_the_epoch_is_caught() {
    let missing = &[Guard::RetryKeepsEpoch];
    println!("{}", breaks(CLIENTS, missing, Property::EpochsRise));
}

/// Each for itself lets two workers compute the same job, which wastes a machine at best.
#[test]
fn without_its_leases_rules_two_attempts_compute() {
    let rules: [&'static [Guard]; 4] = [
        &[Guard::SelfFencing],
        &[Guard::TrustFromSending],
        &[Guard::Margin],
        &[Guard::ReapOnlyExpired],
    ];
    for missing in rules {
        let broken = breaks(SILENCE, missing, Property::OneAttemptComputes);
        println!("without {missing:?}, {broken}");
    }
}

/// Known of many queues: the worker is gone, and the job is running.
#[test]
fn without_a_reaper_a_job_runs_for_ever() {
    let missing = &[Guard::Reaper];
    println!("{}", breaks(SILENCE, missing, Property::NoJobRunsForEver));
}

#[test]
fn a_publication_that_heeds_no_cancel_is_caught() {
    let missing = &[Guard::CancelBarsPublication];
    let property = Property::ACancelledJobEndsStopped;
    println!("{}", breaks(CLIENTS, missing, property));
}

/// In the product the table's unique column would refuse it, after all that training.
#[test]
fn a_retry_after_a_publication_is_caught() {
    let missing = &[Guard::ResultIsFinal];
    println!("{}", breaks(CLIENTS, missing, Property::AnEndIsFinal));
}

/// Core's table had it so once: a stop that was accepted while the worker paused was forgotten.
#[test]
fn a_pause_that_overtakes_a_stop_is_caught() {
    let missing = &[Guard::StopOvertakesPause];
    let property = Property::RequestsOnlyGetMoreFinal;
    println!("{}", breaks(CLIENTS, missing, property));
}

/// Guards that others cover. The claim id alone tells attempts apart; the epoch orders them, and
/// stands in the way of a mix-up of ids. And whoever holds the lock on a lease that is still its
/// own publishes before anybody can take it over, run out or not.
#[test]
fn two_guards_are_second_ones() {
    let second: [&'static [Guard]; 2] = [&[Guard::Epoch], &[Guard::UnexpiredToPublish]];
    for missing in second {
        let seen = holds(&World {
            missing,
            ..FAILOVER
        });
        println!("without {missing:?}: {seen}");
    }
}
