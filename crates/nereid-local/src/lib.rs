//! What `nereid dev` and the tests run on: a Postgres and an S3 of their own, on this machine.
//!
//! Nothing here knows the rest of Nereid. The database is reached by the URL of
//! [`ManagedPostgres::url`], the objects by the S3 protocol at [`EmbeddedS3::endpoint`], so that
//! the same code runs against servers that somebody else manages.

mod error;
mod lock;
mod postgres;
mod s3;

pub use error::LocalError;
pub use lock::DirectoryLock;
pub use postgres::{ManagedPostgres, PostgresOptions};
pub use s3::{EmbeddedS3, EmbeddedS3Options};
