//! What clients were promised: each accepted job, and what was then asked of it.

use std::sync::Mutex;

use nereid_core::{
    ids::JobId,
    jobs::{Job, JobStatus, TerminationReason},
};

/// How a job may end, by what its clients asked of it last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Nobody asked it to end.
    Success,
    /// It was asked to stop with what was trained until then.
    EarlyStop,
    /// It was asked to end without a result, and the API accepted that.
    Cancellation,
}

impl Expected {
    /// Tells whether a job may end so; what is wrong with it otherwise.
    pub fn check(self, status: JobStatus, reason: TerminationReason) -> Result<(), String> {
        use JobStatus::{Stopped, Succeeded};
        use TerminationReason::{Cancelled, Completed, StoppedEarly};
        let fits = match self {
            Self::Success => (status, reason) == (Succeeded, Completed),
            // Asked too late it has succeeded, asked before its first step there is no model.
            Self::EarlyStop => [
                (Succeeded, Completed),
                (Stopped, StoppedEarly),
                (Stopped, Cancelled),
            ]
            .contains(&(status, reason)),
            Self::Cancellation => (status, reason) == (Stopped, Cancelled),
        };
        if fits {
            return Ok(());
        }
        Err(format!("it ended {status} ({reason}), expected: {self:?}"))
    }
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Trains by the spec of this number.
    Train(usize),
    Noop,
}

/// An accepted job.
#[derive(Debug, Clone)]
pub struct Entry {
    pub id: JobId,
    pub work: Work,
    /// What was asked of it, in order, with the answers.
    pub asked: Vec<String>,
    pub expected: Expected,
    /// As its client last saw it.
    pub last: Option<Box<Job>>,
}

#[derive(Default)]
pub struct Ledger {
    entries: Mutex<Vec<Entry>>,
    submissions: Mutex<usize>,
}

impl Ledger {
    pub fn accepted(&self, id: JobId, work: Work) {
        self.entries.lock().unwrap().push(Entry {
            id,
            work,
            asked: Vec::new(),
            expected: Expected::Success,
            last: None,
        });
    }

    pub fn sent(&self, submissions: usize) {
        *self.submissions.lock().unwrap() += submissions;
    }

    pub fn submissions(&self) -> usize {
        *self.submissions.lock().unwrap()
    }

    pub fn update(&self, id: JobId, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries.lock().unwrap();
        change(entries.iter_mut().find(|entry| entry.id == id).unwrap());
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap().clone()
    }
}
