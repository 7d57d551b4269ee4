//! Sends inference to ready replicas: route cache, choice of variant and replica, one retry.
//!
//! A replica in this process answers without a network hop. The cache is refreshed on wake-ups,
//! every two seconds, and when an endpoint is missing from it.

mod ask;
mod cache;
mod members;
mod routes;
mod shadow;
mod traffic;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use nereid_core::{
    Name,
    admission::{Admission, Admitted},
    engine::LocalReplicas,
    ids::ProjectId,
    inference::{Answer, InferError, InferOptions, Timing},
    limits::{MAX_INFERENCE_BYTES_HELD, MAX_INFERENCES_HELD},
    tensors::{Batch, Tensor},
};
use nereid_store::{
    Store, StoreError,
    notify::{Wake, Wakeups},
};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub use self::routes::VariantStatistics;
pub(crate) use self::routes::{Target, Variant};
use self::{
    ask::{Question, ReplicaError},
    routes::Routes,
};
use crate::problem::{Code, Problem};

/// Longest age of the route cache while no wake-up comes.
const REFRESH: Duration = Duration::from_secs(2);
/// Longest wait for a connection to a worker.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for a replica's answer.
const INFER_TIMEOUT: Duration = Duration::from_secs(25);
/// Longest wait for the first replica of a variant that slept.
const WAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// Sends inference to ready replicas.
pub struct Gateway {
    store: Store,
    wakeups: Wakeups,
    local: Option<Arc<dyn LocalReplicas>>,
    secret: String,
    http: reqwest::Client,
    routes: Routes,
    refreshing: tokio::sync::Mutex<()>,
    /// Raised whenever the routes were read anew.
    refreshed: watch::Sender<u64>,
    admission: Arc<Admission>,
    copies: mpsc::Sender<shadow::Copy>,
    /// Taken by [`Gateway::run`].
    copied: std::sync::Mutex<Option<mpsc::Receiver<shadow::Copy>>>,
}

impl Gateway {
    pub(crate) fn new(
        store: Store,
        wakeups: Wakeups,
        local: Option<Arc<dyn LocalReplicas>>,
        secret: String,
    ) -> Result<Self, reqwest::Error> {
        // Workers are reached directly: an HTTP proxy of the environment must not see the secret.
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(INFER_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        let routes = Routes::default();
        let refreshing = tokio::sync::Mutex::default();
        let (copies, receiver) = mpsc::channel(shadow::WAITING);
        Ok(Self {
            store,
            wakeups,
            local,
            secret,
            http,
            routes,
            refreshing,
            refreshed: watch::Sender::default(),
            copies,
            copied: std::sync::Mutex::new(Some(receiver)),
            admission: Admission::new(MAX_INFERENCES_HELD, MAX_INFERENCE_BYTES_HELD),
        })
    }

    /// Keeps the route cache fresh, copies requests for shadows and reports on the traffic until
    /// `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        let copied = self.copied.lock().map(|mut c| c.take()).ok().flatten();
        let Some(mut copied) = copied else {
            return tracing::error!("the gateway runs already");
        };
        tokio::select! {
            () = self.keep_fresh(shutdown) => {}
            () = self.mirror(&mut copied) => {}
            () = self.report() => {}
        }
    }

