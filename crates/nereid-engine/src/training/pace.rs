//! What a training reports, and when.
//!
//! Which steps have metric points follows from the spec alone, never from the time, so that a
//! resumed training goes on with the very same series.
//!
//! Beside loss and metrics a point has `learning_rate`, `gradient_norm` (global L2, before
//! clipping), `samples_per_second`, `data_wait` (share of the time that training waited for its
//! batches), `memory_bytes` and `memory_peak_bytes` (resident memory of the process, now and at
//! most). The last four depend on the machine and are in no saved history. Where products are
//! computed in half precision, it has `loss_scale` and `skipped_steps`, those that changed nothing.

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
/// Memory changes slowly, and asking for it takes as long as a step of a small network.
const MEMORY_INTERVAL: Duration = Duration::from_millis(200);

/// Keeps reports rare enough for whoever stores them.
pub(super) struct Pace {
    epochs: u32,
    batches: usize,
    /// Batches between points.
    every: usize,
    /// Since the last point: when it was, samples trained on, time that data was waited for.
    since: Instant,
    samples: usize,
    waited: Duration,
    memory: Option<(Instant, BTreeMap<String, f64>)>,
    last_progress: Instant,
    /// Newest values, kept from epoch to epoch so that validation results stay visible.
    newest: BTreeMap<String, f64>,
}

impl Pace {
    pub(super) fn new(spec: &TrainSpec, batches: usize) -> Self {
        Self {
            epochs: spec.fit.epochs,
            batches,
            every: match spec.fit.report_every_steps {
                Some(steps) => (steps as usize).max(1),
                None => batches.div_ceil(POINTS_PER_EPOCH).max(1),
            },
            since: Instant::now(),
            samples: 0,
            waited: Duration::ZERO,
            memory: None,
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
        // The last batch is left to the epoch's own point.
        if state.batch.is_multiple_of(self.every) && state.batch < self.batches {
            let mut values = values();
            values.insert("learning_rate".to_owned(), state.rate);
            self.add_watched(state, &mut values);
            self.newest.extend(values.clone());
            monitor.metrics(self.point(state, values));
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
        self.add_watched(state, &mut values);
        values.extend(speed.map(|speed| ("samples_per_second".to_owned(), speed)));
        self.newest.extend(values.clone());
        monitor.metrics(self.point(state, values));
        monitor.progress(self.progress(state, epoch));
        self.last_progress = Instant::now();
    }

    /// Tells whether the next step is looked at more closely, since a point follows it.
    pub(super) fn watches(&self, state: &State) -> bool {
        let next = state.batch + 1;
        next.is_multiple_of(self.every) || next >= self.batches
    }

    /// Counts a step's samples, and how long it waited for them.
    pub(super) fn stepped(&mut self, samples: usize, waited: Duration) {
        self.samples += samples;
        self.waited += waited;
    }

    /// Adds what was watched since the last point.
    fn add_watched(&mut self, state: &State, values: &mut BTreeMap<String, f64>) {
        if state.gradient_norm.is_finite() {
            values.insert("gradient_norm".to_owned(), state.gradient_norm);
        }
        if let Some(scaling) = &state.scaling {
            values.insert("loss_scale".to_owned(), scaling.scale);
            #[expect(clippy::cast_precision_loss, reason = "step counts are far below 2^52")]
            let skipped = scaling.skipped as f64;
            values.insert("skipped_steps".to_owned(), skipped);
        }
        let seconds = self.since.elapsed().as_secs_f64().max(1e-9);
        if self.samples > 0 {
            #[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]
            let speed = self.samples as f64 / seconds;
            values.insert("samples_per_second".to_owned(), speed);
            let share = (self.waited.as_secs_f64() / seconds).min(1.0);
            values.insert("data_wait".to_owned(), share);
        }
        values.extend(self.memory().clone());
        self.since = Instant::now();
        (self.samples, self.waited) = (0, Duration::ZERO);
    }

    fn memory(&mut self) -> &BTreeMap<String, f64> {
        let old = self.memory.take();
        let fresh = old.filter(|(at, _)| at.elapsed() < MEMORY_INTERVAL);
        let memory = fresh.unwrap_or_else(|| (Instant::now(), resident_memory()));
        &self.memory.insert(memory).1
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

/// Resident memory of this process in bytes, now and at most; nothing where there is no procfs.
fn resident_memory() -> BTreeMap<String, f64> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |line: &str| {
        let (key, value) = line.split_once(':')?;
        let name = match key {
            "VmRSS" => "memory_bytes",
            "VmHWM" => "memory_peak_bytes",
            _ => return None,
        };
        let kilobytes: f64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some((name.to_owned(), kilobytes * 1024.0))
    };
    status.lines().filter_map(field).collect()
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
