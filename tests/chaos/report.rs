//! What is said during a run and at its end: the schedule's steps, the counts, what was wrong.

use std::{collections::BTreeMap, fmt::Write as _, io::Write as _, sync::Mutex, time::Instant};

use nereid_core::ids::JobId;

use crate::faults::Kind;

/// Prints a line even if the test passes: the seed and the counts are half of the point.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub job: Option<JobId>,
    pub what: String,
}

/// The books of a run.
pub struct Report {
    began: Instant,
    faults: Mutex<BTreeMap<Kind, u32>>,
    findings: Mutex<Vec<Finding>>,
}

/// What became of the jobs.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests to submit that were sent, repetitions included.
    pub submissions: usize,
    /// Jobs that an API accepted.
    pub accepted: usize,
    pub succeeded: usize,
    pub stopped: usize,
    pub failed: usize,
    pub attempts: usize,
    /// Accepted jobs that are not there, or not in a final state.
    pub lost: usize,
    /// Jobs that nobody submitted, and versions beyond the one that a job may have.
    pub duplicated: usize,
}

impl Report {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            faults: Mutex::default(),
            findings: Mutex::default(),
        }
    }

    /// Says what happens now.
    pub fn note(&self, what: &str) {
        say(&format!(
            "{:8.2} s  {what}",
            self.began.elapsed().as_secs_f64()
        ));
    }

    /// Counts a fault that has really been injected.
    pub fn injected(&self, kind: Kind) {
        *self.faults.lock().unwrap().entry(kind).or_default() += 1;
    }

    /// How often it was injected.
    pub fn count(&self, kind: Kind) -> u32 {
        self.faults.lock().unwrap().get(&kind).copied().unwrap_or(0)
    }

    pub fn finding(&self, job: Option<JobId>, what: impl Into<String>) {
        let what = what.into();
        match job {
            Some(job) => self.note(&format!("WRONG: job {job}: {what}")),
            None => self.note(&format!("WRONG: {what}")),
        }
        self.findings.lock().unwrap().push(Finding { job, what });
    }

    pub fn findings(&self) -> Vec<Finding> {
        self.findings.lock().unwrap().clone()
    }

    /// The table that a run ends with.
    pub fn table(&self, counts: &Counts) -> String {
        let faults = self.faults.lock().unwrap();
        let mut table = String::new();
        let mut row = |name: &str, n: usize| writeln!(table, "  {name:<44}{n:>6}").unwrap();
        for kind in Kind::ALL {
            row(kind.name(), faults.get(kind).copied().unwrap_or(0) as usize);
        }
        row("faults injected", faults.values().sum::<u32>() as usize);
        row("submissions sent", counts.submissions);
        row("jobs accepted", counts.accepted);
        row("  succeeded", counts.succeeded);
        row("  stopped as asked", counts.stopped);
        row("  failed", counts.failed);
        row("attempts", counts.attempts);
        row("lost", counts.lost);
        row("duplicated", counts.duplicated);
        table
    }
}
