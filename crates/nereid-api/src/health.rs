//! Liveness and readiness, for whoever runs the process.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use std::{future::Future, time::Duration};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    problem::{Problem, RETRY_AFTER},
};

/// Longest wait for each dependency.
const TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(livez))
        .routes(routes!(readyz))
}

/// Whether the process and what it needs can work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// Whether everything is well.
    status: HealthStatus,
    /// What was asked.
    checks: Vec<HealthCheck>,
}

/// One dependency.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HealthCheck {
    /// Which one.
    #[schema(example = "postgres")]
    name: &'static str,
    /// Whether it answers.
    status: HealthStatus,
}

/// Whether something works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HealthStatus {
    /// It works.
    Ok,
    /// It does not.
    Unavailable,
}

/// Tells that the process runs
#[utoipa::path(
    get, path = "/livez", tag = "health",
    responses((status = 200, description = "It runs", body = Health)),
)]
async fn livez() -> Json<Health> {
    Json(Health {
        status: HealthStatus::Ok,
        checks: Vec::new(),
    })
}

/// Tells whether Postgres and S3 answer
#[utoipa::path(
    get, path = "/readyz", tag = "health",
    responses(
        (status = 200, description = "All answer", body = Health),
        (status = 503, description = "One does not", body = Health),
    ),
)]
async fn readyz(State(state): State<ApiState>) -> Response {
    let (postgres, s3) = futures::join!(
        check("postgres", postgres(&state)),
        check("s3", bucket(&state)),
    );
    let checks = vec![postgres, s3];
    let well = checks.iter().all(|c| c.status == HealthStatus::Ok);
    let (code, status) = if well {
        (StatusCode::OK, HealthStatus::Ok)
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, HealthStatus::Unavailable)
    };
    let mut response = (code, Json(Health { status, checks })).into_response();
    if !well {
        let seconds = HeaderValue::from(RETRY_AFTER);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

async fn check(
    name: &'static str,
    probe: impl Future<Output = Result<(), Problem>>,
) -> HealthCheck {
    let status = match in_time(probe).await {
        Ok(()) => HealthStatus::Ok,
        Err(e) => {
            tracing::warn!(dependency = name, error = ?e, "not ready");
            HealthStatus::Unavailable
        }
    };
    HealthCheck { name, status }
}

async fn in_time(probe: impl Future<Output = Result<(), Problem>>) -> Result<(), Problem> {
    tokio::time::timeout(TIMEOUT, probe)
        .await
        .unwrap_or_else(|_| Err(Problem::unavailable("no answer in time")))
}

/// Tells whether Postgres answers in time.
pub(crate) async fn postgres(state: &ApiState) -> Result<(), Problem> {
    in_time(async { state.store.ping().await.map_err(Problem::from) }).await
}

/// Asks for the first of no objects: the cheapest request that fails without the bucket.
async fn bucket(state: &ApiState) -> Result<(), Problem> {
    let mut none = state.objects.list(state.objects.bucket(), "readyz/");
    none.next()
        .await
        .transpose()
        .map(drop)
        .map_err(Problem::from)
}
