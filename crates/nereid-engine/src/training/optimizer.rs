//! What turns gradients into new weights: accumulation, clipping, decay, a formula, averages.
//!
//! In the order and with the definitions of Keras 3's `BaseOptimizer`, except that a weight's
//! learning rate may have a factor of its own.

mod formulas;
mod fused;
#[cfg(test)]
mod tests;

use burn::tensor::Tensor;
use nereid_core::{
    engine::EngineError,
    spec::{FitOptions, Optimizer as Spec, Pattern},
};

use formulas::Step;

/// What weight decay spares unless the spec says otherwise: biases, scales and offsets.
const SPARED: [&str; 4] = ["*/bias", "*/gamma", "*/beta", "*/scale"];

/// A weight as the optimiser sees it.
pub(super) struct Weight<'a> {
    pub(super) name: &'a str,
    pub(super) value: Tensor<1>,
    /// Factor on the learning rate.
    pub(super) factor: f64,
}

/// How one weight is treated.
#[derive(Debug, Clone, Copy)]
struct Treatment {
    decays: bool,
    factor: f64,
}

/// Step size of a batch, and what else a schedule moves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub(super) rate: f64,
    pub(super) momentum: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
enum Clip {
    None,
    Norm(f64),
    GlobalNorm(f64),
    Value(f64),
}

/// A moving average of the weights.
#[derive(Debug, Clone, Copy)]
struct Ema {
    momentum: f64,
    overwrite: Option<u64>,
}

/// An optimiser with its running averages.
pub(super) struct Optimizer {
    spec: Spec,
    clip: Clip,
    ema: Option<Ema>,
    treatments: Vec<Treatment>,
    /// Batches for each change of the weights.
    accumulate: u64,
    /// Batches done.
    batches: u64,
    /// Product of Nadam's momenta so far.
    nadam: f64,
    /// Running averages of each weight; all of one weight's are changed together.
    slots: Vec<Vec<Tensor<1>>>,
    /// Sums of the gradients since the last change; none without accumulation.
    sums: Vec<Tensor<1>>,
    /// Moving averages of the weights; none without EMA.
    averages: Vec<Tensor<1>>,
}

