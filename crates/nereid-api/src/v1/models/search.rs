//! Search for versions across the models of a project.

use axum::{Json, extract::State};
use nereid_core::models::search::{Filter, Order};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::versions::ModelVersionList;
use crate::{
    ApiState,
    auth::Caller,
    extract::{Parameters, Query, QueryReader},
    pages::Paging,
    problem::Problem,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(search_model_versions))
}

/// What to look for.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Search {
    /// Conditions joined by `and`, in MLflow's syntax, such as
    /// `metrics.val_accuracy >= 0.97 and tags.team = 'x'`. Numbers (`metrics.…`, `version`,
    /// `bytes`, `created_at`, `dataset_version`) take `=`, `!=`, `<`, `<=`, `>`, `>=`; texts
    /// (`tags.…`, `model`, `alias`, `approval`, `dataset`, `job_id`) take `=`, `!=`, `LIKE`,
    /// `ILIKE`. Keys of other than letters, digits, `_`, `-`, `/`, `@` and `.` go in backticks.
    #[param(value_type = String, required = false, max_length = 4096, example = "metrics.val_accuracy >= 0.97")]
    filter: Filter,
    /// A number to order by, and `asc` or `desc`; `created_at desc` unless given.
    #[param(value_type = String, required = false, max_length = 4096, example = "metrics.val_accuracy desc")]
    order_by: Order,
    /// Both as they were sent, to which page tokens are bound.
    #[param(ignore)]
    sent: String,
}

impl Parameters for Search {
    fn read(reader: &mut QueryReader) -> Self {
        let [filter, order_by] = ["filter", "order_by"].map(|name| reader.text(name));
        let sent = format!("{filter:?} {order_by:?}");
        Self {
            filter: reader.optional("filter").unwrap_or_default(),
            order_by: reader.optional("order_by").unwrap_or_default(),
            sent,
        }
    }
}

/// Finds versions
///
/// Across all models of the project, by metrics, tags and more. Versions without the value that is
/// ordered by come last.
#[utoipa::path(
    get, path = "/v1/model-versions", tag = "models", params(Search, Paging),
    responses((status = 200, description = "A page of versions", body = ModelVersionList)),
    security(("api_key" = ["viewer"])),
)]
async fn search_model_versions(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Query(search): Query<Search>,
    Query(paging): Query<Paging>,
) -> Result<Json<ModelVersionList>, Problem> {
    // A position in one order means nothing in another.
    let list = format!("model_search {}", search.sent);
    let page = paging.request(&state.page_tokens, &list)?;
    let page = state
        .store
        .search_model_versions(actor.project, &search.filter, &search.order_by, &page)
        .await?;
    Ok(Json(ModelVersionList::new(page, &state.page_tokens, &list)))
}
