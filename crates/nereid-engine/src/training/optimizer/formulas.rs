//! Formulas of Keras 3, which differ from the framework's own in where epsilon is added and how
//! weight decay is applied.
//!
//! Each is a function of a weight, its gradient, its running averages (which it replaces) and the
//! numbers of the step, and of nothing else.

use burn::tensor::Tensor;
use nereid_core::spec::Optimizer as Spec;

use super::fused;

/// Numbers that all weights of a step share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) rate: f64,
    /// Momentum or `beta_1`, if a schedule moves it.
    pub(super) momentum: Option<f64>,
    /// Changes of the weights, this one included.
    pub(super) t: i32,
    /// Product of Nadam's momenta, this step's included.
    pub(super) nadam: f64,
}

/// Initial value of each running average.
pub(super) fn slots(spec: &Spec) -> Vec<f64> {
    match spec {
        Spec::Sgd { momentum, .. } => vec![0.0; usize::from(*momentum > 0.0)],
        Spec::Adam { amsgrad, .. } | Spec::Adamw { amsgrad, .. } => {
            vec![0.0; 2 + usize::from(*amsgrad)]
        }
        Spec::Rmsprop {
            momentum, centered, ..
        } => vec![0.0; 1 + usize::from(*momentum > 0.0) + usize::from(*centered)],
        Spec::Adagrad {
            initial_accumulator_value: value,
            ..
        } => vec![*value],
        Spec::Ftrl {
            initial_accumulator_value: value,
            ..
        } => vec![*value, 0.0],
        Spec::Adadelta { .. } | Spec::Adamax { .. } | Spec::Nadam { .. } | Spec::Lamb { .. } => {
            vec![0.0; 2]
        }
        Spec::Lion { .. } => vec![0.0],
    }
}

/// Returns a weight's new values.
pub(super) fn update(
    spec: &Spec,
    slots: &mut [Tensor<1>],
    mut weight: Tensor<1>,
    g: Tensor<1>,
    step: Step,
) -> Tensor<1> {
    if fused::update(spec, slots, &mut weight, &g, step) {
        return weight;
    }
    by_tensors(spec, slots, weight, g, step)
}

/// The same by tensor operations, which every device has.
pub(super) fn by_tensors(
    spec: &Spec,
    slots: &mut [Tensor<1>],
    weight: Tensor<1>,
    g: Tensor<1>,
    step: Step,
) -> Tensor<1> {
    let Step { rate, t, .. } = step;
    match spec {
        Spec::Sgd {
            momentum, nesterov, ..
        } => {
            let momentum = step.momentum.unwrap_or(*momentum);
            sgd(slots, weight, g, rate, (momentum, *nesterov))
        }
        Spec::Adam {
            beta_1,
            beta_2,
            epsilon,
            ..
        }
        | Spec::Adamw {
            beta_1,
            beta_2,
            epsilon,
            ..
        } => {
            let beta_1 = step.momentum.unwrap_or(*beta_1);
            adam(slots, weight, g, rate, (beta_1, *beta_2, *epsilon, t))
        }
        Spec::Rmsprop {
            rho,
            momentum,
            epsilon,
            centered,
            ..
        } => {
            let momentum = step.momentum.unwrap_or(*momentum);
            let numbers = (*rho, momentum, *epsilon);
            rmsprop(slots, weight, g, rate, numbers, *centered)
        }
        Spec::Adagrad { epsilon, .. } => adagrad(slots, weight, g, rate, *epsilon),
        Spec::Adadelta { rho, epsilon, .. } => adadelta(slots, weight, g, rate, (*rho, *epsilon)),
        Spec::Adamax {
            beta_1,
            beta_2,
            epsilon,
            ..
        } => adamax(slots, weight, g, rate, (*beta_1, *beta_2, *epsilon, t)),
        Spec::Nadam { .. } => nadam(spec, slots, weight, g, step),
        Spec::Ftrl { .. } => ftrl(spec, slots, weight, g, rate),
        Spec::Lamb {
            beta_1,
            beta_2,
            epsilon,
            ..
        } => lamb(slots, weight, g, rate, (*beta_1, *beta_2, *epsilon, t)),
        Spec::Lion { beta_1, beta_2, .. } => lion(slots, weight, g, rate, (*beta_1, *beta_2)),
    }
}