impl Optimizer {
    /// Starts with all averages at their initial values.
    pub(super) fn new(spec: &Spec, fit: &FitOptions, weights: &[Weight<'_>]) -> Self {
        let clip = match (fit.clipnorm, fit.global_clipnorm, fit.clipvalue) {
            (Some(limit), ..) => Clip::Norm(limit),
            (_, Some(limit), _) => Clip::GlobalNorm(limit),
            (_, _, Some(limit)) => Clip::Value(limit),
            _ => Clip::None,
        };
        let spared = match &fit.exclude_from_weight_decay {
            Some(given) => given.clone(),
            None if spec.decays_all() => Vec::new(),
            None => SPARED.map(|p| Pattern(p.to_owned())).to_vec(),
        };
        let treatment = |w: &Weight<'_>| Treatment {
            decays: !spared.iter().any(|p| p.matches(w.name)),
            factor: w.factor,
        };
        let initial = formulas::slots(spec);
        let slots = |w: &Weight<'_>| {
            let filled = initial.iter().map(|&v| w.value.full_like(v));
            filled.collect()
        };
        let accumulate = u64::from(fit.gradient_accumulation_steps.unwrap_or(1)).max(1);
        let values = |wanted: bool| weights.iter().filter(move |_| wanted).map(|w| &w.value);
        Self {
            spec: spec.clone(),
            clip,
            ema: fit.use_ema.then(|| Ema {
                momentum: fit.ema_momentum(),
                overwrite: fit.ema_overwrite_frequency.map(u64::from),
            }),
            treatments: weights.iter().map(treatment).collect(),
            accumulate,
            batches: 0,
            nadam: 1.0,
            slots: weights.iter().map(slots).collect(),
            sums: values(accumulate > 1).map(Tensor::zeros_like).collect(),
            averages: values(fit.use_ema).cloned().collect(),
        }
    }

    /// Changes the weights by the gradients of a batch; both in the order given at the start.
    pub(super) fn apply(
        &mut self,
        weights: &mut [Tensor<1>],
        gradients: Vec<Option<Tensor<1>>>,
        rate: Rate,
    ) {
        if let Some(gradients) = self.accumulate(gradients) {
            let gradients = self.clip(gradients);
            let updates = self.updates() + 1;
            self.nadam *= formulas::nadam_momentum(&self.spec, updates);
            for (i, gradient) in gradients.into_iter().enumerate() {
                let Some(gradient) = gradient else { continue };
                weights[i] = self.update(i, weights[i].clone(), gradient, rate, updates);
            }
        }
        self.average(weights);
        self.batches += 1;
    }

    /// Changes of the weights done.
    fn updates(&self) -> u64 {
        self.batches / self.accumulate
    }

    /// Adds the gradients up; returns their mean if it is time to change the weights.
    fn accumulate(&mut self, gradients: Vec<Option<Tensor<1>>>) -> Option<Vec<Option<Tensor<1>>>> {
        if self.accumulate == 1 {
            return Some(gradients);
        }
        let due = (self.batches + 1).is_multiple_of(self.accumulate);
        let mut means = Vec::with_capacity(gradients.len());
        for (sum, gradient) in self.sums.iter_mut().zip(gradients) {
            let Some(gradient) = gradient else {
                means.push(None);
                continue;
            };
            let total = gradient + sum.clone();
            if due {
                *sum = sum.zeros_like();
                #[expect(clippy::cast_precision_loss, reason = "at most 65,536")]
                means.push(Some(total / self.accumulate as f64));
            } else {
                *sum = total;
            }
        }
        due.then_some(means)
    }

    fn clip(&self, gradients: Vec<Option<Tensor<1>>>) -> Vec<Option<Tensor<1>>> {
        let each = |change: &dyn Fn(Tensor<1>) -> Tensor<1>| {
            let changed = gradients.iter().map(|g| g.clone().map(change));
            changed.collect()
        };
        match self.clip {
            Clip::None => gradients,
            Clip::Value(limit) => each(&|g| g.clamp(-limit, limit)),
            Clip::Norm(limit) => each(&|g| {
                let norm = squares(&g).sqrt();
                g * (norm.clamp_min(limit).recip() * limit)
            }),
            Clip::GlobalNorm(limit) => {
                let sums = gradients.iter().flatten().map(squares);
                let Some(sum) = sums.reduce(|a, b| a + b) else {
                    return gradients;
                };
                let scale = sum.sqrt().clamp_min(limit).recip() * limit;
                each(&|g| g * scale.clone())
            }
        }
    }

    /// Returns a weight's new values.
    fn update(
        &mut self,
        index: usize,
        weight: Tensor<1>,
        gradient: Tensor<1>,
        rate: Rate,
        updates: u64,
    ) -> Tensor<1> {
        let Treatment { decays, factor } = self.treatments[index];
        let step = Step {
            rate: rate.rate * factor,
            momentum: rate.momentum,
            t: i32::try_from(updates).unwrap_or(i32::MAX),
            nadam: self.nadam,
        };
        let weight = match self.spec.weight_decay() {
            Some(decay) if decays => weight * (1.0 - decay * step.rate),
            _ => weight,
        };
        formulas::update(&self.spec, &mut self.slots[index], weight, gradient, step)
    }

    /// Follows the weights with their averages; each batch counts, as in Keras.
    fn average(&mut self, weights: &mut [Tensor<1>]) {
        let Some(ema) = self.ema else { return };
        let updates = self.updates();
        for (average, weight) in self.averages.iter_mut().zip(weights) {
            *average = if updates == 0 {
                weight.clone()
            } else {
                average.clone() * ema.momentum + weight.clone() * (1.0 - ema.momentum)
            };
            let overwrites = |n: u64| (updates + 1).is_multiple_of(n);
            if ema.overwrite.is_some_and(overwrites) {
                *weight = average.clone();
            }
        }
    }

    /// Returns the moving averages of the weights, if they are kept.
    pub(super) fn averages(&self) -> Option<&[Tensor<1>]> {
        self.ema.map(|_| self.averages.as_slice())
    }

    /// Returns all tensors that a later training goes on from, by name.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (String, &Tensor<1>)> {
        let slots = self.slots.iter().enumerate().flat_map(|(i, slots)| {
            let slots = slots.iter().enumerate();
            slots.map(move |(j, slot)| (format!("optimizer/{i}/{j}"), slot))
        });
        let sums = self.sums.iter().enumerate();
        let averages = self.averages.iter().enumerate();
        slots
            .chain(sums.map(|(i, sum)| (format!("sum/{i}"), sum)))
            .chain(averages.map(|(i, average)| (format!("average/{i}"), average)))
    }

    /// Goes on after so many batches, with the tensors of then.
    pub(super) fn restore(
        &mut self,
        batches: u64,
        mut take: impl FnMut(String, &Tensor<1>) -> Result<Tensor<1>, EngineError>,
    ) -> Result<(), EngineError> {
        for (i, slots) in self.slots.iter_mut().enumerate() {
            for (j, slot) in slots.iter_mut().enumerate() {
                *slot = take(format!("optimizer/{i}/{j}"), slot)?;
            }
        }
        for (i, sum) in self.sums.iter_mut().enumerate() {
            *sum = take(format!("sum/{i}"), sum)?;
        }
        for (i, average) in self.averages.iter_mut().enumerate() {
            *average = take(format!("average/{i}"), average)?;
        }
        self.batches = batches;
        self.nadam = 1.0;
        for updates in 1..=self.updates() {
            self.nadam *= formulas::nadam_momentum(&self.spec, updates);
            // Not a momentum more, or none at all: the rest changes nothing.
            if self.nadam == 0.0 || !matches!(self.spec, Spec::Nadam { .. }) {
                break;
            }
        }
        Ok(())
    }
}

fn squares(tensor: &Tensor<1>) -> Tensor<1> {
    (tensor.clone() * tensor.clone()).sum()
}
