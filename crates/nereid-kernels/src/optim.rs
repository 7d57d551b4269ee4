//! Optimisers' formulas, each in one pass over a weight, its gradient and its averages.
//!
//! The formulas are those of Keras 3: epsilon is added to the uncorrected root in Adam, inside
//! the root in RMSprop.

use crate::{product::each, simd};

/// Values that one thread takes at a time.
const PART: usize = 1 << 15;

/// A step of Adam, with the bias correction in the rate.
#[derive(Debug, Clone, Copy)]
pub struct Adam {
    /// Rate, corrected for the averages' start at 0.
    pub rate: f32,
    /// What is kept of the mean.
    pub beta_1: f32,
    /// What is added to the mean: one minus `beta_1`, rounded once.
    pub rest_1: f32,
    /// What is kept of the mean square.
    pub beta_2: f32,
    /// What is added to the mean square: one minus `beta_2`, rounded once.
    pub rest_2: f32,
    /// Added to the root.
    pub epsilon: f32,
}

/// A step of gradient descent with momentum.
#[derive(Debug, Clone, Copy)]
pub struct Momentum {
    /// Rate.
    pub rate: f32,
    /// What is kept of the velocity.
    pub momentum: f32,
    /// Whether the step looks ahead.
    pub nesterov: bool,
}

/// A step of RMSprop.
#[derive(Debug, Clone, Copy)]
pub struct RmsProp {
    /// Rate.
    pub rate: f32,
    /// What is kept of the mean square.
    pub rho: f32,
    /// What is added to it: one minus `rho`, rounded once.
    pub rest: f32,
    /// What is kept of the velocity, if there is one.
    pub momentum: f32,
    /// Added to the mean square.
    pub epsilon: f32,
}

impl RmsProp {
    #[inline(always)]
    fn change(&self, g: f32, square: &mut f32) -> f32 {
        *square = *square * self.rho + g * g * self.rest;
        g * self.rate / (*square + self.epsilon).sqrt()
    }
}

/// Changes weights by Adam.
pub fn adam(step: Adam, weight: &mut [f32], gradient: &[f32], [mean, square]: [&mut [f32]; 2]) {
    let parts = weight.chunks_mut(PART).zip(gradient.chunks(PART));
    let slots = mean.chunks_mut(PART).zip(square.chunks_mut(PART));
    let items: Vec<_> = parts.zip(slots).collect();
    each(is_large(items.len()), items, |((w, g), (m, v))| {
        simd::run(
            #[inline(always)]
            || {
                for (((w, &g), m), v) in w.iter_mut().zip(g).zip(m.iter_mut()).zip(v.iter_mut()) {
                    *v = *v * step.beta_2 + g * g * step.rest_2;
                    *m = *m * step.beta_1 + g * step.rest_1;
                    *w -= *m * step.rate / (v.sqrt() + step.epsilon);
                }
            },
        );
    });
}

/// Changes weights by gradient descent; there is no velocity without momentum.
pub fn sgd(step: Momentum, weight: &mut [f32], gradient: &[f32], velocity: Option<&mut [f32]>) {
    let Some(velocity) = velocity else {
        simd::run(
            #[inline(always)]
            || {
                for (w, &g) in weight.iter_mut().zip(gradient) {
                    *w += g * -step.rate;
                }
            },
        );
        return;
    };
    let parts = weight.chunks_mut(PART).zip(gradient.chunks(PART));
    let items: Vec<_> = parts.zip(velocity.chunks_mut(PART)).collect();
    each(is_large(items.len()), items, |((w, g), v)| {
        simd::run(
            #[inline(always)]
            || {
                for ((w, &g), v) in w.iter_mut().zip(g).zip(v.iter_mut()) {
                    let change = g * -step.rate;
                    *v = *v * step.momentum + change;
                    *w = if step.nesterov {
                        *w + *v * step.momentum + change
                    } else {
                        *w + *v
                    };
                }
            },
        );
    });
}

/// Changes weights by RMSprop; there is no velocity without momentum.
pub fn rmsprop(
    step: RmsProp,
    weight: &mut [f32],
    gradient: &[f32],
    square: &mut [f32],
    velocity: Option<&mut [f32]>,
) {
    let parts = weight.chunks_mut(PART).zip(gradient.chunks(PART));
    let parts = parts.zip(square.chunks_mut(PART));
    let Some(velocity) = velocity else {
        let items: Vec<_> = parts.collect();
        each(is_large(items.len()), items, |((w, g), v)| {
            simd::run(
                #[inline(always)]
                || {
                    for ((w, &g), v) in w.iter_mut().zip(g).zip(v.iter_mut()) {
                        *w -= step.change(g, v);
                    }
                },
            );
        });
        return;
    };
    let items: Vec<_> = parts.zip(velocity.chunks_mut(PART)).collect();
    each(is_large(items.len()), items, |(((w, g), v), u)| {
        simd::run(
            #[inline(always)]
            || {
                for (((w, &g), v), u) in w.iter_mut().zip(g).zip(v.iter_mut()).zip(u.iter_mut()) {
                    *u = *u * step.momentum + step.change(g, v);
                    *w -= *u;
                }
            },
        );
    });
}

fn is_large(parts: usize) -> bool {
    parts > 2 && rayon::current_num_threads() > 1
}
