//! What a running attempt has to tell, waiting to be written: bounded, and never blocking.
//!
//! The training thread puts things in, the reporter takes them out in batches. While Postgres
//! is away the box fills; beyond its bounds new entries are counted and dropped.

use std::sync::Mutex;

use nereid_core::{
    events::{MetricPoint, NewLogLine, RuleReport},
    jobs::{JobPhase, Progress},
};
use tokio::sync::{Notify, watch};

use crate::sync::lock;

/// Points or lines that make a batch worth writing at once.
pub(crate) const BATCH: usize = 500;
/// Most metric points kept while they cannot be written: more than any lease outlasts.
const MAX_POINTS: usize = 100_000;
/// Most log lines kept while they cannot be written.
const MAX_LINES: usize = 5_000;
/// Most reports of rules kept while they cannot be written; each rule has few.
const MAX_RULES: usize = 1_000;
/// Longest log message in bytes; the rest is cut.
const MAX_MESSAGE: usize = 8 << 10;

/// Entries that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    urgent: Notify,
    /// How much of what was put in has been written.
    written: watch::Sender<Count>,
}

/// Metric points and reports of rules, counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    points: u64,
    rules: u64,
}

impl Count {
    fn covers(self, other: Self) -> bool {
        self.points >= other.points && self.rules >= other.rules
    }
}

#[derive(Debug, Default)]
struct State {
    points: Vec<MetricPoint>,
    rules: Vec<RuleReport>,
    lines: Vec<NewLogLine>,
    status: Status,
    /// Newest phase put in, so that repeating it is no news.
    phase: Option<JobPhase>,
    dropped: u64,
    /// What was put in since the start.
    put_in: Count,
}

/// Newest phase and progress, as far as they have not been written.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Status {
    pub(crate) phase: Option<JobPhase>,
    pub(crate) progress: Option<Progress>,
}

impl Status {
    pub(crate) fn is_empty(&self) -> bool {
        self.phase.is_none() && self.progress.is_none()
    }
}

/// A batch taken out.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) points: Vec<MetricPoint>,
    pub(crate) rules: Vec<RuleReport>,
    pub(crate) lines: Vec<NewLogLine>,
}

impl Batch {
    /// Tells whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.points.is_empty() && self.rules.is_empty() && self.lines.is_empty()
    }
}

impl Outbox {
    /// Notes the phase; it is written at once.
    pub(crate) fn phase(&self, phase: JobPhase) {
        let mut state = lock(&self.state);
        if state.phase == Some(phase) {
            return;
        }
        state.phase = Some(phase);
        state.status.phase = Some(phase);
        drop(state);
        self.urgent.notify_one();
    }

    /// Phase put in last.
    pub(crate) fn current_phase(&self) -> Option<JobPhase> {
        lock(&self.state).phase
    }

    /// Notes the progress; only the newest is kept.
    pub(crate) fn progress(&self, progress: Progress) {
        lock(&self.state).status.progress = Some(progress);
    }

    /// Adds a metric point.
    pub(crate) fn point(&self, point: MetricPoint) {
        let mut state = lock(&self.state);
        if state.points.len() >= MAX_POINTS {
            state.dropped += 1;
            return;
        }
        state.points.push(point);
        state.put_in.points += 1;
        self.notify_if_full(&state);
    }

    /// Adds what a rule found; it is written at once.
    pub(crate) fn rule(&self, mut report: RuleReport) {
        shorten(&mut report.message, MAX_MESSAGE);
        let mut state = lock(&self.state);
        if state.rules.len() >= MAX_RULES {
            state.dropped += 1;
            return;
        }
        state.rules.push(report);
        state.put_in.rules += 1;
        drop(state);
        self.urgent.notify_one();
    }

    /// How many points and reports of rules were put in so far.
    pub(crate) fn put_in(&self) -> Count {
        lock(&self.state).put_in
    }

    /// Notes that the first `count` of the points not yet written are.
    pub(crate) fn points_written(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or_default();
        self.written.send_modify(|written| written.points += count);
    }

    /// Notes that the first `count` of the reports not yet written are.
    pub(crate) fn rules_written(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or_default();
        self.written.send_modify(|written| written.rules += count);
    }

    /// Waits until the first so many that were put in are written.
    pub(crate) async fn written(&self, count: Count) {
        let mut written = self.written.subscribe();
        if !written.borrow().covers(count) {
            self.urgent.notify_one();
        }
        // The sender lives as long as this.
        let _ = written.wait_for(|written| written.covers(count)).await;
    }

    /// Adds a log line, shortened if it is too long.
    pub(crate) fn line(&self, mut line: NewLogLine) {
        shorten(&mut line.message, MAX_MESSAGE);
        let mut state = lock(&self.state);
        if state.lines.len() >= MAX_LINES {
            state.dropped += 1;
            return;
        }
        state.lines.push(line);
        self.notify_if_full(&state);
    }

