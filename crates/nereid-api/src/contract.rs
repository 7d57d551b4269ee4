//! Enforces what the OpenAPI document promises: role, query parameters and time of each operation.
//!
//! The document is the one place where an operation's role is written. A route that is missing
//! there answers nobody, so an operation without authorisation cannot slip in.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use http::{HeaderMap, Method, header};
use nereid_core::{Name, Violations, keys::Role, limits::MAX_INFERENCE_BODY_BYTES};
use serde_json::Value;
use url::form_urlencoded;

use crate::{
    ApiState,
    problem::{Code, Problem},
    state::ApiConfig,
};

/// Name of the security scheme in the document.
pub(crate) const SCHEME: &str = "api_key";

/// Longest wait for Postgres when a request has taken too long.
const PROBE: Duration = Duration::from_secs(1);

/// Longest time for reading what is not wanted.
const DISCARD: Duration = Duration::from_secs(5);

/// What the document says of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Its `operationId`.
    pub(crate) id: String,
    /// Least role; anybody without one.
    pub(crate) role: Option<Role>,
    /// Query parameters, and whether each may be repeated.
    query: Vec<(String, bool)>,
}

/// The rules of all operations, by path template and method.
#[derive(Debug, Default)]
pub(crate) struct Contract(HashMap<String, Vec<(Method, Rule)>>);

impl Contract {
    /// Reads the rules out of an OpenAPI document.
    pub(crate) fn new(document: &Value) -> Self {
        let mut rules = HashMap::new();
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            let operations = item.as_object().into_iter().flatten();
            let of_path = operations
                .filter_map(|(method, operation)| {
                    let method = Method::from_bytes(method.to_uppercase().as_bytes()).ok()?;
                    Some((method, Rule::read(operation)))
                })
                .collect();
            rules.insert(path.clone(), of_path);
        }
        Self(rules)
    }

    /// Finds the rule of a request, or says why there is none.
    fn rule(&self, method: &Method, template: &str) -> Result<&Rule, Problem> {
        let path = template.replace("{*", "{");
        let operations = self
            .0
            // A route may be there with a slash at the end too; the document has it without.
            .get(path.trim_end_matches('/'))
            .ok_or_else(|| Problem::internal(format!("{path} is not in the document")))?;
        let wanted = if *method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let found = operations.iter().find(|(m, _)| m == wanted);
        found.map(|(_, rule)| rule).ok_or_else(|| {
            let known: Vec<_> = operations.iter().map(|(m, _)| m.as_str()).collect();
            let known = known.join(", ");
            Problem::new(
                Code::MethodNotAllowed,
                format!("{path} knows {known}, not {method}."),
            )
            .allowing(&known)
        })
    }
}

impl Rule {
    fn read(operation: &Value) -> Self {
        let role = operation["security"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|requirement| requirement[SCHEME][0].as_str())
            .and_then(|role| role.parse().ok());
        let query = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|p| p["in"] == "query")
            .filter_map(|p| {
                let repeated = p["schema"]["type"] == "array" || p["schema"]["type"][0] == "array";
                Some((p["name"].as_str()?.to_owned(), repeated))
            })
            .collect();
        let id = operation["operationId"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        Self { id, role, query }
    }

    /// Refuses parameters that the document does not know, and repeated ones.
    fn check_query(&self, query: &str) -> Result<(), Problem> {
        let mut violations = Violations::default();
        let mut seen: Vec<String> = Vec::new();
        for (name, _) in form_urlencoded::parse(query.as_bytes()) {
            match self.query.iter().find(|(known, _)| *known == name) {
                None => {
                    violations.push(name.as_ref(), "unknown_parameter", self.known_parameters());
                }
                Some((_, false)) if seen.iter().any(|s| *s == name) => {
                    violations.push(name.as_ref(), "duplicate", "may be given once only");
                }
                Some(_) => seen.push(name.into_owned()),
            }
        }
        violations.into_result(()).map_err(Problem::parameters)
    }

    fn known_parameters(&self) -> String {
        if self.query.is_empty() {
            return "this operation has no query parameters".to_owned();
        }
        let known: Vec<_> = self.query.iter().map(|(name, _)| name.as_str()).collect();
        format!("known query parameters are {}", known.join(", "))
    }

    /// Tells whether it is an inference, which replicas answer.
    fn infers(&self) -> bool {
        ["predict", "oip_infer"]
            .iter()
            .any(|prefix| self.id.starts_with(prefix))
    }

    /// Longest time until the head of the answer.
    fn timeout(&self, config: &ApiConfig) -> Duration {
        match self.id.as_str() {
            "create_dataset" => config.dataset_timeout,
            "upload_file" => config.upload_timeout,
            _ => config.request_timeout,
        }
    }
}

