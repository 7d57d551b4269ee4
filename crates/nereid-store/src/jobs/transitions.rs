//! The one place where a single job's status changes: guarded by core's table, with its event.

use nereid_core::{
    ids::JobId,
    jobs::{JobError, JobRequest, JobResult, JobStatus, TerminationReason},
};
use serde_json::{Map, Value};

use crate::{StoreError, connection::Tx, rows};

/// What an attempt that ended has used up of its job's budgets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) attempts: i32,
    pub(crate) lease_losses: i32,
}

impl Used {
    /// What an attempt that ended for `reason` has used up.
    pub(crate) fn by(reason: TerminationReason) -> Self {
        Self {
            attempts: reason.uses_up_attempt().into(),
            lease_losses: (reason == TerminationReason::LeaseLost).into(),
        }
    }
}

/// A change of status and what comes with it.
#[derive(Debug)]
pub(crate) struct Change {
    to: JobStatus,
    reason: Option<TerminationReason>,
    message: Option<String>,
    error: Option<JobError>,
    result: Option<JobResult>,
    /// What is still asked of the job.
    requested: Option<JobRequest>,
    used: Used,
    /// A client's retry: the budgets start afresh.
    fresh: bool,
}

impl Change {
    /// A job that has ended for `reason`, or stands still, with what went wrong if something did.
    pub(crate) fn rest(reason: TerminationReason, message: Option<&str>, used: Used) -> Self {
        let to = reason.final_status();
        Self {
            error: error(reason, message).filter(|_| to == JobStatus::Failed),
            reason: Some(reason),
            message: message.map(str::to_owned),
            used,
            ..Self::into_status(to)
        }
    }

    /// A job that ended with a result.
    pub(crate) fn done(reason: TerminationReason, result: JobResult) -> Self {
        Self {
            reason: Some(reason),
            result: Some(result),
            used: Used::by(reason),
            ..Self::into_status(reason.final_status())
        }
    }

    /// A job that is tried again by itself.
    pub(crate) fn requeued(
        reason: TerminationReason,
        message: &str,
        used: Used,
        requested: Option<JobRequest>,
    ) -> Self {
        Self {
            error: error(reason, Some(message)).filter(|_| used != Used::default()),
            reason: Some(reason),
            message: Some(message.to_owned()),
            requested,
            used,
            ..Self::into_status(JobStatus::Queued)
        }
    }

    /// A job that a client has tried again.
    pub(crate) fn retried() -> Self {
        Self {
            fresh: true,
            ..Self::into_status(JobStatus::Queued)
        }
    }

    /// A paused job that goes on, if only for what is `requested`.
    pub(crate) fn resumed(requested: Option<JobRequest>) -> Self {
        Self {
            requested,
            ..Self::into_status(JobStatus::Queued)
        }
    }

    /// The status after the change.
    pub(crate) const fn to(&self) -> JobStatus {
        self.to
    }

    fn into_status(to: JobStatus) -> Self {
        Self {
            to,
            reason: None,
            message: None,
            error: None,
            result: None,
            requested: None,
            used: Used::default(),
            fresh: false,
        }
    }

    /// Details of the event.
    pub(crate) fn data(&self) -> Value {
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
    conn: &mut Tx,
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
        change.used.attempts,
        change.error.as_ref().map(rows::json).transpose()?,
        change.result.as_ref().map(rows::json).transpose()?,
        reason.map(TerminationReason::as_str),
        change.to.is_final(),
        change.data(),
        change.requested.map(JobRequest::as_str),
        change.used.lease_losses
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
        assert_eq!(
            sources(JobStatus::Queued),
            ["running", "paused", "failed", "stopped"]
        );
    }
}
