//! Extractors whose rejections are problems: path, query, JSON bodies.
//!
//! No string with a NUL character gets past them: Postgres cannot store one.

use std::{fmt::Display, str::FromStr};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{FromRequest, FromRequestParts, Request},
};
use http::{HeaderMap, Uri, header, request::Parts};
use nereid_core::{Violations, limits, validation};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use url::form_urlencoded;
use utoipa::ToSchema;

use crate::problem::{Code, Problem};

/// Path parameters.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(e) => Err(Problem::new(Code::InvalidParameter, e.body_text())),
        }
    }
}

/// Number of a version in a path.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "u32")]
pub(crate) struct VersionNumber(pub(crate) u32);

impl TryFrom<u32> for VersionNumber {
    type Error = String;
    fn try_from(n: u32) -> Result<Self, String> {
        let max = i32::MAX.unsigned_abs();
        if (1..=max).contains(&n) {
            Ok(Self(n))
        } else {
            Err(format!("version {n} is not between 1 and {max}"))
        }
    }
}

/// Query parameters, read by `T`.
pub(crate) struct Query<T>(pub(crate) T);

/// A set of query parameters.
pub(crate) trait Parameters: Sized {
    /// Reads all parameters, recording every mistake.
    fn read(reader: &mut QueryReader) -> Self;
}

/// Reads query parameters, recording every mistake instead of stopping at the first.
pub(crate) struct QueryReader {
    pairs: Vec<(String, String)>,
    violations: Violations,
}

impl QueryReader {
    pub(crate) fn new(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        let mut violations = Violations::default();
        for (name, value) in &pairs {
            violations.check(!value.contains('\0'), name, "invalid_value", || {
                "a NUL character is not allowed".to_owned()
            });
        }
        Self { pairs, violations }
    }

    /// Returns a parameter as it is.
    pub(crate) fn text<'a>(&'a self, name: &str) -> Option<&'a str> {
        self.repeated(name).next()
    }

    /// Returns all values of a parameter.
    pub(crate) fn repeated<'a, 'n>(
        &'a self,
        name: &'n str,
    ) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.pairs
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// Parses a parameter that may be absent.
    pub(crate) fn optional<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        match self.text(name)?.parse() {
            Ok(value) => Some(value),
            Err(e) => {
                let detail = T::Err::to_string(&e);
                self.violations.push(name, "invalid_value", detail);
                None
            }
        }
    }

    /// Parses a number that may be absent and has a range.
    pub(crate) fn number<T>(&mut self, name: &str, min: T, max: T) -> Option<T>
    where
        T: FromStr<Err: Display> + PartialOrd + Display + Copy,
    {
        let value: T = self.optional(name)?;
        self.violations.check_range(name, value, min, max);
        Some(value)
    }

    /// Access to the list of mistakes.
    pub(crate) fn violations(&mut self) -> &mut Violations {
        &mut self.violations
    }
}

impl<T: Parameters, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut reader = QueryReader::new(&parts.uri);
        let value = T::read(&mut reader);
        let checked = reader.violations.into_result(value);
        checked.map(Self).map_err(Problem::parameters)
    }
}

/// A JSON body, free of NUL characters.
pub(crate) struct JsonBody(pub(crate) Value);

impl<S: Sync> FromRequest<S> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read_body(&parts.headers, body, limits::MAX_JSON_BODY_BYTES).await?;
        parse_json(&parts.headers, &bytes).map(Self)
    }
}

/// Reads a whole body of at most `limit` bytes.
pub(crate) async fn read_body(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Bytes, Problem> {
    check_length(headers, limit as u64)?;
    to_bytes(body, limit).await.map_err(|e| {
        if is_length_limit(&e) {
            too_large(limit as u64)
        } else {
            Problem::new(
                Code::InvalidBody,
                "The connection broke before the whole body was there.",
            )
        }
    })
}

/// Refuses a body that says of itself that it is too large.
pub(crate) fn check_length(headers: &HeaderMap, limit: u64) -> Result<(), Problem> {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<u64>().ok());
    if length.is_some_and(|n| n > limit) {
        return Err(too_large(limit));
    }
    Ok(())
}

/// Makes the answer to a body above `limit` bytes.
pub(crate) fn too_large(limit: u64) -> Problem {
    Problem::new(
        Code::TooLarge,
        format!("The body is larger than the {limit} bytes allowed here."),
    )
}

fn is_length_limit(e: &axum::Error) -> bool {
    let mut next: Option<&dyn std::error::Error> = Some(e);
    while let Some(cause) = next {
        if cause.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        next = cause.source();
    }
    false
}

