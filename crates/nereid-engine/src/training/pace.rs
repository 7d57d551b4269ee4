//! What a training reports, and when.
//!
//! Which steps have metric points follows from the spec alone, never from the time, so that a
//! resumed training goes on with the very same series.

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

use super::state::State;

const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
const POINTS_PER_EPOCH: usize = 20;

/// Keeps reports rare enough for whoever stores them.
pub(super) struct Pace {
    epochs: u32,
    batches: usize,
    last_progress: Instant,
    /// Newest values, kept from epoch to epoch so that validation results stay visible.
    newest: BTreeMap<String, f64>,
}

impl Pace {
    pub(super) fn new(spec: &TrainSpec, batches: usize) -> Self {
        Self {
            epochs: spec.fit.epochs,
            batches,
            last_progress: Instant::now(),
            newest: BTreeMap::new(),
        }
    }

    /// Goes on from a saved state.
    pub(super) fn resumed(&mut self, state: &State) {
        self.newest = state.history.last().cloned().unwrap_or_default();
    }

    /// Reports where a resumed training stands: what an earlier attempt did beyond it is undone.
    pub(super) fn stands(&self, state: &State, monitor: &mut dyn Monitor) {
        let under_way = u32::from(state.batch > 0);
        monitor.progress(self.progress(state, state.epoch + under_way));
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

    /// Reports an epoch as it ends, perhaps before all its batches are done.
    pub(super) fn after_epoch(
        &mut self,
        state: &State,
        mut values: BTreeMap<String, f64>,
        speed: Option<f64>,
        monitor: &mut dyn Monitor,
    ) {
        let shown: Vec<String> = describe(&values);
        let epoch = state.epoch + 1;
        let short = if state.batch < self.batches {
            format!(", ended after batch {} of {}", state.batch, self.batches)
        } else {
            String::new()
        };
        let message = format!("epoch {epoch}/{}{short}: {}", self.epochs, shown.join(", "));
        monitor.log(LogLevel::Info, message);
        values.extend(speed.map(|speed| ("samples_per_second".to_owned(), speed)));
        self.newest.extend(values.clone());
        monitor.metrics(self.point(state, values));
        monitor.progress(self.progress(state, epoch));
        self.last_progress = Instant::now();
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
