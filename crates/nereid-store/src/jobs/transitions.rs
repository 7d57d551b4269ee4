//! The one place where a single job's status changes: guarded by core's table, with its event.

use nereid_core::{
    ids::JobId,
    jobs::{JobError, JobResult, JobStatus, TerminationReason},
};
use serde_json::{Map, Value};
use sqlx::PgConnection;

use crate::{StoreError, rows};

/// A change of status and what comes with it.
#[derive(Debug)]
pub(crate) struct Change {
    to: JobStatus,
    reason: Option<TerminationReason>,
    message: Option<String>,
    error: Option<JobError>,
    result: Option<JobResult>,
    /// Attempts used up by what ended.
    used: i32,
    /// A client's retry: the budget starts afresh.
    fresh: bool,
}

impl Change {
    /// A job that ended for `reason`, with what went wrong if something did.
    pub(crate) fn ended(reason: TerminationReason, message: Option<&str>, used: i32) -> Self {
        let to = reason.final_status();
        Self {
            error: error(reason, message).filter(|_| to == JobStatus::Failed),
            reason: Some(reason),
            message: message.map(str::to_owned),
            ..Self::to(to, used)
        }
    }

    /// A job that did what it was asked to.
    pub(crate) fn succeeded(result: JobResult) -> Self {
        Self {
            reason: Some(TerminationReason::Completed),
            result: Some(result),
            ..Self::to(JobStatus::Succeeded, 1)
        }
    }

    /// A job that is tried again by itself.
    pub(crate) fn requeued(reason: TerminationReason, message: &str, used: i32) -> Self {
        Self {
            error: error(reason, Some(message)).filter(|_| reason.uses_up_attempt()),
            reason: Some(reason),
            message: Some(message.to_owned()),
            ..Self::to(JobStatus::Queued, used)
        }
    }

    /// A job that a client has tried again.
    pub(crate) fn retried() -> Self {
        Self {
            fresh: true,
            ..Self::to(JobStatus::Queued, 0)
        }
    }

    fn to(to: JobStatus, used: i32) -> Self {
        Self {
            to,
            reason: None,
            message: None,
            error: None,
            result: None,
            used,
            fresh: false,
        }
    }

    /// Details of the event.
    fn data(&self) -> Value {
        let mut data = Map::new();
        data.insert("status".to_owned(), self.to.as_str().into());
        if let Some(reason) = self.reason {
            data.insert("reason".to_owned(), reason.as_str().into());
        }
        if let Some(message) = &self.message {
            data.insert("message".to_owned(), message.as_str().into());
        }
        Value::Object(data)
    }
}

fn error(reason: TerminationReason, message: Option<&str>) -> Option<JobError> {
    let message = message?.to_owned();
    Some(JobError { reason, message })
}

/// The statuses that may become `to`, for the guard of a statement.
pub(crate) fn sources(to: JobStatus) -> Vec<String> {
    let from = JobStatus::ALL.iter().filter(|from| from.may_become(to));
    from.map(ToString::to_string).collect()
}

/// Changes the status of a job whose queue row is locked, and records the event.
pub(crate) async fn transition(
    conn: &mut PgConnection,
    job: JobId,
    change: &Change,
) -> Result<(), StoreError> {
    let reason = change.reason.filter(|_| change.to.is_final());
    let changed = sqlx::query_file!(
        "queries/jobs/transition.sql",
        job.0,
        change.to.as_str(),
        &sources(change.to),
        change.fresh,
        change.used,
        change.error.as_ref().map(rows::json).transpose()?,
        change.result.as_ref().map(rows::json).transpose()?,
        reason.map(TerminationReason::as_str),
        change.to.is_final(),
        change.data()
    )
    .execute(conn)
    .await?;
    if changed.rows_affected() == 0 {
        let what = format!("job {job} can no longer become {}", change.to);
        return Err(StoreError::conflict("invalid_transition", what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_of_a_statement_is_cores_table() {
        assert_eq!(sources(JobStatus::Running), ["queued"]);
        assert_eq!(sources(JobStatus::Succeeded), ["running"]);
        assert_eq!(sources(JobStatus::Queued), ["running", "failed", "stopped"]);
    }
}