/// State of [`guard`].
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) state: ApiState,
    pub(crate) contract: Arc<Contract>,
}

/// Lets a request through to its handler if the document allows it.
pub(crate) async fn guard(
    State(gate): State<Gate>,
    matched: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    match admission(&gate, matched.as_str(), request, next).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn admission(
    gate: &Gate,
    template: &str,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let rule = gate.contract.rule(request.method(), template)?;
    let Some(least) = rule.role else {
        rule.check_query(request.uri().query().unwrap_or_default())?;
        return Ok(next.run(request).await);
    };
    // Inferences have a door of their own: a flood of them must not lock out everything else.
    let _permit = if rule.infers() {
        None
    } else {
        let permit = gate.state.requests.try_acquire();
        let detail = "Too many requests are under way; try again shortly.";
        Some(permit.map_err(|_| Problem::new(Code::Overloaded, detail))?)
    };
    let actor = gate
        .state
        .authenticator
        .authenticate(request.method(), request.headers())
        .await?;
    if actor.role < least {
        let detail = format!("This needs the role {least}; the key has {}.", actor.role);
        return Err(Problem::new(Code::Forbidden, detail));
    }
    rule.check_query(request.uri().query().unwrap_or_default())?;
    let _admitted = if rule.infers() {
        let endpoint = endpoint_in(request.uri().path());
        let length = claimed_length(request.headers());
        let gateway = &gate.state.gateway;
        match gateway.admit(actor.project, endpoint.as_ref(), length) {
            Ok(admitted) => Some(admitted),
            Err(refused) => {
                discard(request.into_body()).await;
                return Err(refused);
            }
        }
    } else {
        None
    };
    request.extensions_mut().insert(actor);
    let limit = rule.timeout(&gate.state.config);
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => Ok(response),
        Err(_) => Err(overdue(&gate.state, limit).await),
    }
}

/// The endpoint in a path such as `/v2/models/{name}/infer`.
fn endpoint_in(path: &str) -> Option<Name> {
    path.split('/').nth(3)?.parse().ok()
}

/// Bytes that a body may have, by what it says of itself.
fn claimed_length(headers: &HeaderMap) -> usize {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|v| v.to_str().ok()?.parse().ok());
    length.map_or(MAX_INFERENCE_BODY_BYTES, |n: usize| {
        n.min(MAX_INFERENCE_BODY_BYTES)
    })
}

/// Reads a body to its end and keeps nothing of it.
///
/// Who still sends when the connection is closed may never see the answer that is on its way.
async fn discard(body: Body) {
    let mut read = 0;
    let mut body = body.into_data_stream();
    let all = async {
        while let Some(Ok(bytes)) = body.next().await {
            read += bytes.len();
            if read > MAX_INFERENCE_BODY_BYTES {
                return;
            }
        }
    };
    let _too_slow = tokio::time::timeout(DISCARD, all).await;
}

/// Makes the answer to a request that took too long: is it slow, or does Postgres hang?
async fn overdue(state: &ApiState, limit: Duration) -> Problem {
    match tokio::time::timeout(PROBE, state.store.ping()).await {
        Ok(Ok(())) => {
            let detail = format!("No answer within {} seconds.", limit.as_secs());
            Problem::new(Code::Timeout, detail)
        }
        Ok(Err(e)) => Problem::from(e),
        Err(_) => Problem::unavailable("Postgres does not answer a ping"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn contract() -> Contract {
        Contract::new(&json!({"paths": {"/v1/things/{id}": {"get": {
            "operationId": "get_thing",
            "security": [{"api_key": ["viewer"]}],
            "parameters": [
                {"in": "path", "name": "id"},
                {"in": "query", "name": "size", "schema": {"type": "integer"}},
                {"in": "query", "name": "label", "schema": {"type": "array"}},
            ],
        }}}}))
    }

    #[test]
    fn reads_role_and_parameters() {
        let contract = contract();
        let rule = contract.rule(&Method::HEAD, "/v1/things/{id}").unwrap();
        assert_eq!(
            (rule.id.as_str(), rule.role),
            ("get_thing", Some(Role::Viewer))
        );
        assert!(rule.check_query("size=1&label=a&label=b").is_ok());
        for bad in ["colour=red", "size=1&size=2", "id=1", "size%00=1"] {
            assert!(rule.check_query(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refuses_unknown_methods_and_undocumented_routes() {
        let contract = contract();
        let status = |method, path| contract.rule(&method, path).unwrap_err().status().as_u16();
        assert_eq!(status(Method::PUT, "/v1/things/{id}"), 405);
        assert_eq!(status(Method::GET, "/v1/secrets"), 500);
    }
}
