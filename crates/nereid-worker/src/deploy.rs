//! Runs a deployment job: optimises a version, rolls it out and waits until it serves.

use std::{path::PathBuf, sync::Arc, time::Duration};

use nereid_core::{
    endpoints::{Endpoint, EndpointStatus, ReplicaStatus},
    engine::Goal,
    events::LogLevel,
    jobs::{Claim, JobPhase, JobResult, TerminationReason},
    models::{ArtifactFile, MANIFEST_FILE, Manifest, ModelVersion, ServingArtifact},
    rollouts::RolloutStatus,
    spec::DeploySpec,
};
use nereid_objects::S3Uri;
use nereid_store::notify::Wake;
use sha2::{Digest, Sha256};

use crate::{
    attempt::{Attempt, Order},
    cache::{digest_of, published},
    error::RunError,
    monitor::ThreadMonitor,
    publish,
    replicas::split_reason,
    sync::Waker,
    threads::on_thread,
    worker::Context,
};

/// Longest time that replicas may take to get ready.
const WARM_UP: Duration = Duration::from_mins(5);
/// Time between two looks at the endpoint while no wake-up comes.
const LOOK: Duration = Duration::from_secs(2);
/// Largest manifest in bytes.
const MAX_MANIFEST: u64 = 16 << 20;

/// Optimises (unless that was done before), rolls out and waits for the replicas.
pub(crate) async fn run(
    ctx: &Arc<Context>,
    attempt: &Arc<Attempt>,
    claim: &Claim,
    spec: &DeploySpec,
) -> Result<JobResult, RunError> {
    attempt.outbox.phase(JobPhase::Downloading);
    let (store, project) = (&ctx.store, claim.project);
    let version = attempt.insist(|| store.model_version(project, &spec.model, spec.version));
    let version = attempt.unless(Order::Pause, version).await?;
    let known = ctx.patiently("fetching serving files", || {
        reuse(ctx, attempt, spec, &version)
    });
    let artifact = match attempt.unless(Order::Pause, known).await? {
        Some(artifact) => artifact,
        None => Box::pin(optimise(ctx, attempt, claim, spec, &version)).await?,
    };
    // Before the roll-out, so that no wake-up about it is missed.
    let mut waker = Waker::new(&ctx.wakeups);
    if attempt.order() >= Order::Expire {
        return Err(RunError::Halted);
    }
    let fence = &attempt.fence;
    let generation = attempt
        .insist(|| store.roll_out(fence, version.id, spec, &artifact))
        .await?;
    attempt.outbox.phase(JobPhase::Warming);
    let message = format!("generation {generation} of {} warms up", spec.endpoint);
    attempt.log(LogLevel::Info, message);
    let warm = warm_up(ctx, attempt, claim, spec, generation, &mut waker);
    attempt.unless(Order::Pause, warm).await?;
    Ok(JobResult::Deploy {
        endpoint: spec.endpoint.clone(),
        model: spec.model.clone(),
        version: spec.version,
    })
}

/// Returns the artifact of an earlier deployment, if it is still whole.
async fn reuse(
    ctx: &Context,
    attempt: &Attempt,
    spec: &DeploySpec,
    version: &ModelVersion,
) -> Result<Option<ServingArtifact>, RunError> {
    let Some(artifact) = &version.serving else {
        return Ok(None);
    };
    let report = &artifact.report;
    let asked = (report.requested_weights, report.requested_runtime);
    if asked != (spec.weights, spec.runtime) {
        let message = "the version was optimised for other weights or another runtime before";
        attempt.log(LogLevel::Info, message);
        return Ok(None);
    }
    match fetch_artifact(ctx, artifact).await {
        Ok(_) => {
            let message = "the version was optimised before; its serving files are used again";
            attempt.log(LogLevel::Info, message);
            Ok(Some(artifact.clone()))
        }
        Err(e) if e.reason() == Some(TerminationReason::Unavailable) => Err(e),
        Err(e) => {
            let message = format!("the serving files of an earlier deployment are damaged ({e})");
            attempt.log(LogLevel::Warn, message);
            Ok(None)
        }
    }
}

/// Brings the files of an artifact into the local cache.
pub(crate) async fn fetch_artifact(
    ctx: &Context,
    artifact: &ServingArtifact,
) -> Result<PathBuf, RunError> {
    fetch_files(ctx, &artifact.prefix, &artifact.files).await
}

/// Brings the files below a prefix of Nereid's bucket into the local cache.
pub(crate) async fn fetch_files(
    ctx: &Context,
    prefix: &str,
    files: &[ArtifactFile],
) -> Result<PathBuf, RunError> {
    let digest = digest_of(files);
    let (objects, scratch) = (&ctx.objects, &ctx.scratch);
    ctx.cache
        .fetch(objects, scratch, &digest, prefix, files)
        .await
}