    async fn keep_fresh(&self, shutdown: CancellationToken) {
        let mut wakes = self.wakeups.subscribe();
        loop {
            if let Err(e) = self.refresh().await {
                // The old routes go on serving: inference needs no database.
                tracing::warn!(error = %e, "routes could not be refreshed");
            }
            let woken = async {
                loop {
                    match wakes.recv().await {
                        Ok(Wake::Endpoints | Wake::Resync) | Err(RecvError::Lagged(_)) => return,
                        Ok(_) => {}
                        // No more wake-ups will come; the slow poll goes on.
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = woken => {}
                () = tokio::time::sleep(REFRESH) => {}
            }
        }
    }

    /// Reads all routes anew.
    pub(crate) async fn refresh(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.refreshing.lock().await;
        let routes = self.store.routes().await?;
        self.routes.replace(routes);
        self.refreshed.send_modify(|n| *n = n.wrapping_add(1));
        Ok(())
    }

    /// Returns what an endpoint serves as far as this process knows, without asking anybody.
    pub(crate) fn ready(&self, project: ProjectId, name: &Name) -> Option<Arc<Target>> {
        self.routes.get(project, name)
    }

    /// Returns what an endpoint serves now.
    pub(crate) async fn target(
        &self,
        project: ProjectId,
        name: &Name,
    ) -> Result<Arc<Target>, Problem> {
        if let Some(target) = self.routes.get(project, name) {
            return Ok(target);
        }
        // It may have become ready a moment ago. If it does not exist, this answers 404.
        let endpoint = self.store.endpoint(project, name).await?;
        if endpoint.serving_generation.is_some() {
            self.refresh().await?;
        }
        self.routes.get(project, name).ok_or_else(|| {
            let detail = format!(
                "Endpoint {name} is {} and has no ready replica.",
                endpoint.status
            );
            Problem::new(Code::EndpointNotReady, detail)
        })
    }

    /// Runs a batch on a replica of `variant`, and on another one if the first does not answer.
    pub(crate) async fn infer(
        &self,
        project: ProjectId,
        endpoint: &Name,
        variant: &Variant,
        batch: Batch,
        options: InferOptions,
    ) -> Result<Vec<Tensor>, Problem> {
        let (began, rows) = (Instant::now(), batch.rows);
        let statistics = &variant.statistics;
        let _in_flight = statistics.enter();
        let cached = variant.cache.as_ref().map(|c| (c, c.key(&batch)));
        if let Some(outputs) = cached.and_then(|(cache, key)| cache.get(&key)) {
            statistics.cache_hits.fetch_add(1, Relaxed);
            statistics.answered(rows, began.elapsed(), &Timing::default());
            return Ok(Vec::clone(&outputs));
        }
        let question = Question {
            batch: Arc::new(batch),
            priority: options.priority,
            deadline: options.timeout.and_then(|t| began.checked_add(t)),
        };
        let (deadline, batch) = (question.deadline, Arc::clone(&question.batch));
        let asking = self.ask_awake(project, endpoint, variant, question);
        let asked = if let Some(at) = deadline {
            let Ok(asked) = tokio::time::timeout_at(at, asking).await else {
                statistics.refused(&InferError::Expired);
                return Err(expired(endpoint));
            };
            asked
        } else {
            asking.await
        };
        match asked {
            Ok(answer) => {
                statistics.answered(rows, began.elapsed(), &answer.timing);
                if let Some((cache, key)) = cached {
                    cache.put(key, &answer.outputs);
                }
                self.note(project, endpoint, variant, batch, &answer.outputs);
                Ok(answer.outputs)
            }
            Err(e) => {
                statistics.refused(e.as_ref().map_or(&InferError::Gone, ReplicaError::refusal));
                Err(problem(endpoint, e))
            }
        }
    }

    /// Asks a variant, which is woken first if it sleeps: the request waits for its replica.
    async fn ask_awake(
        &self,
        project: ProjectId,
        endpoint: &Name,
        variant: &Variant,
        question: Question,
    ) -> Result<Answer, Option<ReplicaError>> {
        if !variant.is_asleep {
            return self.ask_around(project, endpoint, variant, question).await;
        }
        let mut refreshed = self.refreshed.subscribe();
        let waking = async {
            if let Err(e) = self.store.wake_variant(variant.id).await {
                tracing::warn!(%endpoint, error = %e, "a variant that sleeps cannot be woken");
            }
            loop {
                let target = self.routes.get(project, endpoint);
                let awake = |t: &Arc<Target>| t.find(variant.id).is_some_and(|v| !v.is_asleep);
                if let Some(target) = target.filter(awake) {
                    return Some(target);
                }
                refreshed.changed().await.ok()?;
            }
        };
        let woken = tokio::time::timeout(WAKE_TIMEOUT, waking).await;
        let target = woken.ok().flatten().ok_or(None)?;
        let awake = target.find(variant.id).ok_or(None)?;
        self.ask_around(project, endpoint, awake, question).await
    }

    /// Notes what an answer is compared with while a generation is being rolled out, and copies
    /// the request for one that is tried as a shadow.
    fn note(
        &self,
        project: ProjectId,
        endpoint: &Name,
        variant: &Variant,
        batch: Arc<Batch>,
        outputs: &[Tensor],
    ) {
        let target = self.routes.get(project, endpoint);
        let Some(target) = target.filter(|t| t.compares()) else {
            return;
        };
        variant.traffic.score(outputs);
        if target.mirrors() {
            // With too many waiting, the sample is smaller.
            let _ = self.copies.try_send(shadow::Copy {
                project,
                endpoint: endpoint.clone(),
                target,
                batch,
                answer: outputs.to_vec(),
            });
        }
    }

    /// Lets an inference of `bytes` in before its body is read, unless there are too many.
    ///
    /// # Errors
    /// 429 if this process holds as much as it can, or all replicas of the endpoint have as many
    /// requests of this process as their queues hold.
    pub(crate) fn admit(
        &self,
        project: ProjectId,
        endpoint: Option<&Name>,
        bytes: usize,
    ) -> Result<Admitted, Problem> {
        let target = endpoint.and_then(|name| self.routes.get(project, name));
        if let (Some(target), Some(endpoint)) = (target, endpoint)
            && target.is_saturated()
        {
            target.reject();
            return Err(busy(endpoint));
        }
        self.admission.enter(bytes).ok_or_else(|| {
            let detail = "Too many inferences are under way; try again shortly.";
            Problem::new(Code::TooManyRequests, detail)
        })
    }

    /// Returns what happened to the requests of each variant in this process.
    pub fn statistics(&self) -> Vec<VariantStatistics> {
        self.routes.statistics()
    }
}

/// Says to the client why no replica answered.
fn problem(endpoint: &Name, e: Option<ReplicaError>) -> Problem {
    let away = format!("All replicas of endpoint {endpoint} are away; try again shortly.");
    let Some(e) = e else {
        return Problem::new(Code::EndpointNotReady, away);
    };
    match e.refusal() {
        InferError::Busy => busy(endpoint),
        InferError::Expired => expired(endpoint),
        InferError::Invalid(detail) => Problem::new(Code::InvalidRequest, detail.clone()),
        InferError::Failed(_) => Problem::internal(e),
        InferError::Gone => Problem::new(Code::EndpointNotReady, away).caused_by(e),
    }
}

fn busy(endpoint: &Name) -> Problem {
    let detail = format!("All replicas of endpoint {endpoint} are busy; try again shortly.");
    Problem::new(Code::TooManyRequests, detail)
}

fn expired(endpoint: &Name) -> Problem {
    let detail = format!("Endpoint {endpoint} did not answer within the request's time.");
    Problem::new(Code::Timeout, detail)
}
