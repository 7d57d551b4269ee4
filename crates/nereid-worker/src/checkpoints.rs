//! Checkpoints on their way to S3: stored beside the training, from files, latest wins.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use nereid_core::{
    engine::Snapshot,
    events::LogLevel,
    jobs::{CheckpointRef, Claim},
};
use nereid_objects::{PutOptions, Stored};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    attempt::{Attempt, Order},
    error::RunError,
    outbox::Count,
    sync::lock,
    threads::drive,
    worker::Context,
};

/// A snapshot that nobody has stored yet; its file is deleted with it.
#[derive(Debug)]
pub(crate) struct Waiting {
    snapshot: Snapshot,
    /// What was reported before it.
    reported: Count,
}

impl Waiting {
    pub(crate) fn new(snapshot: Snapshot, reported: Count) -> Self {
        Self { snapshot, reported }
    }

    fn path(&self) -> &Path {
        &self.snapshot.path
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Best effort: what is left goes with the scratch folder.
        let _ = std::fs::remove_file(self.path());
    }
}

/// Holds the newest snapshot that nobody has begun to store.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    newest: Mutex<Option<Waiting>>,
    filled: Notify,
}

impl Slot {
    /// Puts in a snapshot; one that still waits is superseded.
    pub(crate) fn put(&self, snapshot: Waiting) {
        let superseded = lock(&self.newest).replace(snapshot);
        self.filled.notify_one();
        drop(superseded);
    }

    fn take(&self) -> Option<Waiting> {
        lock(&self.newest).take()
    }
}

/// The task that stores an attempt's snapshots; dropping it ends it at once.
pub(crate) struct Checkpoints {
    slot: Arc<Slot>,
    closing: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Checkpoints {
    /// Starts the task; `resumed` is the step that the training goes on from.
    pub(crate) fn start(
        ctx: &Arc<Context>,
        attempt: &Arc<Attempt>,
        claim: &Claim,
        resumed: Option<u64>,
    ) -> Self {
        let slot = Arc::new(Slot::default());
        let closing = CancellationToken::new();
        let keeper = Keeper {
            ctx: Arc::clone(ctx),
            attempt: Arc::clone(attempt),
            folder: format!(
                "{}{}-{}/",
                folder_of(claim),
                claim.fence.epoch,
                claim.fence.claim
            ),
            newest: resumed,
        };
        let task = ctx
            .runs
            .spawn(keeper.run(Arc::clone(&slot), closing.clone()));
        Self {
            slot,
            closing,
            task: AbortOnDropHandle::new(task),
        }
    }

    pub(crate) fn slot(&self) -> Arc<Slot> {
        Arc::clone(&self.slot)
    }

    /// Stores the last snapshot, if one waits or is on its way.
    pub(crate) async fn finish(self) {
        self.closing.cancel();
        if let Err(e) = self.task.await {
            tracing::error!(error = %e, "storing of checkpoints ended badly");
        }
    }
}

/// Prefix of all checkpoints of a job.
fn folder_of(claim: &Claim) -> String {
    format!(
        "projects/{}/jobs/{}/checkpoints/",
        claim.project, claim.fence.job
    )
}

struct Keeper {
    ctx: Arc<Context>,
    attempt: Arc<Attempt>,
    folder: String,
    /// Step of the newest checkpoint that is stored.
    newest: Option<u64>,
}

impl Keeper {
    async fn run(mut self, slot: Arc<Slot>, closing: CancellationToken) {
        loop {
            let last = tokio::select! {
                biased;
                () = slot.filled.notified() => false,
                () = closing.cancelled() => true,
            };
            if let Some(snapshot) = slot.take() {
                self.keep(snapshot).await;
            }
            if last || self.attempt.is_lost() {
                return;
            }
        }
    }

    /// Stores a snapshot; a failure costs only the way back to it.
    async fn keep(&mut self, snapshot: Waiting) {
        let step = snapshot.snapshot.step;
        // Asked to stop right after a checkpoint was due, a training takes the same one again.
        if self.newest == Some(step) {
            return;
        }
        let stored = tokio::select! {
            () = self.attempt.ordered(Order::Lost) => return,
            stored = self.store(snapshot) => stored,
        };
        match stored {
            Ok(()) => {
                tracing::debug!(job = %self.attempt.fence.job, step, "checkpoint stored");
                self.newest = Some(step);
            }
            Err(RunError::Halted) => {}
            Err(e) => {
                tracing::warn!(job = %self.attempt.fence.job, step, error = %e, "no checkpoint");
                let message = format!("the checkpoint of step {step} could not be stored: {e}");
                self.attempt.log(LogLevel::Warn, message);
            }
        }
    }

    async fn store(&self, snapshot: Waiting) -> Result<(), RunError> {
        let (step, reported) = (snapshot.snapshot.step, snapshot.reported);
        let key = format!("{}{step}", self.folder);
        let Stored { bytes, sha256, .. } = self.upload(&key, snapshot).await?;
        let checkpoint = CheckpointRef {
            key,
            bytes,
            sha256,
            step,
        };
        // Who goes on from here reports no earlier step again: what came before must be written.
        self.attempt.outbox.written(reported).await;
        let (store, fence) = (&self.ctx.store, &self.attempt.fence);
        let forgotten = self
            .attempt
            .insist(|| store.set_checkpoint(fence, &checkpoint))
            .await?;
        for old in forgotten {
            self.delete(&old).await;
        }
        Ok(())
    }

    /// Uploads a snapshot and deletes its file.
    async fn upload(&self, key: &str, snapshot: Waiting) -> Result<Stored, RunError> {
        let uri = self.ctx.objects.own(key)?;
        let objects = self.ctx.objects.clone();
        let upload = drive("checkpoint", "checkpoint thread", async move || {
            let options = PutOptions::default();
            objects.upload_file(&uri, snapshot.path(), &options).await
        });
        Ok(upload.await??)
    }

    /// Removes a checkpoint that nobody will go back to; what fails is left to the sweep.
    async fn delete(&self, old: &CheckpointRef) {
        let removed = match self.ctx.objects.own(&old.key) {
            Ok(uri) => self.ctx.objects.delete(&uri).await.map_err(RunError::from),
            Err(e) => Err(e.into()),
        };
        if let Err(e) = removed {
            tracing::debug!(key = old.key, error = %e, "old checkpoint stays");
        }
    }
}

/// Removes all checkpoints of a job that has a result and so never runs again.
pub(crate) async fn forget(ctx: &Context, claim: &Claim) {
    let removed = match ctx.objects.own(folder_of(claim)) {
        Ok(prefix) => ctx.objects.delete_prefix(&prefix).await,
        Err(_) => return,
    };
    if let Err(e) = removed {
        tracing::debug!(job = %claim.fence.job, error = %e, "checkpoints stay");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_superseded_snapshot_is_deleted_and_the_newest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = |step: u64| {
            let path = folder.path().join(step.to_string());
            std::fs::write(&path, "state").unwrap();
            Waiting::new(Snapshot { step, path }, Count::default())
        };
        let slot = Slot::default();
        slot.put(snapshot(1));
        slot.put(snapshot(2));
        assert!(!folder.path().join("1").exists());
        let newest = slot.take().unwrap();
        assert_eq!(newest.snapshot.step, 2);
        assert!(newest.path().exists());
        slot.put(snapshot(3));
        drop((slot, newest));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
