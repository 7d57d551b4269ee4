//! The engine's view of a running attempt: reports go into bounded memory, directions come out.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use nereid_core::{
    engine::{Monitor, Snapshot},
    events::{LogLevel, MetricPoint, RuleReport},
    jobs::{Directive, JobPhase, Progress},
};

use crate::{
    attempt::Attempt,
    checkpoints::{Slot, Waiting},
};

/// Handed to the engine's thread; nothing in it waits for the network.
pub(crate) struct ThreadMonitor {
    attempt: Arc<Attempt>,
    /// Where snapshots go; none for work that takes none.
    checkpoints: Option<Arc<Slot>>,
    course: Arc<Course>,
}

/// How far a training came, and whether it was told to end there.
#[derive(Debug, Default)]
pub(crate) struct Course {
    finish_told: AtomicBool,
    is_complete: AtomicBool,
}

impl Course {
    /// Tells whether the training that returned a model was ended before it was complete.
    pub(crate) fn ended_early(&self) -> bool {
        self.finish_told.load(Relaxed) && !self.is_complete.load(Relaxed)
    }

    fn came_to(&self, progress: &Progress) {
        let is_complete = progress.step >= progress.steps && progress.steps > 0;
        self.is_complete.store(is_complete, Relaxed);
    }
}

impl ThreadMonitor {
    pub(crate) fn new(attempt: Arc<Attempt>, checkpoints: Option<Arc<Slot>>) -> Self {
        Self {
            attempt,
            checkpoints,
            course: Arc::default(),
        }
    }

    /// What became of the training, to be asked once it has returned.
    pub(crate) fn course(&self) -> Arc<Course> {
        Arc::clone(&self.course)
    }

    /// An engine that reports steps has begun to train, even if it does not say so.
    fn training(&self) {
        if self.has_not_trained() {
            self.attempt.outbox.phase(JobPhase::Training);
        }
    }

    fn has_not_trained(&self) -> bool {
        let phase = self.attempt.outbox.current_phase();
        matches!(phase, None | Some(JobPhase::Downloading))
    }
}

impl Monitor for ThreadMonitor {
    fn phase(&mut self, phase: JobPhase) {
        self.attempt.outbox.phase(phase);
    }

    fn progress(&mut self, progress: Progress) {
        self.training();
        self.course.came_to(&progress);
        self.attempt.outbox.progress(progress);
    }

    fn metrics(&mut self, point: MetricPoint) {
        self.training();
        self.attempt.outbox.point(point);
    }

    fn rule(&mut self, report: RuleReport) {
        self.attempt.outbox.rule(report);
    }

    fn log(&mut self, level: LogLevel, message: String) {
        self.attempt.log(level, message);
    }

    fn checkpoint(&mut self, snapshot: Snapshot) {
        let snapshot = Waiting::new(snapshot, self.attempt.outbox.put_in());
        if let Some(slot) = &self.checkpoints {
            slot.put(snapshot);
        }
    }

    fn directive(&mut self) -> Directive {
        let directive = self.attempt.directive();
        // Told later, a training has already come to its end.
        let phase = self.attempt.outbox.current_phase();
        if directive == Directive::Finish
            && (phase == Some(JobPhase::Training) || self.has_not_trained())
        {
            self.course.finish_told.store(true, Relaxed);
        }
        directive
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::attempt::{Order, tests::attempt};

    fn at(step: u64) -> Progress {
        Progress {
            step,
            steps: 10,
            ..Progress::default()
        }
    }

    #[test]
    fn the_first_progress_begins_the_training_phase() {
        let attempt = attempt(Duration::from_mins(1));
        let mut monitor = ThreadMonitor::new(Arc::clone(&attempt), None);
        monitor.progress(Progress::default());
        assert_eq!(attempt.outbox.current_phase(), Some(JobPhase::Training));
        monitor.phase(JobPhase::Evaluating);
        monitor.progress(Progress::default());
        assert_eq!(attempt.outbox.current_phase(), Some(JobPhase::Evaluating));
        attempt.give(Order::Lost);
        assert_eq!(monitor.directive(), Directive::Stop);
    }

    #[test]
    fn only_a_training_that_was_told_before_its_end_ended_early() {
        let attempt = attempt(Duration::from_mins(1));
        let mut monitor = ThreadMonitor::new(Arc::clone(&attempt), None);
        let course = monitor.course();
        monitor.progress(at(5));
        assert_eq!(monitor.directive(), Directive::Continue);
        attempt.give(Order::Finish);
        assert!(!course.ended_early());
        assert_eq!(monitor.directive(), Directive::Finish);
        assert!(course.ended_early());
        // The engine was already in its last epoch.
        monitor.progress(at(10));
        assert!(!course.ended_early());
    }

    #[test]
    fn a_request_during_the_evaluation_ends_nothing_early() {
        let attempt = attempt(Duration::from_mins(1));
        let mut monitor = ThreadMonitor::new(Arc::clone(&attempt), None);
        // By a callback: not all steps are done.
        monitor.progress(at(5));
        monitor.phase(JobPhase::Evaluating);
        attempt.give(Order::Finish);
        assert_eq!(monitor.directive(), Directive::Finish);
        assert!(!monitor.course().ended_early());
    }
}
