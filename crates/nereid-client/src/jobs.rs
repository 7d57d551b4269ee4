//! Jobs: submit, watch, pause, resume, stop, cancel, retry.

use std::time::{Duration, Instant};

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

use crate::{
    Client, ClientError,
    client::{TIMEOUT, send},
};

/// How long a server may be away before a watch is given up.
const PATIENCE: Duration = Duration::from_mins(5);

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

    /// Submits a job under an idempotency key of the caller's: however often it is called with the
    /// same key and body, and by however many processes, there is one job.
    pub async fn submit_job_once(&self, job: &Value, key: &str) -> Result<Job, ClientError> {
        self.post_keyed(&["v1", "jobs"], job, TIMEOUT, key).await
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

    /// Puts a job aside: it saves its state and frees its worker until resumed.
    pub async fn pause_job(&self, id: JobId) -> Result<Job, ClientError> {
        self.ask_job(id, "pause").await
    }

    /// Lets a paused job go on.
    pub async fn resume_job(&self, id: JobId) -> Result<Job, ClientError> {
        self.ask_job(id, "resume").await
    }

    /// Ends a training now and keeps what was trained.
    pub async fn stop_job(&self, id: JobId) -> Result<Job, ClientError> {
        self.ask_job(id, "stop").await
    }

    /// Ends a job without a result.
    pub async fn cancel_job(&self, id: JobId) -> Result<Job, ClientError> {
        self.ask_job(id, "cancel").await
    }

    /// Queues a failed or stopped job again.
    pub async fn retry_job(&self, id: JobId) -> Result<Job, ClientError> {
        self.ask_job(id, "retry").await
    }

    async fn ask_job(&self, id: JobId, what: &str) -> Result<Job, ClientError> {
        self.post_quick(&["v1", "jobs", &id.to_string(), what], &json!({}))
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

    /// Returns a job's metrics in step order: all of them, or 10,000 evenly picked.
    pub async fn job_metrics(&self, id: JobId) -> Result<Vec<MetricPoint>, ClientError> {
        #[derive(Deserialize)]
        struct Points {
            items: Vec<MetricPoint>,
        }
        Ok(self
            .get_query::<Points>(
                &["v1", "jobs", &id.to_string(), "metrics"],
                &[("limit", "10000".to_owned())],
            )
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

    /// Waits until a job has ended, calling `seen` for each event.
    ///
    /// A paused job has not ended. Lost connections and a server that is away for a while are
    /// survived; no event is missed or seen twice.
    pub async fn watch_job(
        &self,
        id: JobId,
        mut seen: impl FnMut(&JobEvent),
    ) -> Result<Job, ClientError> {
        let (mut after, mut heard) = (0, Instant::now());
        loop {
            let cut = self.follow(id, &mut after, &mut heard, &mut seen).await;
            let job = match cut {
                Ok(()) => self.job(id).await,
                Err(e) => Err(e),
            };
            match job {
                Ok(job) if job.status.is_final() => return Ok(job),
                Ok(_) => heard = Instant::now(),
                Err(e) if e.is_transient() && heard.elapsed() < PATIENCE => {}
                Err(e) => return Err(e),
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Reads one stream of events to its end, however it ends.
    async fn follow(
        &self,
        id: JobId,
        after: &mut u64,
        heard: &mut Instant,
        seen: &mut impl FnMut(&JobEvent),
    ) -> Result<(), ClientError> {
        let mut events = self.job_events(id, *after).await?;
        while let Some(Ok(event)) = events.next().await {
            (*after, *heard) = (event.seq, Instant::now());
            seen(&event);
        }
        Ok(())
    }
}
