//! Jobs: submit, watch, stop.

use futures::{Stream, StreamExt};
use nereid_core::{
    events::{JobEvent, LogLine, MetricPoint},
    ids::JobId,
    jobs::{Attempt, Job, JobKind, JobStatus},
};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use sse_stream::SseStream;

use crate::{Client, ClientError, client::send};

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobQuery {
    /// Only with this status.
    pub status: Option<JobStatus>,
    /// Only of this kind.
    pub kind: Option<JobKind>,
    /// Only about this model.
    pub model: Option<String>,
    /// Only with all of these labels.
    pub labels: Vec<(String, String)>,
}

impl Client {
    /// Submits a job; `job` is the body of `POST /v1/jobs`.
    pub async fn submit_job(&self, job: &Value) -> Result<Job, ClientError> {
        self.post_quick(&["v1", "jobs"], job).await
    }

    /// Lists jobs, newest first.
    pub async fn jobs(&self, query: &JobQuery, limit: usize) -> Result<Vec<Job>, ClientError> {
        let mut params: Vec<(&str, String)> = Vec::new();
        params.extend(query.status.map(|s| ("status", s.to_string())));
        params.extend(query.kind.map(|k| ("kind", k.to_string())));
        params.extend(query.model.clone().map(|m| ("model", m)));
        params.extend(
            query
                .labels
                .iter()
                .map(|(k, v)| ("label", format!("{k}:{v}"))),
        );
        self.list(&["v1", "jobs"], &params, limit).await
    }

    /// Returns a job.
    pub async fn job(&self, id: JobId) -> Result<Job, ClientError> {
        self.get(&["v1", "jobs", &id.to_string()]).await
    }

    /// Asks a job to stop.
    pub async fn cancel_job(&self, id: JobId) -> Result<Job, ClientError> {
        self.post_quick(&["v1", "jobs", &id.to_string(), "cancel"], &json!({}))
            .await
    }

    /// Queues a failed or stopped job again.
    pub async fn retry_job(&self, id: JobId) -> Result<Job, ClientError> {
        self.post_quick(&["v1", "jobs", &id.to_string(), "retry"], &json!({}))
            .await
    }

    /// Returns the attempts of a job.
    pub async fn job_attempts(&self, id: JobId) -> Result<Vec<Attempt>, ClientError> {
        #[derive(Deserialize)]
        struct Attempts {
            items: Vec<Attempt>,
        }
        Ok(self
            .get::<Attempts>(&["v1", "jobs", &id.to_string(), "attempts"])
            .await?
            .items)
    }

    /// Returns lines of a job's log, oldest first.
    pub async fn job_logs(&self, id: JobId, limit: usize) -> Result<Vec<LogLine>, ClientError> {
        self.list(&["v1", "jobs", &id.to_string(), "logs"], &[], limit)
            .await
    }

    /// Returns a job's metrics in step order.
    pub async fn job_metrics(&self, id: JobId) -> Result<Vec<MetricPoint>, ClientError> {
        #[derive(Deserialize)]
        struct Points {
            items: Vec<MetricPoint>,
        }
        Ok(self
            .get::<Points>(&["v1", "jobs", &id.to_string(), "metrics"])
            .await?
            .items)
    }

    /// Streams a job's events: those after `after` first, then live, until the job has ended.
    pub async fn job_events(
        &self,
        id: JobId,
        after: u64,
    ) -> Result<impl Stream<Item = Result<JobEvent, ClientError>> + Unpin + use<>, ClientError>
    {
        let url = self.url(&["v1", "jobs", &id.to_string(), "events"]);
        let shown = url.to_string();
        let request = self
            .request(Method::GET, url)
            .header("accept", "text/event-stream")
            .header("last-event-id", after.to_string());
        let bytes = send(request).await?.bytes_stream();
        let events = SseStream::from_bytes_stream(bytes).filter_map(move |event| {
            let unexpected = |detail: String| ClientError::Unexpected {
                url: shown.clone(),
                detail,
            };
            let event = match event {
                Ok(sse) => sse
                    .data
                    .map(|data| serde_json::from_str(&data).map_err(|e| unexpected(e.to_string()))),
                Err(e) => Some(Err(unexpected(e.to_string()))),
            };
            std::future::ready(event)
        });
        Ok(Box::pin(events))
    }

    /// Waits until a job has ended, calling `seen` for each event; survives lost connections.
    pub async fn watch_job(
        &self,
        id: JobId,
        mut seen: impl FnMut(&JobEvent),
    ) -> Result<Job, ClientError> {
        let mut after = 0;
        loop {
            match self.job_events(id, after).await {
                Ok(mut events) => {
                    while let Some(Ok(event)) = events.next().await {
                        after = event.seq;
                        seen(&event);
                    }
                }
                Err(e @ ClientError::Problem(_)) => return Err(e),
                Err(_) => {}
            }
            match self.job(id).await {
                Ok(job) if job.status.is_final() => return Ok(job),
                Ok(_) | Err(ClientError::Transport { .. }) => {}
                Err(e) => return Err(e),
            }
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
    }
}
