//! Postgres goes away under a running installation: restarted in order, as in a crash, and hanging.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use futures::StreamExt;
use nereid_client::Client;
use nereid_core::{
    events::{EventKind, JobEvent},
    ids::JobId,
    jobs::TerminationReason,
};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    installation::{Installation, Role},
    support::*,
};

/// How long Postgres stays away; a restart as in a crash follows at once.
const AWAY: Duration = Duration::from_secs(2);

/// A training with some steps a second, each of which has a metric point.
fn slow_training(model: &str) -> Value {
    let mut job = tiny_job(model, model, 100_000);
    job["spec"]["network"]["layers"] = json!([
        {"type": "Conv2D", "filters": 16, "kernel_size": 3, "activation": "relu"},
        {"type": "Flatten"},
        {"type": "Dense", "units": 10},
    ]);
    job["spec"]["fit"]["batch_size"] = json!(512);
    job
}

/// Requests as a client of the API sends them, headers and all.
struct Http {
    client: reqwest::Client,
    base: String,
    key: String,
}

/// The query of an operation that needs one.
fn required(operation: &Value) -> String {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let needed = parameters.filter(|p| p["in"] == "query" && p["required"] == true);
    let pairs: Vec<_> = needed
        .map(|p| format!("{}=1,2", p["name"].as_str().unwrap()))
        .collect();
    let mark = if pairs.is_empty() { "" } else { "?" };
    format!("{mark}{}", pairs.join("&"))
}

