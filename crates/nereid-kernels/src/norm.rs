//! Batch normalisation over the last axis, with the statistics of the batch.

use rayon::prelude::*;

use crate::simd;

/// Rows that are summed up together: few enough for sums of `f32` to stay exact, and a fixed
/// number, so that no result depends on the threads.
const ROWS: usize = 256;

/// Values from which several threads are worth it.
const PARALLEL: usize = 1 << 17;

/// What [`batch_norm`] finds.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalised {
    /// The result, of the same shape.
    pub y: Vec<f32>,
    /// Mean of each channel.
    pub mean: Vec<f32>,
    /// Variance of each channel, that of the population.
    pub variance: Vec<f32>,
}

/// Normalises rows to mean 0 and variance 1 in each channel, then scales and shifts them.
#[must_use]
pub fn batch_norm(x: &[f32], gamma: &[f32], beta: &[f32], epsilon: f32) -> Normalised {
    let channels = gamma.len();
    let n = rows(x, channels);
    let mean: Vec<f32> = sums(x, x, channels, |x, _| x, &[])
        .iter()
        .map(|sum| narrow(sum / n))
        .collect();
    let variance: Vec<f32> = sums(x, x, channels, |d, _| d * d, &mean)
        .iter()
        .map(|sum| narrow(sum / n))
        .collect();
    let scale: Vec<f32> = (variance.iter().zip(gamma))
        .map(|(variance, gamma)| gamma / (variance + epsilon).sqrt())
        .collect();
    let mut y = vec![0.0; x.len()];
    split(&mut y, x, x, channels, |y, x, _| {
        let numbers = mean.iter().zip(&scale).zip(beta);
        for ((y, &x), ((&mean, &scale), &beta)) in y.iter_mut().zip(x).zip(numbers) {
            *y = (x - mean) * scale + beta;
        }
    });
    Normalised { y, mean, variance }
}

/// Gradients of [`batch_norm`].
#[derive(Debug, Clone, PartialEq)]
pub struct NormGradients {
    /// Of the rows.
    pub x: Vec<f32>,
    /// Of the scales.
    pub gamma: Vec<f32>,
    /// Of the shifts.
    pub beta: Vec<f32>,
}

/// Returns the gradients of everything that [`batch_norm`] took.
#[must_use]
pub fn batch_norm_gradients(
    x: &[f32],
    dy: &[f32],
    gamma: &[f32],
    (mean, variance): (&[f32], &[f32]),
    epsilon: f32,
) -> NormGradients {
    let channels = gamma.len();
    let n = rows(x, channels);
    let root: Vec<f32> = variance
        .iter()
        .map(|v| 1.0 / (v + epsilon).sqrt())
        .collect();
    let shift = sums(dy, x, channels, |dy, _| dy, &[]);
    let spread = sums(x, dy, channels, |d, dy| d * dy, mean);
    let spread: Vec<f64> = (spread.iter().zip(&root))
        .map(|(sum, root)| sum * f64::from(*root))
        .collect();
    // dx = γ/σ (dy - Σdy/n - x̂ Σ(dy x̂)/n), with x̂ = (x - μ)/σ.
    let scale: Vec<f32> = root.iter().zip(gamma).map(|(r, g)| r * g).collect();
    let even: Vec<f32> = shift.iter().map(|sum| narrow(sum / n)).collect();
    let slope: Vec<f32> = (spread.iter().zip(&root))
        .map(|(sum, root)| narrow(sum / n) * root)
        .collect();
    let mut dx = vec![0.0; x.len()];
    split(&mut dx, x, dy, channels, |dx, x, dy| {
        let numbers = mean.iter().zip(&slope).zip(even.iter().zip(&scale));
        let values = dx.iter_mut().zip(x).zip(dy);
        for (((dx, &x), &dy), ((&mean, &slope), (&even, &scale))) in values.zip(numbers) {
            *dx = (dy - even - (x - mean) * slope) * scale;
        }
    });
    NormGradients {
        x: dx,
        gamma: spread.iter().map(|&sum| narrow(sum)).collect(),
        beta: shift.iter().map(|&sum| narrow(sum)).collect(),
    }
}

/// Number of rows.
#[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]
fn rows(x: &[f32], channels: usize) -> f64 {
    (x.len() / channels.max(1)).max(1) as f64
}

#[expect(clippy::cast_possible_truncation, reason = "a number of 32-bit floats")]
fn narrow(value: f64) -> f32 {
    value as f32
}

/// Sums a function of two values over each channel; `centre`, unless empty, is taken off the
/// first one.
fn sums(
    a: &[f32],
    b: &[f32],
    channels: usize,
    f: impl Fn(f32, f32) -> f32 + Sync,
    centre: &[f32],
) -> Vec<f64> {
    let none = vec![0.0; channels];
    let centre = if centre.is_empty() { &none } else { centre };
    let part = |(a, b): (&[f32], &[f32])| {
        let mut sums = vec![0.0_f32; channels];
        simd::run(
            #[inline(always)]
            || {
                let rows = a.chunks_exact(channels).zip(b.chunks_exact(channels));
                for (a, b) in rows {
                    for (sum, ((&a, &b), &centre)) in
                        sums.iter_mut().zip(a.iter().zip(b).zip(centre))
                    {
                        *sum += f(a - centre, b);
                    }
                }
            },
        );
        sums
    };
    let size = (ROWS * channels).max(1);
    let parts: Vec<Vec<f32>> = if is_large(a.len()) {
        a.par_chunks(size)
            .zip(b.par_chunks(size))
            .map(part)
            .collect()
    } else {
        a.chunks(size).zip(b.chunks(size)).map(part).collect()
    };
    let mut total = vec![0.0_f64; channels];
    for part in &parts {
        for (total, &sum) in total.iter_mut().zip(part) {
            *total += f64::from(sum);
        }
    }
    total
}

/// Calls `f` for each row of three matrices of the same shape.
fn split(
    to: &mut [f32],
    a: &[f32],
    b: &[f32],
    channels: usize,
    f: impl Fn(&mut [f32], &[f32], &[f32]) + Sync,
) {
    let part = |((to, a), b): ((&mut [f32], &[f32]), &[f32])| {
        simd::run(
            #[inline(always)]
            || {
                let rows = to.chunks_exact_mut(channels).zip(a.chunks_exact(channels));
                for ((to, a), b) in rows.zip(b.chunks_exact(channels)) {
                    f(to, a, b);
                }
            },
        );
    };
    let size = (ROWS * channels).max(1);
    if is_large(a.len()) {
        let parts = to.par_chunks_mut(size).zip(a.par_chunks(size));
        parts.zip(b.par_chunks(size)).for_each(part);
    } else {
        let parts = to.chunks_mut(size).zip(a.chunks(size));
        parts.zip(b.chunks(size)).for_each(part);
    }
}

fn is_large(values: usize) -> bool {
    values >= PARALLEL && rayon::current_num_threads() > 1
}
