//! Datasets: register a version, list, show, preview, delete.

use std::collections::BTreeMap;

use axum::{Json, extract::State, response::Response};
use http::StatusCode;
use nereid_core::{
    Name, Violations,
    datasets::{Dataset, DatasetSource, DatasetVersion, PreviewRow},
    jobs::check_tags,
    validation::{ObjectReader, parse},
};
use nereid_store::datasets::NewDatasetVersion;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{IdempotencyHeader, created};
use crate::{
    ApiState,
    auth::Caller,
    extract::{Path, Query, VersionNumber, check_description},
    inspection,
    once::{Interrupt, Submission},
    pages::{Paging, listing},
    problem::Problem,
    schemas::RegisterDataset,
};

listing!(
    /// A page of datasets.
    DatasetList,
    Dataset
);
listing!(
    /// A page of versions of a dataset.
    DatasetVersionList,
    DatasetVersion
);

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(create_dataset, list_datasets))
        .routes(routes!(get_dataset, delete_dataset))
        .routes(routes!(list_dataset_versions))
        .routes(routes!(get_dataset_version))
        .routes(routes!(preview_dataset_version))
}

/// A dataset version to register.
struct NewDataset {
    name: Name,
    description: Option<String>,
    tags: BTreeMap<String, String>,
    source: DatasetSource,
}

impl NewDataset {
    fn read(body: Value) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        match Self::read_into(body, &mut violations) {
            Some(new) => violations.into_result(new),
            None => Err(violations),
        }
    }

    fn read_into(body: Value, v: &mut Violations) -> Option<Self> {
        let mut r = ObjectReader::new(body, "", v)?;
        let name = r.required("name");
        let description: Option<String> = r.optional("description");
        let tags: BTreeMap<String, String> = r.optional("tags").unwrap_or_default();
        // What is left must be exactly a source: it refuses unknown fields itself.
        let rest = Value::Object(r.rest());
        check_description(
            description.as_deref().unwrap_or_default(),
            "/description",
            v,
        );
        check_tags(&tags, "/tags", v);
        let source: DatasetSource = parse(rest, "", v)?;
        source.check("", v);
        Some(Self {
            name: name?,
            description,
            tags,
            source,
        })
    }
}

/// Registers a dataset version
///
/// Reads the files in S3 once: finds shape, types, classes and statistics, and pins the bytes by
/// ETag and SHA-256. A name that is known already gets another version; registering the same
/// bytes in the same way again gives the version that is there.
#[utoipa::path(
    post, path = "/v1/datasets", tag = "datasets",
    params(IdempotencyHeader), request_body = RegisterDataset,
    responses((status = 201, description = "Registered", body = DatasetVersion)),
    security(("api_key" = ["trainer"])),
)]
async fn create_dataset(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    request: Submission,
) -> Result<Response, Interrupt> {
    let NewDataset {
        name,
        description,
        tags,
        source,
    } = NewDataset::read(request.body)?;
    request.once.replay(&state, &actor).await?;
    let found = inspection::inspect(&state, actor.project, source.clone()).await?;
    let inspection::Inspected {
        files,
        digest,
        inspection,
    } = found;
    let new = NewDatasetVersion {
        name,
        description,
        tags,
        source,
        files,
        digest,
        inspection,
    };
    let mut tx = request.once.begin(&state, &actor).await?;
    let version = tx.register_dataset_version(&new).await?;
    tx.commit(201, &version).await?;
    let location = format!(
        "/v1/datasets/{}/versions/{}",
        version.dataset, version.version
    );
    Ok(created(&location, version))
}

/// Lists datasets
#[utoipa::path(
    get, path = "/v1/datasets", tag = "datasets", params(Paging),
    responses((status = 200, description = "A page of datasets by name", body = DatasetList)),
    security(("api_key" = ["viewer"])),
)]
async fn list_datasets(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Query(paging): Query<Paging>,
) -> Result<Json<DatasetList>, Problem> {
    let page = paging.request(&state.page_tokens, "datasets")?;
    let page = state.store.datasets(actor.project, &page).await?;
    Ok(Json(DatasetList::new(page, &state.page_tokens, "datasets")))
}

