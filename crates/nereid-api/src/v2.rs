//! Open Inference Protocol v2 over REST; an endpoint's name is the protocol's model name.
//!
//! <https://github.com/open-inference/open-inference-protocol>. Errors are `{"error": "…"}`, which
//! the envelope makes of any problem under `/v2`.

mod infer;
mod tensors;

use axum::{Json, extract::State};
use nereid_core::{Name, models::Signature, tensors::TensorSpec};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    auth::Caller,
    extract::{Path, VersionNumber},
    gateway::{Target, Variant},
    health,
    problem::{Code, Problem},
};

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(oip_server_metadata))
        .routes(routes!(oip_server_live))
        .routes(routes!(oip_server_ready))
        .routes(routes!(oip_model_metadata))
        .routes(routes!(oip_model_version_metadata))
        .routes(routes!(oip_model_ready))
        .routes(routes!(oip_model_version_ready))
        .merge(infer::routes())
}

/// An error, as the Open Inference Protocol has it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct OipError {
    /// What went wrong.
    error: String,
}

/// What the server is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OipServerMetadata {
    /// Name of the software.
    #[schema(example = "nereid")]
    name: &'static str,
    /// Version of the software.
    version: &'static str,
    /// Extensions of the protocol that it knows.
    extensions: Vec<String>,
}

/// Whether the server runs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OipServerLive {
    /// Always true.
    live: bool,
}

/// Whether the server or a model takes inference requests.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OipReady {
    /// Always true; an error is answered otherwise.
    ready: bool,
}

/// What a model takes and gives.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OipModelMetadata {
    /// Name of the endpoint.
    name: Name,
    /// Versions that it serves.
    versions: Vec<String>,
    /// Framework.
    #[schema(example = "nereid")]
    platform: &'static str,
    /// Inputs.
    inputs: Vec<TensorSpec>,
    /// Outputs.
    outputs: Vec<TensorSpec>,
}

/// Describes the server
#[utoipa::path(
    get, path = "/v2", tag = "open inference protocol",
    responses((status = 200, description = "Name and version", body = OipServerMetadata)),
    security(("api_key" = ["viewer"])),
)]
async fn oip_server_metadata() -> Json<OipServerMetadata> {
    Json(OipServerMetadata {
        name: "nereid",
        version: nereid_core::VERSION,
        extensions: Vec::new(),
    })
}

/// Tells that the server runs
#[utoipa::path(
    get, path = "/v2/health/live", tag = "open inference protocol",
    responses((status = 200, description = "It runs", body = OipServerLive)),
)]
async fn oip_server_live() -> Json<OipServerLive> {
    Json(OipServerLive { live: true })
}

/// Tells whether the server takes requests
#[utoipa::path(
    get, path = "/v2/health/ready", tag = "open inference protocol",
    responses(
        (status = 200, description = "It does", body = OipReady),
        (status = 503, description = "It does not", body = OipError),
    ),
)]
async fn oip_server_ready(State(state): State<ApiState>) -> Result<Json<OipReady>, Problem> {
    health::postgres(&state).await?;
    Ok(Json(OipReady { ready: true }))
}

/// Describes a model
#[utoipa::path(
    get, path = "/v2/models/{name}", tag = "open inference protocol",
    params(("name" = Name, Path, description = "Name of the endpoint")),
    responses((status = 200, description = "Its tensors", body = OipModelMetadata)),
    security(("api_key" = ["viewer"])),
)]
async fn oip_model_metadata(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
) -> Result<Json<OipModelMetadata>, Problem> {
    let target = state.gateway.target(actor.project, &name).await?;
    let variant = first(&target)?;
    Ok(Json(metadata(name, &target, &variant.signature)))
}

/// Describes a version of a model
#[utoipa::path(
    get, path = "/v2/models/{name}/versions/{version}", tag = "open inference protocol",
    params(
        ("name" = Name, Path, description = "Name of the endpoint"),
        ("version" = u32, Path, description = "Version that the endpoint serves", minimum = 1, maximum = 2_147_483_647),
    ),
    responses((status = 200, description = "Its tensors", body = OipModelMetadata)),
    security(("api_key" = ["viewer"])),
)]
async fn oip_model_version_metadata(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, version)): Path<(Name, VersionNumber)>,
) -> Result<Json<OipModelMetadata>, Problem> {
    let target = state.gateway.target(actor.project, &name).await?;
    let variant = of_version(&target, &name, version)?;
    Ok(Json(metadata(name, &target, &variant.signature)))
}

/// Tells whether a model takes requests
#[utoipa::path(
    get, path = "/v2/models/{name}/ready", tag = "open inference protocol",
    params(("name" = Name, Path, description = "Name of the endpoint")),
    responses((status = 200, description = "It does", body = OipReady)),
    security(("api_key" = ["viewer"])),
)]
async fn oip_model_ready(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
) -> Result<Json<OipReady>, Problem> {
    state.gateway.target(actor.project, &name).await?;
    Ok(Json(OipReady { ready: true }))
}

/// Tells whether a version of a model takes requests
#[utoipa::path(
    get, path = "/v2/models/{name}/versions/{version}/ready", tag = "open inference protocol",
    params(
        ("name" = Name, Path, description = "Name of the endpoint"),
        ("version" = u32, Path, description = "Version that the endpoint serves", minimum = 1, maximum = 2_147_483_647),
    ),
    responses((status = 200, description = "It does", body = OipReady)),
    security(("api_key" = ["viewer"])),
)]
async fn oip_model_version_ready(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, version)): Path<(Name, VersionNumber)>,
) -> Result<Json<OipReady>, Problem> {
    let target = state.gateway.target(actor.project, &name).await?;
    of_version(&target, &name, version)?;
    Ok(Json(OipReady { ready: true }))
}

fn metadata(name: Name, target: &Arc<Target>, signature: &Signature) -> OipModelMetadata {
    let mut versions: Vec<u32> = target.variants.iter().map(|v| v.version).collect();
    versions.sort_unstable();
    versions.dedup();
    OipModelMetadata {
        name,
        versions: versions.iter().map(ToString::to_string).collect(),
        platform: "nereid",
        inputs: signature.inputs.clone(),
        outputs: signature.outputs.clone(),
    }
}

fn first(target: &Target) -> Result<&Variant, Problem> {
    target
        .choose()
        .ok_or_else(|| Problem::internal("a route without variants"))
}

fn of_version<'a>(
    target: &'a Target,
    name: &Name,
    version: VersionNumber,
) -> Result<&'a Variant, Problem> {
    target.of_version(version.0).ok_or_else(|| {
        let detail = format!("Endpoint {name} does not serve version {}.", version.0);
        Problem::new(Code::NotFound, detail)
    })
}
