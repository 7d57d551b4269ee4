//! Layers against Keras' formulas, written out or worked out by hand.

use burn::tensor::{Device, Tensor, TensorData};
use nereid_core::spec::Network as Spec;
use serde_json::{Value, json};

use super::{Ending, Mode, Network, TrainingPass, flat, host};

mod further;

fn build(input: &[usize], layers: &Value) -> Network {
    let spec: Spec = serde_json::from_value(json!({ "layers": layers })).unwrap();
    Network::build(&spec.plan(input, "").unwrap(), 1, &Device::flex())
}

fn set(network: &mut Network, name: &str, values: &[f32]) {
    let parameter = network.parameters.iter_mut().find(|p| p.name == name);
    parameter.unwrap().set_keras(values);
}

fn rows(network: &Network, values: &[f32]) -> Tensor<2> {
    let size: usize = network.input.iter().product();
    let data = TensorData::new(values.to_vec(), [values.len() / size, size]);
    Tensor::from_data(data, &network.device)
}

fn infer(network: &Network, values: &[f32]) -> Vec<f32> {
    host(network.infer(rows(network, values))).unwrap()
}

fn counting(n: usize) -> Vec<f32> {
    (0..n)
        .map(|i| f32::from(u8::try_from(i * 7 % 23).unwrap()) - 8.0)
        .collect()
}

#[track_caller]
fn close(got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len());
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!(
            (a - b).abs() <= tolerance,
            "{i}: {a} is not {b}\n{got:?}\n{expected:?}"
        );
    }
}

/// Convolution as TensorFlow documents it, channels last.
fn reference_conv(
    (input, [h, w, c]): (&[f32], [usize; 3]),
    (kernel, [kh, kw, filters]): (&[f32], [usize; 3]),
    stride: usize,
    dilation: usize,
    same: bool,
) -> Vec<f32> {
    let extent = |k: usize| (k - 1) * dilation + 1;
    let axis = |n: usize, k: usize| {
        if same {
            let out = n.div_ceil(stride);
            (out, ((out - 1) * stride + extent(k)).saturating_sub(n) / 2)
        } else {
            ((n - extent(k)) / stride + 1, 0)
        }
    };
    let ((oh, top), (ow, left)) = (axis(h, kh), axis(w, kw));
    let mut out = Vec::new();
    for (y, x, f) in
        (0..oh).flat_map(|y| (0..ow).flat_map(move |x| (0..filters).map(move |f| (y, x, f))))
    {
        let mut sum = 0.0;
        for (i, j, k) in
            (0..kh).flat_map(|i| (0..kw).flat_map(move |j| (0..c).map(move |k| (i, j, k))))
        {
            let at =
                |o: usize, t: usize, before: usize| (o * stride + t * dilation).checked_sub(before);
            if let (Some(y), Some(x)) = (at(y, i, top), at(x, j, left))
                && y < h
                && x < w
            {
                sum += input[(y * w + x) * c + k] * kernel[((i * kw + j) * c + k) * filters + f];
            }
        }
        out.push(sum);
    }
    out
}

#[test]
fn convolutions_pad_stride_and_dilate_as_keras_does() {
    for (shape, kernel, stride, dilation, padding) in [
        ([5, 6, 2], [3, 3], 2, 1, "same"),
        ([6, 6, 1], [3, 3], 2, 1, "same"),
        ([5, 4, 2], [2, 3], 1, 1, "same"),
        ([7, 5, 3], [3, 2], 1, 2, "same"),
        ([7, 8, 2], [3, 2], 3, 1, "valid"),
        ([1, 1, 2], [4, 4], 1, 1, "same"),
    ] {
        let mut network = build(
            &shape,
            &json!([{
                "type": "Conv2D", "filters": 3, "kernel_size": kernel, "strides": stride,
                "dilation_rate": dilation, "padding": padding
            }]),
        );
        let [h, w] = kernel;
        let weights = counting(h * w * shape[2] * 3);
        set(&mut network, "conv2d/kernel", &weights);
        let input = counting(shape.iter().product());
        let expected = reference_conv(
            (&input, shape),
            (&weights, [h, w, 3]),
            stride,
            dilation,
            padding == "same",
        );
        close(&infer(&network, &input), &expected, 1e-3);
    }
}

#[test]
fn steps_are_convolved_as_keras_does() {
    let mut network = build(
        &[5, 2],
        &json!([
            {"type": "Conv1D", "filters": 2, "kernel_size": 2, "strides": 2, "padding": "same"}
        ]),
    );
    let (input, kernel) = (counting(10), counting(8));
    set(&mut network, "conv1d/kernel", &kernel);
    let expected = reference_conv((&input, [5, 1, 2]), (&kernel, [2, 1, 2]), 2, 1, true);
    // With a width of 1 the second axis needs no padding, whatever its stride.
    close(&infer(&network, &input), &expected, 1e-4);
}

