//! Sweeps away what attempts left in S3 and nothing needs: outputs that no version points to,
//! checkpoints that no attempt will go back to.
//!
//! It goes by what lies in S3, so nothing is forgotten because somebody died before noting it
//! down. Whether an object is needed only the store decides, in one look at attempts and versions
//! together: what an attempt wrote that is no longer current, and that no version points to, can
//! never be published any more, whatever is going on meanwhile.

use std::{collections::HashSet, mem, sync::Arc, time::Duration};

use futures::TryStreamExt;
use nereid_core::jobs::Fence;
use tokio::time::Instant;

use crate::{error::RunError, sync::jittered, worker::Context};

/// Where everything lies that attempts write.
const ROOT: &str = "projects/";
/// Objects that the store is asked about, and that are deleted, at a time.
const BATCH: usize = 1_000;
/// Longest time between two looks at whether a sweep is due.
const LOOK: Duration = Duration::from_mins(5);
/// Least time between two of them.
const LEAST_LOOK: Duration = Duration::from_millis(10);

/// What an object of an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// A file of a model, or one to serve it with.
    Output(Fence),
    /// The checkpoint of a step.
    Checkpoint(Fence, u64),
}

/// What a sweep came upon.
#[derive(Debug, Default)]
struct Counts {
    listed: u64,
    of_attempts: u64,
    deleted: usize,
}

/// Sweeps until shutdown, in turn with all other workers.
pub(crate) async fn run(ctx: Arc<Context>) {
    let every = ctx.config.sweep_interval;
    let look = (every / 8).clamp(LEAST_LOOK, LOOK);
    let sweeps = async {
        loop {
            tokio::time::sleep(jittered(look)).await;
            match ctx.store.begin_sweep(every).await {
                Ok(true) => sweep(&ctx).await,
                Ok(false) => {}
                Err(e) => tracing::warn!(error = %e, "cannot look whether a sweep is due"),
            }
        }
    };
    // It may end anywhere: what is left is found by the next one.
    ctx.shutdown.run_until_cancelled(sweeps).await;
}

async fn sweep(ctx: &Context) {
    let started = Instant::now();
    let mut counts = Counts::default();
    let result = sweep_objects(ctx, &mut counts).await;
    let (
        took,
        Counts {
            listed,
            of_attempts,
            deleted,
        },
    ) = (started.elapsed(), counts);
    match result {
        Ok(()) => tracing::info!(
            listed,
            of_attempts,
            deleted,
            ?took,
            "swept unneeded objects"
        ),
        Err(e) => {
            tracing::warn!(listed, of_attempts, deleted, error = %e, "a sweep was broken off");
        }
    }
}

async fn sweep_objects(ctx: &Context, counts: &mut Counts) -> Result<(), RunError> {
    let mut listed = ctx.objects.list(ctx.objects.bucket(), ROOT);
    let mut batch = Vec::new();
    while let Some(object) = listed.try_next().await? {
        counts.listed += 1;
        let key = object.uri.key();
        let Some(kind) = kind_of(key) else {
            continue;
        };
        counts.of_attempts += 1;
        batch.push((key.to_owned(), kind));
        if batch.len() >= BATCH {
            counts.deleted += delete_unneeded(ctx, mem::take(&mut batch)).await?;
        }
    }
    counts.deleted += delete_unneeded(ctx, batch).await?;
    Ok(())
}

/// Deletes those of a batch that nothing needs; returns how many.
async fn delete_unneeded(ctx: &Context, batch: Vec<(String, Kind)>) -> Result<usize, RunError> {
    let (mut outputs, mut checkpoints) = (HashSet::new(), HashSet::new());
    for (_, kind) in &batch {
        match *kind {
            Kind::Output(fence) => drop(outputs.insert(fence)),
            Kind::Checkpoint(fence, step) => drop(checkpoints.insert((fence, step))),
        }
    }
    let (outputs, checkpoints) = (Vec::from_iter(outputs), Vec::from_iter(checkpoints));
    let retention = ctx.config.checkpoint_retention;
    let outputs = ctx.store.unneeded_outputs(&outputs).await?;
    let checkpoints = ctx.store.unneeded_checkpoints(&checkpoints, retention);
    let checkpoints = checkpoints.await?;
    let unneeded = |kind: &Kind| match kind {
        Kind::Output(fence) => outputs.contains(fence),
        Kind::Checkpoint(fence, step) => checkpoints.contains(&(*fence, *step)),
    };
    let garbage: Vec<_> = batch
        .into_iter()
        .filter(|(_, kind)| unneeded(kind))
        .collect();
    let keys: Vec<_> = garbage.into_iter().map(|(key, _)| key).collect();
    if !keys.is_empty() {
        ctx.objects.delete_own(&keys).await?;
        tracing::debug!(?keys, "unneeded objects deleted");
    }
    Ok(keys.len())
}

/// Reads from a key which attempt wrote the object; none for all that is not an attempt's.
fn kind_of(key: &str) -> Option<Kind> {
    let parts: Vec<_> = key.splitn(8, '/').collect();
    match parts[..] {
        [
            "projects",
            _,
            "models",
            _,
            "staging" | "serving",
            job,
            attempt,
            file,
        ] => (!file.is_empty()).then_some(Kind::Output(fence(job, attempt)?)),
        ["projects", _, "jobs", job, "checkpoints", attempt, step] => {
            Some(Kind::Checkpoint(fence(job, attempt)?, step.parse().ok()?))
        }
        _ => None,
    }
}

fn fence(job: &str, attempt: &str) -> Option<Fence> {
    let (epoch, claim) = attempt.split_once('-')?;
    Some(Fence {
        job: job.parse().ok()?,
        epoch: epoch.parse().ok()?,
        claim: claim.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use nereid_core::ids::{ClaimId, JobId};

    use super::*;

    #[test]
    fn only_what_an_attempt_wrote_is_ever_looked_at() {
        let fence = Fence {
            job: JobId::generate(),
            epoch: 3,
            claim: ClaimId::generate(),
        };
        let attempt = format!("{}/3-{}", fence.job, fence.claim);
        let output = Some(Kind::Output(fence));
        let models = "projects/p/models/digits";
        let key = format!("{models}/staging/{attempt}/parts/weights.bin");
        assert_eq!(kind_of(&key), output);
        assert_eq!(kind_of(&format!("{models}/serving/{attempt}/x")), output);
        let folder = format!("projects/p/jobs/{}/checkpoints", fence.job);
        let key = format!("{folder}/3-{}/70", fence.claim);
        assert_eq!(kind_of(&key), Some(Kind::Checkpoint(fence, 70)));
        for other in [
            format!("{models}/staging/{attempt}/"),
            format!("{models}/staging/{attempt}"),
            format!("{models}/other/{attempt}/x"),
            format!("{models}/staging/{}/none/x", fence.job),
            format!("{folder}/3-{}/70/part", fence.claim),
            format!("{folder}/3-{}/last", fence.claim),
            "projects/p/uploads/x".to_owned(),
            "projects/p/object-lists/x.jsonl".to_owned(),
            "data/digits.csv".to_owned(),
        ] {
            assert_eq!(kind_of(&other), None, "{other}");
        }
    }
}
