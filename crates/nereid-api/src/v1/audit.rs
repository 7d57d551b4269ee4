//! The audit log: who changed what.

use axum::{Json, extract::State};
use nereid_core::audit::AuditEntry;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    auth::Caller,
    extract::{Parameters, Query, QueryReader},
    pages::{Paging, listing},
    problem::Problem,
};

/// Longest prefix of a resource in characters.
const MAX_PREFIX_LEN: usize = 256;

listing!(
    /// A page of the audit log.
    AuditLog,
    AuditEntry
);

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(list_audit_log))
}

/// Which changes to list.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditQuery {
    /// Only changes of resources that begin with this, such as `model/digits` or `endpoint/`.
    #[param(value_type = String, required = false, max_length = 256, example = "model/digits@")]
    resource: Option<String>,
}

impl Parameters for AuditQuery {
    fn read(reader: &mut QueryReader) -> Self {
        let resource = reader.text("resource").map(ToOwned::to_owned);
        let len = resource.as_deref().unwrap_or_default().chars().count();
        let v = reader.violations();
        v.check(len <= MAX_PREFIX_LEN, "resource", "too_long", || {
            format!("{len} characters are more than the {MAX_PREFIX_LEN} allowed")
        });
        Self { resource }
    }
}

/// Lists the audit log, newest first
#[utoipa::path(
    get, path = "/v1/audit", tag = "audit", params(AuditQuery, Paging),
    responses((status = 200, description = "A page of changes", body = AuditLog)),
    security(("api_key" = ["admin"])),
)]
async fn list_audit_log(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Query(query): Query<AuditQuery>,
    Query(paging): Query<Paging>,
) -> Result<Json<AuditLog>, Problem> {
    let page = paging.request(&state.page_tokens, "audit")?;
    let prefix = query.resource.as_deref();
    let page = state.store.audit_log(actor.project, prefix, &page).await?;
    Ok(Json(AuditLog::new(page, &state.page_tokens, "audit")))
}
