//! The model repository and statistics, by Triton's extensions.

use axum::{
    Json,
    extract::{Request, State},
};
use http::StatusCode;
use nereid_core::{Name, limits};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    auth::Caller,
    extract::{Path, VersionNumber, parse_lenient, read_body},
    oip::{
        repository::{self, IndexEntry},
        statistics::ModelStatistics,
    },
    problem::Problem,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(oip_repository_index))
        .routes(routes!(oip_load_model))
        .routes(routes!(oip_unload_model))
        .routes(routes!(oip_statistics))
        .routes(routes!(oip_model_statistics))
        .routes(routes!(oip_model_version_statistics))
}

/// Which models to list.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct OipIndexRequest {
    /// Only those that answer.
    ready: bool,
}

/// How to load a model.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct OipLoadRequest {
    /// Options of Triton's.
    parameters: Option<OipLoadParameters>,
}

/// Options of Triton's for loading.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct OipLoadParameters {
    /// Refused: deploy jobs say how a model is served.
    config: Option<String>,
}

/// How to unload a model.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct OipUnloadRequest {
    /// Options of Triton's.
    #[serde(rename = "parameters")]
    _parameters: Option<OipUnloadParameters>,
}

/// Options of Triton's for unloading.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct OipUnloadParameters {
    /// Without effect: no model depends on another.
    #[serde(rename = "unload_dependents")]
    _unload_dependents: Option<bool>,
}

/// What models have inferred through this process.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OipStatistics {
    /// One per version and endpoint.
    model_stats: Vec<ModelStatistics>,
}

/// Reads a body that may be empty; no content type is asked for, since clients send none.
async fn optional<T: DeserializeOwned + Default>(request: Request) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    let bytes = read_body(&parts.headers, body, limits::MAX_JSON_BODY_BYTES).await?;
    match bytes.trim_ascii() {
        b"" => Ok(T::default()),
        // Records would be read out of arrays, too.
        object if object.starts_with(b"{") => parse_lenient(object),
        _ => Err(Problem::violation("", "wrong_type", "expected an object")),
    }
}

/// Lists endpoints as models of a repository
///
/// Changes nothing. The body may be empty.
#[utoipa::path(
    post, path = "/v2/repository/index", tag = "open inference protocol",
    request_body = Option<OipIndexRequest>,
    responses((status = 200, description = "One entry per endpoint and version", body = Vec<IndexEntry>)),
    security(("api_key" = ["viewer"])),
)]
async fn oip_repository_index(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    request: Request,
) -> Result<Json<Vec<IndexEntry>>, Problem> {
    let wanted: OipIndexRequest = optional(request).await?;
    let mut entries = repository::index(&state, actor.project).await?;
    entries.retain(|e| !wanted.ready || e.is_ready());
    Ok(Json(entries))
}

/// Loads a model
///
/// Brings the replicas of an unloaded endpoint back and waits until it answers. The body may be
/// empty; a second call changes nothing.
#[utoipa::path(
    post, path = "/v2/repository/models/{name}/load", tag = "open inference protocol",
    params(("name" = Name, Path, description = "Name of the endpoint")),
    request_body = Option<OipLoadRequest>,
    responses((status = 200, description = "It answers")),
    security(("api_key" = ["deployer"])),
)]
async fn oip_load_model(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let wanted: OipLoadRequest = optional(request).await?;
    let config = wanted.parameters.and_then(|p| p.config);
    repository::refuse_config(config.is_some())?;
    repository::load(&state, &actor, &name).await?;
    Ok(StatusCode::OK)
}

/// Unloads a model
///
/// The endpoint stays and answers nothing until it is loaded, updated or deployed again; its
/// replicas go. The body may be empty; a second call changes nothing.
#[utoipa::path(
    post, path = "/v2/repository/models/{name}/unload", tag = "open inference protocol",
    params(("name" = Name, Path, description = "Name of the endpoint")),
    request_body = Option<OipUnloadRequest>,
    responses((status = 200, description = "It answers nothing any more")),
    security(("api_key" = ["deployer"])),
)]
async fn oip_unload_model(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let _options: OipUnloadRequest = optional(request).await?;
    repository::unload(&state, &actor, &name).await?;
    Ok(StatusCode::OK)
}

/// Tells what all models have inferred
///
/// Counted by the process that answers, since it started.
#[utoipa::path(
    get, path = "/v2/models/stats", tag = "open inference protocol",
    responses((status = 200, description = "Counters per endpoint and version", body = OipStatistics)),
    security(("api_key" = ["viewer"])),
)]
async fn oip_statistics(
    State(state): State<ApiState>,
    Caller(actor): Caller,
) -> Result<Json<OipStatistics>, Problem> {
    let model_stats = repository::statistics(&state, actor.project, None, None).await?;
    Ok(Json(OipStatistics { model_stats }))
}

/// Tells what a model has inferred
///
/// Counted by the process that answers, since it started.
#[utoipa::path(
    get, path = "/v2/models/{name}/stats", tag = "open inference protocol",
    params(("name" = Name, Path, description = "Name of the endpoint")),
    responses((status = 200, description = "Counters per version", body = OipStatistics)),
    security(("api_key" = ["viewer"])),
)]
async fn oip_model_statistics(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
) -> Result<Json<OipStatistics>, Problem> {
    let model_stats = repository::statistics(&state, actor.project, Some(&name), None).await?;
    Ok(Json(OipStatistics { model_stats }))
}

/// Tells what a version of a model has inferred
///
/// Counted by the process that answers, since it started.
#[utoipa::path(
    get, path = "/v2/models/{name}/versions/{version}/stats", tag = "open inference protocol",
    params(
        ("name" = Name, Path, description = "Name of the endpoint"),
        ("version" = u32, Path, description = "Version that the endpoint serves", minimum = 1, maximum = 2_147_483_647),
    ),
    responses((status = 200, description = "Its counters", body = OipStatistics)),
    security(("api_key" = ["viewer"])),
)]
async fn oip_model_version_statistics(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, version)): Path<(Name, VersionNumber)>,
) -> Result<Json<OipStatistics>, Problem> {
    let version = Some(version.0);
    let model_stats = repository::statistics(&state, actor.project, Some(&name), version).await?;
    Ok(Json(OipStatistics { model_stats }))
}
