//! Initial values of weights, as Keras draws them.

use nereid_core::spec::{
    initializers::{Distribution, FanMode, Initializer},
    weights::Weight,
};
use rand::rngs::StdRng;

use crate::random;

/// Standard deviation of a standard normal distribution cut at two of them.
const TRUNCATED_STDDEV: f64 = 0.879_625_661_034_239_8;

/// Draws a weight's initial values, in Keras' order.
#[expect(clippy::cast_possible_truncation, reason = "weights are 32-bit floats")]
pub(super) fn values(weight: &Weight, rng: &mut StdRng) -> Vec<f32> {
    let n = weight.shape.iter().product();
    let (fan_in, fan_out) = match &weight.fans {
        Some(given) => fans(given),
        None => fans(&weight.shape),
    };
    let scaling = |scale, mode, distribution| Initializer::VarianceScaling {
        scale,
        mode,
        distribution,
    };
    let initializer = match weight.initializer {
        Initializer::GlorotUniform {} => scaling(1.0, FanMode::FanAvg, Distribution::Uniform),
        Initializer::GlorotNormal {} => {
            scaling(1.0, FanMode::FanAvg, Distribution::TruncatedNormal)
        }
        Initializer::HeUniform {} => scaling(2.0, FanMode::FanIn, Distribution::Uniform),
        Initializer::HeNormal {} => scaling(2.0, FanMode::FanIn, Distribution::TruncatedNormal),
        Initializer::LecunUniform {} => scaling(1.0, FanMode::FanIn, Distribution::Uniform),
        Initializer::LecunNormal {} => scaling(1.0, FanMode::FanIn, Distribution::TruncatedNormal),
        other => other,
    };
    let mut values = match initializer {
        Initializer::Zeros {} => vec![0.0; n],
        Initializer::Ones {} => vec![1.0; n],
        Initializer::Constant { value } => vec![value as f32; n],
        Initializer::RandomNormal { mean, stddev } => random::normal(rng, n, mean, stddev),
        Initializer::TruncatedNormal { mean, stddev } => {
            random::truncated_normal(rng, n, mean, stddev)
        }
        Initializer::RandomUniform { minval, maxval } if minval + maxval == 0.0 => {
            random::uniform(rng, n, maxval as f32)
        }
        Initializer::RandomUniform { minval, maxval } => {
            let (centre, half) = (f64::midpoint(minval, maxval), (maxval - minval) / 2.0);
            let around = random::uniform(rng, n, half as f32);
            around.into_iter().map(|v| v + centre as f32).collect()
        }
        Initializer::PytorchUniform {} => random::uniform(rng, n, (1.0 / weight.fan.sqrt()) as f32),
        Initializer::Orthogonal { gain } => orthogonal(&weight.shape, gain, rng),
        Initializer::VarianceScaling {
            scale,
            mode,
            distribution,
        } => {
            let fan = match mode {
                FanMode::FanIn => fan_in,
                FanMode::FanOut => fan_out,
                FanMode::FanAvg => f64::midpoint(fan_in, fan_out),
            };
            scaled(rng, n, (scale, fan.max(1.0)), distribution)
        }
        // All others are ways to write a variance scaling.
        _ => Vec::new(),
    };
    if let Some(ones) = weight.ones.clone().and_then(|r| values.get_mut(r)) {
        ones.fill(1.0);
    }
    values
}

#[expect(clippy::cast_possible_truncation, reason = "weights are 32-bit floats")]
fn scaled(
    rng: &mut StdRng,
    n: usize,
    (scale, fan): (f64, f64),
    distribution: Distribution,
) -> Vec<f32> {
    let stddev = (scale / fan).sqrt();
    match distribution {
        Distribution::Uniform => random::uniform(rng, n, (3.0 * scale / fan).sqrt() as f32),
        Distribution::UntruncatedNormal => random::normal(rng, n, 0.0, stddev),
        Distribution::TruncatedNormal => {
            random::truncated_normal(rng, n, 0.0, stddev / TRUNCATED_STDDEV)
        }
    }
}

/// Inputs and outputs of a kernel of shape (…, in, out), as Keras counts them.
#[expect(clippy::cast_precision_loss, reason = "fans are far below 2^52")]
fn fans(shape: &[usize]) -> (f64, f64) {
    let (fan_in, fan_out) = match shape {
        [] => (1, 1),
        [n] => (*n, *n),
        [window @ .., inputs, outputs] => {
            let window: usize = window.iter().product();
            (window * inputs, window * outputs)
        }
    };
    (fan_in as f64, fan_out as f64)
}

