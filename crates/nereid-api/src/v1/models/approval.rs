//! Approval of a version.

use axum::{Json, extract::State};
use nereid_core::{
    Name, Violations, limits,
    models::{Approval, ApprovalStatus},
    validation::ObjectReader,
};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    auth::Caller,
    extract::{JsonBody, Path, VersionNumber},
    problem::Problem,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(decide_model_version_approval))
}

/// A decision about a version.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"status": "approved", "reason": "Passed the review of bias"}))]
pub(crate) struct Decision {
    /// What is decided; `pending` takes a decision back.
    status: ApprovalStatus,
    /// Why.
    #[schema(max_length = 2048)]
    reason: Option<String>,
}

impl Decision {
    fn read(body: Value) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let Some(mut r) = ObjectReader::new(body, "", &mut violations) else {
            return Err(violations);
        };
        let status = r.required("status").unwrap_or_default();
        let reason: Option<String> = r.optional("reason");
        let len = reason.as_ref().map_or(0, |r| r.chars().count());
        let max = limits::MAX_REASON_LEN;
        let v = r.violations();
        v.check(len <= max, "/reason", "too_long", || {
            format!("{len} characters are more than the {max} allowed")
        });
        r.finish();
        violations.into_result(Self { status, reason })
    }
}

/// Approves or rejects a version
///
/// Where the model has `require_approval`, only an approved version may be deployed or get
/// traffic; what serves already goes on. Earlier decisions are in the audit log.
#[utoipa::path(
    put, path = "/v1/models/{name}/versions/{version}/approval", tag = "models",
    request_body = Decision,
    params(
        ("name" = Name, Path, description = "Name of the model"),
        ("version" = u32, Path, description = "Number of the version", minimum = 1, maximum = 2_147_483_647),
    ),
    responses((status = 200, description = "Decided", body = Approval)),
    security(("api_key" = ["deployer"])),
)]
async fn decide_model_version_approval(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, version)): Path<(Name, VersionNumber)>,
    JsonBody(body): JsonBody,
) -> Result<Json<Approval>, Problem> {
    let Decision { status, reason } = Decision::read(body)?;
    let store = state.store.with_actor(actor.key);
    let approval = store
        .decide(
            actor.project,
            &name,
            version.0,
            status,
            reason.as_deref().unwrap_or_default(),
        )
        .await?;
    Ok(Json(approval))
}
