//! One pass over rows: a training step, an evaluation.

use burn::tensor::Tensor;
use nereid_core::{
    engine::{EngineError, Monitor},
    spec::LearningRate,
};

use super::Session;
use crate::{
    network::{Mode, TrainingPass, host},
    training::{
        batches::{Batch, BatchTargets},
        feed::Next,
        metrics::Tally,
        optimizer::Rate,
        order::Order,
        rules::Step,
        split::Part,
        watch::scalar,
    },
};

/// Least batch of an evaluation; it needs less memory than training does.
const EVALUATION_BATCH: usize = 128;

impl Session<'_> {
    /// Changes the weights once.
    pub(super) fn step(&mut self, batch: Batch) -> Result<(), EngineError> {
        let watched = self.pace.watches(&self.state);
        let input = batch.input.clone();
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
            outputs: (watched && self.needs.activations).then(Vec::new),
        };
        let mut mode = Mode::Training(&mut pass);
        let ending = self.objective.ending;
        let weights = self.network.adapted(&leaves);
        let outputs = self
            .network
            .forward(&weights, batch.input, ending, &mut mode);
        let (objective, targets) = (&self.objective, &batch.targets);
        let (loss, counted) = match &batch.mixing {
            None => (objective.loss(outputs.clone(), targets, true), None),
            Some(mixing) => {
                let loss = mixing.loss(objective, outputs.clone(), targets);
                (loss, Some(mixing.dominant(targets)))
            }
        };
        let counted = counted.as_ref().unwrap_or(targets);
        let mean = scalar(&loss.clone().inner())?;
        if !mean.is_finite() {
            return Err(self.explained(&format!("the loss is {mean}"), &input));
        }
        self.count(&outputs.inner(), mean, counted)?;
        let mut by_leaf = loss.backward();
        let gradients = self.trainable.iter();
        let gradients = gradients.map(|&i| leaves[i].grad_remove(&mut by_leaf));
        let gradients: Vec<_> = gradients.collect();
        self.newest = Step {
            loss: mean,
            ..Step::default()
        };
        self.state.gradient_norm = f64::NAN;
        if watched {
            let outputs = pass.outputs.take().unwrap_or_default();
            let observation = self.observe(&gradients, &outputs)?;
            self.state.gradient_norm = observation.gradient_norm;
            self.newest.observation = Some(observation);
        }
        self.change_weights(gradients);
        for (index, value) in pass.moving {
            self.network.parameters[index].value = value;
        }
        self.state.step += 1;
        Ok(())
    }

    /// Lets the optimiser change the weights, at the rate that the spec has for this step.
    fn change_weights(&mut self, gradients: Vec<Option<Tensor<1>>>) {
        let mut momentum = None;
        let given = self.spec.optimizer.learning_rate();
        if let LearningRate::Scheduled(schedule) = given {
            let (step, horizon) = (self.state.step, self.horizon());
            self.state.rate = schedule.at(step, horizon);
            if schedule.cycles_momentum(self.spec.optimizer.has_momentum()) {
                momentum = schedule.momentum_at(step, horizon);
            }
        }
        let rate = Rate {
            rate: self.state.rate,
            momentum,
        };
        let parameters = &mut self.network.parameters;
        let weights = self.trainable.iter().map(|&i| parameters[i].value.clone());
        let mut weights: Vec<_> = weights.collect();
        self.optimizer.apply(&mut weights, gradients, rate);
        for (&i, weight) in self.trainable.iter().zip(weights) {
            parameters[i].value = weight;
        }
    }

    fn count(
        &mut self,
        outputs: &Tensor<2>,
        loss: f64,
        targets: &BatchTargets,
    ) -> Result<(), EngineError> {
        let outputs = host(outputs.clone())?;
        let tally = &mut self.state.tally;
        self.measures.add(tally, &outputs, targets, loss, false);
        Ok(())
    }

    pub(super) fn diverged(&self, what: String) -> EngineError {
        EngineError::Diverged {
            step: self.state.step,
            what,
        }
    }

    pub(super) fn check_weights(&self) -> Result<(), EngineError> {
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
    ///
    /// An early end of training is no reason to cut this short: the model's metrics come from it.
    pub(in crate::training) fn evaluate(
        &mut self,
        part: &Part,
        matrix: bool,
        monitor: &mut dyn Monitor,
    ) -> Result<Tally, EngineError> {
        let weights = self.weights();
        let weights = self.network.adapted(&weights).into_owned();
        let batch = (self.spec.fit.batch_size as usize).max(EVALUATION_BATCH);
        let feed = self.feed(part, batch);
        let mut tally = Tally::default();
        feed.run(Order::listed(&part.rows), part.rows.len(), 0, |batches| {
            loop {
                let batch = match batches.next()? {
                    Next::Batch(batch) => batch.onto(&self.network.device),
                    Next::Waiting => {
                        self.heed(monitor)?;
                        continue;
                    }
                    Next::End => return Ok(()),
                };
                let ending = self.objective.ending;
                let mut mode = Mode::Inference;
                let outputs = self
                    .network
                    .forward(&weights, batch.input, ending, &mut mode);
                let loss = self.objective.loss(outputs.clone(), &batch.targets, false);
                let (loss, outputs) = (scalar(&loss)?, host(outputs)?);
                self.measures
                    .add(&mut tally, &outputs, &batch.targets, loss, matrix);
                self.snapshots.collect(monitor);
                self.heed(monitor)?;
            }
        })?;
        Ok(tally)
    }
}
