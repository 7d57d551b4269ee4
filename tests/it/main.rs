//! Drives the real binary from outside: real Postgres, real S3 protocol, real HTTP, real training.
//!
//! Nothing has to run beforehand. Tests share one server as long as any of them needs it; it ends
//! with the last one.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod auth;
mod bad_inputs;
mod batch_predict;
mod cli;
mod datasets;
mod finetune;
mod folders;
mod idempotency;
mod installation;
mod isolation;
mod jobs;
mod jobs_lifecycle;
mod lifecycle;
mod main_job;
mod outages;
mod pool;
mod predict;
mod protocol;
mod registry;
mod rollouts;
mod serving;
mod support;
mod upgrades;
