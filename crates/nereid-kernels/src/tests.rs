//! Every kernel against its definition, in double precision.
#![expect(clippy::many_single_char_names, reason = "the letters of the formulas")]

use super::*;

mod rows;

/// Values that repeat no pattern of the shapes, some of them 0.
fn values(n: usize, salt: usize) -> Vec<f32> {
    let value = |i: usize| i16::try_from((i * 37 + salt * 101) % 61).unwrap();
    (0..n).map(|i| f32::from(value(i) - 30) / 16.0).collect()
}

#[track_caller]
fn close(got: &[f32], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(*a) - b).abs();
        assert!(error <= 1e-4 * b.abs().max(1.0), "{i}: {a} is not {b}");
    }
}

fn cases() -> Vec<Windows> {
    let mut cases = Vec::new();
    for (batch, input, channels) in [
        (1, [5, 7], 1),
        (2, [9, 6], 3),
        (3, [8, 8], 16),
        (7, [4, 5], 33),
        (1, [3, 3], 50),
    ] {
        for (size, stride, dilation) in [
            ([1, 1], [1, 1], [1, 1]),
            ([3, 3], [1, 1], [1, 1]),
            ([2, 3], [2, 1], [1, 1]),
            ([3, 2], [2, 3], [1, 1]),
            ([2, 2], [1, 1], [1, 2]),
            ([2, 2], [1, 2], [2, 1]),
        ] {
            for pads in [[(0, 0), (0, 0)], [(1, 1), (1, 1)], [(0, 1), (2, 0)]] {
                cases.push(Windows {
                    batch,
                    input,
                    channels,
                    size,
                    stride,
                    dilation,
                    pads,
                });
            }
        }
    }
    cases
}

/// Calls `f` for each value in each window: image, position, place in the window, offset.
fn taps(w: &Windows, mut f: impl FnMut(usize, usize, usize, usize)) {
    let [height, width] = w.output();
    for n in 0..w.batch {
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            for (i, j) in (0..w.size[0]).flat_map(|i| (0..w.size[1]).map(move |j| (i, j))) {
                let at = |axis: usize, position: usize, step: usize| {
                    (position * w.stride[axis] + step * w.dilation[axis])
                        .checked_sub(w.pads[axis].0)
                        .filter(|at| *at < w.input[axis])
                };
                if let (Some(row), Some(column)) = (at(0, y, i), at(1, x, j)) {
                    let offset = n * w.image() + (row * w.input[1] + column) * w.channels;
                    f(
                        n,
                        n * height * width + y * width + x,
                        i * w.size[1] + j,
                        offset,
                    );
                }
            }
        }
    }
}

#[track_caller]
fn convolves(windows: Windows, filters: usize) {
    let c = windows.channels;
    let positions = windows.batch * windows.positions();
    let x = values(windows.batch * windows.image(), 1);
    let w = values(windows.size[0] * windows.size[1] * c * filters, 2);
    let (bias, dy) = (values(filters, 3), values(positions * filters, 4));
    let mut y: Vec<f64> = (0..positions)
        .flat_map(|_| bias.iter().map(|b| f64::from(*b)))
        .collect();
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    taps(&windows, |_, position, place, at| {
        for k in 0..c {
            for f in 0..filters {
                let (i, o) = ((place * c + k) * filters + f, position * filters + f);
                let [x, w, d] = [x[at + k], w[i], dy[o]].map(f64::from);
                y[o] += x * w;
                dw[i] += x * d;
                dx[at + k] += w * d;
            }
        }
    });
    let conv = Conv::new(windows, filters);
    let padded = conv.pad(&x);
    close(&conv.forward(&padded, &w, Some(&bias), false), &y);
    close(&conv.kernel_gradient(&padded, &dy), &dw);
    close(&conv.input_gradient(&dy, &w), &dx);
    let relu: Vec<f64> = y.iter().map(|y| y.max(0.0)).collect();
    close(&conv.forward(&padded, &w, Some(&bias), true), &relu);
}

#[test]
fn convolutions_and_their_gradients_are_those_of_the_definition() {
    for windows in cases() {
        for filters in [1, 5, 32, 40] {
            convolves(windows, filters);
        }
    }
}

#[test]
fn convolutions_with_fewer_multiplications_are_those_of_the_definition() {
    for (batch, input, channels, filters, pads) in [
        (2, [24, 24], 16, 48, [(1, 1), (1, 1)]),
        (5, [18, 20], 32, 16, [(0, 0), (0, 0)]),
        (3, [23, 22], 16, 32, [(0, 1), (2, 0)]),
    ] {
        let windows = Windows {
            batch,
            input,
            channels,
            size: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
            pads,
        };
        assert!(winograd::Winograd::new(windows, filters).is_some());
        convolves(windows, filters);
    }
}

#[test]
fn dense_layers_are_products_of_matrices() {
    for (rows, inputs, units) in [
        (1, 1, 1),
        (5, 20, 7),
        (13, 64, 64),
        (200, 33, 90),
        (256, 3, 10),
    ] {
        let (x, w) = (values(rows * inputs, 1), values(inputs * units, 2));
        let (dy, bias) = (values(rows * units, 3), values(units, 4));
        let mut y: Vec<f64> = (0..rows)
            .flat_map(|_| bias.iter().map(|b| f64::from(*b)))
            .collect();
        let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
        let mut db = vec![0.0; units];
        for r in 0..rows {
            for u in 0..units {
                db[u] += f64::from(dy[r * units + u]);
                for i in 0..inputs {
                    let (at, d) = (i * units + u, f64::from(dy[r * units + u]));
                    let (x, w) = (f64::from(x[r * inputs + i]), f64::from(w[at]));
                    y[r * units + u] += x * w;
                    dw[at] += x * d;
                    dx[r * inputs + i] += w * d;
                }
            }
        }
        let dense = Dense {
            rows,
            inputs,
            units,
        };
        close(&dense.forward(&x, &w, Some(&bias), false), &y);
        close(&dense.kernel_gradient(&x, &dy), &dw);
        close(&dense.input_gradient(&dy, &w), &dx);
        close(&column_sums(&dy, units), &db);
    }
}

