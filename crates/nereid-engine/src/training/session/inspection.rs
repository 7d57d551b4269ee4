//! What a step shows beside its loss: norms of gradients, signs of illness, what diverged.

use burn::tensor::Tensor;
use nereid_core::engine::{EngineError, Monitor};

use super::Session;
use crate::{
    network::{Mode, Network, Seen, TrainingPass},
    training::{
        feed::Next,
        obey,
        order::Order,
        rules::{self, Step},
        watch::{self, EngineErrorOr, Observation},
    },
};

impl Session<'_> {
    /// Looks at the gradients of the trainable weights, and at what rules need beside.
    pub(super) fn observe(
        &self,
        gradients: &[Option<Tensor<1>>],
        outputs: &[Seen],
    ) -> Result<Observation, EngineError> {
        let trainable = self.trainable.iter().zip(gradients);
        let pairs: Vec<_> = trainable
            .filter_map(|(&i, g)| Some((&self.network.parameters[i], g.as_ref()?)))
            .collect();
        let norm = watch::gradient_norm(pairs.iter().copied()).map_err(|e| match e {
            EngineErrorOr::Engine(e) => e,
            EngineErrorOr::NotFinite(parameter) => {
                let name = &parameter.name;
                self.diverged(format!(
                    "the gradient of {name} is not finite, the first seen from the loss"
                ))
            }
        })?;
        let mut observation = Observation::new(norm);
        if self.needs.weights {
            for (parameter, gradient) in pairs {
                observation.add_weight(parameter, gradient)?;
            }
        }
        for seen in outputs.iter().filter(|seen| seen.relu) {
            observation.add_relu(seen)?;
        }
        Ok(observation)
    }

    /// Runs a batch once more, to find the layer in which it went wrong.
    pub(super) fn explained(&self, what: &str, input: &Tensor<2>) -> EngineError {
        let parameters = self.network.parameters.iter();
        let weights: Vec<_> = parameters.map(|p| p.value.clone()).collect();
        self.explained_with(&self.network.adapted(&weights), what, input)
    }

    /// Runs a batch once more with some weights, to find the layer in which it went wrong.
    pub(super) fn explained_with(
        &self,
        weights: &[Tensor<1>],
        what: &str,
        input: &Tensor<2>,
    ) -> EngineError {
        let network: &Network = &self.network;
        let mut pass = TrainingPass {
            seed: self.spec.fit.seed,
            step: self.state.step,
            moving: Vec::new(),
            outputs: Some(Vec::new()),
        };
        let mut mode = Mode::Training(&mut pass);
        let ending = self.objective.ending;
        network.forward(weights, input.clone(), ending, &mut mode);
        let outputs = pass.outputs.unwrap_or_default();
        match watch::diagnose(input, &network.parameters, &outputs) {
            Ok(why) => self.diverged(format!("{what}; {why}")),
            Err(e) => e,
        }
    }

    /// Trains step by step, each at a rate of its own, while `watch` says so of the loss.
    pub(in crate::training) fn trial(
        &mut self,
        rate: impl Fn(u32) -> f64,
        mut watch: impl FnMut(u32, f64) -> bool,
        monitor: &mut dyn Monitor,
    ) -> Result<(), EngineError> {
        let mut step = 0;
        loop {
            let (splits, fit, epoch) = (self.splits, &self.spec.fit, self.state.epoch);
            let rows = splits.epoch_rows(fit.seed, epoch);
            let order = Order::shuffled(&rows, splits.shuffle, fit.seed, epoch);
            let feed = self.feed(&splits.train, fit.batch_size as usize);
            let more = feed.run(order, rows.len(), 0, |batches| {
                loop {
                    obey(false, monitor)?;
                    let batch = match batches.next()? {
                        Next::Batch(batch) => batch,
                        Next::Waiting => continue,
                        Next::End => return Ok(true),
                    };
                    self.state.rate = rate(step);
                    match self.step(&batch.onto(&self.network.device)) {
                        Err(EngineError::Diverged { .. }) => return Ok(false),
                        result => result?,
                    }
                    self.state.batch += 1;
                    if !watch(step, self.newest.loss) {
                        return Ok(false);
                    }
                    step += 1;
                }
            })?;
            if !more {
                return Ok(());
            }
            self.state.epoch += 1;
            self.state.batch = 0;
        }
    }

    /// Applies rules to the step just done; tells whether to end training.
    pub(super) fn judge(&mut self, monitor: &mut dyn Monitor) -> bool {
        let step = Step {
            number: self.state.step,
            per_epoch: self.batches() as u64,
            ..std::mem::take(&mut self.newest)
        };
        let state = &mut self.state;
        if let Some(reason) = rules::after_step(&self.spec.rules, &mut state.rules, &step, monitor)
        {
            state.ended_by = state.ended_by.take().or(Some(reason));
        }
        state.ended_by.is_some()
    }
}
