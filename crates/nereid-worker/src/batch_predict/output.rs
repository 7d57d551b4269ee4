//! What a batch prediction leaves in S3: a claim of its prefix, parts, and a manifest at last.

use std::sync::Arc;

use futures::TryStreamExt;
use nereid_core::{
    batch_predictions::{
        BatchManifest, BatchPart, BatchPlan, BatchTotals, CLAIM_FILE, MANIFEST_VERSION,
        SUCCESS_FILE,
    },
    ids::JobId,
    jobs::Claim,
    models::ArtifactFile,
    spec::BatchPredictSpec,
};
use nereid_objects::{ObjectError, PutOptions, S3Uri};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{begin::beyond_mending, files::Finished};
use crate::{
    attempt::{Attempt, Order},
    error::RunError,
    publish::create,
    worker::Context,
};

/// Largest claim of a prefix in bytes.
const MAX_CLAIM: u64 = 4 << 10;

/// Who writes below a prefix.
#[derive(Serialize, Deserialize)]
struct PrefixClaim {
    job_id: JobId,
}

/// Where predictions go.
pub(super) struct Output<'a> {
    ctx: &'a Arc<Context>,
    attempt: &'a Arc<Attempt>,
    claim: &'a Claim,
    spec: &'a BatchPredictSpec,
    prefix: S3Uri,
}

impl<'a> Output<'a> {
    pub(super) fn new(
        ctx: &'a Arc<Context>,
        attempt: &'a Arc<Attempt>,
        claim: &'a Claim,
        spec: &'a BatchPredictSpec,
        prefix: S3Uri,
    ) -> Self {
        Self {
            ctx,
            attempt,
            claim,
            spec,
            prefix,
        }
    }

    fn uri(&self, name: &str) -> Result<S3Uri, RunError> {
        let key = format!("{}{name}", self.prefix.key());
        Ok(S3Uri::new(self.prefix.bucket(), key)?)
    }

    /// Takes possession of the prefix, below which there must be nothing of anybody else's.
    pub(super) async fn claim(&self) -> Result<(), RunError> {
        let uri = self.uri(CLAIM_FILE)?;
        let mut listed = self
            .ctx
            .objects
            .list(self.prefix.bucket(), self.prefix.key());
        while let Some(object) = listed.try_next().await.map_err(beyond_mending)? {
            if object.uri != uri {
                return Err(self.taken(&format!("{} lies there", object.uri)));
            }
        }
        let job_id = self.claim.fence.job;
        let claim = serde_json::to_vec(&PrefixClaim { job_id })
            .map_err(|e| RunError::Internal(format!("claim of a prefix: {e}")))?;
        let options = PutOptions::create_only();
        let put = self.ctx.objects.put_bytes(&uri, claim.into(), &options);
        match put.await {
            Ok(_) => return Ok(()),
            Err(ObjectError::PreconditionFailed { .. }) => {}
            Err(error) => return Err(beyond_mending(error)),
        }
        let there = self.ctx.objects.get_bytes(&uri, MAX_CLAIM).await;
        let there = there.map_err(beyond_mending)?;
        match serde_json::from_slice::<PrefixClaim>(&there) {
            Ok(claim) if claim.job_id == job_id => Ok(()),
            Ok(claim) => Err(self.taken(&format!("job {} writes there", claim.job_id))),
            Err(_) => Err(self.taken(&format!("{uri} is of no job"))),
        }
    }

    fn taken(&self, why: &str) -> RunError {
        let prefix = &self.prefix;
        RunError::Input(format!(
            "the output {prefix} is not empty ({why}): name a prefix of its own for each job"
        ))
    }

    /// Writes a finished part and has it count.
    pub(super) async fn keep(&self, part: Finished) -> Result<BatchPart, RunError> {
        let number = part.part;
        let extension = self.spec.output.format;
        let predictions = self.upload(
            part.predictions.as_ref(),
            [
                format!("part-{number:05}.{extension}"),
                format!("part-{number:05}-{}.{extension}", self.attempt.fence.epoch),
            ],
        );
        let predictions = predictions.await?;
        let rejections = self.upload(
            part.rejections.as_ref(),
            [
                format!("_rejected-{number:05}"),
                format!("_rejected-{number:05}-{}", self.attempt.fence.epoch),
            ],
        );
        let kept = BatchPart {
            part: number,
            rows: part.rows,
            rejected: part.rejected,
            seconds: part.seconds,
            predictions,
            rejections: rejections.await?,
        };
        let (store, fence) = (&self.ctx.store, &self.attempt.fence);
        let count = self.attempt.insist(|| store.add_batch_part(fence, &kept));
        count.await?;
        Ok(kept)
    }

    /// Uploads a file under the first name, or under the second if something else lies there: a
    /// part of an attempt that was lost before it could count and computed on another machine.
    async fn upload(
        &self,
        file: Option<&tempfile::TempPath>,
        names: [String; 2],
    ) -> Result<Option<ArtifactFile>, RunError> {
        let Some(file) = file else { return Ok(None) };
        let mut taken = None;
        for name in names {
            let uri = self.uri(&name)?;
            let upload = self
                .ctx
                .patiently("an upload", || create(self.ctx, file, &uri));
            match self.attempt.unless(Order::Expire, Box::pin(upload)).await {
                Ok(stored) => {
                    return Ok(Some(ArtifactFile {
                        path: name,
                        bytes: stored.bytes,
                        sha256: stored.sha256,
                    }));
                }
                Err(RunError::Objects(error @ ObjectError::ChecksumMismatch { .. })) => {
                    taken = Some(error);
                }
                Err(RunError::Objects(error)) => return Err(beyond_mending(error)),
                Err(error) => return Err(error),
            }
        }
        Err(taken.map_or(RunError::Halted, RunError::Objects))
    }

    /// Writes the manifest, which says that all is there; returns its address and digest.
    pub(super) async fn finish(
        &self,
        plan: &BatchPlan,
        parts: &[BatchPart],
        version: u32,
    ) -> Result<(S3Uri, String), RunError> {
        let totals = BatchTotals::of(parts);
        let manifest = BatchManifest {
            manifest_version: MANIFEST_VERSION,
            job_id: self.claim.fence.job,
            model: self.spec.model.clone(),
            version,
            model_digest: plan.model_digest.clone(),
            input: plan.files.clone(),
            rows: totals.rows - totals.rejected,
            rejected: totals.rejected,
            parts: parts.to_vec(),
        };
        let json = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| RunError::Internal(format!("manifest: {e}")))?;
        let sha256 = hex::encode(Sha256::digest(&json));
        let folder = self.ctx.scratch.folder("manifest")?;
        let local = folder.path().join("manifest");
        tokio::fs::write(&local, &json)
            .await
            .map_err(|e| RunError::io("cannot write the manifest", e))?;
        let uri = self.uri(SUCCESS_FILE)?;
        let upload = self
            .ctx
            .patiently("an upload", || create(self.ctx, &local, &uri));
        match Box::pin(upload).await {
            Ok(_) => Ok((uri, sha256)),
            Err(RunError::Objects(error)) => Err(beyond_mending(error)),
            Err(error) => Err(error),
        }
    }
}
