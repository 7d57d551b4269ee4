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
        batches::Batch, feed::Next, metrics::Tally, optimizer::Rate, order::Order,
        precision::Scaling, rules::Step, split::Part, watch::scalar,
    },
};

/// Least batch of an evaluation; it needs less memory than training does.
const EVALUATION_BATCH: usize = 128;

impl Session<'_> {
    /// Changes the weights once, unless gradients in half precision are not finite.
    pub(super) fn step(&mut self, batch: &Batch) -> Result<(), EngineError> {
        let watched = self.pace.watches(&self.state);
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
        let scaling = self.state.scaling.filter(|_| self.network.half);
        let weights = self.network.adapted(&leaves);
        let halved = scaling.map(|_| self.network.halved(&weights));
        let mut pass = self.pass(watched && self.needs.activations);
        let weights = halved.as_deref().unwrap_or(&weights);
        let (loss, outputs) = self.losses(weights, batch, &mut pass);
        let loss = self.with_penalty(loss, &leaves);
        let mean = scalar(&loss.clone().inner())?;
        if !mean.is_finite() {
            return self.without_change(batch, mean);
        }
        let loss = match scaling {
            Some(scaling) => loss * scaling.scale,
            None => loss,
        };
        let mut by_leaf = loss.backward();
        let gradients = self.trainable.iter();
        let gradients = gradients.map(|&i| leaves[i].grad_remove(&mut by_leaf));
        let mut gradients: Vec<_> = gradients.collect();
        if let Some(scaling) = &mut self.state.scaling
            && self.network.half
        {
            let Some(unscaled) = scaling.unscaled(gradients)? else {
                return self.without_change(batch, mean);
            };
            gradients = unscaled;
            scaling.worked(self.spec.fit.loss_scale.unwrap_or_default());
        }
        self.count(&outputs.inner(), mean, batch)?;
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

    fn pass(&self, outputs: bool) -> TrainingPass {
        TrainingPass {
            seed: self.spec.fit.seed,
            step: self.state.step,
            moving: Vec::new(),
            outputs: outputs.then(Vec::new),
        }
    }

    /// Runs a batch and returns its mean loss and its outputs.
    fn losses(
        &self,
        weights: &[Tensor<1>],
        batch: &Batch,
        pass: &mut TrainingPass,
    ) -> (Tensor<1>, Tensor<2>) {
        let mut mode = Mode::Training(pass);
        let (objective, targets) = (&self.objective, &batch.targets);
        let input = batch.input.clone();
        let outputs = self
            .network
            .forward(weights, input, objective.ending, &mut mode);
        let loss = match &batch.mixing {
            None => objective.loss(outputs.clone(), targets, true),
            Some(mixing) => mixing.loss(objective, outputs.clone(), targets),
        };
        (loss, outputs)
    }

    /// Adds what regularisers say of weights.
    fn with_penalty(&self, loss: Tensor<1>, weights: &[Tensor<1>]) -> Tensor<1> {
        match self.network.penalty(weights) {
            Some(penalty) => loss + penalty,
            None => loss,
        }
    }

    /// Ends a step whose loss or gradients are not finite.
    ///
    /// In half precision that may be the precision's fault: if the loss is finite in 32 bits, the
    /// step only changes by how much losses are scaled. `mean` is the loss that was computed.
    fn without_change(&mut self, batch: &Batch, mean: f64) -> Result<(), EngineError> {
        if !self.network.half {
            return Err(self.explained(&format!("the loss is {mean}"), &batch.input));
        }
        let parameters = self.network.parameters.iter();
        let values: Vec<_> = parameters.map(|p| p.value.clone()).collect();
        let weights = self.network.adapted(&values);
        let (loss, outputs) = self.losses(&weights, batch, &mut self.pass(false));
        let mean = scalar(&self.with_penalty(loss, &weights))?;
        if !mean.is_finite() {
            return Err(self.explained(&format!("the loss is {mean}"), &batch.input));
        }
        if !self.state.scaling.as_mut().is_some_and(Scaling::overflowed) {
            let what = "values or gradients leave the range of 16 bits even if losses are not \
                        scaled (dtype_policy \"float32\" has a larger one)";
            let weights = self.network.halved(&weights);
            return Err(self.explained_with(&weights, what, &batch.input));
        }
        self.count(&outputs, mean, batch)?;
        self.newest = Step {
            loss: mean,
            ..Step::default()
        };
        self.state.gradient_norm = f64::NAN;
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

    /// Adds what a batch yielded to the epoch's metrics.
    fn count(&mut self, outputs: &Tensor<2>, loss: f64, batch: &Batch) -> Result<(), EngineError> {
        let outputs = host(outputs.clone())?;
        let mixed = batch.mixing.as_ref();
        let dominant = mixed.map(|mixing| mixing.dominant(&batch.targets));
        let targets = dominant.as_ref().unwrap_or(&batch.targets);
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
                let loss = self.with_penalty(loss, &weights);
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
