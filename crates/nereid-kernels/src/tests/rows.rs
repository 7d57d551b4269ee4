//! Attention, layer normalisation and activations against their formulas in double precision.

use super::{close, values};
use crate::{Attention, Curve, layer_norm, layer_norm_gradients};

fn double(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// Derivatives, from differences, of the sum of `f`'s results weighed by `dy`.
fn slopes(f: &dyn Fn(&[f64]) -> Vec<f64>, at: &[f32], dy: &[f32]) -> Vec<f64> {
    let weighed = |x: &[f64]| -> f64 {
        let y = f(x);
        y.iter().zip(dy).map(|(y, d)| y * f64::from(*d)).sum()
    };
    let slope = |i: usize| {
        let mut moved = double(at);
        moved[i] += 1e-5;
        let above = weighed(&moved);
        moved[i] -= 2e-5;
        (above - weighed(&moved)) / 2e-5
    };
    (0..at.len()).map(slope).collect()
}

#[test]
fn activations_and_their_gradients_are_those_of_the_formulas() {
    let normal = |x: f64| {
        // The distribution function by Simpson's rule.
        let steps = 400;
        let h = x / f64::from(steps);
        let density = |t: f64| (-0.5 * t * t).exp() / std::f64::consts::TAU.sqrt();
        let weight = |i: i32| match (i == 0 || i == steps, i % 2) {
            (true, _) => 1.0,
            (_, 1) => 4.0,
            _ => 2.0,
        };
        let sum: f64 = (0..=steps)
            .map(|i| weight(i) * density(f64::from(i) * h))
            .sum();
        0.5 + sum * h / 3.0
    };
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let curves: [(Curve, &dyn Fn(f64) -> f64); 5] = [
        (Curve::Relu, &|x| x.max(0.0)),
        (Curve::Gelu, &|x| x * normal(x)),
        (Curve::Silu, &|x| x * sigmoid(x)),
        (Curve::Sigmoid, &sigmoid),
        (Curve::Tanh, &f64::tanh),
    ];
    for n in [1, 61, 200_000] {
        // No value is 0, where ReLU has no slope.
        let x: Vec<f32> = values(n, 1).iter().map(|x| x * 2.0 + 0.01).collect();
        for (curve, f) in curves {
            let y = curve.apply(&x);
            let expected: Vec<f64> = x.iter().map(|&x| f(f64::from(x))).collect();
            close(&y, &expected);
            let mut dy = vec![2.0; n];
            curve.gradient(&mut dy, if curve.follows_from_result() { &y } else { &x });
            let slope = |x: &f32| (f(f64::from(*x) + 1e-5) - f(f64::from(*x) - 1e-5)) / 1e-5;
            let expected: Vec<f64> = x.iter().map(slope).collect();
            close(&dy, &expected);
        }
    }
}

#[test]
fn rows_are_normalised_with_the_gradients_of_the_formulas() {
    let epsilon = 1e-3;
    for (rows, width) in [(1, 1), (3, 5), (7, 33), (300, 16)] {
        let (x, dy) = (values(rows * width, 1), values(rows * width, 2));
        let (gamma, beta) = (values(width, 3), values(width, 4));
        let normalise = |x: &[f64], gamma: &[f64], beta: &[f64]| -> Vec<f64> {
            let row = |x: &[f64]| -> Vec<f64> {
                let n = f64::from(u32::try_from(x.len()).unwrap());
                let mean = x.iter().sum::<f64>() / n;
                let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
                let root = (variance + f64::from(epsilon)).sqrt();
                let numbers = x.iter().zip(gamma.iter().zip(beta));
                numbers
                    .map(|(x, (g, b))| (x - mean) / root * g + b)
                    .collect()
            };
            x.chunks(width).flat_map(row).collect()
        };
        let (x64, gamma64, beta64) = (double(&x), double(&gamma), double(&beta));
        let found = layer_norm(&x, &gamma, &beta, epsilon);
        close(&found.y, &normalise(&x64, &gamma64, &beta64));
        let [dx, dgamma, dbeta] = layer_norm_gradients(&x, &dy, &gamma, &found.statistics);
        if rows < 10 {
            close(&dx, &slopes(&|x| normalise(x, &gamma64, &beta64), &x, &dy));
        }
        close(
            &dgamma,
            &slopes(&|g| normalise(&x64, g, &beta64), &gamma, &dy),
        );
        close(
            &dbeta,
            &slopes(&|b| normalise(&x64, &gamma64, b), &beta, &dy),
        );
    }
}

/// The formula, one head after the other.
fn attend(a: &Attention, [q, k, v]: [&[f64]; 3], mask: Option<&[f32]>) -> Vec<f64> {
    let (heads, [tq, tk], [d, size]) = (a.heads, a.steps, a.sizes);
    let mut y = vec![0.0; a.batch * tq * heads * size];
    for (n, h, i) in (0..a.batch)
        .flat_map(|n| (0..heads).map(move |h| (n, h)))
        .flat_map(|(n, h)| (0..tq).map(move |i| (n, h, i)))
    {
        let at = |steps: usize, step: usize, size: usize| ((n * steps + step) * heads + h) * size;
        let (query, seen) = (at(tq, i, d), if a.causal { (i + 1).min(tk) } else { tk });
        let score = |j: usize| {
            let key = at(tk, j, d);
            let product: f64 = (0..d).map(|c| q[query + c] * k[key + c]).sum();
            (product * f64::from(a.scale)).exp()
        };
        let scores: Vec<f64> = (0..seen).map(score).collect();
        let total: f64 = scores.iter().sum();
        for (j, score) in scores.iter().enumerate() {
            let factor = mask.map_or(1.0, |m| f64::from(m[((n * heads + h) * tq + i) * tk + j]));
            for c in 0..size {
                y[at(tq, i, size) + c] += score / total * factor * v[at(tk, j, size) + c];
            }
        }
    }
    y
}

#[test]
fn attention_and_its_gradients_are_those_of_the_formula() {
    for (batch, heads, steps, sizes, causal) in [
        (1, 1, [1, 1], [1, 1], false),
        (2, 3, [4, 5], [6, 2], false),
        (3, 2, [5, 5], [3, 7], true),
        (2, 2, [17, 33], [16, 20], false),
    ] {
        let a = Attention {
            batch,
            heads,
            steps,
            sizes,
            scale: 0.37,
            causal,
        };
        let [tq, tk] = steps;
        let q = values(batch * tq * heads * sizes[0], 1);
        let k = values(batch * tk * heads * sizes[0], 2);
        let v = values(batch * tk * heads * sizes[1], 3);
        let dy = values(batch * tq * heads * sizes[1], 4);
        let dropped: Vec<f32> = values(batch * heads * tq * tk, 5)
            .iter()
            .map(|x| if *x < 0.5 { 2.0 } else { 0.0 })
            .collect();
        let (q64, k64, v64) = (double(&q), double(&k), double(&v));
        for mask in [None, Some(dropped.as_slice())] {
            let shares = a.shares(&q, &k);
            let weighed: Vec<f32> = match mask {
                Some(mask) => shares.iter().zip(mask).map(|(s, m)| s * m).collect(),
                None => shares.clone(),
            };
            close(
                &a.forward(&weighed, &v),
                &attend(&a, [&q64, &k64, &v64], mask),
            );
            let [dq, dk, dv] = a.gradients([&q, &k, &v], &shares, mask, &dy);
            close(
                &dq,
                &slopes(&|q| attend(&a, [q, &k64, &v64], mask), &q, &dy),
            );
            close(
                &dk,
                &slopes(&|k| attend(&a, [&q64, k, &v64], mask), &k, &dy),
            );
            close(
                &dv,
                &slopes(&|v| attend(&a, [&q64, &k64, v], mask), &v, &dy),
            );
        }
    }
}
