//! A job as the model sees it: core's functions, applied to a handful of fields.

use nereid_core::{
    ids::JobId,
    jobs::{JobKind, JobRequest, JobStatus, Outcome, TerminationReason, after_attempt},
    limits::MAX_LEASE_LOSSES,
};

/// A job as the model sees it.
#[derive(Debug, Clone)]
pub struct Model {
    pub id: JobId,
    pub kind: JobKind,
    pub max_attempts: u32,
    pub status: JobStatus,
    pub requested: Option<JobRequest>,
    pub attempts: u32,
    pub losses: u32,
    pub epoch: i64,
    pub trained: bool,
    pub expired: bool,
    pub versions: i64,
    pub has_result: bool,
}

impl Model {
    pub fn rest(&mut self, reason: TerminationReason) {
        self.turn(reason.final_status());
        self.requested = None;
        self.has_result = matches!(
            reason,
            TerminationReason::Completed | TerminationReason::StoppedEarly
        );
    }

    pub fn turn(&mut self, to: JobStatus) {
        assert!(self.status.may_become(to), "{} to {to}", self.status);
        self.status = to;
    }

    /// The attempt ends without a result.
    pub fn end(&mut self, reason: TerminationReason) {
        self.attempts += u32::from(reason.uses_up_attempt());
        self.losses += u32::from(reason == TerminationReason::LeaseLost);
        let left = match reason {
            TerminationReason::LeaseLost => self.losses < MAX_LEASE_LOSSES,
            _ => self.attempts < self.max_attempts,
        };
        let nothing_to_keep = self.requested == Some(JobRequest::Stop) && !self.trained;
        match after_attempt(reason, self.requested, left) {
            Outcome::Requeue if nothing_to_keep => self.rest(TerminationReason::Cancelled),
            Outcome::Requeue => self.turn(JobStatus::Queued),
            Outcome::Rest(reason) => self.rest(reason),
        }
    }

    /// What the client is told of a request; changes the job if it is accepted.
    pub fn request(&mut self, request: JobRequest) -> Result<(), &'static str> {
        if self.status.is_final() {
            return Err("job_final");
        }
        let running = self.status == JobStatus::Running;
        let keeps = self.kind == JobKind::Train && (running || self.trained);
        let request = match request {
            JobRequest::Stop if !keeps => JobRequest::Cancel,
            other => other,
        };
        match self.requested {
            Some(before) if before > request => return Err("already_requested"),
            Some(before) if before == request => return Ok(()),
            _ => {}
        }
        match (self.status, request) {
            (JobStatus::Running, _) => self.requested = Some(request),
            (_, JobRequest::Cancel) => self.rest(TerminationReason::Cancelled),
            (JobStatus::Paused, JobRequest::Pause) => {}
            (_, JobRequest::Pause) => self.rest(TerminationReason::Paused),
            (status, JobRequest::Stop) => {
                if status == JobStatus::Paused {
                    self.turn(JobStatus::Queued);
                }
                self.requested = Some(request);
            }
        }
        Ok(())
    }
}
