//! `Idempotency-Key`: a repeated POST answers what the first one answered and changes nothing.

use axum::{
    extract::{FromRequest, Request},
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, request::Parts};
use nereid_core::{
    Violations,
    keys::Actor,
    limits::{MAX_IDEMPOTENCY_KEY_LEN, MAX_JSON_BODY_BYTES},
    validation::ObjectReader,
};
use nereid_store::{Begun, IdempotencyKey, StoredResponse, WriteTx};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{
    ApiState,
    extract::{parse_json, read_body},
    problem::Problem,
};

/// Header with which a client marks a request that it may repeat.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A POST that changes something: its JSON body, and how to do it once only.
pub(crate) struct Submission {
    pub(crate) body: Value,
    pub(crate) once: Once,
}

/// A POST that changes something and needs no body; an empty one reads as `{}`.
pub(crate) struct BareSubmission(pub(crate) Submission);

/// The client's idempotency key, if it sent one.
#[derive(Debug)]
pub(crate) struct Once(Option<IdempotencyKey>);

/// Why a handler ends early.
pub(crate) enum Interrupt {
    /// The request was answered before.
    Replay(StoredResponse),
    /// It is refused.
    Problem(Problem),
}

impl<E: Into<Problem>> From<E> for Interrupt {
    fn from(e: E) -> Self {
        Self::Problem(e.into())
    }
}

impl IntoResponse for Interrupt {
    fn into_response(self) -> Response {
        match self {
            Self::Problem(problem) => problem.into_response(),
            Self::Replay(stored) => {
                let status = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::OK);
                let mut response = (status, axum::Json(stored.body)).into_response();
                response
                    .headers_mut()
                    .insert(REPLAYED, HeaderValue::from_static("true"));
                response
            }
        }
    }
}

impl Once {
    /// The key, for a method of the store that does it all.
    pub(crate) fn into_key(self) -> Option<IdempotencyKey> {
        self.0
    }

    /// Begins the change, unless it was made before.
    pub(crate) async fn begin(
        &self,
        state: &ApiState,
        actor: &Actor,
    ) -> Result<WriteTx, Interrupt> {
        let store = state.store.with_actor(actor.key);
        match store.begin(actor.project, self.0.clone()).await? {
            Begun::Fresh(tx) => Ok(tx),
            Begun::Replay(stored) => Err(Interrupt::Replay(stored)),
        }
    }

    /// Ends the handler if the change was made before.
    ///
    /// For handlers that look things up before [`Once::begin`]: a repeated request must be
    /// answered even if, say, the dataset it names is gone by now.
    pub(crate) async fn replay(&self, state: &ApiState, actor: &Actor) -> Result<(), Interrupt> {
        if self.0.is_some() {
            self.begin(state, actor).await?.rollback().await?;
        }
        Ok(())
    }

    fn read(parts: &Parts, body: &[u8]) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else {
            return Ok(Self(None));
        };
        let key = value.to_str().unwrap_or_default();
        let printable = key.bytes().all(|b| (b' '..=b'~').contains(&b));
        if values.next().is_some()
            || key.is_empty()
            || key.len() > MAX_IDEMPOTENCY_KEY_LEN
            || !printable
        {
            let mut violations = Violations::default();
            violations.push(
                IDEMPOTENCY_KEY.as_str(),
                "invalid_value",
                format!("must be given once, as 1 to {MAX_IDEMPOTENCY_KEY_LEN} printable ASCII characters"),
            );
            return Err(Problem::parameters(violations));
        }
        let fingerprint = fingerprint(parts, body);
        Ok(Self(Some(IdempotencyKey {
            key: key.to_owned(),
            fingerprint,
        })))
    }
}

fn fingerprint(parts: &Parts, body: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::new();
    let target = parts.uri.path_and_query().map_or("", |p| p.as_str());
    for part in [parts.method.as_str().as_bytes(), target.as_bytes(), body] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().to_vec()
}

impl<S: Sync> FromRequest<S> for Submission {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read_body(&parts.headers, body, MAX_JSON_BODY_BYTES).await?;
        let once = Once::read(&parts, &bytes)?;
        let body = parse_json(&parts.headers, &bytes)?;
        Ok(Self { body, once })
    }
}

impl<S: Sync> FromRequest<S> for BareSubmission {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read_body(&parts.headers, body, MAX_JSON_BODY_BYTES).await?;
        let once = Once::read(&parts, &bytes)?;
        let body = if bytes.is_empty() {
            Value::Object(Map::new())
        } else {
            parse_json(&parts.headers, &bytes)?
        };
        Ok(Self(Submission { body, once }))
    }
}

impl BareSubmission {
    /// Refuses any field in the body.
    pub(crate) fn nothing(self) -> Result<Once, Problem> {
        let mut violations = Violations::default();
        if let Some(reader) = ObjectReader::new(self.0.body, "", &mut violations) {
            reader.finish();
        }
        Ok(violations.into_result(self.0.once)?)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::problem::Code;

    async fn submit(key: &str, body: &'static str) -> Result<Submission, Problem> {
        let request = http::Request::post("/v1/jobs?x=1")
            .header("content-type", "application/json")
            .header(
                IDEMPOTENCY_KEY,
                HeaderValue::from_bytes(key.as_bytes()).unwrap(),
            )
            .body(Body::from(body))
            .unwrap();
        Submission::from_request(request, &()).await
    }

    #[tokio::test]
    async fn the_fingerprint_tells_bodies_apart() {
        let print = |s: Submission| s.once.0.unwrap().fingerprint;
        let a = print(submit("k", "{}").await.unwrap());
        assert_eq!(a, print(submit("k", "{}").await.unwrap()));
        assert_ne!(a, print(submit("k", "{ }").await.unwrap()));
    }

    #[tokio::test]
    async fn refuses_keys_that_are_empty_long_or_unprintable() {
        for bad in ["", "ä", &"k".repeat(256)] {
            let Err(problem) = submit(bad, "{}").await else {
                panic!("{bad:?} was taken")
            };
            assert_eq!(problem.kind(), Code::InvalidParameter);
        }
        assert!(submit(&"k".repeat(255), "{}").await.is_ok());
    }
}
