//! Approval of versions.

use nereid_core::{
    Name,
    ids::ProjectId,
    models::{Approval, ApprovalStatus},
};

use super::version_not_found;
use crate::{Store, StoreError, audit};

impl Store {
    /// Records a decision about a version; the decision before stays in the audit log.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn decide(
        &self,
        project: ProjectId,
        name: &Name,
        version: u32,
        status: ApprovalStatus,
        reason: &str,
    ) -> Result<Approval, StoreError> {
        let mut tx = self.pool.begin().await?;
        let decided = sqlx::query!(
            "UPDATE model_versions v SET
                 approval_status = $4, approval_reason = $5, approval_by = $6, approval_at = now()
             FROM models m
             WHERE m.id = v.model_id AND m.project_id = $1 AND m.name = $2 AND v.version = $3::bigint
               AND v.deleted_at IS NULL",
            project.0,
            name.as_str(),
            i64::from(version),
            status.as_str(),
            reason,
            self.actor.map(|a| a.0)
        )
        .execute(&mut tx)
        .await?;
        if decided.rows_affected() == 0 {
            return Err(version_not_found(name, version));
        }
        let action = match status {
            ApprovalStatus::Approved => "approve",
            ApprovalStatus::Rejected => "reject",
            ApprovalStatus::Pending => "reset_approval",
        };
        let resource = format!("model/{name}@{version}");
        let detail = (!reason.is_empty()).then_some(reason);
        audit::record_detail(&mut tx, project, self.actor, action, &resource, detail).await?;
        tx.commit().await?;
        Ok(self.model_version(project, name, version).await?.approval)
    }
}