#[test]
fn pools_leave_padding_out() {
    // 3×3 of 1…9 and windows of 2×2 by steps of 2: the last ones reach over the border.
    let input: Vec<f32> = (1..=9).map(|i: u8| f32::from(i)).collect();
    let pool = |kind: &str| {
        let layer = json!([{"type": format!("{kind}Pooling2D"), "padding": "same"}]);
        infer(&build(&[3, 3, 1], &layer), &input)
    };
    close(&pool("Average"), &[3.0, 4.5, 7.5, 9.0], 1e-6);
    close(&pool("Max"), &[5.0, 6.0, 8.0, 9.0], 0.0);
    let negative: Vec<f32> = input.iter().map(|v| -v).collect();
    let max = build(
        &[3, 3, 1],
        &json!([{"type": "MaxPooling2D", "padding": "same"}]),
    );
    close(&infer(&max, &negative), &[-1.0, -3.0, -7.0, -9.0], 0.0);
    let steps = build(
        &[4, 1],
        &json!([
            {"type": "AveragePooling1D", "pool_size": 3, "strides": 1, "padding": "same"}
        ]),
    );
    close(
        &infer(&steps, &[1.0, 2.0, 3.0, 4.0]),
        &[1.5, 2.0, 3.0, 3.5],
        1e-6,
    );
}

#[test]
fn flatten_and_global_pools_see_channels_last() {
    let input = counting(2 * 3 * 2);
    let mut network = build(
        &[2, 3, 2],
        &json!([
            {"type": "Conv2D", "filters": 2, "kernel_size": 1}, {"type": "Flatten"}
        ]),
    );
    set(&mut network, "conv2d/kernel", &[1.0, 0.0, 0.0, 1.0]);
    close(&infer(&network, &input), &input, 0.0);
    let mean = build(&[2, 3, 2], &json!([{"type": "GlobalAveragePooling2D"}]));
    let channel = |c: usize| input.iter().skip(c).step_by(2).sum::<f32>() / 6.0;
    close(&infer(&mean, &input), &[channel(0), channel(1)], 1e-5);
}

#[test]
fn activations_are_keras_own() {
    let run = |name: &str| {
        let layer = json!([{"type": "Activation", "activation": name}]);
        infer(&build(&[3], &layer), &[-1.0, 0.0, 2.0])
    };
    // From keras.activations of Keras 3.
    close(&run("leaky_relu"), &[-0.2, 0.0, 2.0], 1e-6);
    close(&run("gelu"), &[-0.158_655_3, 0.0, 1.954_499_7], 1e-5);
    close(&run("sigmoid"), &[0.268_941_4, 0.5, 0.880_797], 1e-6);
    close(
        &run("softmax"),
        &[0.042_010_1, 0.114_195_2, 0.843_794_7],
        1e-6,
    );
}

