//! The way back to a checkpoint: the newest one that is whole, and that the engine accepts.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use nereid_core::{
    events::LogLevel,
    jobs::{CheckpointRef, Claim},
};
use nereid_objects::{Expected, ObjectError};

use crate::{attempt::Attempt, error::RunError, worker::Context};

/// A checkpoint on the local disk, as it was stored.
pub(crate) struct Restored {
    pub(crate) step: u64,
    pub(crate) path: PathBuf,
}

/// The checkpoints of earlier attempts that have not been tried, the newest first.
pub(crate) struct Candidates<'a> {
    ctx: &'a Context,
    attempt: &'a Attempt,
    folder: &'a Path,
    left: VecDeque<CheckpointRef>,
    had_any: bool,
}

impl<'a> Candidates<'a> {
    /// Those of `claim`; `folder` is where they are put.
    pub(crate) fn new(
        ctx: &'a Context,
        attempt: &'a Attempt,
        claim: &Claim,
        folder: &'a Path,
    ) -> Self {
        Self {
            ctx,
            attempt,
            folder,
            left: claim.checkpoints.iter().cloned().collect(),
            had_any: !claim.checkpoints.is_empty(),
        }
    }

    /// Fetches the next checkpoint that is whole; none if the training has to start over.
    ///
    /// # Errors
    /// If storage is away: that says nothing about the checkpoint.
    pub(crate) async fn next(&mut self) -> Result<Option<Restored>, RunError> {
        while let Some(checkpoint) = self.left.pop_front() {
            match self.fetch(&checkpoint).await {
                Ok(path) => {
                    let step = checkpoint.step;
                    let message = format!("goes on from the checkpoint of step {step}");
                    self.attempt.log(LogLevel::Info, message);
                    return Ok(Some(Restored { step, path }));
                }
                Err(RunError::Objects(e)) if is_defect(&e) => {
                    self.reject(checkpoint.step, &e.to_string());
                }
                Err(e) => return Err(e),
            }
        }
        if self.had_any {
            let message = "no checkpoint is left to go on from; training starts over";
            self.attempt.log(LogLevel::Warn, message);
        }
        Ok(None)
    }

    /// Says that the checkpoint of a step is of no use.
    pub(crate) fn reject(&self, step: u64, defect: &str) {
        tracing::warn!(job = %self.attempt.fence.job, step, defect, "checkpoint is damaged");
        let message = format!("the checkpoint of step {step} is damaged: {defect}");
        self.attempt.log(LogLevel::Warn, message);
    }

    async fn fetch(&self, checkpoint: &CheckpointRef) -> Result<PathBuf, RunError> {
        let uri = self.ctx.objects.own(&checkpoint.key)?;
        let path = self.folder.join(format!("resume-{}", self.left.len()));
        let expected = Expected {
            bytes: Some(checkpoint.bytes),
            sha256: Some(checkpoint.sha256.clone()),
            etag: None,
        };
        let (objects, uri, path, expected) = (&self.ctx.objects, &uri, &path, &expected);
        self.ctx
            .patiently("restoring a checkpoint", || async move {
                Ok(objects.download(uri, path, expected).await?)
            })
            .await?;
        Ok(path.clone())
    }
}

/// Tells whether an error is about the checkpoint itself, so that an older one may do better.
fn is_defect(error: &ObjectError) -> bool {
    matches!(
        error,
        ObjectError::NoSuchKey { .. }
            | ObjectError::ChecksumMismatch { .. }
            | ObjectError::PreconditionFailed { .. }
    )
}