/// `average × decay + value × (1 - decay)`.
fn follow(average: &Tensor<1>, value: Tensor<1>, decay: f64) -> Tensor<1> {
    average.clone() * decay + value * (1.0 - decay)
}

fn square(x: &Tensor<1>) -> Tensor<1> {
    x.clone() * x.clone()
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
    let [mean, second, rest @ ..] = slots else {
        return weight;
    };
    let alpha = rate * (1.0 - beta_2.powi(t)).sqrt() / (1.0 - beta_1.powi(t));
    *second = second.clone() * beta_2 + square(&g) * (1.0 - beta_2);
    *mean = mean.clone() * beta_1 + g * (1.0 - beta_1);
    let second = match rest.first_mut() {
        None => second.clone(),
        Some(largest) => {
            *largest = largest.clone().max_pair(second.clone());
            largest.clone()
        }
    };
    weight - mean.clone() * alpha / (second.sqrt() + epsilon)
}

fn rmsprop(
    slots: &mut [Tensor<1>],
    weight: Tensor<1>,
    g: Tensor<1>,
    rate: f64,
    (rho, momentum, epsilon): (f64, f64, f64),
    centered: bool,
) -> Tensor<1> {
    let Some((second, rest)) = slots.split_first_mut() else {
        return weight;
    };
    *second = second.clone() * rho + square(&g) * (1.0 - rho);
    let mut spread = second.clone();
    let velocities = rest.len() - usize::from(centered);
    let (velocity, mean) = rest.split_at_mut(velocities);
    if let Some(mean) = mean.first_mut() {
        *mean = follow(mean, g.clone(), rho);
        spread = spread - square(mean);
    }
    let step = g * rate / (spread + epsilon).sqrt();
    match velocity.first_mut() {
        None => weight - step,
        Some(velocity) => {
            *velocity = velocity.clone() * momentum + step;
            weight - velocity.clone()
        }
    }
}

fn adagrad(
    slots: &mut [Tensor<1>],
    weight: Tensor<1>,
    g: Tensor<1>,
    rate: f64,
    epsilon: f64,
) -> Tensor<1> {
    let Some(sum) = slots.first_mut() else {
        return weight;
    };
    *sum = sum.clone() + square(&g);
    weight - g * rate / (sum.clone() + epsilon).sqrt()
}

fn adadelta(
    slots: &mut [Tensor<1>],
    weight: Tensor<1>,
    g: Tensor<1>,
    rate: f64,
    (rho, epsilon): (f64, f64),
) -> Tensor<1> {
    let [gradients, steps] = slots else {
        return weight;
    };
    let root = |x: &Tensor<1>| (x.clone() + epsilon).sqrt();
    *gradients = follow(gradients, square(&g), rho);
    let step = root(steps) * g / root(gradients);
    *steps = follow(steps, square(&step), rho);
    weight - step * rate
}

fn adamax(
    slots: &mut [Tensor<1>],
    weight: Tensor<1>,
    g: Tensor<1>,
    rate: f64,
    (beta_1, beta_2, epsilon, t): (f64, f64, f64, i32),
) -> Tensor<1> {
    let [mean, norm] = slots else {
        return weight;
    };
    *norm = (norm.clone() * beta_2).max_pair(g.clone().abs());
    *mean = follow(mean, g, beta_1);
    let alpha = rate / (1.0 - beta_1.powi(t));
    weight - mean.clone() * alpha / (norm.clone() + epsilon)
}

/// Nadam's momentum at a step: `beta_1 × (1 - 0.96^t / 2)`; 1 for all others.
pub(super) fn nadam_momentum(spec: &Spec, t: u64) -> f64 {
    match spec {
        Spec::Nadam { beta_1, .. } => {
            let t = i32::try_from(t).unwrap_or(i32::MAX);
            beta_1 * (1.0 - 0.5 * 0.96_f64.powi(t))
        }
        _ => 1.0,
    }
}

