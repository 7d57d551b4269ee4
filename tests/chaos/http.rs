//! A client that never gives up: writes with an idempotency key, repeated until answered.

use std::{sync::Arc, time::Duration};

use nereid_core::{ids::JobId, jobs::Job};
use rand::{RngExt, rngs::StdRng};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::report::Report;

/// Longest wait for an answer; a process may have been frozen in the middle of one.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause before a request is repeated.
const PAUSE: Duration = Duration::from_millis(150);

/// What a request came to.
#[derive(Debug)]
pub enum Answer {
    Accepted(Value),
    /// Refused for good, by status and code.
    Refused(StatusCode, String),
    /// The run is over.
    GaveUp,
}

#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
    apis: Vec<String>,
    key: String,
    report: Arc<Report>,
    give_up: CancellationToken,
}

impl Http {
    pub fn new(
        apis: Vec<String>,
        key: String,
        report: Arc<Report>,
        give_up: CancellationToken,
    ) -> Self {
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            .build()
            .unwrap();
        Self {
            client,
            apis,
            key,
            report,
            give_up,
        }
    }

    /// Posts through either API until there is an answer; counts what it sends in `sent`.
    pub async fn post(
        &self,
        rng: &mut StdRng,
        path: &str,
        body: &Value,
        idempotency_key: &str,
        sent: &mut usize,
    ) -> Answer {
        while !self.give_up.is_cancelled() {
            *sent += 1;
            if let Some(answer) = self
                .try_once(rng, Method::POST, path, Some((body, idempotency_key)))
                .await
            {
                return answer;
            }
            sleep(PAUSE).await;
        }
        Answer::GaveUp
    }

    /// Asks something of a job: `cancel`, `pause`, ….
    pub async fn ask(&self, rng: &mut StdRng, job: JobId, what: &str) -> Answer {
        let key = uuid::Uuid::now_v7().to_string();
        let path = format!("/v1/jobs/{job}/{what}");
        self.post(rng, &path, &json!({}), &key, &mut 0).await
    }

    /// A job as an API sees it; none if the run is over.
    pub async fn job(&self, rng: &mut StdRng, id: JobId) -> Option<Job> {
        while !self.give_up.is_cancelled() {
            match self
                .try_once(rng, Method::GET, &format!("/v1/jobs/{id}"), None)
                .await
            {
                Some(Answer::Accepted(job)) => return Some(serde_json::from_value(job).unwrap()),
                Some(other) => {
                    let what = format!("an API does not know it any more: {other:?}");
                    self.report.finding(Some(id), what);
                    return None;
                }
                None => sleep(PAUSE).await,
            }
        }
        None
    }

    /// One request; none if it has to be repeated.
    async fn try_once(
        &self,
        rng: &mut StdRng,
        method: Method,
        path: &str,
        body: Option<(&Value, &str)>,
    ) -> Option<Answer> {
        let api = &self.apis[rng.random_range(0..self.apis.len())];
        let request = self
            .client
            .request(method, format!("{api}{path}"))
            .bearer_auth(&self.key);
        let request = match body {
            Some((body, key)) => request.header("idempotency-key", key).json(body),
            None => request,
        };
        let response = request.send().await.ok()?;
        let status = response.status();
        let retry_after = response.headers().contains_key("retry-after");
        let body: Value = response.json().await.ok()?;
        if status.is_success() {
            return Some(Answer::Accepted(body));
        }
        let code = body["code"].as_str().unwrap_or("no code").to_owned();
        match status {
            StatusCode::SERVICE_UNAVAILABLE if retry_after => None,
            StatusCode::TOO_MANY_REQUESTS => None,
            StatusCode::CONFLICT if code == "idempotency_in_flight" => None,
            status if status.is_server_error() => {
                let what = format!("{path} was answered with {status}: {body}");
                self.report.finding(None, what);
                None
            }
            status => Some(Answer::Refused(status, code)),
        }
    }
}
