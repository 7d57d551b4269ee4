//! A worker against a real Postgres and an S3, with an engine made for the test.

#![expect(
    clippy::unwrap_used,
    reason = "clippy knows test functions only, not what they call"
)]

mod batch_predict;
mod checkpoints;
mod deploy;
mod drain;
mod engine;
mod failures;
mod gate;
mod isolation;
mod leases;
mod outage;
mod requests;
mod running;
mod support;
mod sweep;
mod train;
