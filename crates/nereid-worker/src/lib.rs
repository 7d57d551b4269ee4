//! Worker of Nereid: claims jobs and runs them, holds replicas and answers inference requests.
//!
//! Everything true is in Postgres, everything large in S3; a worker owns nothing that matters
//! after it dies. It knows the engine only by the traits of `nereid_core::engine`, and every
//! write of an attempt goes through its fence: an attempt that lost its lease changes nothing.

mod attempt;
mod batch_predict;
mod batcher;
mod cache;
mod checkpoints;
mod claims;
mod config;
mod data;
mod deploy;
mod drain;
mod error;
mod isolation;
mod jobs;
mod leases;
mod moment;
mod monitor;
mod noop;
mod outbox;
mod patience;
mod publish;
mod replicas;
mod reporter;
mod restore;
mod scaling;
mod scratch;
mod server;
mod sweep;
mod sync;
mod threads;
mod train;
mod worker;

pub use config::WorkerConfig;
pub use error::WorkerError;
pub use isolation::{ProcessConfig, ProcessTrainer, serve};
pub use replicas::ReplicaStatistics;
pub use worker::{Tally, Worker};
