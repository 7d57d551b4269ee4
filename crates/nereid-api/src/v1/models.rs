//! Models and their versions: list, show, tag, delete, train, deploy.

mod artifact;
mod files;
mod jobs;
mod versions;

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use http::StatusCode;
use nereid_core::{Name, Violations, jobs::check_tags, models::Model, validation::ObjectReader};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    auth::Caller,
    extract::{JsonBody, Path, Query, check_description},
    pages::{Paging, listing},
    problem::Problem,
};

listing!(
    /// A page of models.
    ModelList,
    Model
);

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_models))
        .routes(routes!(get_model, update_model, delete_model))
        .merge(versions::routes())
        .merge(jobs::routes())
        .merge(files::routes())
        .merge(artifact::routes())
}

/// Lists models
#[utoipa::path(
    get, path = "/v1/models", tag = "models", params(Paging),
    responses((status = 200, description = "A page of models by name", body = ModelList)),
    security(("api_key" = ["viewer"])),
)]
async fn list_models(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Query(paging): Query<Paging>,
) -> Result<Json<ModelList>, Problem> {
    let page = paging.request(&state.page_tokens, "models")?;
    let page = state.store.models(actor.project, &page).await?;
    Ok(Json(ModelList::new(page, &state.page_tokens, "models")))
}

/// Returns a model
#[utoipa::path(
    get, path = "/v1/models/{name}", tag = "models",
    params(("name" = Name, Path, description = "Name of the model")),
    responses((status = 200, description = "The model", body = Model)),
    security(("api_key" = ["viewer"])),
)]
async fn get_model(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
) -> Result<Json<Model>, Problem> {
    Ok(Json(state.store.model(actor.project, &name).await?))
}

/// What to change of a model; what is absent stays.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"description": "Reads handwritten digits", "tags": {"team": "vision"}}))]
pub(crate) struct ModelUpdate {
    /// Free text.
    #[schema(max_length = 2048)]
    description: Option<String>,
    /// Free key-value pairs; replaces all of them.
    tags: Option<BTreeMap<String, String>>,
}

impl ModelUpdate {
    fn read(body: Value) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let Some(mut r) = ObjectReader::new(body, "", &mut violations) else {
            return Err(violations);
        };
        let description: Option<String> = r.optional("description");
        let tags: Option<BTreeMap<String, String>> = r.optional("tags");
        let v = r.violations();
        check_description(
            description.as_deref().unwrap_or_default(),
            "/description",
            v,
        );
        if let Some(tags) = &tags {
            check_tags(tags, "/tags", v);
        }
        r.finish();
        violations.into_result(Self { description, tags })
    }
}

/// Changes a model's description and tags
#[utoipa::path(
    patch, path = "/v1/models/{name}", tag = "models", request_body = ModelUpdate,
    params(("name" = Name, Path, description = "Name of the model")),
    responses((status = 200, description = "Changed", body = Model)),
    security(("api_key" = ["deployer"])),
)]
async fn update_model(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
    JsonBody(body): JsonBody,
) -> Result<Json<Model>, Problem> {
    let ModelUpdate { description, tags } = ModelUpdate::read(body)?;
    let description = description.as_deref();
    let model = state
        .store
        .with_actor(actor.key)
        .update_model(actor.project, &name, description, tags.as_ref())
        .await?;
    Ok(Json(model))
}

/// Deletes a model with all its versions
///
/// Refused while an endpoint serves one of them or a job trains or deploys it.
#[utoipa::path(
    delete, path = "/v1/models/{name}", tag = "models",
    params(("name" = Name, Path, description = "Name of the model")),
    responses((status = 204, description = "Deleted")),
    security(("api_key" = ["deployer"])),
)]
async fn delete_model(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
) -> Result<StatusCode, Problem> {
    state
        .store
        .with_actor(actor.key)
        .delete_model(actor.project, &name)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
