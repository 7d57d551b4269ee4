//! The OpenAPI document: what the routes say of themselves, completed by what the layers add.

mod answers;
mod shapes;

use nereid_core::{
    jobs::{JobKind, JobRequest, Waiting},
    spec::NoopSpec,
    workers::DeviceKind,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        OpenApi as Document,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

use crate::{
    contract::SCHEME,
    problem::ProblemDocument,
    router::operations,
    schemas::{
        AnyJobSpec, BatchPredictKind, DeployKind, JobSchema, MetricOrName, NoopKind, SubmitOptions,
        TrainKind,
    },
    v1::{
        jobs::{JobOrder, LabelFilter},
        uploads::FileName,
    },
    v2::OipError,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Nereid",
        version = env!("CARGO_PKG_VERSION"),
        description = "Trains, versions, optimises and serves models on data in S3.\n\nErrors are problem documents (RFC 9457) with a stable `code`; mistakes in a request are all listed in `errors`, each with a JSON pointer. Lists are read page by page with `page_token`. A `POST` that changes something takes an `Idempotency-Key`: after a lost connection, or a 503, 429 or `idempotency_in_flight`, send the same request with the same key again; it is done once.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
        contact(name = "Nereid"),
    ),
    servers((url = "/", description = "This server")),
    tags(
        (name = "datasets", description = "Data in S3: what it is, and its immutable versions"),
        (name = "jobs", description = "Training and deployment as jobs that survive crashes"),
        (name = "models", description = "Trained models and their immutable versions"),
        (name = "endpoints", description = "What is served, and how traffic is shared"),
        (name = "inference", description = "Predictions by rows"),
        (name = "open inference protocol", description = "Predictions by tensors, as KServe, Triton and MLServer take them"),
        (name = "workers", description = "What runs the jobs and holds the models"),
        (name = "keys", description = "API keys"),
        (name = "audit", description = "Who changed what"),
        (name = "health", description = "Health and this document"),
    ),
    components(schemas(
        ProblemDocument, OipError, AnyJobSpec, JobKind, JobOrder, LabelFilter, FileName, TrainKind, DeployKind,
        BatchPredictKind, NoopKind, MetricOrName, SubmitOptions, JobRequest, Waiting, DeviceKind, NoopSpec,
    )),
    modifiers(&BearerKey),
)]
struct Base;

struct BearerKey;

impl Modify for BearerKey {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("nrd_…")
            .description(Some(
                "An API key. The role that an operation needs is named in its `security`; each role may do all that the ones before it may: viewer, trainer, deployer, admin.",
            ))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(SCHEME, SecurityScheme::Http(scheme));
    }
}

/// An OpenAPI document, ready to be served or printed.
///
/// JSON rather than utoipa's types: those cannot read back all that they write.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct OpenApiDocument(Value);

impl OpenApiDocument {
    /// Returns the document as JSON for people.
    ///
    /// # Errors
    /// None in practice: a JSON value can always be written.
    pub fn to_pretty_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(&self.0)
    }

    /// Returns the document as a JSON value.
    #[must_use]
    pub fn as_value(&self) -> &Value {
        &self.0
    }
}

/// Returns the OpenAPI document.
#[must_use]
pub fn openapi() -> OpenApiDocument {
    let mut document = serde_json::to_value(raw()).unwrap_or_default();
    name_wildcards(&mut document);
    let job = <JobSchema as utoipa::PartialSchema>::schema();
    document["components"]["schemas"]["Job"] = serde_json::to_value(job).unwrap_or_default();
    answers::complete(&mut document);
    shapes::simplify(&mut document);
    OpenApiDocument(document)
}

/// What the routes say of themselves.
fn raw() -> Document {
    let router: OpenApiRouter<crate::ApiState> =
        OpenApiRouter::with_openapi(Base::openapi()).merge(operations());
    router.into_openapi()
}

/// Writes a wildcard of the router (`{*path}`) as a plain parameter, which is what OpenAPI knows.
fn name_wildcards(document: &mut Value) {
    let Some(paths) = document["paths"].as_object_mut() else {
        return;
    };
    let renamed = std::mem::take(paths)
        .into_iter()
        .map(|(path, item)| (path.replace("{*", "{"), item));
    paths.extend(renamed);
}

#[cfg(test)]
#[path = "document/tests.rs"]
mod tests;