fn nadam(
    spec: &Spec,
    slots: &mut [Tensor<1>],
    weight: Tensor<1>,
    g: Tensor<1>,
    step: Step,
) -> Tensor<1> {
    let (
        Spec::Nadam {
            beta_1,
            beta_2,
            epsilon,
            ..
        },
        [mean, second],
    ) = (spec, slots)
    else {
        return weight;
    };
    let t = u64::try_from(step.t).unwrap_or_default();
    let (now, next) = (nadam_momentum(spec, t), nadam_momentum(spec, t + 1));
    *second = follow(second, square(&g), *beta_2);
    *mean = follow(mean, g.clone(), *beta_1);
    let ahead = mean.clone() * (next / (1.0 - step.nadam * next));
    let here = g * ((1.0 - now) / (1.0 - step.nadam));
    let spread = second.clone() / (1.0 - beta_2.powi(step.t));
    weight - (ahead + here) * step.rate / (spread.sqrt() + *epsilon)
}

fn ftrl(
    spec: &Spec,
    slots: &mut [Tensor<1>],
    weight: Tensor<1>,
    g: Tensor<1>,
    rate: f64,
) -> Tensor<1> {
    let (
        Spec::Ftrl {
            learning_rate_power,
            l1_regularization_strength: l1,
            l2_regularization_strength: l2,
            l2_shrinkage_regularization_strength: shrinkage,
            beta,
            ..
        },
        [sum, linear],
    ) = (spec, slots)
    else {
        return weight;
    };
    // Its formula divides by the rate, which a warm-up may begin with 0.
    if rate == 0.0 {
        return weight;
    }
    let root = |x: Tensor<1>| {
        if (learning_rate_power + 0.5).abs() < f64::EPSILON {
            x.sqrt()
        } else {
            x.powf_scalar(-learning_rate_power)
        }
    };
    let l2 = l2 + beta / (2.0 * rate);
    let total = sum.clone() + square(&g);
    let (new, old) = (root(total.clone()), root(sum.clone()));
    let pull = (new.clone() - old) / rate * weight.clone();
    *linear = linear.clone() + g + weight * (2.0 * shrinkage) - pull;
    *sum = total;
    (linear.clone().clamp(-l1, *l1) - linear.clone()) / (new / rate + 2.0 * l2)
}

fn lamb(
    slots: &mut [Tensor<1>],
    weight: Tensor<1>,
    g: Tensor<1>,
    rate: f64,
    (beta_1, beta_2, epsilon, t): (f64, f64, f64, i32),
) -> Tensor<1> {
    let [mean, second] = slots else {
        return weight;
    };
    *second = follow(second, square(&g), beta_2);
    *mean = follow(mean, g, beta_1);
    let spread = (second.clone() / (1.0 - beta_2.powi(t))).sqrt() + epsilon;
    let step = mean.clone() / (1.0 - beta_1.powi(t)) / spread;
    let size = |x: &Tensor<1>| square(x).sum().sqrt();
    let (weights, steps) = (size(&weight), size(&step));
    // The ratio of both, or 1 where one of them is 0.
    let none = weights
        .clone()
        .equal_elem(0.0)
        .bool_or(steps.clone().equal_elem(0.0));
    let ratio = (weights / steps).mask_fill(none, 1.0);
    weight - step * ratio * rate
}

fn lion(
    slots: &mut [Tensor<1>],
    weight: Tensor<1>,
    g: Tensor<1>,
    rate: f64,
    (beta_1, beta_2): (f64, f64),
) -> Tensor<1> {
    let Some(momentum) = slots.first_mut() else {
        return weight;
    };
    let direction = follow(momentum, g.clone(), beta_1).sign();
    *momentum = follow(momentum, g, beta_2);
    weight - direction * rate
}
