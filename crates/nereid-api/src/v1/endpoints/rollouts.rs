//! Rollouts of endpoints, and what happened to endpoints.

use axum::{Json, extract::State};
use nereid_core::{
    Name,
    endpoints::{EndpointEvent, RolloutReport, RolloutState},
};
use nereid_store::notify::Wake;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::IdempotencyHeader;
use crate::{
    ApiState,
    auth::Caller,
    extract::{Path, Query},
    once::{BareSubmission, Interrupt},
    pages::{Paging, listing},
    problem::Problem,
};

listing!(
    /// A page of rollouts.
    RolloutList,
    RolloutState
);

listing!(
    /// A page of an endpoint's events.
    EndpointEventList,
    EndpointEvent
);

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_rollouts))
        .routes(routes!(get_rollout))
        .routes(routes!(promote_rollout))
        .routes(routes!(list_endpoint_events))
}

/// Lists the rollouts of an endpoint
#[utoipa::path(
    get, path = "/v1/endpoints/{name}/rollouts", tag = "endpoints",
    params(("name" = Name, Path, description = "Name of the endpoint"), Paging),
    responses((status = 200, description = "A page of rollouts, newest first", body = RolloutList)),
    security(("api_key" = ["viewer"])),
)]
async fn list_rollouts(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
    Query(paging): Query<Paging>,
) -> Result<Json<RolloutList>, Problem> {
    let list = format!("rollouts/{name}");
    let page = paging.request(&state.page_tokens, &list)?;
    // Tells an endpoint that does not exist from one without rollouts.
    state.store.endpoint(actor.project, &name).await?;
    let page = state.store.rollouts(actor.project, &name, &page).await?;
    Ok(Json(RolloutList::new(page, &state.page_tokens, &list)))
}

/// Returns the newest rollout of an endpoint
///
/// With what was measured of both generations since it last changed: requests, errors, latency,
/// scores, and of a shadow how many of its answers differ.
#[utoipa::path(
    get, path = "/v1/endpoints/{name}/rollout", tag = "endpoints",
    params(("name" = Name, Path, description = "Name of the endpoint")),
    responses((status = 200, description = "The rollout", body = RolloutReport)),
    security(("api_key" = ["viewer"])),
)]
async fn get_rollout(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
) -> Result<Json<RolloutReport>, Problem> {
    let report = state.store.rollout_report(actor.project, &name).await?;
    Ok(Json(report))
}

/// Gives a rollout all the traffic
///
/// Ends the waiting of one that is shifting: a canary, a linear one, or a shadow. To undo a rollout,
/// roll the endpoint back.
#[utoipa::path(
    post, path = "/v1/endpoints/{name}/rollout/promote", tag = "endpoints",
    params(("name" = Name, Path, description = "Name of the endpoint"), IdempotencyHeader),
    responses((status = 200, description = "It has all the traffic", body = RolloutState)),
    security(("api_key" = ["deployer"])),
)]
async fn promote_rollout(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
    request: BareSubmission,
) -> Result<Json<RolloutState>, Interrupt> {
    let mut tx = request.nothing()?.begin(&state, &actor).await?;
    let rollout = tx.promote_rollout(&name).await?;
    tx.commit(200, &rollout).await?;
    state.store.notify(Wake::Endpoints);
    Ok(Json(rollout))
}

/// Lists what happened to an endpoint
///
/// Rollouts and scaling, each with its reason.
#[utoipa::path(
    get, path = "/v1/endpoints/{name}/events", tag = "endpoints",
    params(("name" = Name, Path, description = "Name of the endpoint"), Paging),
    responses((status = 200, description = "A page of events, newest first", body = EndpointEventList)),
    security(("api_key" = ["viewer"])),
)]
async fn list_endpoint_events(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
    Query(paging): Query<Paging>,
) -> Result<Json<EndpointEventList>, Problem> {
    let list = format!("endpoint-events/{name}");
    let page = paging.request(&state.page_tokens, &list)?;
    let page = state.store.endpoint_events(actor.project, &name, &page);
    let page = page.await?;
    Ok(Json(EndpointEventList::new(
        page,
        &state.page_tokens,
        &list,
    )))
}