#[test]
fn pools_and_their_gradients_are_those_of_the_definition() {
    for windows in cases().into_iter().filter(|w| w.dilation == [1, 1]) {
        let c = windows.channels;
        // Windows that hold padding alone have no maximum.
        if (0..2).any(|a| windows.pads[a].0.max(windows.pads[a].1) >= windows.size[a]) {
            continue;
        }
        let positions = windows.batch * windows.positions();
        let x = values(windows.batch * windows.image(), 1);
        let dy = values(positions * c, 4);
        let mut counts = vec![0.0; positions];
        let (mut max, mut mean) = (
            vec![f64::NEG_INFINITY; positions * c],
            vec![0.0; positions * c],
        );
        let mut first = vec![0; positions * c];
        taps(&windows, |_, position, _, at| {
            counts[position] += 1.0;
            for k in 0..c {
                let (o, x) = (position * c + k, f64::from(x[at + k]));
                mean[o] += x;
                if x > max[o] {
                    (max[o], first[o]) = (x, at + k);
                }
            }
        });
        for (o, mean) in mean.iter_mut().enumerate() {
            *mean /= counts[o / c];
        }
        let (mut dmax, mut dmean) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        for (o, &at) in first.iter().enumerate() {
            dmax[at] += f64::from(dy[o]);
        }
        taps(&windows, |_, position, _, at| {
            for k in 0..c {
                dmean[at + k] += f64::from(dy[position * c + k]) / counts[position];
            }
        });
        let y = maximum(&windows, &x);
        close(&y, &max);
        close(&maximum_gradient(&windows, &x, &y, &dy), &dmax);
        close(&average(&windows, &x), &mean);
        close(&average_gradient(&windows, &dy), &dmean);
    }
}

#[test]
fn batches_are_normalised_with_the_gradients_of_the_definition() {
    for (rows, channels) in [(2, 1), (7, 3), (600, 33), (5_000, 64)] {
        let (x, dy) = (values(rows * channels, 1), values(rows * channels, 2));
        let (gamma, beta) = (values(channels, 3), values(channels, 4));
        let epsilon = 1e-3_f32;
        let got = batch_norm(&x, &gamma, &beta, epsilon);
        let statistics = (&got.mean[..], &got.variance[..]);
        let gradients = batch_norm_gradients(&x, &dy, &gamma, statistics, epsilon);
        let n = f64::from(u32::try_from(rows).unwrap());
        let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        let (mut dgamma, mut dbeta) = (vec![0.0; channels], vec![0.0; channels]);
        for c in 0..channels {
            let at = |v: &[f32]| -> Vec<f64> {
                v.iter()
                    .skip(c)
                    .step_by(channels)
                    .map(|v| f64::from(*v))
                    .collect()
            };
            let (x, dy) = (at(&x), at(&dy));
            let mean = x.iter().sum::<f64>() / n;
            let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
            let root = (variance + f64::from(epsilon)).sqrt();
            let hat: Vec<f64> = x.iter().map(|x| (x - mean) / root).collect();
            dbeta[c] = dy.iter().sum::<f64>();
            dgamma[c] = dy.iter().zip(&hat).map(|(d, h)| d * h).sum::<f64>();
            for r in 0..rows {
                let (g, i) = (f64::from(gamma[c]), r * channels + c);
                y[i] = hat[r] * g + f64::from(beta[c]);
                dx[i] = g / root * (dy[r] - dbeta[c] / n - hat[r] * dgamma[c] / n);
            }
        }
        close(&got.y, &y);
        close(&gradients.x, &dx);
        close(&gradients.gamma, &dgamma);
        close(&gradients.beta, &dbeta);
    }
}

#[test]
fn not_a_number_stays_what_it_is() {
    let windows = Windows {
        batch: 1,
        input: [2, 2],
        channels: 1,
        size: [2, 2],
        stride: [2, 2],
        dilation: [1, 1],
        pads: [(0, 0); 2],
    };
    for at in 0..4 {
        let mut x = [1.0, 2.0, 3.0, 4.0];
        x[at] = f32::NAN;
        assert!(maximum(&windows, &x)[0].is_nan(), "{at}");
    }
}

#[test]
fn no_result_depends_on_the_number_of_threads() {
    let windows = Windows {
        batch: 37,
        input: [20, 20],
        channels: 16,
        size: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        pads: [(1, 1); 2],
    };
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let conv = Conv::new(windows, 32);
            let x = values(windows.batch * windows.image(), 1);
            let w = values(9 * 16 * 32, 2);
            let padded = conv.pad(&x);
            let y = conv.forward(&padded, &w, None, true);
            let dense = Dense {
                rows: 370,
                inputs: 640,
                units: 32,
            };
            [
                conv.kernel_gradient(&padded, &y),
                conv.input_gradient(&y, &w),
                column_sums(&y, 32),
                maximum(&windows, &x),
                average_gradient(&windows, &x),
                batch_norm(&x, &[1.0; 16], &[0.5; 16], 1e-3).y,
                batch_norm_gradients(&x, &x, &[1.0; 16], (&[0.1; 16], &[0.7; 16]), 1e-3).gamma,
                dense.kernel_gradient(&x, &y[..370 * 32]),
                y,
            ]
        })
    };
    let one = run(1);
    for threads in [2, 3, 8] {
        let several = run(threads);
        for (a, b) in one.iter().zip(&several) {
            assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}