/// Returns a dataset with its newest version
#[utoipa::path(
    get, path = "/v1/datasets/{name}", tag = "datasets",
    params(("name" = Name, Path, description = "Name of the dataset")),
    responses((status = 200, description = "The dataset", body = Dataset)),
    security(("api_key" = ["viewer"])),
)]
async fn get_dataset(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
) -> Result<Json<Dataset>, Problem> {
    Ok(Json(state.store.dataset(actor.project, &name).await?))
}

/// Deletes a dataset with all its versions
///
/// The files in S3 stay. Refused while a queued or running job reads it.
#[utoipa::path(
    delete, path = "/v1/datasets/{name}", tag = "datasets",
    params(("name" = Name, Path, description = "Name of the dataset")),
    responses((status = 204, description = "Deleted")),
    security(("api_key" = ["deployer"])),
)]
async fn delete_dataset(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
) -> Result<StatusCode, Problem> {
    state
        .store
        .with_actor(actor.key)
        .delete_dataset(actor.project, &name)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists versions of a dataset, newest first
#[utoipa::path(
    get, path = "/v1/datasets/{name}/versions", tag = "datasets",
    params(("name" = Name, Path, description = "Name of the dataset"), Paging),
    responses((status = 200, description = "A page of versions", body = DatasetVersionList)),
    security(("api_key" = ["viewer"])),
)]
async fn list_dataset_versions(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
    Query(paging): Query<Paging>,
) -> Result<Json<DatasetVersionList>, Problem> {
    let page = paging.request(&state.page_tokens, "dataset_versions")?;
    let page = state
        .store
        .dataset_versions(actor.project, &name, &page)
        .await?;
    Ok(Json(DatasetVersionList::new(
        page,
        &state.page_tokens,
        "dataset_versions",
    )))
}

/// Returns a version of a dataset
#[utoipa::path(
    get, path = "/v1/datasets/{name}/versions/{version}", tag = "datasets",
    params(
        ("name" = Name, Path, description = "Name of the dataset"),
        ("version" = u32, Path, description = "Number of the version", minimum = 1, maximum = 2_147_483_647),
    ),
    responses((status = 200, description = "The version", body = DatasetVersion)),
    security(("api_key" = ["viewer"])),
)]
async fn get_dataset_version(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, version)): Path<(Name, VersionNumber)>,
) -> Result<Json<DatasetVersion>, Problem> {
    let version = state
        .store
        .dataset_version(actor.project, &name, Some(version.0))
        .await?;
    Ok(Json(version))
}

/// The first rows of a dataset version.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DatasetPreview {
    /// The rows, in the file's order.
    rows: Vec<PreviewRow>,
}

/// Returns the first rows of a dataset version
#[utoipa::path(
    get, path = "/v1/datasets/{name}/versions/{version}/preview", tag = "datasets",
    params(
        ("name" = Name, Path, description = "Name of the dataset"),
        ("version" = u32, Path, description = "Number of the version", minimum = 1, maximum = 2_147_483_647),
    ),
    responses((status = 200, description = "The first rows", body = DatasetPreview)),
    security(("api_key" = ["viewer"])),
)]
async fn preview_dataset_version(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, version)): Path<(Name, VersionNumber)>,
) -> Result<Json<DatasetPreview>, Problem> {
    let rows = state
        .store
        .dataset_preview(actor.project, &name, Some(version.0))
        .await?;
    Ok(Json(DatasetPreview { rows }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reports_all_mistakes_at_once() {
        let body = json!({
            "name": "Bad Name",
            "tags": {"": "x"},
            "description": "d".repeat(3000),
            "format": "idx",
            "files": {"data": "s3://b/k"},
            "label_column": "y",
        });
        let Err(violations) = NewDataset::read(body) else {
            panic!("was taken")
        };
        let pointers: Vec<_> = violations
            .into_vec()
            .into_iter()
            .map(|v| v.pointer)
            .collect();
        assert_eq!(
            pointers,
            ["/name", "/description", "/tags/", "/label_column"]
        );
    }

    #[test]
    fn refuses_unknown_fields() {
        let body =
            json!({"name": "x", "format": "csv", "files": {"data": "s3://b/k"}, "colour": 1});
        let Err(violations) = NewDataset::read(body) else {
            panic!("was taken")
        };
        assert_eq!(violations.into_vec()[0].code, "unknown_field");
    }
}
