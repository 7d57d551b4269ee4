//! The store against a real Postgres: one server per test process, one database per test.

#![expect(
    clippy::unwrap_used,
    reason = "clippy knows test functions only, not what they call"
)]

mod endpoints;
mod jobs;
mod queue;
mod resources;
mod support;
mod watch;
