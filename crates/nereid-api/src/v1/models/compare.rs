//! Versions of a model side by side.

use axum::{Json, extract::State};
use nereid_core::{
    Name, limits,
    models::{InvalidSelector, ModelVersion, VersionSelector, compare::Comparison},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    auth::Caller,
    extract::{Parameters, Path, Query, QueryReader},
    problem::Problem,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(compare_model_versions))
}

/// What to compare.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Compared {
    /// 2 to 16 versions, separated by commas: numbers, aliases, or `latest`.
    #[param(value_type = String, max_length = 1024, example = "1,2,champion")]
    versions: Vec<VersionSelector>,
}

impl Parameters for Compared {
    fn read(reader: &mut QueryReader) -> Self {
        let given = reader.text("versions").unwrap_or_default().to_owned();
        let v = reader.violations();
        let count = given.split(',').count();
        let max = limits::MAX_COMPARED;
        if given.is_empty() {
            let detail = "is required, such as 1,2,champion";
            v.push("versions", "missing", detail);
            return Self { versions: vec![] };
        }
        v.check(
            (2..=max).contains(&count),
            "versions",
            "out_of_range",
            || format!("{count} versions are not between 2 and {max}"),
        );
        let mut versions = Vec::new();
        for text in given.split(',').take(max) {
            let version: Result<VersionSelector, InvalidSelector> = text.trim().parse();
            match version {
                Ok(version) if versions.contains(&version) => {
                    let detail = format!("{version} is named twice");
                    v.push("versions", "duplicate", detail);
                }
                Ok(version) => versions.push(version),
                Err(e) => v.push("versions", "invalid_value", e.to_string()),
            }
        }
        Self { versions }
    }
}

/// Compares versions of a model
///
/// Metrics side by side, and where spec and signature differ, by JSON pointer with each version's
/// value; with data, sizes and serving reports.
#[utoipa::path(
    get, path = "/v1/models/{name}/compare", tag = "models",
    params(("name" = Name, Path, description = "Name of the model"), Compared),
    responses((status = 200, description = "The comparison", body = Comparison)),
    security(("api_key" = ["viewer"])),
)]
async fn compare_model_versions(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
    Query(compared): Query<Compared>,
) -> Result<Json<Comparison>, Problem> {
    let model = state.store.model(actor.project, &name).await?;
    let mut versions: Vec<ModelVersion> = Vec::new();
    for selector in compared.versions {
        let version = match selector {
            VersionSelector::Alias(alias) => {
                let version = state.store.aliased_version(actor.project, &name, &alias);
                version.await?
            }
            selector => {
                let number = match selector {
                    VersionSelector::Number(number) => number,
                    _ => model.latest_version.unwrap_or_default(),
                };
                state
                    .store
                    .model_version(actor.project, &name, number)
                    .await?
            }
        };
        // Two names of one version are one column.
        if versions.iter().all(|v| v.version != version.version) {
            versions.push(version);
        }
    }
    Ok(Json(
        Comparison::of(name, &versions).map_err(Problem::internal)?,
    ))
}
