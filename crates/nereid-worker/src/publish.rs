//! Uploads what an attempt made into a place of its own, and describes it in a manifest.
//!
//! Nothing here is visible to anybody until the store commits a pointer to it, fenced.

use std::path::Path;

use nereid_core::{
    Name, VERSION,
    datasets::DatasetVersion,
    jobs::{BaseVersion, Claim, Lineage},
    models::{ArtifactFile, MANIFEST_FILE, MANIFEST_VERSION, Manifest, ModelVersion, TrainedModel},
    spec::TrainSpec,
};
use nereid_objects::{Expected, ObjectError, PutOptions, S3Uri, Stored};
use nereid_store::queue::NewModelVersion;
use sha2::{Digest, Sha256};

use crate::{
    cache::{file_digest, relative},
    error::RunError,
    threads::drive,
    worker::Context,
};

/// Prefix of everything that one attempt writes for a model; `area` is `staging` or `serving`.
pub(crate) fn prefix_of(claim: &Claim, model: &Name, area: &str) -> String {
    let (project, fence) = (claim.project, claim.fence);
    format!(
        "projects/{project}/models/{model}/{area}/{}/{}-{}/",
        fence.job, fence.epoch, fence.claim
    )
}

/// Uploads `files` of `folder` below `prefix`.
pub(crate) async fn upload_files(
    ctx: &Context,
    folder: &Path,
    prefix: &str,
    files: &[String],
) -> Result<Vec<ArtifactFile>, RunError> {
    let mut uploaded = Vec::with_capacity(files.len());
    for path in files {
        if path == MANIFEST_FILE {
            let message = format!("the engine wrote a {MANIFEST_FILE}, which is not its to write");
            return Err(RunError::Internal(message));
        }
        let local = folder.join(relative(path)?);
        let upload = || upload_file(ctx, &local, prefix, path);
        let (_, stored) = ctx.patiently("an upload", upload).await?;
        uploaded.push(ArtifactFile {
            path: path.clone(),
            bytes: stored.bytes,
            sha256: stored.sha256,
        });
    }
    Ok(uploaded)
}

/// Uploads a file that must not be there yet: what is published never changes.
async fn upload_file(
    ctx: &Context,
    local: &Path,
    prefix: &str,
    path: &str,
) -> Result<(S3Uri, Stored), RunError> {
    let uri = ctx.objects.own(format!("{prefix}{path}"))?;
    let stored = create(ctx, local, &uri).await?;
    Ok((uri, stored))
}

/// Uploads a file that must not be there yet, unless it is this very file.
pub(crate) async fn create(ctx: &Context, local: &Path, uri: &S3Uri) -> Result<Stored, RunError> {
    let (objects, to, from) = (ctx.objects.clone(), uri.clone(), local.to_owned());
    let upload = drive("upload", "upload thread", async move || {
        let options = PutOptions::create_only();
        objects.upload_file(&to, &from, &options).await
    });
    match upload.await? {
        Err(ObjectError::PreconditionFailed { .. }) => adopt(ctx, uri, local).await,
        stored => Ok(stored?),
    }
}

/// Takes an object that is there already for this attempt's own, if it is the same file.
///
/// Nobody else writes below the attempt's prefix, so the first try's answer must have got lost.
async fn adopt(ctx: &Context, uri: &S3Uri, local: &Path) -> Result<Stored, RunError> {
    let path = local.to_owned();
    let sha256 = tokio::task::spawn_blocking(move || file_digest(&path))
        .await
        .map_err(|e| RunError::Internal(format!("digest of a file: {e}")))?
        .map_err(|e| RunError::io(format!("cannot read {}", local.display()), e))?;
    let expected = Expected {
        sha256: Some(sha256),
        ..Expected::default()
    };
    let copy = ctx.scratch.folder("compare")?;
    let path = copy.path().join("object");
    Ok(ctx.objects.download(uri, &path, &expected).await?)
}

/// What a version was made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// Training data.
    pub(crate) dataset: &'a DatasetVersion,
    /// The version that it started from.
    pub(crate) base: Option<&'a ModelVersion>,
}

/// Uploads a trained model and its manifest; the version is published by whoever commits it.
pub(crate) async fn upload_version(
    ctx: &Context,
    claim: &Claim,
    spec: &TrainSpec,
    origin: Origin<'_>,
    mut model: TrainedModel,
    folder: &Path,
) -> Result<NewModelVersion, RunError> {
    // JSON has no NaN: one would make the manifest unreadable.
    model.metrics.retain(|_, value| value.is_finite());
    let prefix = prefix_of(claim, &spec.model, "staging");
    let files = upload_files(ctx, folder, &prefix, &model.files).await?;
    let bytes = files.iter().map(|f| f.bytes).sum();
    let reports = std::mem::take(&mut model.reports);
    let manifest = describe(claim, spec, origin, model, files);
    let json = serde_json::to_vec_pretty(&manifest)
        .map_err(|e| RunError::Internal(format!("manifest: {e}")))?;
    let manifest_sha256 = hex::encode(Sha256::digest(&json));
    // Last: a manifest promises that all its files are there.
    let local = folder.join(MANIFEST_FILE);
    tokio::fs::write(&local, &json)
        .await
        .map_err(|e| RunError::io("cannot write the manifest", e))?;
    let upload = || upload_file(ctx, &local, &prefix, MANIFEST_FILE);
    let (uri, _) = ctx.patiently("an upload", upload).await?;
    Ok(NewModelVersion {
        manifest_uri: uri.to_string(),
        manifest_sha256,
        bytes,
        manifest,
        reports,
        stopped_early: false,
    })
}

fn describe(
    claim: &Claim,
    spec: &TrainSpec,
    Origin { dataset, base }: Origin<'_>,
    model: TrainedModel,
    files: Vec<ArtifactFile>,
) -> Manifest {
    Manifest {
        manifest_version: MANIFEST_VERSION,
        model: spec.model.clone(),
        spec: spec.clone(),
        signature: model.signature,
        metrics: model.metrics,
        lineage: Lineage {
            job_id: claim.fence.job,
            dataset: dataset.dataset.clone(),
            dataset_version: dataset.version,
            dataset_version_id: dataset.id,
            dataset_digest: dataset.digest.clone(),
            initialized_from: base.map(|base| BaseVersion {
                model: base.model.clone(),
                version: base.version,
                version_id: base.id,
                manifest_sha256: base.manifest_sha256.clone(),
            }),
            nereid_version: VERSION.to_owned(),
            framework_version: model.framework_version,
            seed: spec.fit.seed,
        },
        files,
    }
}
