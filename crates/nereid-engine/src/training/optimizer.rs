//! Optimisers with the formulas of Keras 3, which differ from the framework's own in where
//! epsilon is added and how weight decay is applied.

use burn::tensor::Tensor;
use nereid_core::spec::{FitOptions, Optimizer as Spec};

/// An optimiser with its running averages.
pub(super) struct Optimizer {
    spec: Spec,
    clipnorm: Option<f64>,
    clipvalue: Option<f64>,
    /// Steps done.
    pub(super) steps: u64,
    /// Running averages of each weight; all of one weight's are changed together.
    pub(super) slots: Vec<Vec<Tensor<1>>>,
}

impl Optimizer {
    /// Starts with all averages at 0.
    pub(super) fn new(spec: &Spec, fit: &FitOptions, weights: &[Tensor<1>]) -> Self {
        let n = match spec {
            Spec::Sgd { momentum, .. } => usize::from(*momentum > 0.0),
            Spec::Adam { .. } | Spec::Adamw { .. } => 2,
            Spec::Rmsprop { momentum, .. } => 1 + usize::from(*momentum > 0.0),
        };
        Self {
            spec: spec.clone(),
            clipnorm: fit.clipnorm,
            clipvalue: fit.clipvalue,
            steps: 0,
            slots: weights.iter().map(|w| vec![w.zeros_like(); n]).collect(),
        }
    }

    /// Starts a step, which all weights share.
    pub(super) fn begin_step(&mut self) {
        self.steps += 1;
    }

    /// Returns a weight's new values.
    pub(super) fn update(
        &mut self,
        index: usize,
        weight: Tensor<1>,
        gradient: Tensor<1>,
        rate: f64,
    ) -> Tensor<1> {
        let g = self.clip(gradient);
        let slots = &mut self.slots[index];
        let t = i32::try_from(self.steps).unwrap_or(i32::MAX);
        match &self.spec {
            Spec::Sgd {
                momentum, nesterov, ..
            } => sgd(slots, weight, g, rate, (*momentum, *nesterov)),
            Spec::Adam {
                beta_1,
                beta_2,
                epsilon,
                ..
            } => adam(slots, weight, g, rate, (*beta_1, *beta_2, *epsilon, t)),
            Spec::Adamw {
                weight_decay,
                beta_1,
                beta_2,
                epsilon,
                ..
            } => {
                let weight = weight * (1.0 - weight_decay * rate);
                adam(slots, weight, g, rate, (*beta_1, *beta_2, *epsilon, t))
            }
            Spec::Rmsprop {
                rho,
                momentum,
                epsilon,
                ..
            } => rmsprop(slots, weight, g, rate, (*rho, *momentum, *epsilon)),
        }
    }

    fn clip(&self, gradient: Tensor<1>) -> Tensor<1> {
        if let Some(limit) = self.clipvalue {
            return gradient.clamp(-limit, limit);
        }
        let Some(limit) = self.clipnorm else {
            return gradient;
        };
        let norm = (gradient.clone() * gradient.clone()).sum().sqrt();
        gradient * (norm.clamp_min(limit).recip() * limit)
    }
}

fn sgd(
    slots: &mut [Tensor<1>],
    weight: Tensor<1>,
    g: Tensor<1>,
    rate: f64,
    (momentum, nesterov): (f64, bool),
) -> Tensor<1> {
    let step = g * -rate;
    let Some(velocity) = slots.first_mut() else {
        return weight + step;
    };
    *velocity = velocity.clone() * momentum + step.clone();
    if nesterov {
        weight + velocity.clone() * momentum + step
    } else {
        weight + velocity.clone()
    }
}

fn adam(
    slots: &mut [Tensor<1>],
    weight: Tensor<1>,
    g: Tensor<1>,
    rate: f64,
    (beta_1, beta_2, epsilon, t): (f64, f64, f64, i32),
) -> Tensor<1> {
    let [mean, square] = slots else {
        return weight;
    };
    let alpha = rate * (1.0 - beta_2.powi(t)).sqrt() / (1.0 - beta_1.powi(t));
    *square = square.clone() * beta_2 + g.clone() * g.clone() * (1.0 - beta_2);
    *mean = mean.clone() * beta_1 + g * (1.0 - beta_1);
    weight - mean.clone() * alpha / (square.clone().sqrt() + epsilon)
}

