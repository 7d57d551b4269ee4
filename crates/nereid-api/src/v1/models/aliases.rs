//! Aliases of a model: list, show, put, delete, history.

use axum::{Json, extract::State};
use http::StatusCode;
use nereid_core::{
    Name, Violations,
    models::{Alias, AliasChange, ModelAlias, ModelVersion},
    validation::ObjectReader,
};
use nereid_store::ResourceKind::ModelVersion as Version;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    auth::Caller,
    extract::{JsonBody, Path, Query},
    pages::{Paging, listing},
    problem::{Problem, reference},
};

listing!(
    /// A page of aliases.
    ModelAliasList,
    ModelAlias
);
listing!(
    /// A page of an alias' history.
    AliasChangeList,
    AliasChange
);

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_model_aliases))
        .routes(routes!(
            get_model_alias,
            put_model_alias,
            delete_model_alias
        ))
        .routes(routes!(get_aliased_model_version))
        .routes(routes!(list_model_alias_history))
}

/// Lists a model's aliases
#[utoipa::path(
    get, path = "/v1/models/{name}/aliases", tag = "models",
    params(("name" = Name, Path, description = "Name of the model"), Paging),
    responses((status = 200, description = "A page of aliases by name", body = ModelAliasList)),
    security(("api_key" = ["viewer"])),
)]
async fn list_model_aliases(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
    Query(paging): Query<Paging>,
) -> Result<Json<ModelAliasList>, Problem> {
    let list = "model_aliases";
    let page = paging.request(&state.page_tokens, list)?;
    let page = state.store.aliases(actor.project, &name, &page).await?;
    Ok(Json(ModelAliasList::new(page, &state.page_tokens, list)))
}

/// Returns an alias
#[utoipa::path(
    get, path = "/v1/models/{name}/aliases/{alias}", tag = "models",
    params(
        ("name" = Name, Path, description = "Name of the model"),
        ("alias" = Alias, Path, description = "The alias"),
    ),
    responses((status = 200, description = "The alias", body = ModelAlias)),
    security(("api_key" = ["viewer"])),
)]
async fn get_model_alias(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, alias)): Path<(Name, Alias)>,
) -> Result<Json<ModelAlias>, Problem> {
    Ok(Json(state.store.alias(actor.project, &name, &alias).await?))
}

/// Where an alias is to point.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"version": 3}))]
pub(crate) struct AliasTarget {
    /// Number of the version.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    version: u32,
}

impl AliasTarget {
    fn read(body: Value) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let Some(mut r) = ObjectReader::new(body, "", &mut violations) else {
            return Err(violations);
        };
        let version = r.required("version").unwrap_or(1);
        let max = i32::MAX.unsigned_abs();
        r.violations().check_range("/version", version, 1, max);
        r.finish();
        violations.into_result(Self { version })
    }
}

/// Points an alias to a version
///
/// Makes the alias if there is none. What was deployed by the alias stays as it is: an alias is
/// resolved once, when it is named.
#[utoipa::path(
    put, path = "/v1/models/{name}/aliases/{alias}", tag = "models",
    params(
        ("name" = Name, Path, description = "Name of the model"),
        ("alias" = Alias, Path, description = "The alias"),
    ),
    request_body = AliasTarget,
    responses((status = 200, description = "The alias", body = ModelAlias)),
    security(("api_key" = ["deployer"])),
)]
async fn put_model_alias(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, alias)): Path<(Name, Alias)>,
    JsonBody(body): JsonBody,
) -> Result<Json<ModelAlias>, Problem> {
    let AliasTarget { version } = AliasTarget::read(body)?;
    let store = state.store.with_actor(actor.key);
    let alias = store.set_alias(actor.project, &name, &alias, version).await;
    Ok(Json(alias.map_err(reference(&[Version], "/version"))?))
}

/// Deletes an alias
///
/// The version that it points to stays. Its history stays too, but no demotion goes back beyond
/// this.
#[utoipa::path(
    delete, path = "/v1/models/{name}/aliases/{alias}", tag = "models",
    params(
        ("name" = Name, Path, description = "Name of the model"),
        ("alias" = Alias, Path, description = "The alias"),
    ),
    responses((status = 204, description = "Deleted")),
    security(("api_key" = ["deployer"])),
)]
async fn delete_model_alias(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, alias)): Path<(Name, Alias)>,
) -> Result<StatusCode, Problem> {
    let store = state.store.with_actor(actor.key);
    store.delete_alias(actor.project, &name, &alias).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Returns the version that an alias points to
#[utoipa::path(
    get, path = "/v1/models/{name}/aliases/{alias}/version", tag = "models",
    params(
        ("name" = Name, Path, description = "Name of the model"),
        ("alias" = Alias, Path, description = "The alias"),
    ),
    responses((status = 200, description = "The version", body = ModelVersion)),
    security(("api_key" = ["viewer"])),
)]
async fn get_aliased_model_version(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, alias)): Path<(Name, Alias)>,
) -> Result<Json<ModelVersion>, Problem> {
    let version = state.store.aliased_version(actor.project, &name, &alias);
    Ok(Json(version.await?))
}

/// Lists an alias' history, newest first
///
/// Also that of an alias that has been deleted.
#[utoipa::path(
    get, path = "/v1/models/{name}/aliases/{alias}/history", tag = "models",
    params(
        ("name" = Name, Path, description = "Name of the model"),
        ("alias" = Alias, Path, description = "The alias"),
        Paging,
    ),
    responses((status = 200, description = "A page of changes", body = AliasChangeList)),
    security(("api_key" = ["viewer"])),
)]
async fn list_model_alias_history(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, alias)): Path<(Name, Alias)>,
    Query(paging): Query<Paging>,
) -> Result<Json<AliasChangeList>, Problem> {
    let list = "model_alias_history";
    let page = paging.request(&state.page_tokens, list)?;
    let page = state
        .store
        .alias_history(actor.project, &name, &alias, &page);
    Ok(Json(AliasChangeList::new(
        page.await?,
        &state.page_tokens,
        list,
    )))
}
