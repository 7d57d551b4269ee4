//! Claiming: a batch of jobs becomes running by one statement.

use std::time::Duration;

use nereid_core::jobs::{Claim, Fence, JobKind, JobStatus, TerminationReason};
use serde_json::Value;
use uuid::Uuid;

use super::{AttemptEnd, ClaimRequest};
use crate::{
    Store, StoreError,
    jobs::{read_spec, transitions::sources},
    notify::Wake,
    rows::Row,
};

impl Store {
    /// Claims up to `limit` jobs: raises epoch, draws claim id, records attempt and events.
    ///
    /// Only jobs of the kinds that the worker knows and that its device and labels fit. A worker that is not active gets
    /// none. If the answer is lost, what was claimed is handed back when the lease ends.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>, StoreError> {
        if request.limit == 0 {
            return Ok(Vec::new());
        }
        let kinds: Vec<&str> = request.kinds.iter().map(|k| JobKind::as_str(*k)).collect();
        let limit = i64::from(request.limit);
        let mut rows = Vec::new();
        // The second look reaches past what other claimers hold locked just now.
        for look_at in [limit + 64, limit * 8 + 64] {
            if rows.is_empty() {
                rows = self.take(request, &kinds, look_at).await?;
            }
        }
        let mut claims = Vec::with_capacity(rows.len());
        for row in rows {
            let fence = row.fence();
            self.notify(Wake::Job(fence.job));
            match row.claim() {
                Ok(claim) => claims.push(claim),
                Err(e) => self.refuse(&fence, &e).await,
            }
        }
        Ok(claims)
    }

    /// Takes leases of the first jobs among `look_at` of each project.
    async fn take(
        &self,
        request: &ClaimRequest,
        kinds: &[&str],
        look_at: i64,
    ) -> Result<Vec<ClaimRow>, StoreError> {
        let rows = sqlx::query_file_as!(
            ClaimRow,
            "queries/queue/claim.sql",
            request.worker.0,
            request.device.as_str(),
            i64::from(request.limit),
            request.lease.as_secs_f64(),
            kinds as &[&str],
            &sources(JobStatus::Running),
            look_at
        );
        Ok(rows.fetch_all(&self.by_key).await?)
    }

    /// Fails a job that cannot be read: left alone, it would come back for ever.
    async fn refuse(&self, fence: &Fence, error: &StoreError) {
        tracing::error!(job = %fence.job, %error, "job cannot be read");
        let end = AttemptEnd {
            reason: TerminationReason::InvalidInput,
            message: "this version of Nereid cannot read the stored job; see its log".to_owned(),
            retry_delay: Duration::ZERO,
        };
        if let Err(error) = self.end_attempt(fence, &end).await {
            tracing::warn!(job = %fence.job, %error, "cannot end it either; its lease will");
        }
    }
}

struct ClaimRow {
    id: Uuid,
    project_id: Uuid,
    kind: String,
    spec: Value,
    attempts: i32,
    requested: Option<String>,
    epoch: i64,
    claim_id: Uuid,
    runtime_left: Option<f64>,
    checkpoints: Option<Value>,
}

impl ClaimRow {
    fn fence(&self) -> Fence {
        Fence {
            job: self.id.into(),
            epoch: self.epoch,
            claim: self.claim_id.into(),
        }
    }

    fn claim(self) -> Result<Claim, StoreError> {
        let fence = self.fence();
        let row = Row::new("jobs", &fence.job);
        let checkpoints = row.json_opt("checkpoints", self.checkpoints)?;
        Ok(Claim {
            fence,
            project: self.project_id.into(),
            spec: read_spec(row, &self.kind, self.spec)?,
            attempts: row.number("attempts", self.attempts)?,
            requested: row.word_opt("requested", self.requested.as_deref())?,
            // Below zero if the last attempt ran over.
            runtime_left: self
                .runtime_left
                .map(|s| Duration::from_secs_f64(s.max(0.0))),
            checkpoints: checkpoints.unwrap_or_default(),
        })
    }
}
