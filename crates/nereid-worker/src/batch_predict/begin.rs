//! Before the first row: the prefix is claimed, the input pinned, the model chosen; once for all
//! attempts.

use std::collections::BTreeMap;

use nereid_core::{
    batch_predictions::{BatchPlan, PlannedArtifact},
    datasets::{DatasetFile, DatasetFormat, DatasetSource, FileRole, FileUris},
    jobs::Claim,
    models::ModelVersion,
    spec::BatchPredictSpec,
};
use nereid_objects::{
    ObjectError, S3Uri,
    datasets::{FindCause, FindFault, find},
};
use nereid_store::queue::BatchState;

use super::output::Output;
use crate::{attempt::Attempt, cache::digest_of, data::fatal, error::RunError, worker::Context};

/// Returns what an earlier attempt has begun, or begins.
pub(super) async fn begin(
    ctx: &Context,
    attempt: &Attempt,
    claim: &Claim,
    spec: &BatchPredictSpec,
    version: &ModelVersion,
    output: &Output<'_>,
) -> Result<BatchState, RunError> {
    let fence = &attempt.fence;
    let before = attempt.insist(|| ctx.store.batch_prediction(fence)).await?;
    if let Some(state) = before {
        return Ok(state);
    }
    // Before the prefix is claimed: what an input lacks is no reason to use up a prefix.
    let (source, files, rows) = if let Some(dataset) = &spec.input.dataset {
        let (name, number) = (&dataset.name, dataset.version);
        let find = || ctx.store.dataset_version(claim.project, name, number);
        let found = attempt.insist(find).await?;
        (found.source, found.files, Some(found.statistics.rows))
    } else {
        let source = spec.input.source().ok_or_else(|| {
            RunError::Internal("the spec names neither a dataset nor a file".to_owned())
        })?;
        let pin = || pin(ctx, claim, &source);
        let files = ctx.patiently("finding the input", pin).await?;
        (source, files, None)
    };
    let source = shaped(source, version);
    let serving = version.serving.as_ref();
    let plan = BatchPlan {
        source,
        files,
        rows,
        model_digest: serving.map_or_else(
            || version.manifest_sha256.clone(),
            |artifact| digest_of(&artifact.files),
        ),
        serving: serving.map(|artifact| PlannedArtifact {
            prefix: artifact.prefix.clone(),
            files: artifact.files.clone(),
        }),
    };
    ctx.patiently("claiming the output", || output.claim())
        .await?;
    let begin = || ctx.store.begin_batch_prediction(fence, &plan);
    attempt.insist(begin).await
}

/// Reads samples in the shape that the model takes them in, unless another one is declared.
fn shaped(source: DatasetSource, version: &ModelVersion) -> DatasetSource {
    let known = source.shape.is_some() || source.format.is_table();
    let shape = version.signature.sample_shape();
    // Only images have one by which they could be resized; of others the wrong one is an error.
    let fits = source.format != DatasetFormat::Images || (2..=3).contains(&shape.len());
    DatasetSource {
        shape: if known || !fits {
            source.shape
        } else {
            Some(shape)
        },
        ..source
    }
}

/// Pins the files that the spec names to what is there now.
async fn pin(
    ctx: &Context,
    claim: &Claim,
    source: &DatasetSource,
) -> Result<BTreeMap<FileRole, DatasetFile>, RunError> {
    let (role, format) = (FileRole::Data, source.format);
    let uris = source.files.get(&role).map_or(&[][..], FileUris::as_slice);
    let uris = uris.iter().map(|uri| uri.parse());
    let uris: Vec<S3Uri> = uris.collect::<Result<_, _>>()?;
    let found = find(&ctx.objects, &uris, source.is_many(role), format).await;
    let found = found.map_err(unfound)?;
    let folder = format!("projects/{}/object-lists", claim.project);
    // The digest is that of the bytes, which nobody has read yet; the ETag pins them.
    let file = found.keep(&ctx.objects, &folder, String::new()).await?;
    Ok(BTreeMap::from([(role, file)]))
}

fn unfound(fault: FindFault) -> RunError {
    match fault.cause {
        FindCause::Storage(error) => beyond_mending(error),
        FindCause::Refused { detail, .. } => RunError::Input(format!("the input: {detail}")),
    }
}

/// Tells errors of a client's objects that no retry mends from those that may go away.
pub(super) fn beyond_mending(error: ObjectError) -> RunError {
    match fatal(&error) {
        Some(message) => RunError::Input(message),
        None => error.into(),
    }
}