#[test]
fn softmax_runs_over_channels_after_a_convolution() {
    let network = build(
        &[2, 2, 1],
        &json!([
            {"type": "Conv2D", "filters": 3, "kernel_size": 1, "activation": "softmax"}
        ]),
    );
    for pixel in infer(&network, &[1.0, -2.0, 3.0, 0.5]).chunks(3) {
        assert!((pixel.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}

#[test]
fn batch_normalisation_moves_its_averages_as_keras_does() {
    let mut network = build(&[2], &json!([{"type": "BatchNormalization"}]));
    set(&mut network, "batch_normalization/gamma", &[2.0, 1.0]);
    set(&mut network, "batch_normalization/beta", &[0.0, 1.0]);
    let input = rows(&network, &[1.0, 10.0, 3.0, 10.0, 5.0, 40.0]);
    let weights: Vec<_> = network.parameters.iter().map(|p| p.value.clone()).collect();
    let mut pass = TrainingPass {
        seed: 0,
        step: 0,
        moving: Vec::new(),
        outputs: None,
    };
    let mut mode = Mode::Training(&mut pass);
    let out = network.forward(&weights, input, Ending::Whole, &mut mode);
    // Means 3 and 20, biased variances 8/3 and 200.
    let a = 4.0 / (8.0_f32 / 3.0 + 1e-3).sqrt();
    let b = 10.0 / 200.001_f32.sqrt();
    close(
        &host(out).unwrap(),
        &[-a, 1.0 - b, 0.0, 1.0 - b, a, 1.0 + 2.0 * b],
        1e-5,
    );
    let moving: Vec<Vec<f32>> = pass
        .moving
        .into_iter()
        .map(|(_, v)| host(v).unwrap())
        .collect();
    close(&moving[0], &[0.03, 0.2], 1e-6);
    close(&moving[1], &[0.99 + 0.01 * 8.0 / 3.0, 0.99 + 2.0], 1e-5);
    // Without training, the initial averages 0 and 1 are used.
    let scale = 1.0 / 1.001_f32.sqrt();
    close(
        &infer(&network, &[1.0, 10.0]),
        &[2.0 * scale, 10.0 * scale + 1.0],
        1e-4,
    );
}

#[test]
fn layer_normalisation_and_embedding_work_along_the_last_axis() {
    let norm = build(&[2, 2], &json!([{"type": "LayerNormalization"}]));
    let (a, b) = (1.0 / 1.001_f32.sqrt(), 2.0 / 4.001_f32.sqrt());
    close(&infer(&norm, &[1.0, 3.0, 0.0, 4.0]), &[-a, a, -b, b], 1e-5);
    let mut table = build(
        &[2],
        &json!([{"type": "Embedding", "input_dim": 3, "output_dim": 2}]),
    );
    set(
        &mut table,
        "embedding/embeddings",
        &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
    );
    close(&infer(&table, &[2.0, 0.0]), &[4.0, 5.0, 0.0, 1.0], 0.0);
}

#[test]
fn dropout_scales_what_it_keeps_and_repeats_itself() {
    let network = build(&[1000], &json!([{"type": "Dropout", "rate": 0.25}]));
    let run = |step| {
        let mut pass = TrainingPass {
            seed: 3,
            step,
            moving: Vec::new(),
            outputs: None,
        };
        let input = rows(&network, &[1.0; 1000]);
        let out = network.forward(&[], input, Ending::Whole, &mut Mode::Training(&mut pass));
        host(out).unwrap()
    };
    let first = run(1);
    let dropped = first.iter().filter(|v| **v == 0.0).count();
    assert!((200..300).contains(&dropped), "{dropped}");
    assert!(
        first
            .iter()
            .all(|v| *v == 0.0 || (*v - 4.0 / 3.0).abs() < 1e-6)
    );
    assert_eq!(first, run(1));
    assert_ne!(first, run(2));
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let mut network = build(
        &[5, 5, 2],
        &json!([
            {"type": "Conv2D", "filters": 3, "kernel_size": 3, "strides": 2, "padding": "same", "activation": "tanh"},
            {"type": "AveragePooling2D", "padding": "same"},
            {"type": "BatchNormalization"},
            {"type": "Flatten"},
            {"type": "LayerNormalization"},
            {"type": "Dense", "units": 2, "activation": "gelu"}
        ]),
    );
    set(&mut network, "conv2d/bias", &[0.1, -0.2, 0.3]);
    let input: Vec<f32> = counting(100).iter().map(|v| v / 10.0).collect();
    let loss = |weights: &[Tensor<1>]| {
        let mut pass = TrainingPass {
            seed: 0,
            step: 0,
            moving: Vec::new(),
            outputs: None,
        };
        let mut mode = Mode::Training(&mut pass);
        let out = network.forward(weights, rows(&network, &input), Ending::Whole, &mut mode);
        (out.clone() * out).sum()
    };
    let value = |i: usize| network.parameters[i].value.clone();
    let count = network.parameters.len();
    let leaves: Vec<_> = (0..count)
        .map(|i| value(i).autodiff().require_grad())
        .collect();
    let gradients = loss(&leaves).backward();
    for (i, leaf) in leaves.iter().enumerate() {
        let Some(gradient) = leaf.grad(&gradients) else {
            assert!(
                !network.parameters[i].trainable,
                "{}",
                network.parameters[i].name
            );
            continue;
        };
        let gradient = host(gradient).unwrap();
        for at in [0, gradient.len() / 2, gradient.len() - 1] {
            let shifted = |by: f32| {
                let mut values = host(value(i)).unwrap();
                values[at] += by;
                let mut weights: Vec<_> = (0..count).map(value).collect();
                weights[i] = flat(values, &network.device);
                host(loss(&weights)).unwrap()[0]
            };
            let expected = (shifted(1e-2) - shifted(-1e-2)) / 2e-2;
            let tolerance = 2e-2 * expected.abs().max(0.5);
            let name = &network.parameters[i].name;
            assert!(
                (gradient[at] - expected).abs() < tolerance,
                "{name}[{at}]: {} {expected}",
                gradient[at]
            );
        }
    }
}
