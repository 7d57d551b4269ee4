//! Reads datasets: CSV, JSON Lines, Parquet, IDX, NPY, NPZ and images in tars or folders, plain or
//! gzip, row by row and with limits.
//!
//! Nothing here knows of networks. Every mistake in the bytes becomes a
//! [`DataError`](nereid_core::engine::DataError) with its place and a stable code.

mod archive;
mod bytes;
mod cache;
mod csv;
mod digest;
mod elements;
mod idx;
mod images;
mod inputs;
mod inspect;
mod jsonl;
mod keys;
mod labels;
mod load;
mod npy;
mod npz;
mod parquet;
mod profile;
mod records;
mod replay;
mod rows;
mod samples;
mod shards;
mod spool;
mod statistics;
mod tables;

use nereid_core::engine::EngineError;

pub(crate) use images::DatasetImages;
pub(crate) use inputs::DatasetRows;
pub(crate) use inspect::DatasetInspector;

pub(crate) use keys::{Key, read_keys};
pub(crate) use load::{Room, does_not_fit, load};
pub(crate) use samples::{Reader, Samples, Targets, Width};
pub(crate) use statistics::{Column, Statistics};

/// Asked about every megabyte while data is read; an error ends the reading.
pub(crate) type Check<'a> = dyn FnMut() -> Result<(), EngineError> + 'a;
