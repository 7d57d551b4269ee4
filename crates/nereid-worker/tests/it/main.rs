//! A worker against a real Postgres and an S3, with an engine made for the test.

#![expect(
    clippy::unwrap_used,
    reason = "clippy knows test functions only, not what they call"
)]

mod deploy;
mod drain;
mod engine;
mod failures;
mod support;
mod train;
