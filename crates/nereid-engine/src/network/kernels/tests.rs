//! Our own arithmetic against the framework's: results and gradients.

use burn::tensor::{Device, Tensor, TensorData, activation, ops::PadMode};
use nereid_core::spec::layers::StepPadding;
use nereid_kernels::{Curve, Windows};

use super::super::{attention::attend, host, window::Window};

fn values(n: usize, salt: usize) -> Vec<f32> {
    let value = |i: usize| i16::try_from((i * 53 + salt * 17) % 89).unwrap();
    (0..n).map(|i| f32::from(value(i) - 44) / 32.0).collect()
}

fn leaf<const D: usize>(shape: [usize; D], salt: usize) -> Tensor<D> {
    let data = TensorData::new(values(shape.iter().product(), salt), shape);
    let device = Device::flex().autodiff();
    Tensor::from_data(data, &device).require_grad()
}

#[track_caller]
fn close(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!(
            (a - b).abs() <= 5e-5 * b.abs().max(1.0),
            "{what}, {i}: {a} is not {b}"
        );
    }
}

/// Runs both ways of a layer; compares results, and gradients of all leaves for a loss that
/// weighs each output differently.
#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "made for the one call")]
fn compare<const N: usize>(
    what: &str,
    leaves: [Tensor<1>; N],
    ours: impl Fn([Tensor<1>; N]) -> Tensor<2>,
    framework: impl Fn([Tensor<1>; N]) -> Tensor<2>,
) {
    let run = |f: &dyn Fn([Tensor<1>; N]) -> Tensor<2>| {
        let y = f(leaves.clone());
        let weigh = values(y.dims().iter().product(), 7);
        let data = TensorData::new(weigh, y.dims());
        let weigh: Tensor<2> = Tensor::from_data(data, &Device::flex());
        let gradients = (y.clone() * weigh).sum().backward();
        let mut out = vec![host(y.inner()).unwrap()];
        for leaf in &leaves {
            out.push(host(leaf.grad(&gradients).unwrap()).unwrap());
        }
        out
    };
    let (ours, framework) = (run(&ours), run(&framework));
    for (i, (a, b)) in ours.iter().zip(&framework).enumerate() {
        close(&format!("{what}, part {i}"), a, b);
    }
}

/// Channels-last rows to planes.
fn planes(x: Tensor<1>, w: &Windows) -> Tensor<4> {
    let [h, width] = w.input;
    let x: Tensor<4> = x.reshape([w.batch, h, width, w.channels]);
    x.permute([0, 3, 1, 2])
}

fn rows(planes: Tensor<4>) -> Tensor<2> {
    let [n, c, h, w] = planes.dims();
    planes.permute([0, 2, 3, 1]).reshape([n, h * w * c])
}

fn cases() -> Vec<(Window, Windows)> {
    let mut cases = Vec::new();
    for (batch, input, channels) in [(1, [7, 5], 1), (3, [9, 10], 3), (5, [6, 6], 17)] {
        for (size, stride, dilation) in [
            ([3, 3], [1, 1], [1, 1]),
            ([2, 3], [2, 1], [1, 1]),
            ([3, 2], [2, 3], [1, 1]),
            ([2, 2], [2, 2], [1, 1]),
            ([3, 2], [1, 1], [2, 1]),
            ([2, 3], [1, 1], [1, 2]),
            ([1, 1], [1, 1], [1, 1]),
        ] {
            for padding in [StepPadding::Valid, StepPadding::Same, StepPadding::Causal] {
                let window = Window {
                    size,
                    stride,
                    dilation,
                    padding,
                };
                let windows = Windows {
                    batch,
                    input,
                    channels,
                    size,
                    stride,
                    dilation,
                    pads: window.pads(input),
                };
                cases.push((window, windows));
            }
        }
    }
    cases
}

