//! Versions of a model: list, show, change, delete, lineage.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use http::StatusCode;
use nereid_core::{
    Name, Violations,
    jobs::Lineage,
    models::{Edit, ModelVersion},
    validation::ObjectReader,
};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::read_edit;
use crate::{
    ApiState,
    auth::Caller,
    extract::{JsonBody, Path, Query, VersionNumber},
    pages::{Paging, listing},
    problem::Problem,
};

listing!(
    /// A page of versions of a model.
    ModelVersionList,
    ModelVersion
);

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_model_versions))
        .routes(routes!(
            get_model_version,
            update_model_version,
            delete_model_version
        ))
        .routes(routes!(get_model_version_lineage))
}

/// Lists versions of a model, newest first
#[utoipa::path(
    get, path = "/v1/models/{name}/versions", tag = "models",
    params(("name" = Name, Path, description = "Name of the model"), Paging),
    responses((status = 200, description = "A page of versions", body = ModelVersionList)),
    security(("api_key" = ["viewer"])),
)]
async fn list_model_versions(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
    Query(paging): Query<Paging>,
) -> Result<Json<ModelVersionList>, Problem> {
    let page = paging.request(&state.page_tokens, "model_versions")?;
    let page = state
        .store
        .model_versions(actor.project, &name, &page)
        .await?;
    Ok(Json(ModelVersionList::new(
        page,
        &state.page_tokens,
        "model_versions",
    )))
}

/// Returns a version of a model
#[utoipa::path(
    get, path = "/v1/models/{name}/versions/{version}", tag = "models",
    params(
        ("name" = Name, Path, description = "Name of the model"),
        ("version" = u32, Path, description = "Number of the version", minimum = 1, maximum = 2_147_483_647),
    ),
    responses((status = 200, description = "The version", body = ModelVersion)),
    security(("api_key" = ["viewer"])),
)]
async fn get_model_version(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, version)): Path<(Name, VersionNumber)>,
) -> Result<Json<ModelVersion>, Problem> {
    Ok(Json(
        state
            .store
            .model_version(actor.project, &name, version.0)
            .await?,
    ))
}

/// What to change of a version, as a merge patch (RFC 7396): what is absent stays, null takes away.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"description": "Trained on the cleaned data", "tags": {"reviewed": "yes"}}))]
#[expect(dead_code, reason = "for the document only")]
pub(crate) struct ModelVersionUpdate {
    /// Free text.
    #[schema(max_length = 2048)]
    description: Option<String>,
    /// Free key-value pairs to set; those that are null are taken away.
    tags: Option<BTreeMap<String, Option<String>>>,
}

fn read_update(body: Value) -> Result<Edit, Violations> {
    let mut violations = Violations::default();
    let Some(mut r) = ObjectReader::new(body, "", &mut violations) else {
        return Err(violations);
    };
    let edit = read_edit(&mut r);
    r.finish();
    violations.into_result(edit)
}

/// Changes a version's description and tags
#[utoipa::path(
    patch, path = "/v1/models/{name}/versions/{version}", tag = "models",
    request_body = ModelVersionUpdate,
    params(
        ("name" = Name, Path, description = "Name of the model"),
        ("version" = u32, Path, description = "Number of the version", minimum = 1, maximum = 2_147_483_647),
    ),
    responses((status = 200, description = "Changed", body = ModelVersion)),
    security(("api_key" = ["deployer"])),
)]
async fn update_model_version(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, version)): Path<(Name, VersionNumber)>,
    JsonBody(body): JsonBody,
) -> Result<Json<ModelVersion>, Problem> {
    let edit = read_update(body)?;
    let version = state
        .store
        .with_actor(actor.key)
        .update_model_version(actor.project, &name, version.0, &edit)
        .await?;
    Ok(Json(version))
}

/// Deletes a version of a model
///
/// Its number is never given out again. Refused while an alias points to it, or an endpoint or a
/// job uses it.
#[utoipa::path(
    delete, path = "/v1/models/{name}/versions/{version}", tag = "models",
    params(
        ("name" = Name, Path, description = "Name of the model"),
        ("version" = u32, Path, description = "Number of the version", minimum = 1, maximum = 2_147_483_647),
    ),
    responses((status = 204, description = "Deleted")),
    security(("api_key" = ["deployer"])),
)]
async fn delete_model_version(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, version)): Path<(Name, VersionNumber)>,
) -> Result<StatusCode, Problem> {
    state
        .store
        .with_actor(actor.key)
        .delete_model_version(actor.project, &name, version.0)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Returns what a version was made from
#[utoipa::path(
    get, path = "/v1/models/{name}/versions/{version}/lineage", tag = "models",
    params(
        ("name" = Name, Path, description = "Name of the model"),
        ("version" = u32, Path, description = "Number of the version", minimum = 1, maximum = 2_147_483_647),
    ),
    responses((status = 200, description = "Job, data and software", body = Lineage)),
    security(("api_key" = ["viewer"])),
)]
async fn get_model_version_lineage(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, version)): Path<(Name, VersionNumber)>,
) -> Result<Json<Lineage>, Problem> {
    let version = state
        .store
        .model_version(actor.project, &name, version.0)
        .await?;
    Ok(Json(version.lineage))
}
