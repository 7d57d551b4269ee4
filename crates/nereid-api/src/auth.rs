//! Who makes a request: bearer keys, their cache, and the actor that handlers see.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::extract::FromRequestParts;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use http::{HeaderMap, Method, header, request::Parts};
use nereid_core::{
    clock::{Clock, Timestamp},
    keys::{Actor, KEY_PREFIX, Role},
};
use nereid_store::Store;
use sha2::{Digest, Sha256};
use url::Url;

use crate::{
    problem::{Code, Problem},
    state::AuthMode,
};

/// How long a key is taken for good without asking the database again.
const TTL: TimeDelta = TimeDelta::seconds(5);
/// How long a key that was good is still taken for good while the database does not answer.
///
/// Inference needs no database; without this it would end with the first outage.
const TTL_UNCONFIRMED: TimeDelta = TimeDelta::minutes(2);
/// Longest wait for the database.
const CONFIRM: Duration = Duration::from_secs(10);
/// The same if a key was good shortly before.
const RECONFIRM: Duration = Duration::from_millis(500);
/// Most keys remembered.
const MAX_CACHED: usize = 4096;
/// Characters of a secret after its prefix: 32 bytes in base64url.
const SECRET_CHARS: usize = 43;

/// Draws the secret of a new API key: `nrd_` and 256 random bits.
#[must_use]
pub fn new_key_secret() -> String {
    let bytes: [u8; 32] = rand::random();
    format!("{KEY_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// Returns the hash under which a secret is stored.
///
/// A plain SHA-256 is enough: the secret has 256 random bits, so there is nothing to guess.
#[must_use]
pub fn hash_key_secret(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Returns the part of a secret that is kept to recognise the key by.
#[must_use]
pub fn key_prefix(secret: &str) -> &str {
    secret.get(..12).unwrap_or(secret)
}

/// Finds out who makes a request.
pub(crate) struct Authenticator {
    store: Store,
    mode: AuthMode,
    clock: Arc<dyn Clock>,
    cache: Mutex<HashMap<[u8; 32], Known>>,
}

/// A key that was good.
#[derive(Debug, Clone)]
struct Known {
    actor: Actor,
    /// When the database said so.
    confirmed: Timestamp,
    /// When it was last asked, answer or not.
    asked: Timestamp,
}

impl Known {
    /// Tells whether the database need not be asked.
    fn is_fresh(&self, now: Timestamp) -> bool {
        within(self.asked, now, TTL) && self.is_usable(now)
    }

    /// Tells whether the key may be taken for good if the database does not answer.
    fn is_usable(&self, now: Timestamp) -> bool {
        within(self.confirmed, now, TTL_UNCONFIRMED)
    }
}

/// Tells whether `now` is less than `span` after `at`; a clock that was set back makes it false.
fn within(at: Timestamp, now: Timestamp, span: TimeDelta) -> bool {
    let age = now - at;
    age >= TimeDelta::zero() && age < span
}

impl Authenticator {
    pub(crate) fn new(store: Store, mode: AuthMode, clock: Arc<dyn Clock>) -> Self {
        let cache = Mutex::default();
        Self {
            store,
            mode,
            clock,
            cache,
        }
    }

    /// Returns the actor of a request, or 401.
    pub(crate) async fn authenticate(
        &self,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Actor, Problem> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return self.anonymous(method, headers);
        };
        let secret = value
            .to_str()
            .ok()
            .and_then(bearer)
            .filter(|s| is_key_shaped(s))
            .ok_or_else(unknown_key)?;
        self.actor(hash_key_secret(secret)).await
    }

    /// Forgets all remembered keys, so that a revoked one ends here at once.
    pub(crate) fn forget(&self) {
        self.cache().clear();
    }

    async fn actor(&self, hash: [u8; 32]) -> Result<Actor, Problem> {
        let now = self.clock.now();
        let known = self.cache().get(&hash).cloned();
        let Some(known) = known.filter(|known| known.is_usable(now)) else {
            return tokio::time::timeout(CONFIRM, self.confirm(hash, now))
                .await
                .unwrap_or_else(|_| Err(Problem::unavailable("no answer about a key in time")));
        };
        if known.is_fresh(now) {
            return Ok(known.actor);
        }
        match tokio::time::timeout(RECONFIRM, self.confirm(hash, now)).await {
            Ok(Err(problem)) if problem.kind() != Code::Unavailable => Err(problem),
            Ok(Ok(actor)) => Ok(actor),
            Ok(Err(_)) | Err(_) => {
                tracing::warn!("a key is taken for good without the database, which is away");
                if let Some(known) = self.cache().get_mut(&hash) {
                    known.asked = now;
                }
                Ok(known.actor)
            }
        }
    }

    /// Asks the database for the holder of a key.
    async fn confirm(&self, hash: [u8; 32], now: Timestamp) -> Result<Actor, Problem> {
        let Some(actor) = self.store.authenticate(&hash).await? else {
            self.cache().remove(&hash);
            return Err(unknown_key());
        };
        let mut cache = self.cache();
        if cache.len() >= MAX_CACHED {
            cache.clear();
        }
        let known = Known {
            actor: actor.clone(),
            confirmed: now,
            asked: now,
        };
        cache.insert(hash, known);
        Ok(actor)
    }

    fn cache(&self) -> MutexGuard<'_, HashMap<[u8; 32], Known>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn anonymous(&self, method: &Method, headers: &HeaderMap) -> Result<Actor, Problem> {
        let AuthMode::AnonymousAdmin { project } = self.mode else {
            return Err(Problem::new(
                Code::Unauthenticated,
                "Send an API key in the header: Authorization: Bearer nrd_…",
            ));
        };
        // Any web page may post to loopback from the user's browser; it must not be taken for him.
        if !method.is_safe() && is_foreign_page(headers) {
            return Err(Problem::new(
                Code::Forbidden,
                "Requests without an API key are not taken from other origins' web pages.",
            ));
        }
        Ok(Actor {
            project,
            role: Role::Admin,
            key: None,
        })
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn is_key_shaped(secret: &str) -> bool {
    secret.len() == KEY_PREFIX.len() + SECRET_CHARS && secret.starts_with(KEY_PREFIX)
}

fn unknown_key() -> Problem {
    Problem::new(Code::Unauthenticated, "The API key is unknown or revoked.")
}

fn is_foreign_page(headers: &HeaderMap) -> bool {
    let text = |name| {
        headers
            .get(name)
            .and_then(|v: &http::HeaderValue| v.to_str().ok())
    };
    if text(header::HeaderName::from_static("sec-fetch-site")) == Some("cross-site") {
        return true;
    }
    let Some(origin) = text(header::ORIGIN) else {
        return false;
    };
    let host = text(header::HOST).unwrap_or_default();
    let authority = Url::parse(origin).ok().and_then(|url| {
        let name = url.host_str()?;
        Some(
            url.port()
                .map_or_else(|| name.to_owned(), |p| format!("{name}:{p}")),
        )
    });
    authority.is_none_or(|a| !a.eq_ignore_ascii_case(host))
}

/// The actor of the request, put there by the layer that checks the operation's role.
pub(crate) struct Caller(pub(crate) Actor);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let actor = parts.extensions.get::<Actor>().cloned();
        actor
            .map(Self)
            .ok_or_else(|| Problem::internal("an operation without a role asked for its caller"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_random_and_recognisable() {
        let (a, b) = (new_key_secret(), new_key_secret());
        assert_ne!(a, b);
        assert!(is_key_shaped(&a), "{a}");
        assert_eq!(key_prefix(&a).len(), 12);
    }

    #[test]
    fn a_key_is_taken_without_the_database_for_a_while_only() {
        let start = Timestamp::UNIX_EPOCH;
        let after = |seconds| start + TimeDelta::seconds(seconds);
        let actor = Actor {
            project: nereid_core::ids::ProjectId::generate(),
            role: Role::Viewer,
            key: None,
        };
        let known = |confirmed, asked| Known {
            actor: actor.clone(),
            confirmed: after(confirmed),
            asked: after(asked),
        };
        assert!(known(0, 0).is_fresh(after(4)));
        assert!(!known(0, 0).is_fresh(after(6)) && known(0, 0).is_usable(after(6)));
        // Asked in vain a moment ago: not asked with each request.
        assert!(known(0, 100).is_fresh(after(101)));
        assert!(!known(0, 119).is_fresh(after(121)), "in vain for too long");
        assert!(!known(50, 50).is_usable(after(0)), "the clock was set back");
    }

    #[test]
    fn takes_the_scheme_in_any_case_and_nothing_else() {
        assert_eq!(bearer("bearer abc"), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("abc"), None);
    }

    #[test]
    fn knows_pages_of_other_origins() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (k, v) in pairs {
                map.insert(*k, http::HeaderValue::from_static(v));
            }
            map
        };
        let foreign = |pairs| is_foreign_page(&headers(pairs));
        assert!(!foreign(&[("host", "localhost:8080")]));
        assert!(!foreign(&[
            ("host", "localhost:8080"),
            ("origin", "http://localhost:8080")
        ]));
        assert!(foreign(&[
            ("host", "localhost:8080"),
            ("origin", "https://evil.example")
        ]));
        assert!(foreign(&[("host", "localhost:8080"), ("origin", "null")]));
        assert!(foreign(&[("sec-fetch-site", "cross-site")]));
    }
}
