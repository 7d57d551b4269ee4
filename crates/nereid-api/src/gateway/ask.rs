//! Asks replicas: in this process or over HTTP, a second one if the first fails or is slow.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use nereid_core::{
    Name,
    endpoints::ReplicaAddress,
    ids::{ProjectId, ReplicaId},
    inference::{Answer, InferError, InferOptions},
    tensors::Batch,
};
use reqwest::StatusCode;
use serde::Deserialize;
use tokio::time::Instant;

use super::{Gateway, members::Member, routes::Variant};

/// Why one replica did not answer.
#[derive(Debug, thiserror::Error)]
#[error("replica {replica}: {why}")]
pub(super) struct ReplicaError {
    replica: ReplicaId,
    why: Why,
}

#[derive(Debug, thiserror::Error)]
enum Why {
    /// It or its worker is away; another replica may answer.
    #[error("{0}")]
    Unreachable(String),
    /// It says so itself.
    #[error("{0}")]
    Refused(#[from] InferError),
}

/// What is asked of a replica.
#[derive(Clone)]
pub(super) struct Question {
    pub(super) batch: Arc<Batch>,
    pub(super) priority: u32,
    pub(super) deadline: Option<Instant>,
}

/// How a worker says why it does not answer.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl ReplicaError {
    /// What it amounts to for whoever asked.
    pub(super) fn refusal(&self) -> &InferError {
        match &self.why {
            Why::Unreachable(_) => &InferError::Gone,
            Why::Refused(e) => e,
        }
    }

    /// Tells whether another replica may do better.
    fn may_pass_elsewhere(&self) -> bool {
        match &self.why {
            Why::Unreachable(_) => true,
            Why::Refused(e) => !matches!(e, InferError::Invalid(_) | InferError::Expired),
        }
    }
}

impl Question {
    fn options(&self) -> InferOptions {
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        InferOptions {
            priority: self.priority,
            timeout: self.deadline.map(left),
        }
    }
}

impl Gateway {
    /// Asks a replica of `variant`, and another one if the first does not answer.
    ///
    /// Inference changes nothing, so asking twice does no harm.
    pub(super) async fn ask_around(
        &self,
        project: ProjectId,
        endpoint: &Name,
        variant: &Variant,
        question: Question,
    ) -> Result<Answer, Option<ReplicaError>> {
        let first = variant.choose(None).ok_or(None)?;
        let failed = match self.ask_hedged(variant, first, &question).await {
            Err(e) if e.may_pass_elsewhere() => e,
            result => return result.map_err(Some),
        };
        let Some(second) = self.another(project, endpoint, variant, &first.address) else {
            return Err(Some(failed));
        };
        tracing::debug!(%endpoint, error = %failed, "trying another replica");
        variant.statistics.retried.fetch_add(1, Relaxed);
        self.ask(&second, &question).await.map_err(Some)
    }

    /// Finds a replica of the same model version other than `failed`, in the newest routes known.
    fn another(
        &self,
        project: ProjectId,
        endpoint: &Name,
        variant: &Variant,
        failed: &ReplicaAddress,
    ) -> Option<Member> {
        let newest = self.routes.get(project, endpoint);
        let same = newest.as_ref().and_then(|target| {
            let is_same = |v: &&Variant| v.model == variant.model && v.version == variant.version;
            target.variants.iter().find(is_same)
        });
        let found = same.and_then(|v| v.choose(Some(failed)));
        found.or_else(|| variant.choose(Some(failed))).cloned()
    }

    /// Asks `first`, and a second replica too if the variant wants that and the first is slow.
    async fn ask_hedged(
        &self,
        variant: &Variant,
        first: &Member,
        question: &Question,
    ) -> Result<Answer, ReplicaError> {
        let Some(after) = variant.hedge_after else {
            return self.ask(first, question).await;
        };
        let mut one = pin!(self.ask(first, question));
        tokio::select! {
            biased;
            answer = &mut one => return answer,
            () = tokio::time::sleep(after) => {}
        }
        let Some(second) = variant.choose(Some(&first.address)) else {
            return one.await;
        };
        variant.statistics.hedged.fetch_add(1, Relaxed);
        let mut other = pin!(self.ask(second, question));
        // The one that is not waited for any more is dropped, and with it its place in a queue.
        tokio::select! {
            answer = &mut one => match answer {
                Ok(answer) => Ok(answer),
                Err(_) => other.await,
            },
            answer = &mut other => match answer {
                Ok(answer) => Ok(answer),
                Err(_) => one.await,
            },
        }
    }

    async fn ask(&self, member: &Member, question: &Question) -> Result<Answer, ReplicaError> {
        let _outstanding = member.occupy();
        let id = member.address.id;
        let asked = match self.local.as_ref().and_then(|local| local.get(id)) {
            Some(replica) => {
                let asked = replica.infer(Arc::clone(&question.batch), question.options());
                asked.await.map_err(Why::Refused)
            }
            None => self.ask_remote(&member.address, question).await,
        };
        match &asked {
            Ok(_) => member.trust(),
            Err(Why::Unreachable(_)) => member.suspect(),
            Err(Why::Refused(_)) => {}
        }
        asked.map_err(|why| ReplicaError { replica: id, why })
    }

    async fn ask_remote(
        &self,
        address: &ReplicaAddress,
        question: &Question,
    ) -> Result<Answer, Why> {
        let base = address.url.trim_end_matches('/');
        let url = format!("{base}/internal/v1/replicas/{}/infer", address.id);
        let options = question.options();
        let mut request = self
            .http
            .post(url)
            .bearer_auth(&self.secret)
            .header("x-nereid-rows", question.batch.rows)
            .header("content-type", "application/octet-stream");
        if options.priority > 0 {
            request = request.header("x-nereid-priority", options.priority);
        }
        if let Some(left) = options.timeout {
            let micros = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
            request = request.header("x-nereid-timeout-us", micros);
        }
        let response = request.body(question.batch.to_le_bytes()).send().await;
        let response = response.map_err(|e| unanswered(&e))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|e| unanswered(&e))?;
        match status {
            StatusCode::OK => Answer::from_bytes(&body)
                .ok_or_else(|| Why::Unreachable("its answer cannot be read".to_owned())),
            StatusCode::TOO_MANY_REQUESTS => Err(InferError::Busy.into()),
            StatusCode::GATEWAY_TIMEOUT => Err(InferError::Expired.into()),
            StatusCode::NOT_FOUND => Err(InferError::Gone.into()),
            StatusCode::BAD_REQUEST => Err(InferError::Invalid(detail(&body)).into()),
            StatusCode::INTERNAL_SERVER_ERROR => Err(InferError::Failed(detail(&body)).into()),
            status => Err(Why::Unreachable(format!("it answered {status}"))),
        }
    }
}

/// An answer that took too long is not asked for again: that would take as long once more.
fn unanswered(e: &reqwest::Error) -> Why {
    if e.is_timeout() && !e.is_connect() {
        return InferError::Expired.into();
    }
    Why::Unreachable(e.to_string())
}

fn detail(body: &[u8]) -> String {
    let refusal = serde_json::from_slice::<Refusal>(body);
    refusal.map_or_else(|_| "no reason was given".to_owned(), |r| r.error)
}

/// Time after which a second replica is asked, too.
pub(super) fn hedge_after(micros: Option<u32>) -> Option<Duration> {
    micros.map(|n| Duration::from_micros(n.into()))
}
