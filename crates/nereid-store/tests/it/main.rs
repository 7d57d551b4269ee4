//! The store against a real Postgres: one server per test process, one database per test.

#![expect(
    clippy::unwrap_used,
    reason = "clippy knows test functions only, not what they call"
)]

mod batch;
mod checkpoints;
mod dispatch;
mod endpoints;
mod jobs;
mod matching;
mod model;
mod outage;
mod queue;
mod races;
mod reaping;
mod registry;
mod requests;
mod resources;
mod rollouts;
mod scaling;
mod schema;
mod support;
mod watch;
