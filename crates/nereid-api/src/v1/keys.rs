//! API keys: make, list, revoke. A secret is shown once and never stored.

use axum::{Json, extract::State, response::Response};
use http::StatusCode;
use nereid_core::{
    Name, Violations,
    ids::KeyId,
    keys::{ApiKey, Role},
    validation::ObjectReader,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{IdempotencyHeader, created};
use crate::{
    ApiState,
    auth::{Caller, hash_key_secret, key_prefix, new_key_secret},
    extract::{Path, Query},
    once::{Interrupt, Submission},
    pages::{Paging, listing},
    problem::Problem,
};

listing!(
    /// A page of API keys.
    ApiKeyList,
    ApiKey
);

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(create_api_key, list_api_keys))
        .routes(routes!(revoke_api_key))
}

/// An API key to make.
#[derive(ToSchema)]
#[schema(as = NewApiKey, example = json!({"name": "ci", "role": "trainer"}))]
#[serde(deny_unknown_fields)]
pub(crate) struct NewApiKey {
    /// What it is for.
    name: Name,
    /// What it may do.
    role: Role,
}

impl NewApiKey {
    fn read(body: Value) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let Some(mut r) = ObjectReader::new(body, "", &mut violations) else {
            return Err(violations);
        };
        let (name, role) = (r.required("name"), r.required("role"));
        r.finish();
        match (name, role) {
            (Some(name), Some(role)) => violations.into_result(Self { name, role }),
            _ => Err(violations),
        }
    }
}

/// A new API key with its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedApiKey {
    /// The key.
    key: ApiKey,
    /// The secret, shown this one time; absent when the request is repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "nrd_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
    secret: Option<String>,
}

/// Makes an API key
///
/// The answer holds the secret, which is shown this one time. A repeated request with the same
/// `Idempotency-Key` gives the key without its secret.
#[utoipa::path(
    post, path = "/v1/keys", tag = "keys", params(IdempotencyHeader), request_body = NewApiKey,
    responses((status = 201, description = "Made", body = CreatedApiKey)),
    security(("api_key" = ["admin"])),
)]
async fn create_api_key(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    request: Submission,
) -> Result<Response, Interrupt> {
    let new = NewApiKey::read(request.body)?;
    let secret = new_key_secret();
    let mut tx = request.once.begin(&state, &actor).await?;
    let hash = hash_key_secret(&secret);
    let key = tx
        .create_key(&new.name, new.role, key_prefix(&secret), &hash)
        .await?;
    let stored = CreatedApiKey { key, secret: None };
    tx.commit(201, &stored).await?;
    let location = format!("/v1/keys/{}", stored.key.id);
    Ok(created(
        &location,
        CreatedApiKey {
            secret: Some(secret),
            ..stored
        },
    ))
}

/// Lists API keys
#[utoipa::path(
    get, path = "/v1/keys", tag = "keys", params(Paging),
    responses((status = 200, description = "A page of keys, without their secrets", body = ApiKeyList)),
    security(("api_key" = ["admin"])),
)]
async fn list_api_keys(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Query(paging): Query<Paging>,
) -> Result<Json<ApiKeyList>, Problem> {
    let page = paging.request(&state.page_tokens, "keys")?;
    let page = state.store.keys(actor.project, &page).await?;
    Ok(Json(ApiKeyList::new(page, &state.page_tokens, "keys")))
}

/// Revokes an API key
///
/// Other processes may take the key for up to five seconds more.
#[utoipa::path(
    delete, path = "/v1/keys/{id}", tag = "keys",
    params(("id" = KeyId, Path, description = "Identifier of the key")),
    responses((status = 204, description = "Revoked")),
    security(("api_key" = ["admin"])),
)]
async fn revoke_api_key(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(id): Path<KeyId>,
) -> Result<StatusCode, Problem> {
    state
        .store
        .with_actor(actor.key)
        .revoke_key(actor.project, id)
        .await?;
    state.authenticator.forget();
    Ok(StatusCode::NO_CONTENT)
}
