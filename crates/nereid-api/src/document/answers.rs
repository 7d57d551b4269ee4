//! Adds the answers that come from the layers and extractors in front of the handlers.

use serde_json::{Map, Value, json};

use crate::problem::PROBLEM_JSON;

/// Methods of a path item.
pub(super) const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

/// Calls `f` for each operation with its method and path.
pub(super) fn each_operation(
    document: &mut Value,
    mut f: impl FnMut(&str, &str, &mut Map<String, Value>),
) {
    let Some(paths) = document["paths"].as_object_mut() else {
        return;
    };
    for (path, item) in paths {
        for method in METHODS {
            if let Some(operation) = item.get_mut(method).and_then(Value::as_object_mut) {
                f(method, path, operation);
            }
        }
    }
}

/// Adds to each operation the answers that do not come from its handler.
pub(super) fn complete(document: &mut Value) {
    each_operation(document, |method, path, operation| {
        let oip = path == "/v2" || path.starts_with("/v2/");
        let answers = implied(method, path, operation);
        let id = header("Names the request in the server's log", "string");
        let Some(responses) = operation["responses"].as_object_mut() else {
            return;
        };
        for (status, description) in answers {
            responses
                .entry(status)
                .or_insert_with(|| problem(description, oip));
        }
        for (status, response) in responses.iter_mut() {
            response["headers"]["x-request-id"] = id.clone();
            if status == "201" {
                response["headers"]["Location"] = header("Where what was made is found", "string");
            }
            if status == "429" || status == "503" {
                response["headers"]["Retry-After"] = header("Seconds to wait", "integer");
            }
        }
        responses.sort_keys();
    });
}

/// Says which answers the properties of an operation imply.
fn implied(
    method: &str,
    path: &str,
    operation: &Map<String, Value>,
) -> Vec<(&'static str, &'static str)> {
    let parameter = |place: &str, name: Option<&str>| {
        operation
            .get("parameters")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .any(|p| p["in"] == place && name.is_none_or(|n| p["name"] == n))
    };
    let mut answers = vec![
        (
            "400",
            "A parameter is unknown or invalid, or the body is no JSON",
        ),
        ("500", "A fault in Nereid, logged under the request's id"),
    ];
    if operation.contains_key("security") {
        answers.extend([
            ("401", "The API key is missing, unknown or revoked"),
            ("403", "The API key's role does not allow this"),
            (
                "503",
                "Nereid or something it depends on is away or overloaded",
            ),
            ("504", "The request took too long"),
        ]);
    }
    if parameter("path", None) {
        answers.push(("404", "There is no such resource"));
    }
    let repeatable = parameter("header", Some("Idempotency-Key"));
    if operation.contains_key("requestBody") || repeatable {
        answers.extend([
            ("413", "The body is too large"),
            ("415", "The content type is not supported"),
            (
                "422",
                "The request is well-formed, but wrong; all mistakes are listed",
            ),
        ]);
    }
    if repeatable || method == "delete" || path == "/v1/datasets" && method == "post" {
        answers.push(("409", "The current state does not allow this"));
    }
    if path.ends_with("/predict") || path.ends_with("/infer") {
        answers.push(("429", "The model's queues are full"));
    }
    answers
}

fn header(description: &str, kind: &str) -> Value {
    json!({"description": description, "schema": {"type": kind}})
}

fn problem(description: &str, oip: bool) -> Value {
    let (media, schema) = if oip {
        ("application/json", "OipError")
    } else {
        (PROBLEM_JSON, "Problem")
    };
    json!({
        "description": description,
        "content": { media: { "schema": { "$ref": format!("#/components/schemas/{schema}") } } },
    })
}