/// Demands the content type of JSON.
pub(crate) fn demand_json(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let media = given.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let detail = format!("Send application/json, not {given:?}.");
    Err(Problem::new(Code::UnsupportedMediaType, detail))
}

/// Parses a JSON body without NUL characters.
pub(crate) fn parse_json(headers: &HeaderMap, bytes: &[u8]) -> Result<Value, Problem> {
    demand_json(headers)?;
    let value: Value = serde_json::from_slice(bytes).map_err(|e| invalid_json(&e))?;
    let mut violations = Violations::default();
    refuse_nul(&value, "", &mut violations);
    violations.into_result(value).map_err(Problem::invalid)
}

/// Makes the answer to a body that is no JSON.
pub(crate) fn invalid_json(e: &serde_json::Error) -> Problem {
    Problem::new(Code::InvalidJson, e.to_string())
}

/// Records each string and key that holds a NUL character.
fn refuse_nul(value: &Value, pointer: &str, violations: &mut Violations) {
    let refuse = |at: &str, violations: &mut Violations| {
        violations.push(at, "invalid_value", "a NUL character is not allowed");
    };
    match value {
        Value::String(s) if s.contains('\0') => refuse(pointer, violations),
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                if matches!(item, Value::String(_) | Value::Array(_) | Value::Object(_)) {
                    refuse_nul(item, &format!("{pointer}/{i}"), violations);
                }
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                let at = format!("{pointer}/{}", validation::escape(key).replace('\0', ""));
                if key.contains('\0') {
                    refuse(&at, violations);
                }
                refuse_nul(item, &at, violations);
            }
        }
        _ => {}
    }
}

/// Bodies above this many bytes are parsed on a thread that may block.
pub(crate) const PARSE_INLINE_BYTES: usize = 256 << 10;

/// Reads and parses the body of an inference request without building a JSON tree.
pub(crate) async fn read_inference<T: DeserializeOwned + Send + 'static>(
    request: Request,
    limit: usize,
) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    demand_json(&parts.headers)?;
    let bytes = read_body(&parts.headers, body, limit).await?;
    if bytes.len() <= PARSE_INLINE_BYTES {
        return parse_lenient(&bytes);
    }
    tokio::task::spawn_blocking(move || parse_lenient(&bytes))
        .await
        .map_err(Problem::internal)?
}

/// Parses JSON straight into `T`, naming the spot of a mistake.
pub(crate) fn parse_lenient<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|e| {
        if e.inner().is_data() {
            let pointer = validation::path_to_pointer(e.path());
            Problem::violation(pointer, "invalid_value", e.inner().to_string())
        } else {
            invalid_json(e.inner())
        }
    })?;
    deserializer.end().map_err(|e| invalid_json(&e))?;
    Ok(value)
}

/// Records a description that is too long.
pub(crate) fn check_description(text: &str, pointer: &str, v: &mut Violations) {
    let (len, max) = (text.chars().count(), limits::MAX_DESCRIPTION_LEN);
    v.check(len <= max, pointer, "too_long", || {
        format!("{len} characters are more than the {max} allowed")
    });
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn json_headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_static("application/json; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, value);
        headers
    }

    #[test]
    fn refuses_nul_wherever_it_hides() {
        let refused = |body: &str| {
            let problem = parse_json(&json_headers(), body.as_bytes()).unwrap_err();
            assert_eq!(problem.kind(), Code::InvalidRequest, "{body}");
        };
        refused(r#"{"a": "\u0000"}"#);
        refused(r#"{"a\u0000": 1}"#);
        refused(r#"{"a": [[{"b": ["x\u0000y"]}]]}"#);
    }

    #[test]
    fn survives_depth_bombs_and_takes_the_last_of_duplicate_keys() {
        let bomb = "[".repeat(100_000);
        let problem = parse_json(&json_headers(), bomb.as_bytes()).unwrap_err();
        assert_eq!(problem.kind(), Code::InvalidJson);
        let value = parse_json(&json_headers(), br#"{"a": 1, "a": 2}"#).unwrap();
        assert_eq!(value["a"], 2);
    }

    #[test]
    fn demands_a_json_content_type() {
        let problem = parse_json(&HeaderMap::new(), b"{}").unwrap_err();
        assert_eq!(problem.kind(), Code::UnsupportedMediaType);
    }

    #[test]
    fn query_reader_collects_all_mistakes() {
        let uri: Uri = "/x?page_size=0&after=abc&name=a%00b".parse().unwrap();
        let mut reader = QueryReader::new(&uri);
        assert_eq!(reader.number("page_size", 1_u32, 200), Some(0));
        assert_eq!(reader.optional::<u64>("after"), None);
        assert_eq!(reader.violations.len(), 3);
    }
}
