//! REST API, inference gateway and OpenAPI document of Nereid.
//!
//! HTTP types live here and nowhere else. A request passes the [`envelope`] (id, span, problem
//! document), the [`contract`] (role and parameters, as the document promises them), and a
//! handler, which validates by `nereid-core` and changes things by one method of `nereid-store`.
//! There is no SQL, no engine and no S3 SDK in this crate.

mod auth;
mod contract;
mod docs;
mod document;
mod envelope;
mod extract;
mod gateway;
pub mod grpc;
mod health;
mod inspection;
mod oip;
mod once;
mod pages;
mod predict;
mod problem;
mod router;
mod schemas;
mod server;
mod state;
mod v1;
mod v2;

use nereid_core::rows::numbers;

pub use auth::{hash_key_secret, key_prefix, new_key_secret};
pub use document::{OpenApiDocument, openapi};
pub use gateway::{Gateway, VariantStatistics};
pub use problem::{Code, PROBLEM_JSON, Problem, ProblemDocument};
pub use router::router;
pub use server::serve;
pub use state::{ApiConfig, ApiParts, ApiState, AuthMode, Shared};
