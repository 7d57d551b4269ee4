//! Inference server of a worker: answers for the gateways of other processes, and only for them.

use std::{num::NonZeroUsize, sync::Arc, thread::available_parallelism};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use nereid_core::{
    engine::{EngineError, LocalReplicas, Predictor},
    limits::MAX_INFERENCE_BODY_BYTES,
    tensors::Batch,
};
use subtle::ConstantTimeEq;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::replicas::Registry;

/// Header with the number of rows in the body.
const ROWS: &str = "x-nereid-rows";
/// Requests taken in per processor before more are turned away.
const ADMITTED_PER_CPU: usize = 8;
/// Requests always taken in, on however small a machine.
const ADMITTED_AT_LEAST: usize = 32;

/// What the handlers share.
pub(crate) struct Inference {
    registry: Arc<Registry>,
    secret: String,
    /// Bounds the requests held in memory.
    admission: Semaphore,
    /// Bounds those that compute: more at a time than processors only makes each slower.
    compute: Semaphore,
}

impl Inference {
    pub(crate) fn new(registry: Arc<Registry>, secret: String) -> Self {
        let cpus = available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            registry,
            secret,
            admission: Semaphore::new((cpus * ADMITTED_PER_CPU).max(ADMITTED_AT_LEAST)),
            compute: Semaphore::new(cpus),
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
        (status, Json(serde_json::json!({ "error": error }))).into_response()
    }
}

/// Serves until `stop`, then finishes what it is answering.
pub(crate) async fn run(
    listener: TcpListener,
    state: Arc<Inference>,
    stop: CancellationToken,
) -> std::io::Result<()> {
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
    let Ok(_admitted) = state.admission.try_acquire() else {
        let error = "too many requests are under way on this worker".to_owned();
        return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, error));
    };
    Ok(next.run(request).await)
}

async fn infer(
    State(state): State<Arc<Inference>>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let replica = state.registry.get(id.into()).ok_or_else(|| {
        let error = format!("this worker does not hold replica {id}");
        Refusal(StatusCode::NOT_FOUND, error)
    })?;
    let rows = rows(&headers)?;
    let batch = Batch::from_le_bytes(rows, &body).ok_or_else(|| {
        let length = body.len();
        let error = format!("{length} bytes are no {rows} rows of 32-bit floats");
        Refusal(StatusCode::BAD_REQUEST, error)
    })?;
    let Ok(_computing) = state.compute.acquire().await else {
        let error = "this worker shuts down".to_owned();
        return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, error));
    };
    let answer = tokio::task::spawn_blocking(move || answer(&*replica, &batch));
    let json = answer.await.map_err(|e| {
        tracing::error!(replica = %id, error = %e, "prediction panicked");
        let error = "the model failed".to_owned();
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, error)
    })??;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

fn rows(headers: &HeaderMap) -> Result<usize, Refusal> {
    headers
        .get(ROWS)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .filter(|&rows| rows > 0)
        .ok_or_else(|| {
            let error = format!("{ROWS} must be a whole number from 1");
            Refusal(StatusCode::BAD_REQUEST, error)
        })
}

/// Computes the answer as JSON, off the async threads.
fn answer(replica: &dyn Predictor, batch: &Batch) -> Result<Vec<u8>, Refusal> {
    let internal = |e: &dyn std::fmt::Display| {
        tracing::error!(error = %e, "prediction failed");
        let error = "the model failed".to_owned();
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, error)
    };
    let tensors = replica.predict(batch).map_err(|e| match e {
        EngineError::InvalidInput(error) => Refusal(StatusCode::BAD_REQUEST, error),
        other => internal(&other),
    })?;
    serde_json::to_vec(&tensors).map_err(|e| internal(&e))
}
