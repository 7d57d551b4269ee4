//! Finds batch size and learning rate before training, where a spec leaves them to Nereid.
//!
//! Trials train copies of the network on the first batches. What was found is saved with the
//! state: times differ from machine to machine, and a resumed training must not choose anew.

mod valley;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use nereid_core::{
    engine::{EngineError, Monitor, TrainTask},
    events::LogLevel,
    limits,
    models::Preprocessing,
    spec::{LearningRate, TrainSpec, fit::AUTO_BATCH_SIZE, network::Plan, shapes},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{session::Session, split::Splits, start};
use crate::network::Network;

/// Steps of the learning-rate range test, and its ends.
const RANGE_STEPS: u32 = 100;
const LEAST_RATE: f64 = 1e-7;
const LARGEST_RATE: f64 = 10.0;
/// Rate of trials that only measure time, and where the range test finds nothing.
const USUAL_RATE: f64 = 1e-3;
/// Batches between these are tried.
const LEAST_BATCH: u32 = 16;
const LARGEST_BATCH: u32 = 512;
/// Least steps of an epoch that a larger batch must leave.
const STEPS_PER_EPOCH: usize = 32;
/// Bytes that one batch's activations, and what comes back for them, may take.
const ACTIVATION_BYTES: u64 = 1 << 30;
/// The smallest batch with this share of the best speed is taken: smaller ones learn more a sample.
const ENOUGH: f64 = 0.9;
const LEAST_TIME: Duration = Duration::from_millis(150);
const MOST_STEPS: u32 = 20;

/// What was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chosen {
    batch_size: Option<u32>,
    /// Bits of the rate, since parsing may round.
    rate: Option<u64>,
}

impl Chosen {
    /// Tells whether nothing was to be found.
    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Returns the spec with what was found in the place of `auto`.
    pub(super) fn apply(self, spec: &TrainSpec) -> TrainSpec {
        let mut spec = spec.clone();
        if let (AUTO_BATCH_SIZE, Some(size)) = (spec.fit.batch_size, self.batch_size) {
            spec.fit.batch_size = size.clamp(1, limits::MAX_BATCH_SIZE);
        }
        let rate = self.rate.map(f64::from_bits).filter(|r| r.is_finite());
        if let (LearningRate::Auto(_), Some(rate)) = (spec.optimizer.learning_rate(), rate) {
            spec.optimizer.set_learning_rate(rate.into());
        }
        spec
    }

    /// What the model's reports tell.
    pub(super) fn report(self) -> Value {
        let mut report = BTreeMap::new();
        if let Some(size) = self.batch_size {
            report.insert("batch_size", json!(size));
        }
        if let Some(rate) = self.rate {
            report.insert("learning_rate", json!(f64::from_bits(rate)));
        }
        json!(report)
    }
}

/// Tells whether a spec leaves anything to be found.
pub(super) fn wanted(spec: &TrainSpec) -> bool {
    let rate = spec.optimizer.learning_rate();
    spec.fit.batch_size == AUTO_BATCH_SIZE || matches!(rate, LearningRate::Auto(_))
}

/// What trials train.
pub(super) struct Trials<'a> {
    pub(super) task: &'a TrainTask<'a>,
    pub(super) splits: &'a Splits,
    pub(super) preprocessing: &'a Preprocessing,
    pub(super) plan: &'a Plan,
    pub(super) network: &'a Network,
}

