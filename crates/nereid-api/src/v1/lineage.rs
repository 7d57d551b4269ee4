//! Lineage downwards: what was made of a dataset version, and by a job.

use axum::{Json, extract::State};
use nereid_core::{Name, ids::JobId};
use nereid_store::Page;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::models::ModelVersionList;
use crate::{
    ApiState,
    auth::Caller,
    extract::{Path, Query, VersionNumber},
    pages::Paging,
    problem::Problem,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_model_versions_of_dataset))
        .routes(routes!(list_model_versions_of_job))
}

/// Lists what was made of a dataset version
///
/// All model versions whose trainings read it, as training, validation or test data, oldest first.
#[utoipa::path(
    get, path = "/v1/datasets/{name}/versions/{version}/model-versions", tag = "datasets",
    params(
        ("name" = Name, Path, description = "Name of the dataset"),
        ("version" = u32, Path, description = "Number of the version", minimum = 1, maximum = 2_147_483_647),
        Paging,
    ),
    responses((status = 200, description = "A page of model versions", body = ModelVersionList)),
    security(("api_key" = ["viewer"])),
)]
async fn list_model_versions_of_dataset(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, version)): Path<(Name, VersionNumber)>,
    Query(paging): Query<Paging>,
) -> Result<Json<ModelVersionList>, Problem> {
    let list = "model_versions_of_dataset";
    let page = paging.request(&state.page_tokens, list)?;
    let page = state
        .store
        .models_of_dataset(actor.project, &name, version.0, &page)
        .await?;
    Ok(Json(ModelVersionList::new(page, &state.page_tokens, list)))
}

/// Lists what a job published
///
/// A training publishes one version when it succeeds; other jobs publish none.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/model-versions", tag = "jobs",
    params(("id" = JobId, Path, description = "Identifier of the job")),
    responses((status = 200, description = "At most one model version", body = ModelVersionList)),
    security(("api_key" = ["viewer"])),
)]
async fn list_model_versions_of_job(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(id): Path<JobId>,
) -> Result<Json<ModelVersionList>, Problem> {
    let items = state.store.models_of_job(actor.project, id).await?;
    let page = Page { items, next: None };
    let list = "model_versions_of_job";
    Ok(Json(ModelVersionList::new(page, &state.page_tokens, list)))
}
