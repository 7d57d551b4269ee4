//! Puts routes and layers together.

use std::{any::Any, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    middleware::{from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::header;
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::{
        CompressionLayer,
        predicate::{DefaultPredicate, NotForContentType, Predicate},
    },
    sensitive_headers::SetSensitiveRequestHeadersLayer,
};
use utoipa_axum::router::OpenApiRouter;

use crate::{
    ApiState,
    contract::{Contract, Gate, guard},
    docs, document,
    envelope::envelope,
    health,
    problem::{Code, Problem},
    v1, v2,
};

/// Returns all operations of the API.
pub(crate) fn operations() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .merge(health::routes())
        .merge(docs::routes())
        .merge(v1::routes())
        .merge(v2::routes())
}

/// Builds the whole service.
pub fn router(state: ApiState) -> Router {
    let contract = Arc::new(Contract::new(document::openapi().as_value()));
    let gate = Gate {
        state: state.clone(),
        contract,
    };
    let (operations, _) = operations().split_for_parts();
    // Archives and weights do not get smaller; compressing them only costs time.
    let compressible = DefaultPredicate::new()
        .and(NotForContentType::const_new("application/octet-stream"))
        .and(NotForContentType::const_new("application/x-tar"));
    operations
        .route_layer(from_fn_with_state(gate, guard))
        .merge(docs::pages())
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_method)
        // Extractors limit bodies themselves, each by its own measure.
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(envelope))
        .layer(CompressionLayer::new().compress_when(compressible))
        .layer(SetSensitiveRequestHeadersLayer::new([
            header::AUTHORIZATION,
        ]))
        .with_state(state)
}

async fn unknown_route(request: Request) -> Problem {
    let detail = format!("There is no {}; see /docs/.", request.uri().path());
    Problem::new(Code::UnknownRoute, detail)
}

async fn unknown_method(request: Request) -> Problem {
    let detail = format!(
        "{} does not know {}.",
        request.uri().path(),
        request.method()
    );
    Problem::new(Code::MethodNotAllowed, detail)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the layer asks for this signature"
)]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    Problem::internal(format!("a handler panicked: {message}")).into_response()
}