impl Trials<'_> {
    /// Finds what the spec leaves open, the batch size first.
    pub(super) fn find(&self, monitor: &mut dyn Monitor) -> Result<Chosen, EngineError> {
        let spec = self.task.spec;
        let mut chosen = Chosen::default();
        if spec.fit.batch_size == AUTO_BATCH_SIZE {
            let size = self.batch_size(monitor)?;
            monitor.log(LogLevel::Info, format!("batch size found: {size}"));
            chosen.batch_size = Some(size);
        }
        if let LearningRate::Auto(_) = spec.optimizer.learning_rate() {
            let rate = self.learning_rate(chosen, monitor)?;
            chosen.rate = Some(rate.to_bits());
        }
        Ok(chosen)
    }

    /// Returns the smallest power of two that trains about as fast as any within the limits.
    fn batch_size(&self, monitor: &mut dyn Monitor) -> Result<u32, EngineError> {
        let mut speeds: Vec<(u32, f64)> = Vec::new();
        let mut size = LEAST_BATCH;
        while size <= self.largest_batch() {
            let chosen = Chosen {
                batch_size: Some(size),
                rate: Some(USUAL_RATE.to_bits()),
            };
            let speed = self.speed(chosen, size, monitor)?;
            monitor.log(
                LogLevel::Debug,
                format!("batch size {size}: {speed:.0} samples/s"),
            );
            speeds.push((size, speed));
            size *= 2;
        }
        let best = speeds.iter().fold(0.0, |best, &(_, speed)| speed.max(best));
        let enough = speeds.iter().find(|(_, speed)| *speed >= best * ENOUGH);
        Ok(enough.map_or(LEAST_BATCH, |&(size, _)| size))
    }

    fn largest_batch(&self) -> u32 {
        let layers = self.plan.layers.iter();
        let outputs = layers.map(|l| shapes::size(&l.shape.output));
        let values = outputs.fold(shapes::size(&self.plan.input), u64::saturating_add);
        // Values, their gradients, and what an operation needs meanwhile.
        let fits = ACTIVATION_BYTES / values.saturating_mul(4 * 3).max(1);
        let enough = self.splits.epoch_len() / STEPS_PER_EPOCH;
        let most = u32::try_from(fits.min(enough as u64)).unwrap_or(u32::MAX);
        most.clamp(LEAST_BATCH, LARGEST_BATCH)
    }

    /// Measures samples a second.
    fn speed(
        &self,
        chosen: Chosen,
        size: u32,
        monitor: &mut dyn Monitor,
    ) -> Result<f64, EngineError> {
        let (mut started, mut steps) = (Instant::now(), 0);
        let watch = |step: u32, _: f64| {
            // The first step allocates and warms caches up.
            if step == 0 {
                started = Instant::now();
            }
            steps = step;
            step < MOST_STEPS && (step == 0 || started.elapsed() < LEAST_TIME)
        };
        let took = self.run(chosen, |_| USUAL_RATE, watch, monitor)?;
        let seconds = took.duration_since(started).as_secs_f64().max(1e-9);
        Ok(f64::from(steps) * f64::from(size) / seconds)
    }

    /// Runs the range test of Smith (2015) and reads its curve.
    fn learning_rate(&self, chosen: Chosen, monitor: &mut dyn Monitor) -> Result<f64, EngineError> {
        let span = (LARGEST_RATE / LEAST_RATE).ln();
        let at =
            |step: u32| LEAST_RATE * (span * f64::from(step) / f64::from(RANGE_STEPS - 1)).exp();
        let mut curve = valley::Curve::default();
        let watch = |step: u32, loss: f64| curve.add(at(step), loss) && step + 1 < RANGE_STEPS;
        let trial = Chosen {
            rate: Some(LEAST_RATE.to_bits()),
            ..chosen
        };
        self.run(trial, at, watch, monitor)?;
        let found = curve.valley();
        let (steps, message) = (curve.len(), "learning rate found");
        let line = match found {
            Some(rate) => format!("{message}: {rate:e}, after {steps} steps of a range test"),
            None => format!(
                "no learning rate found: the loss did not fall in {steps} steps of a range test; \
                 {USUAL_RATE:e} is used"
            ),
        };
        monitor.log(LogLevel::Info, line);
        Ok(found.unwrap_or(USUAL_RATE))
    }

    /// Trains a copy of the network step by step while `watch` says so; returns when it ended.
    fn run(
        &self,
        chosen: Chosen,
        rate: impl Fn(u32) -> f64,
        watch: impl FnMut(u32, f64) -> bool,
        monitor: &mut dyn Monitor,
    ) -> Result<Instant, EngineError> {
        let spec = chosen.apply(self.task.spec);
        let task = with_spec(self.task, &spec);
        let mut session: Session<'_> =
            start(&task, self.splits, self.preprocessing, self.network.clone())?;
        session.trial(rate, watch, monitor)?;
        Ok(Instant::now())
    }
}

/// The same task with another spec.
pub(super) fn with_spec<'a>(task: &'a TrainTask<'_>, spec: &'a TrainSpec) -> TrainTask<'a> {
    TrainTask {
        spec,
        train: task.train.clone(),
        validation: task.validation.clone(),
        test: task.test.clone(),
        ..*task
    }
}
