//! Publication: a version, its number, and the end of the job that made it, all or nothing.

use nereid_core::{
    Name,
    events::EventKind,
    ids::{ModelId, ModelVersionId},
    jobs::{Fence, JobResult, Published, TerminationReason},
};
use serde_json::json;

use super::{
    NewModelVersion,
    finish::{close, has_completed},
    lease::{self, Lease, Require},
};
use crate::{
    Store, StoreError,
    connection::Tx,
    events::append_event,
    jobs::transitions::Change,
    notify::Wake,
    rows::{self, Row},
};

impl Store {
    /// Publishes a version and ends the job (as succeeded, or stopped early), in one transaction; needs an unexpired
    /// lease. Creates the model with its first version. Deletes of versions never give numbers back.
    ///
    /// Repeated by the attempt that has published, answers with the same version and publishes nothing: so it may be
    /// repeated when its answer was lost, and [`StoreError::LeaseLost`] always means that this attempt has not published.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Conflict`] `cancel_requested` if a client has cancelled the job.
    pub async fn publish_version(
        &self,
        fence: &Fence,
        new: &NewModelVersion,
    ) -> Result<Published, StoreError> {
        let mut tx = self.pool.begin().await?;
        let lease = match lease::lock(&mut tx, fence, Require::Unexpired).await {
            Err(StoreError::LeaseLost) => {
                let before = published_before(&mut tx, fence).await?;
                return before.ok_or(StoreError::LeaseLost);
            }
            lease => lease?,
        };
        lease.refuse_cancelled()?;
        let (published, model) = insert_version(&mut tx, &lease, new).await?;
        let data = json!({"model": model, "version": published.version});
        append_event(&mut tx, fence.job, EventKind::Published, &data).await?;
        let reason = if new.stopped_early {
            TerminationReason::StoppedEarly
        } else {
            TerminationReason::Completed
        };
        let result = JobResult::Train {
            model,
            version: published.version,
            metrics: rows::finite(&new.manifest.metrics),
        };
        let done = Change::done(reason, result);
        close(&mut tx, &lease, &done, reason, None, None).await?;
        tx.commit().await?;
        self.notify(Wake::Job(fence.job));
        Ok(published)
    }
}

/// What this very attempt has published: an earlier call may have committed, its answer lost.
async fn published_before(conn: &mut Tx, fence: &Fence) -> Result<Option<Published>, StoreError> {
    if !has_completed(conn, fence).await? {
        return Ok(None);
    }
    let version = sqlx::query!(
        "SELECT id, version FROM model_versions WHERE job_id = $1",
        fence.job.0
    )
    .fetch_optional(conn)
    .await?;
    let row = Row::new("model_versions", &fence.job);
    version
        .map(|v| {
            Ok(Published {
                id: v.id.into(),
                version: row.number("version", v.version)?,
            })
        })
        .transpose()
}

async fn insert_version(
    conn: &mut Tx,
    lease: &Lease,
    new: &NewModelVersion,
) -> Result<(Published, Name), StoreError> {
    let id = ModelVersionId::generate();
    let manifest = &new.manifest;
    let row = sqlx::query_file!(
        "queries/queue/publish.sql",
        lease.fence.job.0,
        ModelId::generate().0,
        lease.project.0,
        id.0,
        new.manifest_uri,
        new.manifest_sha256,
        rows::bind::<_, i64>(new.bytes)?,
        rows::json(&manifest.spec)?,
        rows::json(&manifest.signature)?,
        rows::json(&rows::finite(&manifest.metrics))?,
        rows::json(&new.reports)?,
        rows::json(&manifest.lineage)?
    )
    .fetch_one(conn)
    .await?;
    let version = Row::new("models", &row.model).number("next_version", row.version)?;
    let model = Row::new("jobs", &lease.fence.job).name("model", row.model)?;
    Ok((Published { id, version }, model))
}