async fn optimise(
    ctx: &Arc<Context>,
    attempt: &Arc<Attempt>,
    claim: &Claim,
    spec: &DeploySpec,
    version: &ModelVersion,
) -> Result<ServingArtifact, RunError> {
    let fetch = ctx.patiently("fetching a version", || fetch_version(ctx, version));
    let model = attempt.unless(Order::Pause, Box::pin(fetch)).await?;
    attempt.outbox.phase(JobPhase::Optimising);
    let output = Arc::new(ctx.scratch.folder("optimise")?);
    let folder = Arc::clone(&output);
    let optimizer = Arc::clone(&ctx.engine.optimizer);
    let mut monitor = ThreadMonitor::new(Arc::clone(attempt), None);
    let goal = Goal {
        tolerance: spec.tolerance,
        weights: spec.weights,
        runtime: spec.runtime,
    };
    let name = format!("deploy-{}", claim.fence.job);
    let (report, files) = on_thread(&name, "optimisation thread", move || {
        optimizer.optimise(&model, folder.path(), goal, &mut monitor)
    })
    .await??;
    attempt.outbox.phase(JobPhase::Uploading);
    let prefix = publish::prefix_of(claim, &spec.model, "serving");
    let upload = publish::upload_files(ctx, output.path(), &prefix, &files);
    let files = attempt.unless(Order::Expire, Box::pin(upload)).await?;
    Ok(ServingArtifact {
        prefix,
        files,
        report,
    })
}

/// Brings the files of a published version into the local cache.
pub(crate) async fn fetch_version(
    ctx: &Context,
    version: &ModelVersion,
) -> Result<PathBuf, RunError> {
    let uri: S3Uri = version.manifest_uri.parse()?;
    let json = ctx.objects.get_bytes(&uri, MAX_MANIFEST).await;
    let json = json.map_err(published)?;
    let found = hex::encode(Sha256::digest(&json));
    if found != version.manifest_sha256 {
        return Err(RunError::Input(format!(
            "the manifest {uri} is damaged: its SHA-256 is {found} instead of {}",
            version.manifest_sha256
        )));
    }
    let manifest: Manifest = serde_json::from_slice(&json)
        .map_err(|e| RunError::Input(format!("the manifest {uri} cannot be read: {e}")))?;
    let prefix = uri.key().strip_suffix(MANIFEST_FILE).unwrap_or(uri.key());
    ctx.cache
        .fetch(
            &ctx.objects,
            &ctx.scratch,
            &version.manifest_sha256,
            prefix,
            &manifest.files,
        )
        .await
}

/// Waits until `generation` gets its traffic, or its share of it; how the rollout goes on from
/// there the endpoint tells.
async fn warm_up(
    ctx: &Context,
    attempt: &Attempt,
    claim: &Claim,
    spec: &DeploySpec,
    generation: u32,
    waker: &mut Waker,
) -> Result<(), RunError> {
    let warm = async {
        loop {
            let (project, endpoint) = (claim.project, &spec.endpoint);
            let rollout = attempt
                .insist(|| ctx.store.rollout(project, endpoint, generation))
                .await?;
            match rollout.status {
                RolloutStatus::Warming => {}
                RolloutStatus::RolledBack => {
                    let why = rollout.reason.unwrap_or_default();
                    let message = format!("generation {generation} was rolled back: {why}");
                    return Err(RunError::Unavailable(message));
                }
                RolloutStatus::Superseded => {
                    let message =
                        format!("a newer update of {endpoint} took the place of this one");
                    attempt.log(LogLevel::Warn, message);
                    return Ok(());
                }
                RolloutStatus::Shifting | RolloutStatus::Baking | RolloutStatus::Completed => {
                    return Ok(());
                }
            }
            let state = attempt
                .insist(|| ctx.store.endpoint(project, endpoint))
                .await?;
            if state.status == EndpointStatus::Failed && state.generation == generation {
                return Err(failure(&state));
            }
            tokio::select! {
                () = waker.until(|wake| *wake == Wake::Endpoints) => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    };
    match tokio::time::timeout(WARM_UP, warm).await {
        Ok(result) => result,
        Err(_) => Err(RunError::Unavailable(format!(
            "generation {generation} of endpoint {} was not ready within {} s; is there a worker with room for {} replicas?",
            spec.endpoint,
            WARM_UP.as_secs(),
            spec.replicas
        ))),
    }
}

/// Why the newest generation of an endpoint cannot be served.
fn failure(endpoint: &Endpoint) -> RunError {
    let replicas = endpoint.variants.iter().flat_map(|v| &v.replicas_status);
    let error = replicas
        .filter(|r| r.status == ReplicaStatus::Failed)
        .find_map(|r| r.error.as_deref());
    let (reason, message) = split_reason(error.unwrap_or("the endpoint failed"));
    RunError::Replica {
        reason,
        message: message.to_owned(),
    }
}
