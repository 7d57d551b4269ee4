//! Random numbers that depend on the spec's seed and on nothing else.
//!
//! Each use draws from a generator of its own, found from seed, purpose and position. Nothing is
//! drawn from the framework's process-wide generator, which parallel jobs would disturb, and no
//! generator needs to be saved: a resumed training finds the same numbers again.

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

/// What random numbers are drawn for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Split = 1,
    Weights = 2,
    Order = 3,
    Dropout = 4,
    Augmentation = 20,
    Mixing = 21,
    Balance = 22,
    Adapters = 30,
}

/// Returns the generator for a purpose at a position.
pub(crate) fn generator(seed: u64, purpose: Purpose, position: [u64; 2]) -> StdRng {
    let parts = [seed, purpose as u64, position[0], position[1]];
    let mixed = parts.iter().fold(0_u64, |h, &p| scramble(h ^ p));
    StdRng::seed_from_u64(mixed)
}

/// The finaliser of `SplitMix64` (Steele et al., 2014).
fn scramble(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Draws `n` numbers uniformly from `-limit..limit`.
pub(crate) fn uniform(rng: &mut StdRng, n: usize, limit: f32) -> Vec<f32> {
    (0..n)
        .map(|_| (rng.random::<f32>() * 2.0 - 1.0) * limit)
        .collect()
}

/// Draws `n` numbers from the standard normal distribution (Box and Muller, 1958).
pub(crate) fn standard_normal(rng: &mut StdRng, n: usize) -> Vec<f64> {
    let mut numbers = Vec::with_capacity(n + 1);
    while numbers.len() < n {
        // Above 0, whose logarithm is not finite.
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
        numbers.extend([radius * cos, radius * sin]);
    }
    numbers.truncate(n);
    numbers
}

/// Draws `n` numbers from a normal distribution.
#[expect(clippy::cast_possible_truncation, reason = "weights are 32-bit floats")]
pub(crate) fn normal(rng: &mut StdRng, n: usize, mean: f64, stddev: f64) -> Vec<f32> {
    let numbers = standard_normal(rng, n).into_iter();
    numbers.map(|v| (mean + stddev * v) as f32).collect()
}

/// Draws `n` numbers from a normal distribution, anew where they are beyond two deviations.
#[expect(clippy::cast_possible_truncation, reason = "weights are 32-bit floats")]
pub(crate) fn truncated_normal(rng: &mut StdRng, n: usize, mean: f64, stddev: f64) -> Vec<f32> {
    let mut numbers = Vec::with_capacity(n);
    while numbers.len() < n {
        let drawn = standard_normal(rng, n - numbers.len()).into_iter();
        let kept = drawn.filter(|v| v.abs() <= 2.0);
        numbers.extend(kept.map(|v| (mean + stddev * v) as f32));
    }
    numbers
}

/// Reorders `items`.
pub(crate) fn shuffle<T>(rng: &mut StdRng, items: &mut [T]) {
    items.shuffle(rng);
}

/// Draws a dropout mask: 0 with probability `rate`, else `1 / (1 - rate)`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the rate is from 0 to below 1"
)]
pub(crate) fn dropout_mask(rng: &mut StdRng, n: usize, rate: f64) -> Vec<f32> {
    let threshold = (rate * f64::from(u32::MAX)) as u32;
    let keep = (1.0 / (1.0 - rate)) as f32;
    (0..n)
        .map(|_| {
            if rng.random::<u32>() < threshold {
                0.0
            } else {
                keep
            }
        })
        .collect()
}
