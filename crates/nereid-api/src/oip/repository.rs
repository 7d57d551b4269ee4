//! Endpoints as models of a repository: what there is, loading and unloading.
//!
//! Triton's extension
//! (<https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md>).

use std::time::Duration;

use nereid_core::{
    Name,
    endpoints::{Endpoint, EndpointStatus, ReplicaStatus},
    ids::ProjectId,
    keys::Actor,
    limits,
};
use nereid_store::{PageRequest, notify::Wake};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::statistics::ModelStatistics;
use crate::{
    ApiState,
    problem::{Code, Problem},
};

/// Longest wait for an endpoint to get ready or to be gone.
const PATIENCE: Duration = Duration::from_secs(25);
/// Pause between two looks at it.
const LOOK: Duration = Duration::from_millis(100);

/// A version of a model in the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = OipModelIndex)]
pub(crate) struct IndexEntry {
    /// Name of the endpoint.
    pub(crate) name: Name,
    /// Version that it serves or is to serve.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String, example = "1")]
    pub(crate) version: u32,
    /// `READY`, `LOADING` or `UNAVAILABLE`.
    #[schema(example = "READY")]
    pub(crate) state: &'static str,
    /// Why it is not ready.
    pub(crate) reason: String,
}

/// Versions are text in the protocol.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for this signature"
)]
fn as_text<S: Serializer>(version: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(version)
}

impl IndexEntry {
    /// Tells whether it answers.
    pub(crate) fn is_ready(&self) -> bool {
        self.state == "READY"
    }
}

/// Lists the versions behind all endpoints of a project.
pub(crate) async fn index(
    state: &ApiState,
    project: ProjectId,
) -> Result<Vec<IndexEntry>, Problem> {
    let mut entries = Vec::new();
    let mut request = PageRequest {
        size: limits::MAX_PAGE_SIZE,
        after: None,
    };
    loop {
        let page = state.store.endpoints(project, &request).await?;
        for endpoint in &page.items {
            entries.extend(entries_of(state, project, endpoint));
        }
        request.after = page.next;
        if request.after.is_none() {
            return Ok(entries);
        }
    }
}

fn entries_of(state: &ApiState, project: ProjectId, endpoint: &Endpoint) -> Vec<IndexEntry> {
    let entry = |version: u32, state: &'static str, reason: &str| IndexEntry {
        name: endpoint.name.clone(),
        version,
        state,
        reason: reason.to_owned(),
    };
    let target = state.gateway.ready(project, &endpoint.name);
    let mut ready = target.map_or(Vec::new(), |t| t.versions());
    if endpoint.unloaded_at.is_some() {
        ready.clear();
    }
    let mut entries: Vec<_> = ready.iter().map(|&v| entry(v, "READY", "")).collect();
    let mut seen = ready;
    for variant in &endpoint.variants {
        let version = variant.spec.version;
        if seen.contains(&version) {
            continue;
        }
        seen.push(version);
        let failure = variant.replicas_status.iter().find_map(|r| {
            let failed = r.status == ReplicaStatus::Failed;
            failed.then(|| r.error.as_deref().unwrap_or("it could not be loaded"))
        });
        entries.push(match (endpoint.unloaded_at, failure) {
            (Some(_), _) => entry(version, "UNAVAILABLE", "unloaded"),
            (None, Some(why)) => entry(version, "UNAVAILABLE", why),
            (None, None) => entry(version, "LOADING", "its replicas are getting ready"),
        });
    }
    entries
}

/// Brings an endpoint back, if it was unloaded, and waits until it answers.
pub(crate) async fn load(state: &ApiState, actor: &Actor, name: &Name) -> Result<(), Problem> {
    let store = state.store.with_actor(actor.key);
    store.load_endpoint(actor.project, name).await?;
    state.store.notify(Wake::Endpoints);
    let ready = async {
        loop {
            state.gateway.refresh().await?;
            if state.gateway.ready(actor.project, name).is_some() {
                return Ok(());
            }
            let endpoint = state.store.endpoint(actor.project, name).await?;
            if endpoint.status == EndpointStatus::Failed {
                let entries = entries_of(state, actor.project, &endpoint);
                let why = entries.into_iter().map(|e| e.reason).next();
                let why = why.unwrap_or_default();
                let detail = format!("Endpoint {name} cannot be loaded: {why}");
                return Err(Problem::new(Code::Conflict, detail).coded("load_failed"));
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let late = |_| {
        let detail = format!("Endpoint {name} is not ready yet; its replicas are still loading.");
        Problem::new(Code::Timeout, detail)
    };
    tokio::time::timeout(PATIENCE, ready).await.map_err(late)?
}

/// Lets go of an endpoint's replicas and keeps all else; returns when this process sends it nothing
/// any more.
pub(crate) async fn unload(state: &ApiState, actor: &Actor, name: &Name) -> Result<(), Problem> {
    let store = state.store.with_actor(actor.key);
    store.unload_endpoint(actor.project, name).await?;
    state.store.notify(Wake::Endpoints);
    Ok(state.gateway.refresh().await?)
}

/// Reads the counters of the versions behind all endpoints of a project, one endpoint, or one of
/// its versions.
pub(crate) async fn statistics(
    state: &ApiState,
    project: ProjectId,
    name: Option<&Name>,
    version: Option<u32>,
) -> Result<Vec<ModelStatistics>, Problem> {
    let mut entries = match name {
        None => index(state, project).await?,
        Some(name) => entries_of(state, project, &state.store.endpoint(project, name).await?),
    };
    if let Some(version) = version {
        entries.retain(|e| e.version == version);
        if entries.is_empty() {
            let name = name.map_or("", Name::as_str);
            let detail = format!("Endpoint {name} does not serve version {version}.");
            return Err(Problem::new(Code::NotFound, detail));
        }
    }
    let read = |entry: &IndexEntry| {
        let counters = state.statistics.of(project, &entry.name, entry.version);
        counters.read(&entry.name, entry.version)
    };
    Ok(entries.iter().map(read).collect())
}

/// Refuses a configuration that a client wants to load a model with.
pub(crate) fn refuse_config(given: bool) -> Result<(), Problem> {
    if given {
        let detail =
            "no configuration can be given on loading; deploy jobs say how a model is served";
        return Err(Problem::violation(
            "/parameters/config",
            "unsupported",
            detail,
        ));
    }
    Ok(())
}
