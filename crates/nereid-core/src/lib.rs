//! Domain of Nereid: identifiers, specs, states and their transitions, policies, validation.
//!
//! Everything here is pure: no I/O, no async, no Postgres, S3, HTTP or tensor framework. The
//! store, the API, the worker and the engine meet in these types, and the [`engine`] traits are
//! how API and worker use the training engine without linking it.

pub mod admission;
pub mod audit;
pub mod autoscaling;
pub mod batch_predictions;
pub mod batching;
pub mod clock;
pub mod datasets;
pub mod endpoints;
pub mod engine;
pub mod events;
pub mod ids;
pub mod inference;
pub mod jobs;
pub mod keys;
pub mod limits;
pub mod models;
pub mod names;
pub mod rollouts;
pub mod rows;
pub mod spec;
pub mod statistics;
pub mod tensors;
pub mod traffic;
pub mod validation;
mod words;
pub mod workers;

pub use names::Name;
pub use validation::{Violation, Violations};

/// Version of this build, recorded in manifests and worker registrations.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
