//! Promotion and demotion: an alias moves to a version, or back to the one before, in one call.

use axum::{Json, extract::State};
use nereid_core::{
    Name, Violations,
    models::{Alias, ModelAlias},
    validation::ObjectReader,
};
use nereid_store::ResourceKind::ModelVersion as Version;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    auth::Caller,
    extract::Path,
    once::{Interrupt, Submission},
    problem::{ProblemDocument, reference},
    v1::IdempotencyHeader,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(promote_model_version))
        .routes(routes!(demote_model_alias))
}

/// A promotion.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"alias": "champion", "version": 3, "expected_version": 2}))]
pub(crate) struct Promotion {
    /// The alias to move; made if there is none.
    alias: Alias,
    /// Number of the version that gets it.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    version: u32,
    /// Version that it must point to now; whichever unless given.
    #[schema(minimum = 1, maximum = 2_147_483_647, value_type = u32, required = false)]
    expected_version: Option<u32>,
}

/// A demotion.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"alias": "champion"}))]
pub(crate) struct Demotion {
    /// The alias to move back.
    alias: Alias,
    /// Version that it must point to now; whichever unless given.
    #[schema(minimum = 1, maximum = 2_147_483_647, value_type = u32, required = false)]
    expected_version: Option<u32>,
}

fn read_expected(r: &mut ObjectReader<'_>) -> Option<u32> {
    let expected = r.optional("expected_version");
    let max = i32::MAX.unsigned_abs();
    let v = r.violations();
    v.check_range("/expected_version", expected.unwrap_or(1), 1, max);
    expected
}

impl Promotion {
    fn read(body: Value) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let Some(mut r) = ObjectReader::new(body, "", &mut violations) else {
            return Err(violations);
        };
        let (alias, version) = (r.required("alias"), r.required("version"));
        let expected_version = read_expected(&mut r);
        let max = i32::MAX.unsigned_abs();
        let v = r.violations();
        v.check_range("/version", version.unwrap_or(1), 1, max);
        r.finish();
        match (alias, version) {
            (Some(alias), Some(version)) => violations.into_result(Self {
                alias,
                version,
                expected_version,
            }),
            _ => Err(violations),
        }
    }
}

impl Demotion {
    fn read(body: Value) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let Some(mut r) = ObjectReader::new(body, "", &mut violations) else {
            return Err(violations);
        };
        let alias = r.required("alias");
        let expected_version = read_expected(&mut r);
        r.finish();
        match alias {
            Some(alias) => violations.into_result(Self {
                alias,
                expected_version,
            }),
            None => Err(violations),
        }
    }
}

/// Promotes a version
///
/// Moves an alias to it, and remembers the version that had the alias before.
#[utoipa::path(
    post, path = "/v1/models/{name}/promote", tag = "models", request_body = Promotion,
    params(("name" = Name, Path, description = "Name of the model"), IdempotencyHeader),
    responses(
        (status = 200, description = "The alias, where it points now", body = ModelAlias),
        (status = 409, description = "The alias does not point to `expected_version`",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["deployer"])),
)]
async fn promote_model_version(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
    request: Submission,
) -> Result<Json<ModelAlias>, Interrupt> {
    let promotion = Promotion::read(request.body)?;
    let mut tx = request.once.begin(&state, &actor).await?;
    let Promotion {
        alias,
        version,
        expected_version,
    } = promotion;
    let alias = tx
        .promote(&name, &alias, version, expected_version)
        .await
        .map_err(reference(&[Version], "/version"))?;
    tx.commit(200, &alias).await?;
    Ok(Json(alias))
}

/// Demotes: an alias goes back to the version that had it before
///
/// Again, it goes back to the one before that.
#[utoipa::path(
    post, path = "/v1/models/{name}/demote", tag = "models", request_body = Demotion,
    params(("name" = Name, Path, description = "Name of the model"), IdempotencyHeader),
    responses(
        (status = 200, description = "The alias, where it points now", body = ModelAlias),
        (status = 409, description = "No version had it before, or it does not point to `expected_version`",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["deployer"])),
)]
async fn demote_model_alias(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
    request: Submission,
) -> Result<Json<ModelAlias>, Interrupt> {
    let Demotion {
        alias,
        expected_version,
    } = Demotion::read(request.body)?;
    let mut tx = request.once.begin(&state, &actor).await?;
    let alias = tx.demote(&name, &alias, expected_version).await?;
    tx.commit(200, &alias).await?;
    Ok(Json(alias))
}
