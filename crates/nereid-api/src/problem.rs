//! Errors as clients see them: problem documents (RFC 9457) with stable codes.
//!
//! A [`Problem`] holds a detail for the client and a private source. The source is logged once,
//! by the envelope around each request, and never sent.

mod sources;

pub(crate) use self::sources::{client_object, reference};

use std::{error::Error as StdError, sync::Arc};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use nereid_core::{Violation, Violations};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Media type of problem documents.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Seconds after which a request that was refused for now may be sent again.
pub(crate) const RETRY_AFTER: u32 = 1;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $code:literal, $title:literal;)+) => {
        /// Kind of a problem: HTTP status, stable code and title in one place.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $($(#[$doc])* $name),+ }

        impl Code {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Returns the HTTP status.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status),+ }
            }

            /// Returns the word for programs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code),+ }
            }

            /// Returns the line for people.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),+ }
            }
        }
    };
}

codes! {
    /// Body is no JSON.
    InvalidJson = BAD_REQUEST, "invalid_json", "The request body is no valid JSON";
    /// Body could not be read.
    InvalidBody = BAD_REQUEST, "invalid_body", "The request body cannot be read";
    /// Path, query or header parameter.
    InvalidParameter = BAD_REQUEST, "invalid_parameter", "A parameter is invalid";
    /// Page token.
    InvalidPageToken = BAD_REQUEST, "invalid_page_token", "The page token is invalid";
    /// No or unknown key.
    Unauthenticated = UNAUTHORIZED, "unauthenticated", "An API key is needed";
    /// Key of too low a role.
    Forbidden = FORBIDDEN, "forbidden", "The API key does not allow this";
    /// No such resource.
    NotFound = NOT_FOUND, "not_found", "There is no such resource";
    /// No such route.
    UnknownRoute = NOT_FOUND, "unknown_route", "There is no such route";
    /// Route without that method.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method_not_allowed", "The route does not know this method";
    /// Name is taken.
    AlreadyExists = CONFLICT, "already_exists", "The name is taken";
    /// State forbids the change.
    Conflict = CONFLICT, "conflict", "The current state does not allow this";
    /// Same key in use right now.
    IdempotencyInFlight = CONFLICT, "idempotency_in_flight", "The first request with this Idempotency-Key is still under way";
    /// Body over the limit.
    TooLarge = PAYLOAD_TOO_LARGE, "too_large", "The request body is too large";
    /// Wrong content type.
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The content type is not supported";
    /// Well-formed, but wrong.
    InvalidRequest = UNPROCESSABLE_ENTITY, "invalid_request", "The request is invalid";
    /// Files do not hold what was declared.
    DatasetInvalid = UNPROCESSABLE_ENTITY, "dataset_invalid", "The dataset's files are invalid";
    /// Key reused for another request.
    IdempotencyMismatch = UNPROCESSABLE_ENTITY, "idempotency_mismatch", "The Idempotency-Key was used with another request";
    /// Queue of a replica is full.
    TooManyRequests = TOO_MANY_REQUESTS, "too_many_requests", "There are too many requests";
    /// A fault of ours.
    Internal = INTERNAL_SERVER_ERROR, "internal", "Something went wrong in Nereid";
    /// Postgres, S3 or a worker is away.
    Unavailable = SERVICE_UNAVAILABLE, "unavailable", "Nereid cannot answer right now";
    /// Too many requests under way in this process.
    Overloaded = SERVICE_UNAVAILABLE, "overloaded", "Nereid is overloaded";
    /// No replica of the endpoint is ready.
    EndpointNotReady = SERVICE_UNAVAILABLE, "endpoint_not_ready", "The endpoint is not ready";
    /// The request took too long.
    Timeout = GATEWAY_TIMEOUT, "timeout", "The request took too long";
}

/// What went wrong with a request.
#[derive(Debug)]
pub struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Code,
    code: &'static str,
    detail: String,
    errors: Vec<Violation>,
    retry_after: Option<u32>,
    allow: Option<HeaderValue>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// A problem on its way out, until the envelope writes it down with the request's id.
#[derive(Debug, Clone)]
pub(crate) struct Carried(Arc<Inner>);

/// An error (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDocument {
    /// Reference that names the kind of problem.
    #[serde(rename = "type")]
    #[schema(example = "/problems/invalid_request")]
    pub kind: String,
    /// One line for people, the same for all problems of a kind.
    #[schema(example = "The request is invalid")]
    pub title: String,
    /// HTTP status.
    #[schema(minimum = 400, maximum = 599, example = 422)]
    pub status: u16,
    /// What happened and what to do.
    pub detail: String,
    /// Path of the request.
    pub instance: String,
    /// Kind of problem for programs; does not change.
    #[schema(example = "invalid_request")]
    pub code: String,
    /// Names the request in the server's log.
    pub request_id: String,
    /// All mistakes found in the input.
    pub errors: Vec<Violation>,
}

impl Problem {
    /// Makes a problem of a kind, with a sentence for the client.
    pub fn new(kind: Code, detail: impl Into<String>) -> Self {
        let retry_after = (kind.status() == StatusCode::SERVICE_UNAVAILABLE
            || kind == Code::TooManyRequests)
            .then_some(RETRY_AFTER);
        Self(Box::new(Inner {
            kind,
            code: kind.as_str(),
            detail: detail.into(),
            errors: Vec::new(),
            retry_after,
            allow: None,
            source: None,
        }))
    }