#[test]
fn convolutions_are_the_frameworks() {
    for (window, windows) in cases() {
        let ([h, w], c) = (window.size, windows.channels);
        for (filters, relu) in [(1, false), (20, true), (35, false)] {
            let images = windows.batch * windows.input.iter().product::<usize>() * c;
            let leaves = [
                leaf([images], 1),
                leaf([h * w * c * filters], 2),
                leaf([filters], 3),
            ];
            let what = format!("{windows:?} {filters}");
            compare(
                &what,
                leaves,
                |[x, k, b]| {
                    let x = x.reshape([windows.batch, images / windows.batch]);
                    super::convolve(x, windows, &k, Some(&b), relu).unwrap()
                },
                |[x, k, b]| {
                    let k: Tensor<4> = k.reshape([h, w, c, filters]);
                    let k = k.permute([3, 2, 0, 1]);
                    let y = rows(window.convolve(planes(x, &windows), k, Some(b)));
                    if relu { activation::relu(y) } else { y }
                },
            );
        }
    }
}

#[test]
fn pools_are_the_frameworks() {
    for (window, windows) in cases() {
        if window.dilation != [1, 1] {
            continue;
        }
        let n = windows.batch * windows.input.iter().product::<usize>() * windows.channels;
        let row = |x: Tensor<1>| x.reshape([windows.batch, n / windows.batch]);
        // Distinct values: of equal ones the framework may pick another.
        let distinct: Vec<f32> = (0..n)
            .map(|i| f32::from(u16::try_from((i * 7919) % 10_007).unwrap()) / 5_000.0 - 1.0)
            .collect();
        let device = Device::flex().autodiff();
        let x = Tensor::<1>::from_data(TensorData::new(distinct, [n]), &device).require_grad();
        let what = format!("{windows:?}");
        compare(
            &what,
            [x.clone()],
            |[x]| super::maximum(row(x), windows).unwrap(),
            |[x]| rows(window.maximum(planes(x, &windows))),
        );
        compare(
            &what,
            [x],
            |[x]| super::mean(row(x), windows).unwrap(),
            |[x]| rows(window.mean(planes(x, &windows))),
        );
    }
}

#[test]
fn zeros_are_put_around_images_as_by_the_framework() {
    for (_, windows) in cases() {
        let n = windows.batch * windows.input.iter().product::<usize>() * windows.channels;
        let pads = windows.pads;
        compare(
            &format!("{windows:?}"),
            [leaf([n], 1)],
            |[x]| super::zero_pad(x.reshape([windows.batch, n / windows.batch]), windows).unwrap(),
            |[x]| rows(planes(x, &windows).pad(pads, PadMode::Constant(0.0))),
        );
    }
}

#[test]
fn dense_layers_are_the_frameworks() {
    for (n, inputs, units) in [(1, 1, 1), (3, 20, 7), (33, 64, 64), (130, 31, 100)] {
        for relu in [false, true] {
            let leaves = [
                leaf([n * inputs], 1),
                leaf([inputs * units], 2),
                leaf([units], 3),
            ];
            compare(
                &format!("{n} {inputs} {units}"),
                leaves,
                |[x, k, b]| super::dense(x.reshape([n, inputs]), &k, Some(&b), relu).unwrap(),
                |[x, k, b]| {
                    let k: Tensor<2> = k.reshape([inputs, units]);
                    let x: Tensor<2> = x.reshape([n, inputs]);
                    let y = x.matmul(k) + b.reshape([1, units]);
                    if relu { activation::relu(y) } else { y }
                },
            );
        }
    }
}

#[test]
fn batches_are_normalised_as_the_framework_does() {
    for (n, channels) in [(2, 1), (9, 5), (700, 40)] {
        let leaves = [
            leaf([n * channels], 1),
            leaf([channels], 2),
            leaf([channels], 3),
        ];
        compare(
            &format!("{n} {channels}"),
            leaves,
            |[x, gamma, beta]| {
                let x = x.reshape([n, channels]);
                super::batch_norm(x, &gamma, &beta, 1e-3).unwrap().0
            },
            |[x, gamma, beta]| {
                let x: Tensor<2> = x.reshape([n, channels]);
                burn::tensor::module::batch_norm_train(x, gamma, beta, 1e-3).output
            },
        );
    }
}

