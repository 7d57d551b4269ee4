//! Shortcuts that submit a job about a model: train it, deploy a version of it.

use axum::{extract::State, response::Response};
use nereid_core::{Name, Violations, jobs::Job};
use serde_json::{Map, Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    auth::Caller,
    extract::{Path, VersionNumber},
    once::{BareSubmission, Interrupt, Submission},
    problem::Problem,
    schemas::{DeployModel, TrainModel},
    v1::{
        IdempotencyHeader,
        jobs::{Nesting, submit},
    },
};

/// Fields of a job beside its spec.
const OPTIONS: [&str; 7] = [
    "labels",
    "priority",
    "max_attempts",
    "device",
    "worker_labels",
    "max_runtime_seconds",
    "max_queue_seconds",
];

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(train_model))
        .routes(routes!(deploy_model_version))
}

/// Trains a model
///
/// Submits a train job, as `POST /v1/jobs` does; options of the job stand beside the spec's
/// fields. The model is made with its first version.
#[utoipa::path(
    post, path = "/v1/models/{name}/train", tag = "models",
    params(("name" = Name, Path, description = "Name of the model"), IdempotencyHeader),
    request_body = TrainModel,
    responses((status = 201, description = "Accepted", body = Job)),
    security(("api_key" = ["trainer"])),
)]
async fn train_model(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
    request: Submission,
) -> Result<Response, Interrupt> {
    let body = wrap(request.body, "train", json!({ "model": name }))?;
    let request = Submission { body, ..request };
    submit(&state, &actor, request, Nesting::Flat).await
}

/// Deploys a version of a model
///
/// Submits a deploy job, as `POST /v1/jobs` does: it optimises the version, checks it against the
/// original, and makes an endpoint serve it. The body may be empty.
#[utoipa::path(
    post, path = "/v1/models/{name}/versions/{version}/deploy", tag = "models",
    params(
        ("name" = Name, Path, description = "Name of the model"),
        ("version" = u32, Path, description = "Number of the version", minimum = 1, maximum = 2_147_483_647),
        IdempotencyHeader,
    ),
    request_body(content = Option<DeployModel>),
    responses((status = 201, description = "Accepted", body = Job)),
    security(("api_key" = ["deployer"])),
)]
async fn deploy_model_version(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, version)): Path<(Name, VersionNumber)>,
    BareSubmission(request): BareSubmission,
) -> Result<Response, Interrupt> {
    state
        .store
        .model_version(actor.project, &name, version.0)
        .await?;
    let named = json!({ "model": name, "version": version.0 });
    let body = wrap(request.body, "deploy", named)?;
    let request = Submission { body, ..request };
    submit(&state, &actor, request, Nesting::Flat).await
}

/// Turns `{…spec, …options}` into the body of `POST /v1/jobs`, adding what the path names.
fn wrap(body: Value, kind: &str, named: Value) -> Result<Value, Problem> {
    let Value::Object(mut spec) = body else {
        return Err(Problem::violation("", "wrong_type", "expected an object"));
    };
    let mut job = Map::new();
    for option in OPTIONS {
        if let Some(value) = spec.remove(option) {
            job.insert(option.to_owned(), value);
        }
    }
    let mut violations = Violations::default();
    if let Value::Object(named) = named {
        for (field, value) in named {
            if spec.insert(field.clone(), value).is_some() {
                let detail = format!("{field:?} is named by the path");
                violations.push(format!("/{field}"), "unknown_field", detail);
            }
        }
    }
    job.insert("kind".to_owned(), Value::from(kind));
    job.insert("spec".to_owned(), Value::Object(spec));
    Ok(violations.into_result(Value::Object(job))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_options_out_and_the_name_in() {
        let body = json!({"dataset": "digits", "priority": 7, "labels": {"a": "b"}});
        let job = wrap(body, "train", json!({"model": "digits"})).unwrap();
        let expected = json!({
            "kind": "train",
            "spec": {"dataset": "digits", "model": "digits"},
            "priority": 7,
            "labels": {"a": "b"},
        });
        assert_eq!(job, expected);
    }

    /// An option that is not known here would be taken for a field of the spec, and refused.
    #[test]
    fn knows_every_option_of_a_job() {
        let body = json!({
            "labels": {}, "priority": 1, "max_attempts": 2, "device": "gpu",
            "worker_labels": {"a": "b"}, "max_runtime_seconds": 3, "max_queue_seconds": 4,
        });
        let options: nereid_core::jobs::JobOptions = serde_json::from_value(body).unwrap();
        let written = serde_json::to_value(options).unwrap();
        let mut known: Vec<_> = written.as_object().unwrap().keys().collect();
        known.sort();
        let mut here = OPTIONS;
        here.sort_unstable();
        assert!(known.iter().eq(here.iter()), "{known:?}");
    }

    #[test]
    fn the_body_cannot_contradict_the_path() {
        let problem = wrap(json!({"model": "x"}), "train", json!({"model": "y"})).unwrap_err();
        assert_eq!(problem.errors()[0].pointer, "/model");
        assert!(wrap(json!([]), "train", json!({})).is_err());
    }
}
