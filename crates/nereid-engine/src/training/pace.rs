//! When a training reports and when checkpoints are due.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use nereid_core::{
    clock::{Clock, SystemClock},
    engine::Monitor,
    events::{LogLevel, MetricPoint},
    jobs::Progress,
    spec::TrainSpec,
};

use super::{callbacks::CheckpointPlan, state::State};

const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
const POINTS_PER_EPOCH: usize = 20;

/// Keeps reports rare enough for whoever stores them.
pub(super) struct Pace {
    epochs: u32,
    batches: usize,
    last_progress: Instant,
    plan: CheckpointPlan,
    last_checkpoint: Instant,
    /// Newest values, kept from epoch to epoch so that validation results stay visible.
    newest: BTreeMap<String, f64>,
}

impl Pace {
    pub(super) fn new(spec: &TrainSpec, batches: usize) -> Self {
        Self {
            epochs: spec.fit.epochs,
            batches,
            last_progress: Instant::now(),
            plan: CheckpointPlan::of(&spec.callbacks),
            last_checkpoint: Instant::now(),
            newest: BTreeMap::new(),
        }
    }

    /// Reports a step, if it is time to.
    pub(super) fn after_step(
        &mut self,
        state: &State,
        values: impl Fn() -> BTreeMap<String, f64>,
        monitor: &mut dyn Monitor,
    ) {
        let every = self.batches.div_ceil(POINTS_PER_EPOCH).max(1);
        // The last batch is left to the epoch's own point.
        if state.batch.is_multiple_of(every) && state.batch < self.batches {
            monitor.metrics(self.point(state, values()));
        }
        if self.last_progress.elapsed() >= PROGRESS_INTERVAL {
            self.newest.extend(values());
            monitor.progress(self.progress(state, state.epoch + 1));
            self.last_progress = Instant::now();
        }
    }

    /// Reports a finished epoch.
    pub(super) fn after_epoch(
        &mut self,
        state: &State,
        mut values: BTreeMap<String, f64>,
        speed: f64,
        monitor: &mut dyn Monitor,
    ) {
        let shown: Vec<String> = describe(&values);
        let message = format!(
            "epoch {}/{}: {}",
            state.epoch,
            self.epochs,
            shown.join(", ")
        );
        monitor.log(LogLevel::Info, message);
        values.insert("samples_per_second".to_owned(), speed);
        self.newest.extend(values.clone());
        monitor.metrics(self.point(state, values));
        monitor.progress(self.progress(state, state.epoch));
        self.last_progress = Instant::now();
    }

    /// Tells whether to save the state, and notes that it is done.
    pub(super) fn checkpoint_due(&mut self, step: u64) -> bool {
        let by_steps = self
            .plan
            .every_steps
            .is_some_and(|n| step.is_multiple_of(n));
        let due = by_steps || self.last_checkpoint.elapsed() >= self.plan.every;
        if due {
            self.last_checkpoint = Instant::now();
        }
        due
    }

    fn point(&self, state: &State, values: BTreeMap<String, f64>) -> MetricPoint {
        #[expect(
            clippy::cast_precision_loss,
            reason = "batch counts are far below 2^52"
        )]
        let fraction = state.batch as f64 / self.batches.max(1) as f64;
        MetricPoint {
            step: state.step,
            epoch: f64::from(state.epoch) + fraction,
            values,
            at: SystemClock.now(),
        }
    }

    fn progress(&self, state: &State, epoch: u32) -> Progress {
        Progress {
            epoch,
            epochs: self.epochs,
            step: state.step,
            steps: self.batches as u64 * u64::from(self.epochs),
            metrics: self.newest.clone(),
        }
    }
}

/// Formats metrics for the log: loss first, validation last.
fn describe(values: &BTreeMap<String, f64>) -> Vec<String> {
    let rank = |key: &str| match key {
        "loss" => 0,
        "val_loss" => 2,
        "learning_rate" => 4,
        _ if key.starts_with("val_") => 3,
        _ => 1,
    };
    let mut sorted: Vec<_> = values.iter().collect();
    sorted.sort_by_key(|(key, _)| rank(key));
    let show = |(key, value): (&String, &f64)| match key.as_str() {
        "learning_rate" => format!("{key} {value:e}"),
        _ => format!("{key} {value:.4}"),
    };
    sorted.into_iter().map(show).collect()
}
