//! The training loop: epochs, what is asked of it meanwhile, and what follows from validation.

mod inspection;
mod passes;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use burn::tensor::Tensor;
use nereid_core::{
    engine::{EngineError, Monitor, TrainTask},
    events::LogLevel,
    jobs::Directive,
    models::Preprocessing,
    spec::{TrainSpec, schedule::Horizon},
};

use super::{
    augment::Augmenter,
    callbacks::{self, CheckpointPlan},
    feed::{Batches, Feed, Next},
    metrics::{Measures, Tally},
    objective::Objective,
    optimizer::{Optimizer, Weight},
    order::Order,
    pace::Pace,
    precision::Scaling,
    rules::{self, Needs, Step},
    snapshots::Snapshots,
    split::{Part, Splits},
    state::{self, Bounds, Frozen, State},
};
use crate::network::Network;

/// A training under way.
pub(super) struct Session<'a> {
    pub(super) spec: &'a TrainSpec,
    pub(super) splits: &'a Splits,
    pub(super) preprocessing: &'a Preprocessing,
    pub(super) network: Network,
    pub(super) objective: Objective,
    pub(super) measures: Measures,
    pub(super) state: State,
    augmenter: Option<Arc<Augmenter>>,
    optimizer: Optimizer,
    /// Indices of the weights that the optimiser changes.
    trainable: Vec<usize>,
    best: Option<Vec<Tensor<1>>>,
    /// Whether the network has the weights to publish, and no longer those of the last step.
    final_weights: bool,
    fingerprint: Arc<str>,
    snapshots: Snapshots,
    pace: Pace,
    /// What rules need to see of tensors.
    needs: Needs,
    /// What the step just done showed.
    newest: Step,
    loader_threads: usize,
    /// Time in which training, not evaluation, stood still for data.
    data_wait: Duration,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        task: &'a TrainTask<'_>,
        splits: &'a Splits,
        preprocessing: &'a Preprocessing,
        network: Network,
        objective: Objective,
        measures: Measures,
    ) -> Result<Self, EngineError> {
        let spec = task.spec;
        let parameters = network.parameters.iter().enumerate();
        let trainable: Vec<usize> = parameters
            .filter(|(_, p)| p.trainable)
            .map(|(i, _)| i)
            .collect();
        if trainable.is_empty() {
            let detail = "the network has no weights to train".to_owned();
            return Err(EngineError::InvalidInput(detail));
        }
        let weight = |&i: &usize| Weight {
            name: &network.parameters[i].name,
            value: network.parameters[i].value.clone(),
            factor: spec
                .fit
                .learning_rate_multiplier(&network.parameters[i].name),
        };
        let weights: Vec<_> = trainable.iter().map(weight).collect();
        let plan = CheckpointPlan::of(&spec.callbacks);
        let first_rate = spec.optimizer.learning_rate().at(0, horizon(spec, splits));
        let mut state = State::new(first_rate, spec.callbacks.len(), spec.rules.len());
        state.scaling = network.half.then(|| Scaling::new(&spec.fit));
        Ok(Self {
            augmenter: Augmenter::new(&spec.fit, &network.input).map(Arc::new),
            optimizer: Optimizer::new(&spec.optimizer, &spec.fit, &weights),
            state,
            fingerprint: state::fingerprint(task, splits)?,
            snapshots: Snapshots::new(task.scratch, plan),
            needs: Needs::of(&spec.rules),
            newest: Step::default(),
            pace: Pace::new(spec, batches(spec, splits)),
            spec,
            splits,
            preprocessing,
            network,
            objective,
            measures,
            trainable,
            best: None,
            final_weights: false,
            loader_threads: task.resources.loader_threads,
            data_wait: Duration::ZERO,
        })
    }

    /// Goes on from a saved state.
    pub(super) fn restore(&mut self, path: &Path) -> Result<(), EngineError> {
        let bounds = Bounds {
            epochs: self.spec.fit.epochs,
            batches: self.batches(),
            rows: self.splits.epoch_len(),
            callbacks: self.spec.callbacks.len(),
            rules: self.spec.rules.len(),
            measures: &self.measures,
        };
        let (network, optimizer) = (&mut self.network, &mut self.optimizer);
        let (state, best) = state::restore(path, &self.fingerprint, &bounds, network, optimizer)?;
        self.snapshots.resumed(state.step);
        self.pace.resumed(&state);
        let scaling = self.state.scaling;
        self.state = state;
        // One that was begun on a device that computes in 32 bits has none.
        self.state.scaling = self.state.scaling.or(scaling);
        self.best = best;
        Ok(())
    }

    /// Trains to the end and leaves the weights to publish in `network`.
    pub(super) fn run(&mut self, monitor: &mut dyn Monitor) -> Result<(), EngineError> {
        let started = Instant::now();
        if self.state.step > 0 {
            self.pace.stands(&self.state, monitor);
        }
        while self.state.epoch < self.spec.fit.epochs && !self.state.finished {
            self.epoch(monitor)?;
        }
        if let Some(summary) = self.snapshots.summary(started.elapsed()) {
            monitor.log(LogLevel::Debug, summary);
        }
        let share = self.data_wait.as_secs_f64() / started.elapsed().as_secs_f64().max(1e-9);
        let message = format!(
            "training waited for data {:.2} % of its time",
            share * 100.0
        );
        monitor.log(LogLevel::Debug, message);
        if let Some(epoch) = self.state.best_epoch {
            let message = format!("restored the weights of epoch {}", epoch + 1);
            monitor.log(LogLevel::Info, message);
        }
        let weights = self.best.clone().unwrap_or_else(|| self.weights());
        for (parameter, value) in self.network.parameters.iter_mut().zip(weights) {
            parameter.value = value;
        }
        self.final_weights = true;
        Ok(())
    }

    /// Returns the weights as they would be published: their averages, where they are kept.
    fn weights(&self) -> Vec<Tensor<1>> {
        let parameters = self.network.parameters.iter();
        let mut weights: Vec<_> = parameters.map(|p| p.value.clone()).collect();
        if let Some(averages) = self.optimizer.averages().filter(|_| !self.final_weights) {
            for (&i, average) in self.trainable.iter().zip(averages) {
                weights[i] = average.clone();
            }
        }
        weights
    }

    fn horizon(&self) -> Horizon {
        horizon(self.spec, self.splits)
    }

    /// Returns the metrics of the epoch whose weights were kept.
    pub(super) fn final_epoch(&self) -> BTreeMap<String, f64> {
        let epoch = self.state.best_epoch.map(|e| e as usize);
        let epoch = epoch.and_then(|e| self.state.history.get(e));
        epoch
            .or(self.state.history.last())
            .cloned()
            .unwrap_or_default()
    }

    fn batches(&self) -> usize {
        batches(self.spec, self.splits)
    }

    /// What batches of a part's rows are made of.
    fn feed(&self, part: &Part, batch: usize) -> Feed<'a> {
        Feed {
            samples: self.splits.samples(part),
            preprocessing: self.preprocessing,
            batch: batch.max(1),
            augmentation: None,
            threads: self.loader_threads,
        }
    }

    /// Trains an epoch, or what is left of it.
    fn epoch(&mut self, monitor: &mut dyn Monitor) -> Result<(), EngineError> {
        let (splits, fit, epoch) = (self.splits, &self.spec.fit, self.state.epoch);
        let rows = splits.epoch_rows(fit.seed, epoch);
        let order = Order::shuffled(&rows, splits.shuffle, fit.seed, epoch);
        let augmenter = self.augmenter.clone();
        let feed = Feed {
            augmentation: augmenter.as_deref().map(|augmenter| (augmenter, epoch)),
            ..self.feed(&splits.train, fit.batch_size as usize)
        };
        let (started, before) = (Instant::now(), self.state.tally.samples);
        let mut ending = self.heed(monitor)? || self.state.ended_by.is_some();
        if !ending {
            ending = feed.run(order, rows.len(), self.state.batch, |batches| {
                self.steps(batches, monitor)
            })?;
        }
        if ending {
            return self.end_early(started, before, monitor);
        }
        self.end_epoch(self.speed(started, before), monitor)?;
        self.checkpoint(monitor);
        Ok(())
    }

    /// Trains on batches until there are no more; tells whether to end training before.
    fn steps(
        &mut self,
        batches: &mut Batches<'_, '_>,
        monitor: &mut dyn Monitor,
    ) -> Result<bool, EngineError> {
        let before = self.data_wait;
        loop {
            let next = batches.next()?;
            let waited = (before + batches.waited).saturating_sub(self.data_wait);
            self.data_wait += waited;
            let ending = match next {
                Next::Batch(batch) => {
                    self.pace.stepped(batch.len(), waited);
                    self.step(&batch.onto(&self.network.device))?;
                    self.state.batch += 1;
                    self.after_step(monitor)?
                }
                Next::Waiting => {
                    self.pace.stepped(0, waited);
                    self.heed(monitor)?
                }
                Next::End => return Ok(false),
            };
            if ending {
                return Ok(true);
            }
        }
    }

    /// Samples trained on per second since a count of them.
    fn speed(&self, started: Instant, before: u64) -> Option<f64> {
        let seconds = started.elapsed().as_secs_f64().max(1e-9);
        let samples = self.state.tally.samples - before;
        #[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]
        (samples > 0).then(|| samples as f64 / seconds)
    }

    /// Reports a step and does what is asked; tells whether to end training here.
    fn after_step(&mut self, monitor: &mut dyn Monitor) -> Result<bool, EngineError> {
        let ill = self.judge(monitor);
        let directive = monitor.directive();
        // The step that ends an epoch is reported with what validation finds.
        if matches!(directive, Directive::Continue | Directive::Suspend) {
            let (measures, state) = (&self.measures, &self.state);
            let values = || measures.values(&state.tally, "");
            self.pace.after_step(state, values, monitor);
        }
        let ending = self.obey(directive, monitor)? || ill;
        if !ending {
            self.checkpoint(monitor);
        }
        Ok(ending)
    }

    /// Ends training as asked: the epoch under way, if any of it is done, is the last one.
    fn end_early(
        &mut self,
        started: Instant,
        before: u64,
        monitor: &mut dyn Monitor,
    ) -> Result<(), EngineError> {
        if self.state.step == 0 {
            // Weights as they were drawn are no model worth publishing.
            return Err(EngineError::Stopped);
        }
        let step = self.state.step;
        let message = match &self.state.ended_by {
            None => format!("training ends early, as asked, after step {step}"),
            Some(rule) => format!("training ends early after step {step}: {rule}"),
        };
        monitor.log(LogLevel::Info, message);
        if self.state.batch > 0 {
            self.end_epoch(self.speed(started, before), monitor)?;
        }
        self.state.finished = true;
        Ok(())
    }

    fn end_epoch(
        &mut self,
        speed: Option<f64>,
        monitor: &mut dyn Monitor,
    ) -> Result<(), EngineError> {
        self.check_weights()?;
        let mut values = self.measures.values(&self.state.tally, "");
        if let Some(part) = &self.splits.validation {
            let tally = self.evaluate(part, false, monitor)?;
            values.extend(self.measures.values(&tally, "val_"));
        }
        if let Some((key, value)) = values.iter().find(|(_, v)| !v.is_finite()) {
            return Err(self.diverged(format!("{key} is {value}")));
        }
        let epoch = self.state.epoch;
        let rate = self.state.rate;
        let verdict = callbacks::after_epoch(
            &self.spec.callbacks,
            &mut self.state.callbacks,
            epoch,
            &values,
            &mut self.state.rate,
        );
        let (spec, state) = (self.spec, &mut self.state);
        let at = (epoch, state.step);
        let ill = rules::after_epoch(&spec.rules, &mut state.rules, at, &values, monitor);
        if verdict.keep_best {
            self.best = Some(self.weights());
            self.state.best_epoch = Some(epoch);
        }
        values.insert("learning_rate".to_owned(), rate);
        self.state.history.push(values.clone());
        self.pace.after_epoch(&self.state, values, speed, monitor);
        self.state.epoch += 1;
        self.state.batch = 0;
        self.state.tally = Tally::default();
        self.state.finished = verdict.stop.is_some() || ill.is_some();
        let ill = ill.map(|rule| format!("training ends early after epoch {}: {rule}", epoch + 1));
        for note in verdict.notes.into_iter().chain(verdict.stop).chain(ill) {
            monitor.log(LogLevel::Info, note);
        }
        Ok(())
    }

    /// Saves the state beside the training, if it is time to and the last time is done with.
    ///
    /// Not between an epoch's last batch and its validation: a snapshot of a step comes after
    /// all metric points up to that step, so that a training that goes on from it repeats none.
    fn checkpoint(&mut self, monitor: &mut dyn Monitor) {
        let due = self.snapshots.poll(self.state.step, monitor);
        if due && self.state.batch < self.batches() {
            let parts = (&self.fingerprint, &self.state, &self.network);
            let best = self.best.as_deref();
            let freeze = || Frozen::new(parts, &self.optimizer, best);
            self.snapshots.begin(freeze, monitor);
        }
    }

    /// Asks what to do and does it; tells whether to end training here.
    fn heed(&mut self, monitor: &mut dyn Monitor) -> Result<bool, EngineError> {
        let directive = monitor.directive();
        self.obey(directive, monitor)
    }

    fn obey(
        &mut self,
        directive: Directive,
        monitor: &mut dyn Monitor,
    ) -> Result<bool, EngineError> {
        match directive {
            Directive::Continue => Ok(false),
            Directive::Finish => Ok(true),
            Directive::Suspend => {
                let parts = (&self.fingerprint, &self.state, &self.network);
                let best = self.best.as_deref();
                let frozen = Frozen::new(parts, &self.optimizer, best);
                self.snapshots.last(frozen, monitor);
                Err(EngineError::Stopped)
            }
            Directive::Stop => Err(EngineError::Stopped),
        }
    }
}

fn horizon(spec: &TrainSpec, splits: &Splits) -> Horizon {
    Horizon {
        steps_per_epoch: batches(spec, splits) as u64,
        epochs: spec.fit.epochs,
    }
}

fn batches(spec: &TrainSpec, splits: &Splits) -> usize {
    let batch = spec.fit.batch_size.max(1) as usize;
    splits.epoch_len().div_ceil(batch)
}
