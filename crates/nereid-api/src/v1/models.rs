//! Models and their versions: list, show, tag, delete, train, deploy, promote, compare, find.

mod aliases;
mod approval;
mod artifact;
mod compare;
mod files;
mod jobs;
mod promotion;
mod search;
mod versions;

pub(crate) use self::versions::ModelVersionList;

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use http::StatusCode;
use nereid_core::{
    Name, Violations,
    jobs::check_tags,
    models::{Edit, Model},
    validation::ObjectReader,
};
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
        .merge(aliases::routes())
        .merge(promotion::routes())
        .merge(approval::routes())
        .merge(compare::routes())
        .merge(search::routes())
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

/// What to change of a model, as a merge patch (RFC 7396): what is absent stays, null takes away.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"description": "Reads handwritten digits", "tags": {"team": "vision", "draft": null}}))]
#[expect(dead_code, reason = "for the document only")]
pub(crate) struct ModelUpdate {
    /// Free text.
    #[schema(max_length = 2048)]
    description: Option<String>,
    /// Free key-value pairs to set; those that are null are taken away.
    tags: Option<BTreeMap<String, Option<String>>>,
    /// Whether only approved versions may be deployed or get traffic; what serves already goes on.
    require_approval: Option<bool>,
}

/// Reads description and tags of a merge patch.
fn read_edit(r: &mut ObjectReader<'_>) -> Edit {
    let description: Option<Option<String>> = r.patched("description");
    let tags: Option<Option<BTreeMap<String, Option<String>>>> = r.patched("tags");
    let description = description.map(Option::unwrap_or_default);
    let v = r.violations();
    check_description(
        description.as_deref().unwrap_or_default(),
        "/description",
        v,
    );
    let clear_tags = matches!(tags, Some(None));
    let tags = tags.flatten().unwrap_or_default();
    let set = tags.iter();
    let set = set.map(|(key, value)| (key.clone(), value.clone().unwrap_or_default()));
    check_tags(&set.collect(), "/tags", v);
    Edit {
        description,
        clear_tags,
        tags,
    }
}

/// Reads a merge patch of a model.
fn read_update(body: Value) -> Result<(Edit, Option<bool>), Violations> {
    let mut violations = Violations::default();
    let Some(mut r) = ObjectReader::new(body, "", &mut violations) else {
        return Err(violations);
    };
    let edit = read_edit(&mut r);
    // Null takes the policy away, as it does a tag.
    let policy: Option<Option<bool>> = r.patched("require_approval");
    r.finish();
    violations.into_result((edit, policy.map(Option::unwrap_or_default)))
}

/// Changes a model's description, tags and policy
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
    let (edit, require_approval) = read_update(body)?;
    let model = state
        .store
        .with_actor(actor.key)
        .update_model(actor.project, &name, &edit, require_approval)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn null_takes_away_and_absence_keeps() {
        let body = json!({"description": null, "tags": {"a": "1", "b": null}});
        let (edit, policy) = read_update(body).unwrap();
        assert_eq!((edit.description.as_deref(), policy), (Some(""), None));
        let mut tags: BTreeMap<_, _> = [("b", "2"), ("c", "3")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        edit.apply(&mut tags).unwrap();
        assert_eq!(json!(tags), json!({"a": "1", "c": "3"}));

        let (edit, policy) = read_update(json!({"tags": null, "require_approval": true})).unwrap();
        assert_eq!((edit.description.clone(), policy), (None, Some(true)));
        edit.apply(&mut tags).unwrap();
        assert!(tags.is_empty());

        let many: BTreeMap<_, _> = (0..65).map(|n| (n.to_string(), "x")).collect();
        let wrong = json!({"description": 1, "tags": many, "require_approval": "no", "colour": 1});
        let found = read_update(wrong).unwrap_err().into_vec();
        let found: Vec<_> = found.iter().map(|v| v.pointer.as_str()).collect();
        assert_eq!(
            found,
            ["/description", "/tags", "/require_approval", "/colour"]
        );
    }
}