#[test]
fn rows_are_normalised_as_by_the_frameworks_operations() {
    for (n, width) in [(1, 2), (9, 5), (700, 40)] {
        let leaves = [leaf([n * width], 1), leaf([width], 2), leaf([width], 3)];
        compare(
            &format!("{n} {width}"),
            leaves,
            |[x, gamma, beta]| {
                super::layer_norm(x.reshape([n, width]), &gamma, &beta, 1e-3).unwrap()
            },
            |[x, gamma, beta]| {
                let x: Tensor<2> = x.reshape([n, width]);
                let centred = x.clone() - x.mean_dim(1);
                let variance = (centred.clone() * centred.clone()).mean_dim(1);
                let y = centred / (variance + 1e-3).sqrt() * gamma.reshape([1, width]);
                y + beta.reshape([1, width])
            },
        );
    }
}

type Unary = fn(Tensor<2>) -> Tensor<2>;

#[test]
fn activations_are_the_frameworks() {
    let curves: [(Curve, Unary); 5] = [
        (Curve::Relu, activation::relu),
        (Curve::Gelu, activation::gelu),
        (Curve::Silu, activation::silu),
        (Curve::Sigmoid, activation::sigmoid),
        (Curve::Tanh, Tensor::tanh),
    ];
    for (curve, framework) in curves {
        compare(
            &format!("{curve:?}"),
            [leaf([600], 1)],
            |[x]| super::activate(x.reshape([20, 30]), curve).unwrap(),
            |[x]| framework(x.reshape([20, 30])),
        );
    }
}

#[test]
fn attention_is_that_of_the_frameworks_operations() {
    for (batch, heads, steps, sizes, causal) in [
        (1, 1, [1, 1], [1, 1], false),
        (3, 2, [5, 5], [3, 7], true),
        (2, 4, [17, 33], [16, 20], false),
    ] {
        let layer = super::AttentionShape {
            batch,
            heads,
            steps,
            sizes,
            scale: 0.4,
            causal,
        };
        let rows = [steps[0], steps[1], steps[1]].map(|steps| batch * steps);
        let widths = [sizes[0], sizes[0], sizes[1]].map(|size| heads * size);
        let inputs = |leaves: [Tensor<1>; 3]| -> [Tensor<2>; 3] {
            let mut i = 0;
            leaves.map(|leaf| {
                i += 1;
                leaf.reshape([rows[i - 1], widths[i - 1]])
            })
        };
        let factors = batch * heads * steps[0] * steps[1];
        let dropped = || Some(values(factors, 9).iter().map(|x| x.max(0.0)).collect());
        for mask in [&(|| None) as &dyn Fn() -> Option<Vec<f32>>, &dropped] {
            let leaves = [0, 1, 2].map(|i| leaf([rows[i] * widths[i]], i));
            compare(
                &format!("{layer:?}"),
                leaves,
                |leaves| super::attend(inputs(leaves), layer, mask).unwrap(),
                |leaves| attend(inputs(leaves), layer, mask(), false),
            );
        }
    }
}

#[test]
fn what_needs_no_gradient_gets_none() {
    let device = Device::flex();
    let x: Tensor<2> = Tensor::from_data(TensorData::new(values(12, 1), [3, 4]), &device);
    let (kernel, bias) = (leaf([8], 2), leaf([2], 3));
    let y = super::dense(x.clone(), &kernel, Some(&bias), false).unwrap();
    let gradients = y.sum().backward();
    let db = host(bias.grad(&gradients).unwrap()).unwrap();
    assert_eq!(db, [3.0, 3.0]);
    // Without any leaf, the result is a plain tensor.
    let plain = super::dense(x, &kernel.inner(), None, true).unwrap();
    assert_eq!(plain.device(), device);
}