/// Makes a matrix of all axes but the last one by the last one, whose shorter side's vectors are
/// orthogonal and of length `gain`.
#[expect(clippy::cast_possible_truncation, reason = "weights are 32-bit floats")]
fn orthogonal(shape: &[usize], gain: f64, rng: &mut StdRng) -> Vec<f32> {
    let n: usize = shape.iter().product();
    let columns = shape.last().copied().unwrap_or(1).max(1);
    let rows = n / columns;
    let (long, short) = (rows.max(columns), rows.min(columns));
    let mut vectors: Vec<Vec<f64>> = (0..short)
        .map(|_| random::standard_normal(rng, long))
        .collect();
    for i in 0..short {
        let (done, rest) = vectors.split_at_mut(i);
        let vector = &mut rest[0];
        // Twice is enough to be orthogonal to the last digit (Giraud et al., 2005).
        for _ in 0..2 {
            for other in done.iter() {
                let along: f64 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
                for (a, b) in vector.iter_mut().zip(other) {
                    *a -= along * b;
                }
            }
        }
        let length = vector.iter().map(|a| a * a).sum::<f64>().sqrt();
        for a in vector.iter_mut() {
            *a /= length;
        }
    }
    let at = |row: usize, column: usize| {
        if rows >= columns {
            vectors[column][row]
        } else {
            vectors[row][column]
        }
    };
    (0..n)
        .map(|i| (at(i / columns, i % columns) * gain) as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, generator};

    fn draw(shape: &[usize], initializer: &str) -> Vec<f32> {
        let initializer = serde_json::from_str(initializer).unwrap();
        let weight = Weight {
            role: "kernel".to_owned(),
            shape: shape.to_vec(),
            trainable: true,
            initializer,
            fans: None,
            fan: 16.0,
            regularizer: None,
            ones: None,
        };
        values(&weight, &mut generator(3, Purpose::Weights, [0, 0]))
    }

    fn spread(values: &[f32]) -> (f32, f32, f32) {
        #[expect(clippy::cast_precision_loss, reason = "few values")]
        let n = values.len() as f32;
        let mean = values.iter().sum::<f32>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n;
        let largest = values.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        (mean, variance.sqrt(), largest)
    }

    #[test]
    fn draws_have_the_spread_and_the_bounds_that_keras_documents() {
        // A kernel of 3×3 with 10 inputs and 40 outputs: fans of 90 and 360.
        let shape = [3, 3, 10, 40];
        for (name, stddev, bound) in [
            (
                "glorot_uniform",
                (2.0_f32 / 450.0).sqrt(),
                (6.0_f32 / 450.0).sqrt(),
            ),
            ("glorot_normal", (2.0_f32 / 450.0).sqrt(), f32::INFINITY),
            (
                "he_uniform",
                (2.0_f32 / 90.0).sqrt(),
                (6.0_f32 / 90.0).sqrt(),
            ),
            (
                "he_normal",
                (2.0_f32 / 90.0).sqrt(),
                (2.0_f32 / 90.0).sqrt() * 2.0 / 0.879,
            ),
            (
                "lecun_uniform",
                (1.0_f32 / 90.0).sqrt(),
                (3.0_f32 / 90.0).sqrt(),
            ),
            ("lecun_normal", (1.0_f32 / 90.0).sqrt(), f32::INFINITY),
            ("random_normal", 0.05, f32::INFINITY),
            ("random_uniform", 0.05 / 3.0_f32.sqrt(), 0.05),
            ("truncated_normal", 0.05 * 0.8796, 0.1),
            ("pytorch_uniform", 0.25 / 3.0_f32.sqrt(), 0.25),
        ] {
            let values = draw(&shape, &format!(r#"{{"type": "{name}"}}"#));
            assert_eq!(values.len(), 3600);
            let (mean, deviation, largest) = spread(&values);
            assert!(mean.abs() < 0.08 * stddev, "{name}: {mean}");
            assert!(
                (deviation / stddev - 1.0).abs() < 0.04,
                "{name}: {deviation} {stddev}"
            );
            assert!(largest <= bound, "{name}: {largest} {bound}");
        }
        let shifted = draw(
            &shape,
            r#"{"type": "random_uniform", "minval": 1, "maxval": 3}"#,
        );
        assert!(shifted.iter().all(|v| (1.0..3.0).contains(v)));
    }

    #[test]
    fn orthogonal_vectors_are_orthogonal_and_of_the_gains_length() {
        for (rows, columns) in [(6, 24), (24, 6), (8, 8)] {
            let m = draw(&[rows, columns], r#"{"type": "orthogonal", "gain": 2.0}"#);
            let short = rows.min(columns);
            let vector = |i: usize| -> Vec<f32> {
                if rows <= columns {
                    m[i * columns..(i + 1) * columns].to_vec()
                } else {
                    m.iter().skip(i).step_by(columns).copied().collect()
                }
            };
            for (i, j) in (0..short).flat_map(|i| (0..short).map(move |j| (i, j))) {
                let product: f32 = vector(i).iter().zip(vector(j)).map(|(a, b)| a * b).sum();
                let expected = if i == j { 4.0 } else { 0.0 };
                assert!((product - expected).abs() < 1e-5, "{i} {j}: {product}");
            }
        }
    }
}
