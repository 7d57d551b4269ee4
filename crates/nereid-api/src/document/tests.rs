//! The document is complete, consistent, and matches the file in the repository.

use std::{fs, path::PathBuf};

use serde_json::Value;

use super::*;

fn json() -> Value {
    openapi().0
}

/// Operations that need no key.
const OPEN: [&str; 5] = [
    "livez",
    "readyz",
    "get_openapi",
    "oip_server_live",
    "oip_server_ready",
];
/// Operations that change nothing, or nothing when repeated, and so take no `Idempotency-Key`.
const NATURALLY_REPEATABLE: [&str; 7] = [
    "predict",
    "oip_infer",
    "oip_infer_version",
    "oip_repository_index",
    "oip_load_model",
    "oip_unload_model",
    "drain_worker",
];

fn operations_of(document: &Value) -> Vec<(String, String, Value)> {
    let mut document = document.clone();
    let mut found = Vec::new();
    answers::each_operation(&mut document, |method, path, operation| {
        found.push((
            method.to_owned(),
            path.to_owned(),
            Value::Object(operation.clone()),
        ));
    });
    found
}

#[test]
fn openapi_in_the_repository_is_this_document() {
    let path = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../openapi/openapi.json"
    ));
    let fresh = format!("{}\n", openapi().to_pretty_json().unwrap());
    #[expect(
        clippy::disallowed_methods,
        reason = "a switch for developers, not configuration"
    )]
    let update = std::env::var("UPDATE_OPENAPI").is_ok();
    if update {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &fresh).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == fresh,
        "openapi.json is out of date: run the tests with UPDATE_OPENAPI=1"
    );
}

#[test]
fn each_operation_is_described_and_secured() {
    for (method, path, operation) in operations_of(&json()) {
        let id = operation["operationId"].as_str().unwrap_or_default();
        let snake = !id.is_empty()
            && id
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit());
        assert!(snake, "{method} {path} has the operationId {id:?}");
        assert!(
            operation["summary"].as_str().is_some_and(|s| s.len() > 3),
            "{id} has no summary"
        );
        assert_eq!(
            operation["tags"].as_array().map(Vec::len),
            Some(1),
            "{id} has no single tag"
        );
        let rule_is_open = operation["security"].is_null();
        assert_eq!(
            rule_is_open,
            OPEN.contains(&id),
            "{id} is open: {rule_is_open}"
        );
        assert!(!(path.starts_with("/v1/") && rule_is_open), "{id}");
    }
}

#[test]
fn each_operation_documents_its_failures() {
    for (_, path, operation) in operations_of(&json()) {
        let id = operation["operationId"].as_str().unwrap();
        let responses = operation["responses"].as_object().unwrap();
        let has = |status: &str| responses.contains_key(status);
        assert!(has("400") && has("500"), "{id}");
        assert!(
            OPEN.contains(&id) || ["401", "403", "503", "504"].iter().all(|s| has(s)),
            "{id}"
        );
        assert!(!path.contains('{') || has("404"), "{id}");
        assert!(responses.keys().any(|s| s.starts_with('2')), "{id}");
    }
}

#[test]
fn each_change_by_post_can_be_repeated() {
    for (method, _, operation) in operations_of(&json()) {
        let id = operation["operationId"].as_str().unwrap();
        if method != "post" || NATURALLY_REPEATABLE.contains(&id) {
            continue;
        }
        let takes_key = operation["parameters"]
            .as_array()
            .is_some_and(|p| p.iter().any(|p| p["name"] == "Idempotency-Key"));
        assert!(takes_key, "{id} takes no Idempotency-Key");
    }
}

#[test]
fn operation_ids_are_unique_and_paths_are_plain() {
    let operations = operations_of(&json());
    let mut ids: Vec<_> = operations
        .iter()
        .map(|(_, _, o)| o["operationId"].clone().to_string())
        .collect();
    ids.sort();
    let all = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), all);
    assert!(operations.iter().all(|(_, path, _)| !path.contains('*')));
}

#[test]
fn path_parameters_are_all_declared() {
    for (_, path, operation) in operations_of(&json()) {
        let declared: Vec<_> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|p| p["in"] == "path")
            .map(|p| p["name"].as_str().unwrap().to_owned())
            .collect();
        let wanted: Vec<_> = path
            .split('{')
            .skip(1)
            .map(|s| s.split('}').next().unwrap().to_owned())
            .collect();
        assert_eq!(declared, wanted, "{path}");
    }
}

#[test]
fn schemas_hold_nothing_that_generators_stumble_over() {
    let document = json();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let text = schema.to_string();
        assert!(!text.contains("\"allOf\""), "{name} has an allOf");
        assert!(!text.contains("\"prefixItems\""), "{name} has a tuple");
        if let Some(parts) = schema["oneOf"].as_array() {
            let records = parts.iter().filter(|p| !p["properties"].is_null()).count();
            assert_eq!(records, 0, "{name} has an unnamed variant");
        }
    }
}

#[test]
fn references_lead_somewhere() {
    fn check(value: &Value, document: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(reference) = value["$ref"].as_str() {
                    let found = document.pointer(reference.trim_start_matches('#'));
                    assert!(found.is_some(), "{reference} leads nowhere");
                }
                map.values().for_each(|v| check(v, document));
            }
            Value::Array(items) => items.iter().for_each(|v| check(v, document)),
            _ => {}
        }
    }
    let document = json();
    check(&document, &document);
}

