//! The engine's view of a running attempt: reports go into bounded memory, directions come out.

use std::sync::Arc;

use nereid_core::{
    engine::{Monitor, Snapshot},
    events::{LogLevel, MetricPoint},
    jobs::{Directive, JobPhase, Progress},
};

use crate::{attempt::Attempt, checkpoints::Slot};

/// Handed to the engine's thread; nothing in it waits for the network.
pub(crate) struct ThreadMonitor {
    attempt: Arc<Attempt>,
    /// Where snapshots go; none for work that takes none.
    checkpoints: Option<Arc<Slot>>,
}

impl ThreadMonitor {
    pub(crate) fn new(attempt: Arc<Attempt>, checkpoints: Option<Arc<Slot>>) -> Self {
        Self {
            attempt,
            checkpoints,
        }
    }

    /// An engine that reports steps has begun to train, even if it does not say so.
    fn training(&self) {
        let phase = self.attempt.outbox.current_phase();
        if matches!(phase, None | Some(JobPhase::Downloading)) {
            self.attempt.outbox.phase(JobPhase::Training);
        }
    }
}

impl Monitor for ThreadMonitor {
    fn phase(&mut self, phase: JobPhase) {
        self.attempt.outbox.phase(phase);
    }

    fn progress(&mut self, progress: Progress) {
        self.training();
        self.attempt.outbox.progress(progress);
    }

    fn metrics(&mut self, point: MetricPoint) {
        self.training();
        self.attempt.outbox.point(point);
    }

    fn log(&mut self, level: LogLevel, message: String) {
        self.attempt.log(level, message);
    }

    fn checkpoint(&mut self, snapshot: Snapshot) {
        if let Some(slot) = &self.checkpoints {
            slot.put(snapshot);
        }
    }

    fn directive(&mut self) -> Directive {
        self.attempt.directive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::attempt::{Order, tests::attempt};

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
        assert_eq!(monitor.directive(), Directive::Lost);
    }
}
