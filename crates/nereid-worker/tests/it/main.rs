//! A worker against a real Postgres and an S3, with an engine made for the test.

mod deploy;
mod drain;
mod engine;
mod failures;
mod support;
mod train;