#[test]
fn bodies_of_bytes_are_binary_and_parameters_are_never_null() {
    let document = json();
    assert!(
        !document["paths"].to_string().contains("\"null\""),
        "a parameter or body may be null"
    );
    let upload = &document["paths"]["/v1/uploads/{filename}"]["put"]["requestBody"];
    let schema = &upload["content"]["application/octet-stream"]["schema"];
    assert_eq!(schema["format"], "binary");
}

/// The examples of the document must be taken by the readers.
#[test]
fn examples_work() {
    let document = json();
    let example = |name: &str| document["components"]["schemas"][name]["example"].clone();
    for name in [
        "SubmitTrainJob",
        "SubmitDeployJob",
        "SubmitBatchPredictJob",
        "SubmitNoopJob",
    ] {
        let read = nereid_core::jobs::NewJob::read(example(name));
        assert!(read.is_ok(), "{name}: {read:?}");
    }
    let files = &document["components"]["schemas"]["RegisterDataset"]["properties"]["files"];
    assert!(files["$ref"].is_string());
}

/// Words are described as they are sent.
#[test]
fn enumerations_are_described_by_their_words() {
    let schemas = &json()["components"]["schemas"];
    let words = |name: &str| schemas[name]["enum"].clone();
    assert_eq!(
        words("Role"),
        serde_json::json!(nereid_core::keys::Role::ALL)
    );
    let devices = DeviceKind::ALL;
    assert_eq!(words("DeviceKind"), serde_json::json!(devices));
}

/// Each metric can be named by a word alone.
#[test]
fn metric_names_are_the_metrics() {
    let schemas = &json()["components"]["schemas"];
    let mut names: Vec<_> = schemas["MetricName"]["enum"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    let mapping = &schemas["Metric"]["discriminator"]["mapping"];
    names.sort();
    assert!(names.iter().eq(mapping.as_object().unwrap().keys()));
    let mut job = schemas["SubmitTrainJob"]["example"].clone();
    job["spec"]["metrics"] = names.into();
    assert!(nereid_core::jobs::NewJob::read(job).is_ok());
}

/// What may be sent beside a spec is the same for each kind, and what the readers know.
#[test]
fn each_submission_has_all_options() {
    let schemas = &json()["components"]["schemas"];
    let job = serde_json::json!({
        "kind": "noop", "spec": {}, "device": "cpu", "worker_labels": {"a": "b"},
        "max_runtime_seconds": 1, "max_queue_seconds": 1,
    });
    let read = nereid_core::jobs::NewJob::read(job).unwrap();
    let options = serde_json::to_value(read.options).unwrap();
    for name in [
        "SubmitTrainJob",
        "SubmitDeployJob",
        "SubmitBatchPredictJob",
        "SubmitNoopJob",
        "TrainModel",
        "DeployModel",
    ] {
        let schema = &schemas[name];
        assert_eq!(schema["additionalProperties"], false, "{name}");
        assert!(schema["example"].is_object(), "{name}");
        for option in options.as_object().unwrap().keys() {
            assert!(
                schema["properties"][option].is_object(),
                "{name} lacks {option}"
            );
        }
    }
}

/// Serialised jobs must be what the document says.
#[test]
fn jobs_match_their_schema() {
    let document = json();
    let mut job = document["components"]["schemas"]["SubmitDeployJob"]["example"].clone();
    job["spec"]["endpoint"] = "digits".into();
    job["spec"]["replicas"] = 1.into();
    for (field, value) in [
        ("id", "01980000-0000-7000-8000-000000000000"),
        ("project_id", "01980000-0000-7000-8000-000000000000"),
        ("status", "queued"),
        ("phase", "starting"),
        ("termination_reason", "completed"),
        ("created_at", "2026-01-01T00:00:00Z"),
        ("started_at", "2026-01-01T00:00:00Z"),
        ("finished_at", "2026-01-01T00:00:00Z"),
    ] {
        job[field] = value.into();
    }
    job["requested"] = "pause".into();
    job["waiting"] = serde_json::json!({
        "reason": "backing_off", "detail": "x", "position": 1, "since": "2026-01-01T00:00:00Z",
    });
    job["attempts"] = 0.into();
    job["lease_losses"] = 0.into();
    job["device"] = "gpu".into();
    job["worker_labels"] = serde_json::json!({"rack": "a"});
    job["max_runtime_seconds"] = 60.into();
    job["max_queue_seconds"] = 60.into();
    job["progress"] = serde_json::json!({"epoch": 1, "epochs": 1, "step": 1, "steps": 1});
    job["error"] = serde_json::json!({"reason": "internal", "message": "x"});
    let result = serde_json::json!({"kind": "deploy", "endpoint": "e", "model": "m", "version": 1});
    job["result"] = result;
    let job: nereid_core::jobs::Job = serde_json::from_value(job).unwrap();
    let written = serde_json::to_value(job).unwrap();
    let schema = &document["components"]["schemas"]["Job"];
    let mut fields: Vec<_> = written.as_object().unwrap().keys().collect();
    let mut known: Vec<_> = schema["properties"].as_object().unwrap().keys().collect();
    fields.sort();
    known.sort();
    assert_eq!(fields, known);
}
