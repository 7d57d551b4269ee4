//! Typed client of Nereid's REST API, used by the command line and the tests.
//!
//! It knows HTTP and the domain types, nothing of the server's inside. The end-to-end tests use
//! it against the real server, which keeps both in step.

mod client;
mod datasets;
mod endpoints;
mod error;
mod jobs;
mod models;
mod pages;

pub use client::Client;
pub use datasets::{NewDataset, Uploaded};
pub use endpoints::Predictions;
pub use error::{ClientError, Problem};
pub use jobs::JobQuery;
pub use pages::Listing;