    /// Makes the answer to an input with mistakes.
    #[must_use]
    pub fn invalid(violations: Violations) -> Self {
        Self::with_violations(Code::InvalidRequest, violations)
    }

    /// Makes the answer to parameters with mistakes.
    #[must_use]
    pub fn parameters(violations: Violations) -> Self {
        Self::with_violations(Code::InvalidParameter, violations)
    }

    /// Makes the answer to a single mistake in the body.
    pub fn violation(pointer: impl Into<String>, code: &str, detail: impl Into<String>) -> Self {
        let mut violations = Violations::default();
        violations.push(pointer, code, detail);
        Self::invalid(violations)
    }

    /// Makes the answer to a fault of ours; `source` is logged.
    pub fn internal(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(
            Code::Internal,
            "The fault is logged under this request_id; the request may be tried again.",
        )
        .caused_by(source)
    }

    /// Makes the answer while something that Nereid needs is away; `source` is logged.
    pub fn unavailable(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(
            Code::Unavailable,
            "Something Nereid depends on does not answer; try again shortly.",
        )
        .caused_by(source)
    }

    /// Replaces the code by a more exact one.
    #[must_use]
    pub fn coded(mut self, code: &'static str) -> Self {
        self.0.code = code;
        self
    }

    /// Keeps the cause for the log.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Names the methods that the route knows.
    #[must_use]
    pub fn allowing(mut self, methods: &str) -> Self {
        self.0.allow = HeaderValue::from_str(methods).ok();
        self
    }

    /// Replaces each pointer by `f` of it.
    #[must_use]
    pub fn map_pointers(mut self, f: impl Fn(&str) -> String) -> Self {
        for error in &mut self.0.errors {
            error.pointer = f(&error.pointer);
        }
        if let Some(detail) = summary(&self.0.errors) {
            self.0.detail = detail;
        }
        self
    }

    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> Code {
        self.0.kind
    }

    /// Returns the code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// Returns the sentence for the client.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Returns the mistakes found in the input.
    #[must_use]
    pub fn errors(&self) -> &[Violation] {
        &self.0.errors
    }

    /// Returns the HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.kind.status()
    }

    /// Logs a 5xx with the whole chain of causes.
    pub(crate) fn log(&self) {
        self.0.log();
    }

    /// Says all in one line, for protocols whose errors are no more than that.
    #[must_use]
    pub(crate) fn message(&self) -> String {
        format!("{}: {}", self.0.kind.title(), self.0.detail)
    }

    fn with_violations(kind: Code, violations: Violations) -> Self {
        let errors = violations.into_vec();
        let detail = summary(&errors).unwrap_or_else(|| kind.title().to_owned());
        let mut problem = Self::new(kind, detail);
        problem.0.errors = errors;
        problem
    }
}

/// Says in one line what the mistakes are.
fn summary(errors: &[Violation]) -> Option<String> {
    let first = errors.first()?;
    let first_detail = format!("{}: {}", first.pointer, first.detail);
    Some(match errors.len() {
        1 => first_detail,
        n => format!("{n} mistakes; the first: {first_detail}"),
    })
}

impl From<Violations> for Problem {
    fn from(violations: Violations) -> Self {
        Self::invalid(violations)
    }
}

impl Inner {
    /// Logs a 5xx with the whole chain of causes.
    fn log(&self) {
        if !self.kind.status().is_server_error() {
            return;
        }
        let mut chain = String::new();
        let mut next = self.source.as_deref().map(|e| e as &dyn StdError);
        while let Some(e) = next {
            if !chain.is_empty() {
                chain.push_str(": ");
            }
            chain.push_str(&e.to_string());
            next = e.source();
        }
        let (code, detail) = (self.code, &self.detail);
        if self.source.is_none() && self.kind != Code::Internal {
            // An endpoint that is not ready yet, or too many requests: no fault of anybody's.
            tracing::warn!(code, %detail, "request refused for now");
        } else {
            tracing::error!(code, %detail, cause = %chain, "request failed");
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let carried = Carried(Arc::from(self.0));
        let mut response = carried.render("", "", false);
        response.extensions_mut().insert(carried);
        response
    }
}

impl Carried {
    /// Writes the problem down; as the Open Inference Protocol has it if `oip`.
    pub(crate) fn render(&self, request_id: &str, instance: &str, oip: bool) -> Response {
        let status = self.0.kind.status();
        let (media, body) = if oip {
            (
                "application/json",
                serde_json::json!({ "error": self.message() }).to_string(),
            )
        } else {
            let document = self.document(request_id, instance);
            (
                PROBLEM_JSON,
                serde_json::to_string(&document).unwrap_or_default(),
            )
        };
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"nereid\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = &self.0.allow {
            headers.insert(header::ALLOW, allow.clone());
        }
        response
    }

    /// Logs a 5xx with the whole chain of causes.
    pub(crate) fn log(&self) {
        self.0.log();
    }

    fn message(&self) -> String {
        format!("{}: {}", self.0.kind.title(), self.0.detail)
    }

    fn document(&self, request_id: &str, instance: &str) -> ProblemDocument {
        ProblemDocument {
            kind: format!("/problems/{}", self.0.code),
            title: self.0.kind.title().to_owned(),
            status: self.0.kind.status().as_u16(),
            detail: self.0.detail.clone(),
            instance: instance.to_owned(),
            code: self.0.code.to_owned(),
            request_id: request_id.to_owned(),
            errors: self.0.errors.clone(),
        }
    }
}
