//! Inference server of a worker: answers for the gateways of other processes, and only for them.
//!
//! Bodies are raw little-endian floats, answers tensors in bytes; both ends are Nereid's. It
//! speaks HTTP/1.1 over connections that gateways keep open, one for each request under way.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::ListenerExt,
};
use futures::StreamExt;
use nereid_core::{
    admission::Admission,
    inference::{InferError, InferOptions},
    limits::{MAX_INFERENCE_BODY_BYTES, MAX_INFERENCE_BYTES_HELD, MAX_INFERENCES_HELD},
    tensors::Batch,
};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::replicas::Registry;

/// Header with the number of rows in the body.
const ROWS: &str = "x-nereid-rows";
/// Header with the request's priority.
const PRIORITY: &str = "x-nereid-priority";
/// Header with the time that is left for the answer, in microseconds.
const TIMEOUT: &str = "x-nereid-timeout-us";
/// Seconds after which a request that was turned away may come again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// What the handlers share.
pub(crate) struct Inference {
    registry: Arc<Registry>,
    secret: String,
    /// Bounds the requests, and their bytes, held in memory.
    admission: Arc<Admission>,
}

impl Inference {
    pub(crate) fn new(registry: Arc<Registry>, secret: String) -> Self {
        Self {
            registry,
            secret,
            admission: Admission::new(MAX_INFERENCES_HELD, MAX_INFERENCE_BYTES_HELD),
        }
    }

    fn is_authorised(&self, headers: &HeaderMap) -> bool {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        given.is_some_and(|secret| secret.ct_eq(self.secret.as_bytes()).into())
    }
}

/// Why a request was not answered.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, error) = self;
        let body = Json(serde_json::json!({ "error": error }));
        let mut response = (status, body).into_response();
        if status == StatusCode::TOO_MANY_REQUESTS {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

impl From<InferError> for Refusal {
    fn from(e: InferError) -> Self {
        let status = match &e {
            InferError::Busy => StatusCode::TOO_MANY_REQUESTS,
            InferError::Expired => StatusCode::GATEWAY_TIMEOUT,
            InferError::Invalid(_) => StatusCode::BAD_REQUEST,
            InferError::Gone => StatusCode::NOT_FOUND,
            InferError::Failed(_) => {
                tracing::error!(error = %e, "prediction failed");
                return Self(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the model failed".to_owned(),
                );
            }
        };
        Self(status, e.to_string())
    }
}

/// Serves until `stop`, then finishes what it is answering.
pub(crate) async fn run(
    listener: TcpListener,
    state: Arc<Inference>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    // Answers are small and complete: waiting to fill packets only adds latency.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router(state))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

fn router(state: Arc<Inference>) -> Router {
    let guarded = Router::new()
        .route("/internal/v1/replicas/{id}/infer", post(infer))
        .layer(DefaultBodyLimit::max(MAX_INFERENCE_BODY_BYTES))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&state), admit));
    Router::new()
        .route("/livez", get(async || "ok"))
        .merge(guarded)
        .with_state(state)
}

/// Turns away strangers, and everybody while too much is under way, before any body is read.
async fn admit(
    State(state): State<Arc<Inference>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    if !state.is_authorised(request.headers()) {
        let error = "the cluster's secret is needed as a bearer token".to_owned();
        return Err(Refusal(StatusCode::UNAUTHORIZED, error));
    }
    // One that does not say how long it is may be as long as is allowed.
    let length = number(request.headers(), header::CONTENT_LENGTH.as_str());
    let length = length.unwrap_or(MAX_INFERENCE_BODY_BYTES);
    let Some(_admitted) = state.admission.enter(length) else {
        // A gateway that still sends when the connection is closed would not see the answer.
        let mut body = request.into_body().into_data_stream();
        while let Some(Ok(_)) = body.next().await {}
        let error = "too many requests are under way on this worker".to_owned();
        return Err(Refusal(StatusCode::TOO_MANY_REQUESTS, error));
    };
    Ok(next.run(request).await)
}

async fn infer(
    State(state): State<Arc<Inference>>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let replica = state.registry.find(id.into()).ok_or_else(|| {
        let error = format!("this worker does not hold replica {id}");
        Refusal(StatusCode::NOT_FOUND, error)
    })?;
    let rows = number(&headers, ROWS).filter(|&rows| rows > 0);
    let rows: usize = rows.ok_or_else(|| {
        let error = format!("{ROWS} must be a whole number from 1");
        Refusal(StatusCode::BAD_REQUEST, error)
    })?;
    let batch = Batch::from_le_bytes(rows, &body).ok_or_else(|| {
        let length = body.len();
        let error = format!("{length} bytes are no {rows} rows of 32-bit floats");
        Refusal(StatusCode::BAD_REQUEST, error)
    })?;
    drop(body);
    let options = InferOptions {
        priority: number(&headers, PRIORITY).unwrap_or(0),
        timeout: number(&headers, TIMEOUT).map(Duration::from_micros),
    };
    // A gateway that closes the connection drops this future, and with it the request.
    let answer = replica.answer(Arc::new(batch), options).await?;
    let media = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((media, answer.to_bytes()).into_response())
}

/// Reads a number from a header.
fn number<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}