    fn notify_if_full(&self, state: &State) {
        if state.points.len() >= BATCH || state.lines.len() >= BATCH {
            self.urgent.notify_one();
        }
    }

    /// Waits until there is something that should be written at once.
    pub(crate) async fn urgent(&self) {
        self.urgent.notified().await;
    }

    /// Takes out the phase and progress that wait.
    pub(crate) fn take_status(&self) -> Status {
        std::mem::take(&mut lock(&self.state).status)
    }

    /// Puts back what could not be written, unless there is newer.
    pub(crate) fn restore_status(&self, status: Status) {
        let mut state = lock(&self.state);
        state.status.phase = state.status.phase.or(status.phase);
        if state.status.progress.is_none() {
            state.status.progress = status.progress;
        }
    }

    /// Tells whether a phase waits.
    pub(crate) fn has_phase(&self) -> bool {
        lock(&self.state).status.phase.is_some()
    }

    /// Takes out up to [`BATCH`] points, reports and lines.
    pub(crate) fn take_batch(&self) -> Batch {
        let mut state = lock(&self.state);
        Batch {
            points: take_front(&mut state.points),
            rules: take_front(&mut state.rules),
            lines: take_front(&mut state.lines),
        }
    }

    /// Puts back what could not be written, before what came since.
    pub(crate) fn restore_batch(&self, batch: Batch) {
        let mut state = lock(&self.state);
        prepend(&mut state.points, batch.points);
        prepend(&mut state.rules, batch.rules);
        prepend(&mut state.lines, batch.lines);
    }

    /// Returns how many entries were dropped since it was asked last.
    pub(crate) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut lock(&self.state).dropped)
    }

    /// Tells whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        let state = lock(&self.state);
        state.points.is_empty()
            && state.rules.is_empty()
            && state.lines.is_empty()
            && state.status.is_empty()
    }
}

fn take_front<T>(entries: &mut Vec<T>) -> Vec<T> {
    let rest = entries.split_off(entries.len().min(BATCH));
    std::mem::replace(entries, rest)
}

fn prepend<T>(entries: &mut Vec<T>, mut front: Vec<T>) {
    front.append(entries);
    *entries = front;
}

/// Cuts a message to at most `limit` bytes and an ellipsis.
pub(crate) fn shorten(message: &mut String, limit: usize) {
    if message.len() > limit {
        message.truncate(message.floor_char_boundary(limit));
        message.push('…');
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nereid_core::{
        clock::{Clock, SystemClock},
        events::LogLevel,
    };

    use super::*;

    fn point(step: u64, loss: f64) -> MetricPoint {
        MetricPoint {
            step,
            epoch: 1.0,
            values: BTreeMap::from([("loss".to_owned(), loss)]),
            at: SystemClock.now(),
        }
    }

    fn line(message: &str) -> NewLogLine {
        NewLogLine {
            level: LogLevel::Info,
            message: message.to_owned(),
            at: SystemClock.now(),
        }
    }

    #[test]
    fn keeps_only_the_newest_progress_and_restores_what_is_not_outdated() {
        let outbox = Outbox::default();
        for step in 1..=3 {
            outbox.progress(Progress {
                step,
                ..Progress::default()
            });
        }
        outbox.phase(JobPhase::Training);
        let taken = outbox.take_status();
        assert_eq!(taken.progress.as_ref().map(|p| p.step), Some(3));
        outbox.phase(JobPhase::Evaluating);
        outbox.restore_status(taken);
        let again = outbox.take_status();
        assert_eq!(again.phase, Some(JobPhase::Evaluating));
        assert_eq!(again.progress.map(|p| p.step), Some(3));
    }

    #[test]
    fn a_repeated_phase_is_no_news() {
        let outbox = Outbox::default();
        outbox.phase(JobPhase::Training);
        outbox.take_status();
        outbox.phase(JobPhase::Training);
        assert!(outbox.is_empty());
    }

    #[test]
    fn batches_keep_their_order_and_memory_is_bounded() {
        let outbox = Outbox::default();
        for step in 0..MAX_POINTS as u64 + 10 {
            outbox.point(point(step, 0.5));
        }
        assert_eq!(outbox.take_dropped(), 10);
        let batch = outbox.take_batch();
        assert_eq!(batch.points.len(), BATCH);
        outbox.restore_batch(batch);
        assert_eq!(outbox.take_batch().points[0].step, 0);
        assert_eq!(outbox.take_batch().points[0].step, BATCH as u64);
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let outbox = Outbox::default();
        outbox.line(line(&"ä".repeat(MAX_MESSAGE)));
        outbox.line(line("short"));
        let lines = outbox.take_batch().lines;
        assert!(lines[0].message.len() <= MAX_MESSAGE + '…'.len_utf8());
        assert_eq!(lines[1].message, "short");
    }
}
