//! The OpenAPI document, Swagger UI from the binary, and a page that links to both.

use std::sync::OnceLock;

use axum::{
    Router,
    response::{Html, IntoResponse},
    routing::get,
};
use bytes::Bytes;
use http::header;
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::{ApiState, document};

const INDEX: &str = include_str!("docs/index.html");

/// Documented routes.
pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(get_openapi))
}

/// Pages for people, which are no part of the document.
pub(crate) fn pages() -> Router<ApiState> {
    let swagger = SwaggerUi::new("/docs").config(Config::from("/openapi.json"));
    Router::new()
        .route(
            "/",
            get(|| async { Html(INDEX.replace("{version}", nereid_core::VERSION)) }),
        )
        .merge(swagger)
}

/// Returns this document
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "get_openapi", tag = "health",
    responses((status = 200, description = "The OpenAPI document", body = Value)),
)]
async fn get_openapi() -> impl IntoResponse {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    let text = TEXT.get_or_init(|| document::openapi().as_value().to_string().into());
    ([(header::CONTENT_TYPE, "application/json")], text.clone())
}
