//! Sends inference to ready replicas: route cache, choice of variant and replica, one retry.
//!
//! A replica in this process answers without a network hop. The cache is refreshed on wake-ups,
//! every two seconds, and when an endpoint is missing from it.

mod routes;

use std::{sync::Arc, time::Duration};

use nereid_core::{
    Name,
    endpoints::ReplicaAddress,
    engine::{EngineError, LocalReplicas, Predictor},
    ids::{ProjectId, ReplicaId},
    tensors::{Batch, Tensor},
};
use nereid_store::{
    Store, StoreError,
    notify::{Wake, Wakeups},
};
use reqwest::StatusCode;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use self::routes::{Member, Routes};
pub(crate) use self::routes::{Target, Variant};
use crate::problem::{Code, Problem};

/// Longest age of the route cache while no wake-up comes.
const REFRESH: Duration = Duration::from_secs(2);
/// Longest wait for a connection to a worker.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for a replica's answer.
const INFER_TIMEOUT: Duration = Duration::from_secs(25);

/// Sends inference to ready replicas.
pub struct Gateway {
    store: Store,
    wakeups: Wakeups,
    local: Option<Arc<dyn LocalReplicas>>,
    secret: String,
    http: reqwest::Client,
    routes: Routes,
    refreshing: tokio::sync::Mutex<()>,
}

/// Why one replica did not answer.
#[derive(Debug, thiserror::Error)]
enum ReplicaError {
    /// Another replica may answer.
    #[error("replica {replica}: {reason}")]
    Unreachable { replica: ReplicaId, reason: String },
    /// Its queue is full.
    #[error("replica {0} is busy")]
    Busy(ReplicaId),
    /// The batch itself is refused.
    #[error("{0}")]
    Invalid(String),
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
        Ok(Self {
            store,
            wakeups,
            local,
            secret,
            http,
            routes,
            refreshing,
        })
    }

    /// Keeps the route cache fresh until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
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
    ) -> Result<Vec<Tensor>, Problem> {
        let batch = Arc::new(batch);
        let Some(first) = variant.choose(None) else {
            return Err(not_ready(endpoint, None));
        };
        let failed = match self.ask(first, &batch).await {
            Ok(outputs) => return Ok(outputs),
            Err(ReplicaError::Invalid(detail)) => return Err(invalid(detail)),
            Err(e) => e,
        };
        tracing::warn!(%endpoint, error = %failed, "trying another replica");
        let Some(second) = self.another(project, endpoint, variant, first.address.id) else {
            return Err(not_ready(endpoint, Some(failed)));
        };
        match self.ask(&second, &batch).await {
            Ok(outputs) => Ok(outputs),
            Err(ReplicaError::Invalid(detail)) => Err(invalid(detail)),
            Err(e) => Err(not_ready(endpoint, Some(e))),
        }
    }

    /// Finds a replica of the same model version other than `failed`, in the newest routes known.
    fn another(
        &self,
        project: ProjectId,
        endpoint: &Name,
        variant: &Variant,
        failed: ReplicaId,
    ) -> Option<Member> {
        let newest = self.routes.get(project, endpoint);
        let same = newest.as_ref().and_then(|target| {
            let is_same = |v: &&Variant| v.model == variant.model && v.version == variant.version;
            target.variants.iter().find(is_same)
        });
        let found = same.and_then(|v| v.choose(Some(failed)));
        found.or_else(|| variant.choose(Some(failed))).cloned()
    }

    async fn ask(&self, member: &Member, batch: &Arc<Batch>) -> Result<Vec<Tensor>, ReplicaError> {
        let _outstanding = member.occupy();
        let id = member.address.id;
        match self.local.as_ref().and_then(|local| local.get(id)) {
            Some(model) => ask_local(id, model, batch.clone()).await,
            None => self.ask_remote(&member.address, batch).await,
        }
    }

    async fn ask_remote(
        &self,
        address: &ReplicaAddress,
        batch: &Batch,
    ) -> Result<Vec<Tensor>, ReplicaError> {
        let base = address.url.trim_end_matches('/');
        let url = format!("{base}/internal/v1/replicas/{}/infer", address.id);
        let unreachable = |e: reqwest::Error| ReplicaError::Unreachable {
            replica: address.id,
            reason: e.to_string(),
        };
        let response = self
            .http
            .post(url)
            .bearer_auth(&self.secret)
            .header("x-nereid-rows", batch.rows)
            .header("content-type", "application/octet-stream")
            .body(batch.to_le_bytes())
            .send()
            .await
            .map_err(unreachable)?;
        match response.status() {
            StatusCode::OK => response.json().await.map_err(unreachable),
            StatusCode::TOO_MANY_REQUESTS => Err(ReplicaError::Busy(address.id)),
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Err(
                ReplicaError::Invalid("The model refuses the batch.".to_owned()),
            ),
            status => Err(ReplicaError::Unreachable {
                replica: address.id,
                reason: format!("answered {status}"),
            }),
        }
    }
}

async fn ask_local(
    replica: ReplicaId,
    model: Arc<dyn Predictor>,
    batch: Arc<Batch>,
) -> Result<Vec<Tensor>, ReplicaError> {
    let unreachable = |reason: String| ReplicaError::Unreachable { replica, reason };
    match tokio::task::spawn_blocking(move || model.predict(&batch)).await {
        Ok(Ok(outputs)) => Ok(outputs),
        Ok(Err(EngineError::InvalidInput(detail))) => Err(ReplicaError::Invalid(detail)),
        Ok(Err(e)) => Err(unreachable(e.to_string())),
        Err(e) => Err(unreachable(e.to_string())),
    }
}

fn invalid(detail: String) -> Problem {
    Problem::new(Code::InvalidRequest, detail)
}

fn not_ready(endpoint: &Name, cause: Option<ReplicaError>) -> Problem {
    let (kind, what) = if let Some(ReplicaError::Busy(_)) = &cause {
        (Code::TooManyRequests, "busy")
    } else {
        (Code::EndpointNotReady, "away")
    };
    let detail = format!("All replicas of endpoint {endpoint} are {what}; try again shortly.");
    let problem = Problem::new(kind, detail);
    match cause {
        Some(cause) => problem.caused_by(cause),
        None => problem,
    }
}
