//! Inference endpoints: create, update, roll back.

mod rollouts;

use axum::{Json, extract::State, response::Response};
use http::StatusCode;
use nereid_core::{
    Name, Violations,
    endpoints::{Endpoint, EndpointSpec, VariantSpec},
    rollouts::Rollout,
    validation::ObjectReader,
};
use nereid_store::{
    ResourceKind::{Model, ModelAlias, ModelVersion},
    notify::Wake,
};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{IdempotencyHeader, created};
use crate::{
    ApiState,
    auth::Caller,
    extract::{JsonBody, Path, Query},
    once::{BareSubmission, Interrupt, Submission},
    pages::{Paging, listing},
    problem::{Problem, ProblemDocument, reference},
};

listing!(
    /// A page of endpoints.
    EndpointList,
    Endpoint
);

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(create_endpoint, list_endpoints))
        .routes(routes!(get_endpoint, update_endpoint, delete_endpoint))
        .routes(routes!(rollback_endpoint))
        .merge(rollouts::routes())
}

/// An endpoint to create.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "name": "digits",
    "variants": [{"name": "main", "model": "digits", "version": 1, "weight": 100, "replicas": 1}]
}))]
#[expect(dead_code, reason = "for the document only")]
pub(crate) struct NewEndpoint {
    /// Unique name in the project; also the model name in the Open Inference Protocol.
    name: Name,
    /// Variants that share the traffic.
    #[schema(min_items = 1, max_items = 8)]
    variants: Vec<VariantSpec>,
    /// How traffic goes over to them.
    #[serde(default)]
    rollout: Rollout,
}

impl NewEndpoint {
    fn read(body: Value) -> Result<(Name, EndpointSpec), Violations> {
        let mut violations = Violations::default();
        let Some(mut r) = ObjectReader::new(body, "", &mut violations) else {
            return Err(violations);
        };
        let name = r.required("name");
        let spec = EndpointSpec::read(&mut r);
        r.finish();
        match name {
            Some(name) => violations.into_result((name, spec)),
            None => Err(violations),
        }
    }
}

fn read_spec(body: Value) -> Result<EndpointSpec, Violations> {
    let mut violations = Violations::default();
    let Some(mut r) = ObjectReader::new(body, "", &mut violations) else {
        return Err(violations);
    };
    let spec = EndpointSpec::read(&mut r);
    r.finish();
    violations.into_result(spec)
}

/// Creates an endpoint
///
/// Each variant's version must have been deployed once, which makes the files it is served from.
/// A deploy job creates its endpoint by itself; this is for endpoints with several variants.
#[utoipa::path(
    post, path = "/v1/endpoints", tag = "endpoints",
    params(IdempotencyHeader), request_body = NewEndpoint,
    responses((status = 201, description = "Created; workers load the model now", body = Endpoint)),
    security(("api_key" = ["deployer"])),
)]
async fn create_endpoint(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    request: Submission,
) -> Result<Response, Interrupt> {
    let (name, spec) = NewEndpoint::read(request.body)?;
    let mut tx = request.once.begin(&state, &actor).await?;
    let endpoint = tx
        .create_endpoint(&name, &spec)
        .await
        .map_err(reference(&[Model, ModelVersion, ModelAlias], "/variants"))?;
    tx.commit(201, &endpoint).await?;
    state.store.notify(Wake::Endpoints);
    Ok(created(&format!("/v1/endpoints/{name}"), endpoint))
}

/// Lists endpoints
#[utoipa::path(
    get, path = "/v1/endpoints", tag = "endpoints", params(Paging),
    responses((status = 200, description = "A page of endpoints by name", body = EndpointList)),
    security(("api_key" = ["viewer"])),
)]
async fn list_endpoints(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Query(paging): Query<Paging>,
) -> Result<Json<EndpointList>, Problem> {
    let page = paging.request(&state.page_tokens, "endpoints")?;
    let page = state.store.endpoints(actor.project, &page).await?;
    Ok(Json(EndpointList::new(
        page,
        &state.page_tokens,
        "endpoints",
    )))
}

/// Returns an endpoint
#[utoipa::path(
    get, path = "/v1/endpoints/{name}", tag = "endpoints",
    params(("name" = Name, Path, description = "Name of the endpoint")),
    responses((status = 200, description = "The endpoint", body = Endpoint)),
    security(("api_key" = ["viewer"])),
)]
async fn get_endpoint(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
) -> Result<Json<Endpoint>, Problem> {
    Ok(Json(state.store.endpoint(actor.project, &name).await?))
}

/// Replaces an endpoint's variants
///
/// The variants before go on serving until the new ones are ready, so no request is lost.
#[utoipa::path(
    put, path = "/v1/endpoints/{name}", tag = "endpoints", request_body = EndpointSpec,
    params(("name" = Name, Path, description = "Name of the endpoint")),
    responses(
        (status = 200, description = "A new generation is getting ready", body = Endpoint),
        (status = 409, description = "A variant's version was never deployed",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["deployer"])),
)]
async fn update_endpoint(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
    JsonBody(body): JsonBody,
) -> Result<Json<Endpoint>, Problem> {
    let spec = read_spec(body)?;
    let endpoint = state
        .store
        .with_actor(actor.key)
        .update_endpoint(actor.project, &name, &spec)
        .await
        .map_err(reference(&[Model, ModelVersion, ModelAlias], "/variants"))?;
    state.store.notify(Wake::Endpoints);
    Ok(Json(endpoint))
}

/// Deletes an endpoint
#[utoipa::path(
    delete, path = "/v1/endpoints/{name}", tag = "endpoints",
    params(("name" = Name, Path, description = "Name of the endpoint")),
    responses((status = 204, description = "Deleted; its replicas are unloaded")),
    security(("api_key" = ["deployer"])),
)]
async fn delete_endpoint(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
) -> Result<StatusCode, Problem> {
    state
        .store
        .with_actor(actor.key)
        .delete_endpoint(actor.project, &name)
        .await?;
    state.store.notify(Wake::Endpoints);
    Ok(StatusCode::NO_CONTENT)
}

/// Rolls an endpoint back
///
/// Undoes the rollout under way, whose former generation serves again at once. Without one, makes a
/// new generation of the variants that served before the newest one.
#[utoipa::path(
    post, path = "/v1/endpoints/{name}/rollback", tag = "endpoints",
    params(("name" = Name, Path, description = "Name of the endpoint"), IdempotencyHeader),
    responses((status = 200, description = "A new generation is getting ready", body = Endpoint)),
    security(("api_key" = ["deployer"])),
)]
async fn rollback_endpoint(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
    request: BareSubmission,
) -> Result<Json<Endpoint>, Interrupt> {
    let mut tx = request.nothing()?.begin(&state, &actor).await?;
    let endpoint = tx.rollback_endpoint(&name).await?;
    tx.commit(200, &endpoint).await?;
    state.store.notify(Wake::Endpoints);
    Ok(Json(endpoint))
}
