//! Postgres behind Nereid: every statement, every transaction, and nothing else.
//!
//! One public method is one transaction, named for its use case. Rows never leave this crate;
//! what comes out are the types of `nereid-core`.

mod audit;
mod connection;
pub mod datasets;
pub mod endpoints;
pub mod error;
pub mod events;
mod group;
pub mod idempotency;
pub mod jobs;
pub mod keys;
pub mod models;
pub mod notify;
pub mod pages;
pub mod queue;
mod rows;
mod schema;
pub mod scratch;
pub mod store;
pub mod workers;

pub use error::{ResourceKind, StoreError};
pub use idempotency::{Begun, IdempotencyKey, StoredResponse, WriteTx};
pub use pages::{Page, PageRequest};
pub use store::{Store, StoreOptions};
