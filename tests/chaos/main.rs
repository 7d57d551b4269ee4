//! Fault injection: real processes, everything that can fail fails, and then the books are checked.
//!
//! `cargo test --test chaos` runs about a minute; `cargo test --test chaos -- --ignored` a quarter
//! of an hour. The faults are a schedule drawn from a seed, which is printed:
//!
//! * `NEREID_CHAOS_SEED` (1) makes another schedule;
//! * `NEREID_CHAOS_MINUTES` (15) makes the long form shorter or longer;
//! * `NEREID_TEST_BINARY` names another build of `nereid`, such as an optimised one.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod clients;
mod clock;
mod cluster;
mod faults;
mod figures;
mod http;
mod inject;
mod ledger;
mod orphans;
mod postgres;
mod process;
mod proxy;
mod report;
mod resume;
mod rollouts;
mod run;
mod serving;
mod specs;
#[path = "../it/support.rs"]
#[expect(dead_code, reason = "the other tests' tools; these need few of them")]
mod support;
mod truth;
mod verify;

use std::time::Duration;

use run::Plan;

/// One at a time: each of these tests fills the machine.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A setting of the caller's.
#[expect(
    clippy::disallowed_methods,
    reason = "the seed of a run that failed has to come from somewhere"
)]
fn setting(name: &str) -> Option<f64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}: {value:?} is no number")),
    )
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small number"
)]
fn seed() -> u64 {
    setting("NEREID_CHAOS_SEED").unwrap_or(1.0) as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_nothing_happens_twice() {
    let _turn = TURN.lock().await;
    Box::pin(run::run(Plan {
        seed: seed(),
        duration: Duration::from_secs(38),
        mean_gap: Duration::from_millis(1600),
        settle: Duration::from_mins(2),
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a quarter of an hour"]
async fn nothing_is_lost_and_nothing_happens_twice_for_long() {
    let _turn = TURN.lock().await;
    let minutes = setting("NEREID_CHAOS_MINUTES").unwrap_or(15.0);
    Box::pin(run::run(Plan {
        seed: seed(),
        duration: Duration::from_secs_f64(minutes * 60.0),
        mean_gap: Duration::from_secs(3),
        settle: Duration::from_mins(6),
    }))
    .await;
}

#[tokio::test]
async fn mnist_killed_at_five_random_steps_ends_with_the_same_weights() {
    let _turn = TURN.lock().await;
    Box::pin(resume::killed_and_resumed(seed(), 12_000, 1)).await;
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn all_of_mnist_killed_at_five_random_steps_ends_with_the_same_weights() {
    let _turn = TURN.lock().await;
    Box::pin(resume::killed_and_resumed(seed(), 60_000, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, and takes minutes"]
async fn figures_of_reliability() {
    let _turn = TURN.lock().await;
    Box::pin(figures::measure()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollouts_and_a_killed_worker_under_load_lose_no_request() {
    let _turn = TURN.lock().await;
    Box::pin(rollouts::under_load(rollouts::Plan {
        seed: seed(),
        deployments: 2,
        rollbacks: 1,
        resizes: 2,
        kills: 1,
        clients: 4,
        pause: Duration::from_millis(5),
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the same with twenty changes and five kills"]
async fn many_rollouts_and_killed_workers_under_load_lose_no_request() {
    let _turn = TURN.lock().await;
    Box::pin(rollouts::under_load(rollouts::Plan {
        seed: seed(),
        deployments: 8,
        rollbacks: 4,
        resizes: 8,
        kills: 5,
        clients: 4,
        pause: Duration::from_millis(5),
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serving_worker_killed_under_load_loses_no_request() {
    let _turn = TURN.lock().await;
    Box::pin(serving::killed_while_serving()).await;
}
