//! Checkpoints on their way to S3 and back: stored beside the training, latest wins.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use nereid_core::{
    engine::Snapshot,
    events::LogLevel,
    jobs::{CheckpointRef, Claim},
};
use nereid_objects::PutOptions;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    attempt::{Attempt, Order},
    error::RunError,
    sync::lock,
    threads::drive,
    worker::Context,
};

/// Checkpoints kept per job: the newest, and one to fall back on.
const KEPT: usize = 2;

/// Holds the newest snapshot that nobody has begun to store.
#[derive(Default)]
pub(crate) struct Slot {
    newest: Mutex<Option<Snapshot>>,
    filled: Notify,
}

impl Slot {
    /// Puts in a snapshot; one that still waits is superseded.
    pub(crate) fn put(&self, snapshot: Snapshot) {
        *lock(&self.newest) = Some(snapshot);
        self.filled.notify_one();
    }

    fn take(&self) -> Option<Snapshot> {
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
    /// Starts the task; `resumed` is the checkpoint that the training goes on from.
    pub(crate) fn start(
        ctx: &Arc<Context>,
        attempt: &Arc<Attempt>,
        claim: &Claim,
        resumed: Option<CheckpointRef>,
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
            stored: resumed.into_iter().collect(),
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
    /// What lies in S3, oldest first.
    stored: VecDeque<CheckpointRef>,
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
    async fn keep(&mut self, snapshot: Snapshot) {
        let step = snapshot.step;
        // Asked to stop right after a checkpoint was due, a training takes the same one again.
        if self.stored.back().is_some_and(|c| c.step == step) {
            return;
        }
        let attempt = Arc::clone(&self.attempt);
        let stored = tokio::select! {
            () = attempt.ordered(Order::Lost) => return,
            stored = self.store(snapshot) => stored,
        };
        match stored {
            Ok(()) => tracing::debug!(job = %self.attempt.fence.job, step, "checkpoint stored"),
            Err(RunError::Halted) => {}
            Err(e) => {
                tracing::warn!(job = %self.attempt.fence.job, step, error = %e, "no checkpoint");
                let message = format!("the checkpoint of step {step} could not be stored: {e}");
                self.attempt.log(LogLevel::Warn, message);
            }
        }
    }

    async fn store(&mut self, snapshot: Snapshot) -> Result<(), RunError> {
        let step = snapshot.step;
        let key = format!("{}{step}", self.folder);
        let uri = self.ctx.objects.own(&key)?;
        let bytes = Bytes::from(snapshot.bytes);
        let objects = self.ctx.objects.clone();
        let upload = drive("checkpoint", "checkpoint thread", async move || {
            let options = PutOptions::default();
            objects.put_bytes(&uri, bytes, &options).await
        });
        let stored = upload.await??;
        let checkpoint = CheckpointRef {
            key,
            bytes: stored.bytes,
            sha256: stored.sha256,
            step,
        };
        let (store, fence) = (&self.ctx.store, &self.attempt.fence);
        self.attempt
            .insist(|| store.set_checkpoint(fence, &checkpoint))
            .await?;
        self.stored.push_back(checkpoint);
        self.forget_old().await;
        Ok(())
    }

    /// Removes checkpoints that nobody will go back to; what fails is left as garbage.
    async fn forget_old(&mut self) {
        while self.stored.len() > KEPT {
            let Some(old) = self.stored.pop_front() else {
                return;
            };
            let removed = match self.ctx.objects.own(&old.key) {
                Ok(uri) => self.ctx.objects.delete(&uri).await.map_err(RunError::from),
                Err(e) => Err(e.into()),
            };
            if let Err(e) = removed {
                tracing::debug!(key = old.key, error = %e, "old checkpoint stays");
            }
        }
    }
}

/// Reads the checkpoint to go on from; none if there is none that is whole.
pub(crate) async fn restore(
    ctx: &Context,
    attempt: &Attempt,
    claim: &Claim,
) -> Result<Option<Vec<u8>>, RunError> {
    let Some(checkpoint) = &claim.checkpoint else {
        return Ok(None);
    };
    let uri = ctx.objects.own(&checkpoint.key)?;
    let limit = checkpoint.bytes;
    let defect = match ctx.objects.get_bytes(&uri, limit).await {
        Ok(bytes) if digest(bytes.clone()).await? == checkpoint.sha256 => {
            let message = format!("goes on from the checkpoint of step {}", checkpoint.step);
            attempt.log(LogLevel::Info, message);
            return Ok(Some(bytes.into()));
        }
        Ok(_) => "its digest is another one".to_owned(),
        Err(e) if e.is_retryable() => return Err(e.into()),
        Err(e) => e.to_string(),
    };
    tracing::warn!(job = %claim.fence.job, key = checkpoint.key, defect, "checkpoint is damaged");
    let message = format!(
        "the checkpoint of step {} is damaged ({defect}); training starts over",
        checkpoint.step
    );
    attempt.log(LogLevel::Warn, message);
    Ok(None)
}

/// Removes all checkpoints of a job that succeeded and so never runs again.
pub(crate) async fn forget(ctx: &Context, claim: &Claim) {
    let removed = match ctx.objects.own(folder_of(claim)) {
        Ok(prefix) => ctx.objects.delete_prefix(&prefix).await,
        Err(_) => return,
    };
    if let Err(e) = removed {
        tracing::debug!(job = %claim.fence.job, error = %e, "checkpoints stay");
    }
}

async fn digest(bytes: Bytes) -> Result<String, RunError> {
    tokio::task::spawn_blocking(move || hex::encode(Sha256::digest(&bytes)))
        .await
        .map_err(|e| RunError::Internal(format!("digest of a checkpoint: {e}")))
}