fn rmsprop(
    slots: &mut [Tensor<1>],
    weight: Tensor<1>,
    g: Tensor<1>,
    rate: f64,
    (rho, momentum, epsilon): (f64, f64, f64),
) -> Tensor<1> {
    let Some((square, rest)) = slots.split_first_mut() else {
        return weight;
    };
    *square = square.clone() * rho + g.clone() * g.clone() * (1.0 - rho);
    let step = g * rate / (square.clone() + epsilon).sqrt();
    match rest.first_mut() {
        None => weight - step,
        Some(velocity) => {
            *velocity = velocity.clone() * momentum + step;
            weight - velocity.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use serde_json::{Value, json};

    use super::*;
    use crate::network::{flat, host};

    /// Runs two steps on one weight of 1 with gradients 0.5 and -0.25.
    fn two_steps(spec: Value, fit: &FitOptions) -> [f64; 2] {
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let device = Device::flex();
        let mut weight = flat(vec![1.0], &device);
        let mut optimizer = Optimizer::new(&spec, fit, &[weight.clone()]);
        [0.5_f32, -0.25].map(|g| {
            optimizer.begin_step();
            let gradient = flat(vec![g], &device);
            weight = optimizer.update(0, weight.clone(), gradient, spec.learning_rate());
            f64::from(host(weight.clone()).unwrap()[0])
        })
    }

    #[track_caller]
    fn check(spec: Value, expected: [f64; 2]) {
        let got = two_steps(spec, &FitOptions::default());
        for (a, b) in got.iter().zip(expected) {
            assert!((a - b).abs() < 1e-6, "{got:?} is not {expected:?}");
        }
    }

    #[test]
    fn sgd_is_keras_sgd() {
        check(json!({"type": "sgd", "learning_rate": 0.1}), [0.95, 0.975]);
        // Velocities -0.05 and -0.045 + 0.025.
        let momentum = json!({"type": "sgd", "learning_rate": 0.1, "momentum": 0.9});
        check(momentum, [0.95, 0.93]);
        let nesterov =
            json!({"type": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": true});
        check(nesterov, [1.0 - 0.045 - 0.05, 0.905 - 0.018 + 0.025]);
    }

    #[test]
    fn adam_is_keras_adam() {
        let [b1, b2, eps, lr] = [0.9_f64, 0.999, 1e-7, 0.01];
        let (mut m, mut v, mut w, mut decayed) = (0.0, 0.0, 1.0, 1.0);
        let mut expected = [[0.0; 2]; 2];
        for (i, g) in [0.5_f64, -0.25].into_iter().enumerate() {
            let t = i32::try_from(i).unwrap() + 1;
            m += (g - m) * (1.0 - b1);
            v += (g * g - v) * (1.0 - b2);
            let alpha = lr * (1.0 - b2.powi(t)).sqrt() / (1.0 - b1.powi(t));
            let step = m * alpha / (v.sqrt() + eps);
            w -= step;
            decayed = decayed - decayed * 0.1 * lr - step;
            expected[0][i] = w;
            expected[1][i] = decayed;
        }
        check(json!({"type": "adam", "learning_rate": lr}), expected[0]);
        let adamw = json!({"type": "adamw", "learning_rate": lr, "weight_decay": 0.1});
        check(adamw, expected[1]);
    }

    #[test]
    fn rmsprop_is_keras_rmsprop() {
        let (rho, lr, eps) = (0.9_f64, 0.01, 1e-7);
        let first = 0.1 * 0.25;
        let second = rho * first + 0.1 * 0.0625;
        let steps = [
            lr * 0.5 / (first + eps).sqrt(),
            -lr * 0.25 / (second + eps).sqrt(),
        ];
        let w = 1.0 - steps[0];
        check(
            json!({"type": "rmsprop", "learning_rate": lr}),
            [w, w - steps[1]],
        );
        let velocity = 0.5 * steps[0] + steps[1];
        let momentum = json!({"type": "rmsprop", "learning_rate": lr, "momentum": 0.5});
        check(momentum, [w, w - velocity]);
    }

    #[test]
    fn gradients_are_clipped_by_norm_or_value() {
        let sgd = json!({"type": "sgd", "learning_rate": 1.0});
        let norm = FitOptions {
            clipnorm: Some(0.3),
            ..FitOptions::default()
        };
        let value = FitOptions {
            clipvalue: Some(0.3),
            ..FitOptions::default()
        };
        for fit in [norm, value] {
            let [first, second] = two_steps(sgd.clone(), &fit);
            assert!((first - 0.7).abs() < 1e-6 && (second - 0.95).abs() < 1e-6);
        }
    }
}
