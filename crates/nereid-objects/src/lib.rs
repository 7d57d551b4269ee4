//! S3 as Nereid knows it: streams, checksums, conditional writes and errors that say what to do.
//!
//! The only crate that links the AWS SDK, and its types stay inside. Whether AWS, MinIO, R2 or
//! the embedded server answers, the same code runs; nothing here knows what the objects mean but
//! `datasets`, which makes one file of the several objects that a dataset may name.

mod blocking;
mod client;
pub mod datasets;
mod delete;
mod error;
mod multipart;
mod read;
mod uri;
mod write;

pub use blocking::BlockingReader;
pub use client::{ListedObject, ObjectInfo, ObjectStoreConfig, Objects};
pub use error::ObjectError;
pub use read::{Expected, ObjectReader};
pub use uri::{InvalidUri, S3Uri};
pub use write::{PutOptions, Stored};
