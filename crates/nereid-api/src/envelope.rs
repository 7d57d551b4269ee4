//! Outermost layer of each request: its id, its span, its log line, its problem document.

use std::time::Instant;

use axum::{extract::Request, middleware::Next, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Instrument;
use uuid::Uuid;

use crate::problem::Carried;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id taken over from a client.
const MAX_REQUEST_ID_LEN: usize = 128;

/// Gives the request an id and a span, and writes a problem down with that id.
pub(crate) async fn envelope(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let path = request.uri().path().to_owned();
    let span = tracing::info_span!("request", request_id = %id, method = %request.method(), path);
    let started = Instant::now();
    async {
        let mut response = next.run(request).await;
        if let Some(problem) = response.extensions_mut().remove::<Carried>() {
            problem.log();
            let oip = path == "/v2" || path.starts_with("/v2/");
            response = problem.render(&id, &path, oip);
        }
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        let elapsed_ms = started.elapsed().as_secs_f64() * 1e3;
        tracing::info!(status = response.status().as_u16(), elapsed_ms, "answered");
        response
    }
    .instrument(span)
    .await
}

/// Takes the client's id if it is short and harmless in a log, else draws one.
fn request_id(headers: &HeaderMap) -> String {
    let harmless = |id: &&str| {
        (1..=MAX_REQUEST_ID_LEN).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
    };
    headers
        .get(REQUEST_ID)
        .and_then(|v| v.to_str().ok())
        .filter(harmless)
        .map_or_else(|| Uuid::now_v7().to_string(), ToOwned::to_owned)
}
