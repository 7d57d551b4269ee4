//! Open Inference Protocol v2 over REST; an endpoint's name is the protocol's model name.
//!
//! <https://github.com/open-inference/open-inference-protocol>. Errors are `{"error": "…"}`, which
//! the envelope makes of any problem under `/v2`.

mod infer;
mod repository;
mod wire;

use axum::{Json, extract::State, routing::get};
use nereid_core::{Name, models::Signature, tensors::TensorSpec};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    auth::Caller,
    extract::{Path, VersionNumber},
    gateway::Target,
    health, oip,
    oip::{config::ModelConfig, serve::variant},
    problem::Problem,
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
        .routes(routes!(oip_model_config))
        .routes(routes!(oip_model_version_config))
        // Clients that put a base URL and a path together come with a slash at the end.
        .route("/v2/", get(oip_server_metadata))
        .merge(infer::routes())
        .merge(repository::routes())
}

/// Documents the header of bodies with binary tensors.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by wire; here for the document only")]
pub(crate) struct BinaryHeader {
    /// Bytes of the JSON at the start of the (uncompressed) body; tensors as bytes follow. 0 says
    /// that the body is nothing but the bytes of the model's one input.
    #[param(
        rename = "Inference-Header-Content-Length",
        required = false,
        minimum = 0,
        maximum = 67_108_864
    )]
    length: u32,
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
        name: oip::SERVER_NAME,
        version: nereid_core::VERSION,
        extensions: oip::EXTENSIONS.map(str::to_owned).to_vec(),
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
    let signature = &variant(&target, &name, None)?.signature;
    Ok(Json(metadata(name, &target, signature)))
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
    let signature = &variant(&target, &name, Some(version.0))?.signature;
    Ok(Json(metadata(name, &target, signature)))
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
    variant(&target, &name, Some(version.0))?;
    Ok(Json(OipReady { ready: true }))
}

/// Returns a model's configuration
#[utoipa::path(
    get, path = "/v2/models/{name}/config", tag = "open inference protocol",
    params(("name" = Name, Path, description = "Name of the endpoint")),
    responses((status = 200, description = "How it is served", body = ModelConfig)),
    security(("api_key" = ["viewer"])),
)]
async fn oip_model_config(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
) -> Result<Json<ModelConfig>, Problem> {
    let target = state.gateway.target(actor.project, &name).await?;
    let signature = &variant(&target, &name, None)?.signature;
    Ok(Json(ModelConfig::new(name, target.versions(), signature)))
}

/// Returns the configuration of a version of a model
#[utoipa::path(
    get, path = "/v2/models/{name}/versions/{version}/config", tag = "open inference protocol",
    params(
        ("name" = Name, Path, description = "Name of the endpoint"),
        ("version" = u32, Path, description = "Version that the endpoint serves", minimum = 1, maximum = 2_147_483_647),
    ),
    responses((status = 200, description = "How it is served", body = ModelConfig)),
    security(("api_key" = ["viewer"])),
)]
async fn oip_model_version_config(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, version)): Path<(Name, VersionNumber)>,
) -> Result<Json<ModelConfig>, Problem> {
    let target = state.gateway.target(actor.project, &name).await?;
    let signature = &variant(&target, &name, Some(version.0))?.signature;
    Ok(Json(ModelConfig::new(name, target.versions(), signature)))
}

fn metadata(name: Name, target: &Target, signature: &Signature) -> OipModelMetadata {
    OipModelMetadata {
        name,
        versions: target.versions().iter().map(ToString::to_string).collect(),
        platform: oip::PLATFORM,
        inputs: signature.inputs.clone(),
        outputs: signature.outputs.clone(),
    }
}
