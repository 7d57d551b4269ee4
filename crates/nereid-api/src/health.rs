//! Liveness and readiness, for whoever runs the process.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use http::StatusCode;
use serde::Serialize;
use std::{future::Future, time::Duration};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{ApiState, problem::Problem};

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
        check("postgres", async {
            state.store.ping().await.map_err(Problem::from)
        }),
        check("s3", bucket(&state)),
    );
    let checks = vec![postgres, s3];
    let well = checks.iter().all(|c| c.status == HealthStatus::Ok);
    let (code, status) = if well {
        (StatusCode::OK, HealthStatus::Ok)
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, HealthStatus::Unavailable)
    };
    (code, Json(Health { status, checks })).into_response()
}

async fn check(
    name: &'static str,
    probe: impl Future<Output = Result<(), Problem>>,
) -> HealthCheck {
    let status = match tokio::time::timeout(TIMEOUT, probe).await {
        Ok(Ok(())) => HealthStatus::Ok,
        Ok(Err(e)) => {
            tracing::warn!(dependency = name, error = ?e, "not ready");
            HealthStatus::Unavailable
        }
        Err(_) => {
            tracing::warn!(dependency = name, "not ready: no answer in time");
            HealthStatus::Unavailable
        }
    };
    HealthCheck { name, status }
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