impl Http {
    async fn send(&self, method: Method, path: &str) -> Response {
        let request = self.client.request(method, format!("{}{path}", self.base));
        let request = request.bearer_auth(&self.key).timeout(PATIENCE);
        request
            .send()
            .await
            .unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    async fn get(&self, path: &str) -> Response {
        self.send(Method::GET, path).await
    }

    /// Waits until a request succeeds; meanwhile it may only be refused for now.
    async fn recovers(&self, path: &str) {
        let start = Instant::now();
        loop {
            let response = self.get(path).await;
            match response.status() {
                StatusCode::OK => return,
                StatusCode::SERVICE_UNAVAILABLE => {}
                other => panic!("{path}: {other}"),
            }
            assert!(start.elapsed() < PATIENCE, "{path} does not recover");
        }
    }

    /// All documented requests that only need Postgres: reads, and deletions of what is not there.
    async fn reads(&self, job: JobId) -> Vec<(Method, String)> {
        let document: Value = self.get("/openapi.json").await.json().await.unwrap();
        let mut reads = Vec::new();
        for (template, item) in document["paths"].as_object().unwrap() {
            let fill = |part: &str| match part {
                "{id}" => job.to_string(),
                "{version}" => "7".to_owned(),
                part if part.starts_with('{') => "nothing".to_owned(),
                part => part.to_owned(),
            };
            let path: Vec<_> = template.split('/').map(fill).collect();
            for method in [Method::GET, Method::DELETE] {
                let operation = &item[method.as_str().to_lowercase()];
                if operation["security"].is_array() && template != "/v2" {
                    reads.push((method, path.join("/") + &required(operation)));
                }
            }
        }
        assert!(reads.len() > 25, "{reads:?}");
        reads
    }

    /// Each read is refused for now, says so in the right words, and does not take long.
    async fn all_refused(&self, reads: &[(Method, String)]) {
        let answers = reads.iter().map(|(method, path)| async move {
            let start = Instant::now();
            let response = self.send(method.clone(), path).await;
            let took = start.elapsed();
            assert_eq!(response.status(), 503, "{method} {path}");
            assert!(took < Duration::from_secs(12), "{method} {path}: {took:?}");
            let wait = response.headers()["retry-after"].to_str().unwrap();
            assert!(wait.parse::<u32>().unwrap() >= 1, "{path}");
            let body: Value = response.json().await.unwrap();
            if path.starts_with("/v2") {
                assert!(body["error"].is_string(), "{path}: {body}");
            } else {
                assert_eq!(body["code"], "unavailable", "{path}: {body}");
            }
        });
        futures::future::join_all(answers).await;
        assert_eq!(self.get("/readyz").await.status(), 503);
        assert_eq!(self.get("/v2/health/ready").await.status(), 503);
        assert_eq!(self.get("/livez").await.status(), 200);
    }
}

/// One stream of a job's events, from its start to its end.
struct Following {
    seen: Arc<Mutex<Vec<JobEvent>>>,
    task: JoinHandle<()>,
}

impl Following {
    async fn start(client: &Client, id: JobId) -> Self {
        let mut events = client.job_events(id, 0).await.unwrap();
        let seen = Arc::<Mutex<Vec<JobEvent>>>::default();
        let list = seen.clone();
        #[expect(clippy::disallowed_methods, reason = "ends with its runtime")]
        let task = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                list.lock().unwrap().push(event.unwrap());
            }
        });
        Self { seen, task }
    }

    /// Waits for progress that is not there yet.
    async fn progress(&self) {
        let count = |seen: &[JobEvent]| {
            let progress = seen.iter().filter(|e| e.kind == EventKind::Progress);
            progress.count()
        };
        let before = count(&self.seen.lock().unwrap());
        let start = Instant::now();
        while count(&self.seen.lock().unwrap()) == before {
            assert!(start.elapsed() < PATIENCE, "no progress");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Time by the clock that the worker uses, too.
#[expect(
    clippy::disallowed_methods,
    reason = "compared with other processes' times"
)]
fn now() -> DateTime<Utc> {
    Utc::now()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_and_its_watchers_outlive_restarts_of_postgres() {
    let (services, key) = Installation::migrated().await;
    let mut api = services.nereid(&["api"]);
    api.env("NEREID__DATABASE__ACQUIRE_TIMEOUT", "1s");
    let mut api = Role::start(api).await;
    let mut worker = services.nereid(&["worker", "--slots", "2"]);
    // A Postgres that shuts down in order first writes out all it has, as long as the disk takes.
    worker.env("NEREID__WORKER__LEASE", "60s");
    let mut worker = Role::start(worker).await;
    let client = api.client(&key);
    let http = Http {
        client: reqwest::Client::new(),
        base: api.url().to_owned(),
        key: key.clone(),
    };
    let served = deployed_digits(&client).await;
    let row = json!(client.dataset_preview(&served, 1).await.unwrap()[0].features);
    client
        .predict(&served, std::slice::from_ref(&row))
        .await
        .unwrap();
    let id = client.submit_job(&slow_training(&served)).await.unwrap().id;
    let following = Following::start(&client, id).await;
    following.progress().await;
    let reads = http.reads(id).await;

    let mut outages = Vec::new();
    for (signal, away) in [("INT", AWAY), ("QUIT", Duration::ZERO)] {
        services.end_postgres(signal).await;
        let down = now();
        let late = json!({"kind": "noop", "spec": {}});
        let submission = client.submit_job_once(&late, signal);
        let refused = async {
            http.all_refused(&reads).await;
            // Inference needs no database.
            let answer = client.predict(&served, std::slice::from_ref(&row)).await;
            assert_eq!(answer.unwrap().version, 1);
            tokio::time::sleep(away).await;
            services.start_postgres().await;
            outages.push((down, now()));
        };
        // The client sends it again, under the same key, until it is accepted.
        let (submitted, ()) = tokio::join!(submission, refused);
        http.recovers("/readyz").await;
        http.recovers(&format!("/v1/jobs/{id}")).await;
        let (submitted, again) = (
            submitted.unwrap(),
            client.submit_job_once(&late, signal).await,
        );
        assert_eq!(submitted.id, again.unwrap().id);
        finish(&client, submitted.id).await;
        following.progress().await;
    }
    assert!(api.is_alive() && worker.is_alive());

    client.stop_job(id).await.unwrap();
    let job = client.watch_job(id, |_| {}).await.unwrap();
    assert_eq!(
        job.termination_reason,
        Some(TerminationReason::StoppedEarly)
    );
    let attempts = client.job_attempts(id).await.unwrap();
    assert_eq!(attempts.len(), 1, "the lease still held: {attempts:?}");
    let points = client.job_metrics(id).await.unwrap();
    assert!(points.len() < 10_000, "they come thinned");
    let steps: Vec<_> = points.iter().map(|p| p.step).collect();
    let all: Vec<_> = (1..=steps.len() as u64).collect();
    assert_eq!(steps, all, "each step once, none missing");
    for (down, up) in outages {
        let meanwhile = points.iter().filter(|p| (down..up).contains(&p.at));
        assert!(meanwhile.count() > 0, "it trained on meanwhile");
    }
    // The one stream that was opened before it all.
    let ended = tokio::time::timeout(PATIENCE, following.task).await;
    ended.expect("the stream ends with the job").unwrap();
    let seen = following.seen.lock().unwrap();
    assert!(
        seen.iter().zip(1..).all(|(event, seq)| event.seq == seq),
        "a gap"
    );
    assert_eq!(seen.last().unwrap().data["reason"], "stopped_early");
    drop((api, worker));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_hangs_is_away_and_no_more() {
    let (services, key) = Installation::migrated().await;
    let mut api = services.nereid(&["api"]);
    api.env("NEREID__DATABASE__ACQUIRE_TIMEOUT", "1s");
    let mut api = Role::start(api).await;
    let client = api.client(&key);
    let http = Http {
        client: reqwest::Client::new(),
        base: api.url().to_owned(),
        key: key.clone(),
    };
    let id = client
        .submit_job(&json!({"kind": "noop", "spec": {}}))
        .await
        .unwrap()
        .id;
    let following = Following::start(&client, id).await;
    let reads = http.reads(id).await;
    services.signal_all_of_postgres("STOP");
    http.all_refused(&reads).await;
    services.signal_all_of_postgres("CONT");
    http.recovers("/readyz").await;
    http.recovers(&format!("/v1/jobs/{id}")).await;
    assert!(api.is_alive());
    // The job waits for a worker; cancelled, it ends, and so does the stream.
    client.cancel_job(id).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, following.task).await;
    ended.expect("the stream ends with the job").unwrap();
    assert_eq!(following.seen.lock().unwrap().len(), 2);
}
