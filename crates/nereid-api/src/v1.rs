//! REST routes under `/v1`, one module per aggregate.

pub(crate) mod audit;
pub(crate) mod datasets;
pub(crate) mod endpoints;
pub(crate) mod jobs;
pub(crate) mod keys;
pub(crate) mod lineage;
pub(crate) mod models;
pub(crate) mod predictions;
pub(crate) mod uploads;
pub(crate) mod workers;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;

use crate::ApiState;

/// Returns all routes under `/v1`.
pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .merge(uploads::routes())
        .merge(datasets::routes())
        .merge(jobs::routes())
        .merge(models::routes())
        .merge(lineage::routes())
        .merge(audit::routes())
        .merge(endpoints::routes())
        .merge(predictions::routes())
        .merge(workers::routes())
        .merge(keys::routes())
}

/// Documents the header of requests that may be repeated.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by crate::once; here for the document only")]
pub(crate) struct IdempotencyHeader {
    /// Makes the request safe to repeat: the same key with the same request gives the first
    /// answer again, marked `Idempotency-Replayed: true`, and changes nothing.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        pattern = "^[ -~]+$",
        required = false
    )]
    key: String,
}

/// Answers 201 with the place of what was made.
pub(crate) fn created<T: Serialize>(location: &str, body: T) -> Response {
    let mut response = (StatusCode::CREATED, Json(body)).into_response();
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
