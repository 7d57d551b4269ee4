//! The training loop: steps, epochs, validation and what follows from it.

use std::{collections::BTreeMap, time::Instant};

use burn::tensor::Tensor;
use nereid_core::{
    engine::{EngineError, Monitor, Snapshot, TrainTask},
    events::LogLevel,
    jobs::Directive,
    models::Preprocessing,
    spec::TrainSpec,
};

use super::{
    batches::{self, BatchTargets},
    callbacks,
    metrics::{Measures, Tally},
    objective::Objective,
    optimizer::Optimizer,
    pace::Pace,
    split::{Part, Splits},
    state::{self, State},
};
use crate::{
    network::{Mode, Network, TrainingPass, host},
    random::{self, Purpose},
};

/// Least batch of an evaluation; it needs less memory than training does.
const EVALUATION_BATCH: usize = 128;

/// A training under way.
pub(super) struct Session<'a> {
    pub(super) spec: &'a TrainSpec,
    pub(super) splits: &'a Splits,
    pub(super) preprocessing: &'a Preprocessing,
    pub(super) network: Network,
    pub(super) objective: Objective,
    pub(super) measures: Measures,
    pub(super) state: State,
    optimizer: Optimizer,
    /// Indices of the weights that the optimiser changes.
    trainable: Vec<usize>,
    best: Option<Vec<Tensor<1>>>,
    fingerprint: String,
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
        let weights: Vec<_> = trainable
            .iter()
            .map(|&i| network.parameters[i].value.clone())
            .collect();
        let rows = splits.samples(&splits.train).rows;
        Ok(Self {
            optimizer: Optimizer::new(&spec.optimizer, &spec.fit, &weights),
            state: State::new(spec.optimizer.learning_rate(), spec.callbacks.len()),
            fingerprint: state::fingerprint(task, rows)?,
            spec,
            splits,
            preprocessing,
            network,
            objective,
            measures,
            trainable,
            best: None,
        })
    }

    /// Goes on from a saved state.
    pub(super) fn restore(&mut self, bytes: &[u8], classes: usize) -> Result<(), EngineError> {
        let (network, optimizer) = (&mut self.network, &mut self.optimizer);
        let (state, best) = state::restore(bytes, &self.fingerprint, network, optimizer)?;
        state.tally.check(classes)?;
        self.state = state;
        self.best = best;
        Ok(())
    }

    /// Trains to the end and leaves the weights to publish in `network`.
    pub(super) fn run(&mut self, monitor: &mut dyn Monitor) -> Result<(), EngineError> {
        let mut pace = Pace::new(self.spec, self.batches());
        while self.state.epoch < self.spec.fit.epochs && !self.state.finished {
            self.epoch(&mut pace, monitor)?;
        }
        if let (Some(best), Some(epoch)) = (self.best.take(), self.state.best_epoch) {
            for (parameter, value) in self.network.parameters.iter_mut().zip(best) {
                parameter.value = value;
            }
            let message = format!("restored the weights of epoch {}", epoch + 1);
            monitor.log(LogLevel::Info, message);
        }
        Ok(())
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
        let batch = self.spec.fit.batch_size.max(1) as usize;
        self.splits.train.rows.len().div_ceil(batch)
    }

    /// Order of the training rows in an epoch.
    fn order(&self, epoch: u32) -> Vec<usize> {
        let mut order = self.splits.train.rows.clone();
        if self.spec.fit.shuffle {
            let position = [u64::from(epoch), 0];
            let mut rng = random::generator(self.spec.fit.seed, Purpose::Order, position);
            random::shuffle(&mut rng, &mut order);
        }
        order
    }

    fn epoch(&mut self, pace: &mut Pace, monitor: &mut dyn Monitor) -> Result<(), EngineError> {
        let order = self.order(self.state.epoch);
        let batch = self.spec.fit.batch_size.max(1) as usize;
        let (started, before) = (Instant::now(), self.state.tally.samples);
        for rows in order.chunks(batch).skip(self.state.batch) {
            self.step(rows)?;
            self.state.batch += 1;
            let values = || self.measures.values(&self.state.tally, "");
            pace.after_step(&self.state, values, monitor);
            if pace.checkpoint_due(self.state.step) {
                self.checkpoint(monitor)?;
            }
            obey(monitor)?;
        }
        let seconds = started.elapsed().as_secs_f64().max(1e-9);
        #[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]
        let speed = (self.state.tally.samples - before) as f64 / seconds;
        self.end_epoch(speed, pace, monitor)
    }

    /// Changes the weights once.
    fn step(&mut self, rows: &[usize]) -> Result<(), EngineError> {
        let samples = self.splits.samples(&self.splits.train);
        let batch = batches::assemble(samples, rows, self.preprocessing, &self.network.device);
        let leaves: Vec<Tensor<1>> = self
            .network
            .parameters
            .iter()
            .map(|p| {
                let value = p.value.clone();
                if p.trainable {
                    value.autodiff().require_grad()
                } else {
                    value
                }
            })
            .collect();
        let mut pass = TrainingPass {
            seed: self.spec.fit.seed,
            step: self.state.step,
            moving: Vec::new(),
        };
        let mut mode = Mode::Training(&mut pass);
        let ending = self.objective.ending;
        let outputs = self
            .network
            .forward(&leaves, batch.input, ending, &mut mode);
        let loss = self.objective.loss(outputs.clone(), &batch.targets, true);
        self.count(&outputs.inner(), &loss.clone().inner(), &batch.targets)?;
        let mut gradients = loss.backward();
        self.optimizer.begin_step();
        for (slot, &index) in self.trainable.iter().enumerate() {
            let Some(gradient) = leaves[index].grad_remove(&mut gradients) else {
                continue;
            };
            let weight = self.network.parameters[index].value.clone();
            let new = self
                .optimizer
                .update(slot, weight, gradient, self.state.rate);
            self.network.parameters[index].value = new;
        }
        for (index, value) in pass.moving {
            self.network.parameters[index].value = value;
        }
        self.state.step += 1;
        Ok(())
    }

    fn count(
        &mut self,
        outputs: &Tensor<2>,
        loss: &Tensor<1>,
        targets: &BatchTargets,
    ) -> Result<(), EngineError> {
        let loss = scalar(loss)?;
        if !loss.is_finite() {
            return Err(self.diverged(format!("the loss is {loss}")));
        }
        let outputs = host(outputs.clone())?;
        let tally = &mut self.state.tally;
        self.measures.add(tally, &outputs, targets, loss, false);
        Ok(())
    }

    fn diverged(&self, what: String) -> EngineError {
        EngineError::Diverged {
            step: self.state.step,
            what,
        }
    }

    fn end_epoch(
        &mut self,
        speed: f64,
        pace: &mut Pace,
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
        if verdict.keep_best {
            let weights = self.network.parameters.iter().map(|p| p.value.clone());
            self.best = Some(weights.collect());
            self.state.best_epoch = Some(epoch);
        }
        values.insert("learning_rate".to_owned(), rate);
        self.state.history.push(values.clone());
        self.state.epoch += 1;
        self.state.batch = 0;
        self.state.tally = Tally::default();
        self.state.finished = verdict.stop.is_some();
        pace.after_epoch(&self.state, values, speed, monitor);
        for note in verdict.notes.into_iter().chain(verdict.stop) {
            monitor.log(LogLevel::Info, note);
        }
        Ok(())
    }

    fn check_weights(&self) -> Result<(), EngineError> {
        for parameter in &self.network.parameters {
            // A sum is finite only if all its terms are.
            let sum = scalar(&parameter.value.clone().abs().mean())?;
            if !sum.is_finite() {
                return Err(self.diverged(format!("{} holds {sum}", parameter.name)));
            }
        }
        Ok(())
    }

    /// Measures the network, without dropout and gradients, on some rows.
    pub(super) fn evaluate(
        &self,
        part: &Part,
        matrix: bool,
        monitor: &mut dyn Monitor,
    ) -> Result<Tally, EngineError> {
        let samples = self.splits.samples(part);
        let weights: Vec<_> = self
            .network
            .parameters
            .iter()
            .map(|p| p.value.clone())
            .collect();
        let batch = (self.spec.fit.batch_size as usize).max(EVALUATION_BATCH);
        let mut tally = Tally::default();
        for rows in part.rows.chunks(batch) {
            let batch = batches::assemble(samples, rows, self.preprocessing, &self.network.device);
            let ending = self.objective.ending;
            let mut mode = Mode::Inference;
            let outputs = self
                .network
                .forward(&weights, batch.input, ending, &mut mode);
            let loss = self.objective.loss(outputs.clone(), &batch.targets, false);
            let (loss, outputs) = (scalar(&loss)?, host(outputs)?);
            self.measures
                .add(&mut tally, &outputs, &batch.targets, loss, matrix);
            obey(monitor)?;
        }
        Ok(tally)
    }

    fn checkpoint(&self, monitor: &mut dyn Monitor) -> Result<(), EngineError> {
        let bytes = state::save(
            &self.fingerprint,
            &self.state,
            &self.network,
            &self.optimizer,
            self.best.as_deref(),
        )?;
        let step = self.state.step;
        monitor.checkpoint(Snapshot { step, bytes });
        Ok(())
    }
}

/// Asks whether to go on.
pub(super) fn obey(monitor: &mut dyn Monitor) -> Result<(), EngineError> {
    match monitor.directive() {
        Directive::Continue => Ok(()),
        Directive::Stop | Directive::Lost => Err(EngineError::Stopped),
    }
}

fn scalar(tensor: &Tensor<1>) -> Result<f64, EngineError> {
    tensor
        .clone()
        .try_into_scalar::<f32>()
        .map(f64::from)
        .map_err(|e| EngineError::Internal(format!("reading a number: {e}")))
}
