//! Connection, authentication, and how requests and answers are encoded.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;
use uuid::Uuid;

use crate::error::{ClientError, Problem};

/// Longest wait for an answer, except for uploads, registrations and streams.
pub(crate) const TIMEOUT: Duration = Duration::from_mins(1);
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a request is sent again while nobody listens at the address: it may be a wrong one.
const UNREACHED_RETRIES: u32 = 3;
/// How often a request is sent again that was cut or refused for now; covers a restart of
/// Postgres or of the API.
const RETRIES: u32 = 8;
/// Longest pause before a request is sent again.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Client of one Nereid server; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

impl Client {
    /// Makes a client of the server at `base`, with an API key unless it needs none.
    pub fn new(base: &str, token: Option<String>) -> Result<Self, ClientError> {
        let bad = |detail: String| ClientError::BadUrl {
            given: base.to_owned(),
            detail,
        };
        let mut url = Url::parse(base).map_err(|e| bad(e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("the scheme must be http or https".to_owned()));
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("nereid/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| bad(e.to_string()))?;
        Ok(Self {
            http,
            base: url,
            token,
        })
    }

    /// Returns the server's address.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Builds the URL of `segments`, each escaped.
    pub(crate) fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        segments: &[&str],
    ) -> Result<T, ClientError> {
        let request = self
            .request(Method::GET, self.url(segments))
            .timeout(TIMEOUT);
        decode(send(request).await?).await
    }

    pub(crate) async fn get_query<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, ClientError> {
        let request = self
            .request(Method::GET, self.url(segments))
            .query(query)
            .timeout(TIMEOUT);
        decode(send(request).await?).await
    }

    /// Sends a POST with a fresh idempotency key, so that a lost answer can be asked for again.
    pub(crate) async fn post<B: Serialize + Sync + ?Sized, T: DeserializeOwned>(
        &self,
        segments: &[&str],
        body: &B,
        timeout: Duration,
    ) -> Result<T, ClientError> {
        let key = Uuid::now_v7().to_string();
        self.post_keyed(segments, body, timeout, &key).await
    }

    /// Sends a POST until it is answered for good; the key makes sure that it is done once.
    pub(crate) async fn post_keyed<B: Serialize + Sync + ?Sized, T: DeserializeOwned>(
        &self,
        segments: &[&str],
        body: &B,
        timeout: Duration,
        key: &str,
    ) -> Result<T, ClientError> {
        let mut tries = 0;
        loop {
            let request = self
                .request(Method::POST, self.url(segments))
                .header("idempotency-key", key)
                .timeout(timeout)
                .json(body);
            let answer = match send(request).await {
                Ok(response) => decode(response).await,
                Err(e) => Err(e),
            };
            match answer {
                Err(e) if may_repeat(&e, tries) => {
                    tokio::time::sleep(pause(&e, tries)).await;
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    /// As [`Client::post`], with the usual time limit.
    pub(crate) async fn post_quick<B: Serialize + Sync + ?Sized, T: DeserializeOwned>(
        &self,
        segments: &[&str],
        body: &B,
    ) -> Result<T, ClientError> {
        self.post(segments, body, TIMEOUT).await
    }

    /// Sends a body by a method that may be repeated by its nature: PUT or PATCH.
    pub(crate) async fn change<B: Serialize + Sync + ?Sized, T: DeserializeOwned>(
        &self,
        method: Method,
        segments: &[&str],
        body: &B,
    ) -> Result<T, ClientError> {
        let request = self.request(method, self.url(segments));
        decode(send(request.timeout(TIMEOUT).json(body)).await?).await
    }

    pub(crate) async fn delete(&self, segments: &[&str]) -> Result<(), ClientError> {
        let request = self
            .request(Method::DELETE, self.url(segments))
            .timeout(TIMEOUT);
        send(request).await.map(drop)
    }

    /// Tells whether the server is ready to work.
    pub async fn ready(&self) -> Result<bool, ClientError> {
        let request = self
            .request(Method::GET, self.url(&["readyz"]))
            .timeout(CONNECT_TIMEOUT);
        let response = request.send().await.map_err(transport)?;
        Ok(response.status().is_success())
    }
}

/// Tells whether a request with an idempotency key is worth sending again.
fn may_repeat(e: &ClientError, tries: u32) -> bool {
    match e {
        ClientError::Transport { source, .. } if source.is_connect() => tries < UNREACHED_RETRIES,
        // It was given its time; more of the same helps nobody.
        ClientError::Transport { source, .. } if source.is_timeout() => false,
        ClientError::Transport { .. } => tries < RETRIES,
        // Whoever sends too much decides himself what to do about it.
        ClientError::Problem(p) if p.code == "timeout" || p.code == "too_many_requests" => false,
        e => e.is_transient() && tries < RETRIES,
    }
}

/// How long to wait before a request is sent again: longer each time, and as long as asked.
fn pause(e: &ClientError, tries: u32) -> Duration {
    let asked = e.problem().and_then(|p| p.retry_after).unwrap_or(0);
    let doubled = Duration::from_millis(200 << tries.min(8));
    doubled.max(Duration::from_secs(asked)).min(MAX_PAUSE)
}

/// Sends a request; anything but success becomes an error.
pub(crate) async fn send(request: RequestBuilder) -> Result<Response, ClientError> {
    let response = request.send().await.map_err(transport)?;
    if response.status().is_success() {
        return Ok(response);
    }
    let (url, status) = (response.url().to_string(), response.status());
    let retry_after = response
        .headers()
        .get("retry-after")
        .and_then(|v| v.to_str().ok()?.parse().ok());
    let body = response.bytes().await.map_err(transport)?;
    Err(match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => ClientError::Problem(Box::new(Problem {
            retry_after,
            ..problem
        })),
        Err(_) => ClientError::Unexpected {
            url,
            detail: format!("HTTP {status} without a problem document"),
        },
    })
}

/// Decodes a JSON answer.
pub(crate) async fn decode<T: DeserializeOwned>(response: Response) -> Result<T, ClientError> {
    let url = response.url().to_string();
    let body = response.bytes().await.map_err(transport)?;
    serde_json::from_slice(&body).map_err(|e| ClientError::Unexpected {
        url,
        detail: e.to_string(),
    })
}

pub(crate) fn transport(source: reqwest::Error) -> ClientError {
    let url = source.url().map_or_else(String::new, ToString::to_string);
    ClientError::Transport {
        url,
        source: source.without_url(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: &str, retry_after: Option<u64>) -> ClientError {
        let document = serde_json::json!({"status": 503, "code": code, "title": "x"});
        let problem: Problem = serde_json::from_value(document).unwrap();
        ClientError::Problem(Box::new(Problem {
            retry_after,
            ..problem
        }))
    }

    #[test]
    fn repeats_what_was_refused_for_now_and_nothing_else() {
        for code in ["unavailable", "overloaded", "idempotency_in_flight"] {
            assert!(may_repeat(&refusal(code, None), 0), "{code}");
            assert!(
                !may_repeat(&refusal(code, None), RETRIES),
                "{code}, for ever"
            );
        }
        for code in [
            "invalid_request",
            "endpoint_not_ready",
            "too_many_requests",
            "timeout",
        ] {
            assert!(!may_repeat(&refusal(code, None), 0), "{code}");
        }
    }

    #[test]
    fn waits_longer_each_time_and_as_long_as_asked() {
        let at = |tries, asked| pause(&refusal("unavailable", asked), tries);
        assert_eq!(at(0, None), Duration::from_millis(200));
        assert_eq!(at(2, None), Duration::from_millis(800));
        assert_eq!(at(0, Some(2)), Duration::from_secs(2));
        assert_eq!(at(7, Some(600)), MAX_PAUSE);
    }
}
