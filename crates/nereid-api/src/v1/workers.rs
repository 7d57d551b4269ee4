//! Workers: what runs the jobs and holds the replicas.

use axum::{Json, extract::State};
use nereid_core::{ids::WorkerId, workers::Worker};
use nereid_store::notify::Wake;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    auth::Caller,
    extract::{Path, Query},
    pages::{Paging, listing},
    problem::Problem,
};

listing!(
    /// A page of workers.
    WorkerList,
    Worker
);

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_workers))
        .routes(routes!(get_worker))
        .routes(routes!(drain_worker))
}

/// Lists workers
#[utoipa::path(
    get, path = "/v1/workers", tag = "workers", params(Paging),
    responses((status = 200, description = "A page of workers", body = WorkerList)),
    security(("api_key" = ["viewer"])),
)]
async fn list_workers(
    State(state): State<ApiState>,
    Query(paging): Query<Paging>,
) -> Result<Json<WorkerList>, Problem> {
    let page = paging.request(&state.page_tokens, "workers")?;
    let page = state.store.workers(&page).await?;
    Ok(Json(WorkerList::new(page, &state.page_tokens, "workers")))
}

/// Returns a worker
#[utoipa::path(
    get, path = "/v1/workers/{id}", tag = "workers",
    params(("id" = WorkerId, Path, description = "Identifier of the worker")),
    responses((status = 200, description = "The worker", body = Worker)),
    security(("api_key" = ["viewer"])),
)]
async fn get_worker(
    State(state): State<ApiState>,
    Path(id): Path<WorkerId>,
) -> Result<Json<Worker>, Problem> {
    Ok(Json(state.store.worker(id).await?))
}

/// Drains a worker
///
/// It takes no new jobs, hands over its replicas and finishes what it has. Repeating the request
/// changes nothing, so it needs no `Idempotency-Key`.
#[utoipa::path(
    post, path = "/v1/workers/{id}/drain", tag = "workers",
    params(("id" = WorkerId, Path, description = "Identifier of the worker")),
    responses((status = 200, description = "It drains", body = Worker)),
    security(("api_key" = ["admin"])),
)]
async fn drain_worker(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(id): Path<WorkerId>,
) -> Result<Json<Worker>, Problem> {
    let worker = state.store.with_actor(actor.key).drain_worker(id).await?;
    state.store.notify(Wake::Endpoints);
    Ok(Json(worker))
}
