//! What handlers share: clients of the stores, the gateway, configuration.

use std::{ops::Deref, sync::Arc, time::Duration};

use nereid_core::{
    clock::Clock,
    engine::{ImageDecoder, Inspector, LocalReplicas},
    ids::ProjectId,
    limits,
};
use nereid_objects::Objects;
use nereid_store::{Store, notify::Wakeups};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    auth::Authenticator, gateway::Gateway, oip::statistics::Statistics, pages::PageTokens,
};

/// Who may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthMode {
    /// Holders of an API key.
    Keys,
    /// Whoever reaches the port, as administrator: only for `dev` on loopback.
    AnonymousAdmin {
        /// Project of requests without a key.
        project: ProjectId,
    },
}

/// Settings of the API.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Who may call.
    pub auth: AuthMode,
    /// Longest time for a request, unless it is one of those below.
    pub request_timeout: Duration,
    /// Longest time for reading a dataset.
    pub dataset_timeout: Duration,
    /// Longest time for an upload.
    pub upload_timeout: Duration,
    /// Largest upload in bytes.
    pub max_upload_bytes: u64,
    /// Requests worked on at the same time; more are refused with 503.
    pub max_concurrent_requests: usize,
    /// Datasets read at the same time; more wait.
    pub max_concurrent_inspections: usize,
    /// Prediction requests whose images are decoded at the same time; more wait.
    pub max_concurrent_decodings: usize,
}

impl ApiConfig {
    /// Returns the default settings.
    #[must_use]
    pub fn new(auth: AuthMode) -> Self {
        Self {
            auth,
            request_timeout: Duration::from_secs(30),
            dataset_timeout: Duration::from_mins(10),
            upload_timeout: Duration::from_hours(1),
            max_upload_bytes: limits::MAX_UPLOAD_BYTES,
            max_concurrent_requests: 1024,
            max_concurrent_inspections: 2,
            max_concurrent_decodings: 4,
        }
    }
}

/// What the binary hands to the API.
pub struct ApiParts {
    /// Postgres.
    pub store: Store,
    /// S3.
    pub objects: Objects,
    /// Describes datasets.
    pub inspector: Arc<dyn Inspector>,
    /// Decodes images to predict.
    pub images: Arc<dyn ImageDecoder>,
    /// Wake-ups of this process.
    pub wakeups: Wakeups,
    /// Replicas in this process, if it is a worker too.
    pub local: Option<Arc<dyn LocalReplicas>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Secret of this installation, from [`Store::cluster_secret`].
    pub cluster_secret: String,
    /// Ends event streams when the process is to stop.
    pub shutdown: CancellationToken,
    /// Settings.
    pub config: ApiConfig,
}

/// Shared state of all handlers; cheap to clone.
#[derive(Clone)]
pub struct ApiState(Arc<Shared>);

/// What [`ApiState`] points to.
pub struct Shared {
    /// Postgres.
    pub store: Store,
    /// S3.
    pub objects: Objects,
    /// Describes datasets.
    pub inspector: Arc<dyn Inspector>,
    /// Decodes images to predict.
    pub images: Arc<dyn ImageDecoder>,
    /// Wake-ups of this process.
    pub wakeups: Wakeups,
    /// Sends predictions to replicas.
    pub gateway: Arc<Gateway>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ends event streams when the process is to stop.
    pub shutdown: CancellationToken,
    /// Settings.
    pub config: ApiConfig,
    pub(crate) statistics: Statistics,
    pub(crate) authenticator: Authenticator,
    pub(crate) page_tokens: PageTokens,
    pub(crate) requests: Arc<Semaphore>,
    pub(crate) inspections: Arc<Semaphore>,
    pub(crate) decodings: Arc<Semaphore>,
}

impl ApiState {
    /// Puts the parts together.
    ///
    /// # Errors
    /// [`reqwest::Error`] if no HTTP client can be made.
    pub fn new(parts: ApiParts) -> Result<Self, reqwest::Error> {
        let gateway = Gateway::new(
            parts.store.clone(),
            parts.wakeups.clone(),
            parts.local,
            parts.cluster_secret.clone(),
        )?;
        Ok(Self(Arc::new(Shared {
            gateway: Arc::new(gateway),
            statistics: Statistics::default(),
            authenticator: Authenticator::new(
                parts.store.clone(),
                parts.config.auth.clone(),
                parts.clock.clone(),
            ),
            page_tokens: PageTokens::new(parts.cluster_secret),
            requests: Arc::new(Semaphore::new(parts.config.max_concurrent_requests)),
            inspections: Arc::new(Semaphore::new(parts.config.max_concurrent_inspections)),
            decodings: Arc::new(Semaphore::new(parts.config.max_concurrent_decodings)),
            store: parts.store,
            objects: parts.objects,
            inspector: parts.inspector,
            images: parts.images,
            wakeups: parts.wakeups,
            clock: parts.clock,
            shutdown: parts.shutdown,
            config: parts.config,
        })))
    }
}

impl Deref for ApiState {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}
