//! Graphs, and the gradients of layers that are more than a formula.

use super::*;

/// A network with all weights set to waves, and such an input of two samples.
fn waving(input: &[usize], layers: &Value) -> (Network, Vec<f32>) {
    let mut network = build(input, layers);
    for (k, parameter) in network.parameters.iter_mut().enumerate() {
        let n = parameter.shape.iter().product();
        parameter.set_keras(&wave(n, k + 5));
    }
    let size: usize = input.iter().product();
    (network, wave(2 * size, 0))
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn wave(n: usize, k: usize) -> Vec<f32> {
    let value = |i: usize| ((i as f32 * 1.7 + k as f32 * 0.9).sin()) * 0.6;
    (0..n).map(value).collect()
}

/// Sum of squares of what a network yields.
fn loss(network: &Network, weights: &[Tensor<1>], input: Tensor<2>) -> Tensor<1> {
    let mut pass = TrainingPass {
        seed: 0,
        step: 0,
        moving: Vec::new(),
        outputs: None,
    };
    let mut mode = Mode::Training(&mut pass);
    let out = network.forward(weights, input, Ending::Whole, &mut mode);
    (out.clone() * out).sum()
}

#[test]
fn gradients_of_further_layers_are_those_of_finite_differences() {
    for (shape, layers) in [
        (
            vec![4, 3, 4],
            json!([{"type": "Conv2D", "filters": 4, "kernel_size": 3, "groups": 2, "padding": "same"}]),
        ),
        (
            vec![3, 3, 2],
            json!([{"type": "Conv2DTranspose", "filters": 2, "kernel_size": 3, "strides": 2, "padding": "same"}]),
        ),
        (
            vec![3, 3, 2],
            json!([{"type": "Conv2DTranspose", "filters": 2, "kernel_size": [2, 4], "strides": [3, 2]}]),
        ),
        (
            vec![4, 5, 2],
            json!([{"type": "DepthwiseConv2D", "kernel_size": 3, "strides": 2, "padding": "same", "depth_multiplier": 2}]),
        ),
        (
            vec![4, 5, 2],
            json!([{"type": "SeparableConv2D", "filters": 3, "kernel_size": 3, "depth_multiplier": 2}]),
        ),
        (
            vec![3, 2, 2],
            json!([{"type": "UpSampling2D", "size": [2, 3], "interpolation": "bilinear"}]),
        ),
        (
            vec![5, 3],
            json!([{"type": "LSTM", "units": 3, "return_sequences": true}, {"type": "LSTM", "units": 2}]),
        ),
        (
            vec![5, 3],
            json!([{"type": "GRU", "units": 3, "return_sequences": true, "go_backwards": true}]),
        ),
        (
            vec![4, 3],
            json!([{"type": "GRU", "units": 2, "reset_after": false}]),
        ),
        (vec![4, 3], json!([{"type": "SimpleRNN", "units": 2}])),
        (
            vec![4, 3],
            json!([{"type": "Bidirectional", "layer": {"type": "LSTM", "units": 2, "return_sequences": true}}]),
        ),
        (
            vec![4, 6],
            json!([{"type": "MultiHeadAttention", "num_heads": 2, "key_dim": 3, "use_causal_mask": true}]),
        ),
        (
            vec![3, 4],
            json!([{"type": "RMSNormalization"}, {"type": "GroupNormalization", "groups": 2}]),
        ),
        (
            vec![2, 3, 2],
            json!([{"type": "PReLU", "shared_axes": [1, 2]}, {"type": "Activation", "activation": "mish"}]),
        ),
        (
            vec![3, 4],
            json!([
                {"type": "PositionEmbedding", "name": "positions", "sequence_length": 5},
                {"type": "Multiply", "name": "product", "inputs": ["input", "positions"]},
                {"type": "Dense", "name": "dense", "units": 4, "activation": "silu", "inputs": ["product"]},
                {"type": "Concatenate", "axis": 1, "inputs": ["dense", "product", "input"]}
            ]),
        ),
    ] {
        let (network, input) = waving(&shape, &layers);
        let value = |i: usize| network.parameters[i].value.clone();
        let count = network.parameters.len();
        let leaves: Vec<_> = (0..count)
            .map(|i| value(i).autodiff().require_grad())
            .collect();
        let given = rows(&network, &input).autodiff().require_grad();
        let gradients = loss(&network, &leaves, given.clone()).backward();
        let check = |name: &str, gradient: Vec<f32>, shifted: &dyn Fn(usize, f32) -> f32| {
            let n = gradient.len();
            for at in [0, n / 3, n / 2, n - 1] {
                let expected = (shifted(at, 1e-2) - shifted(at, -1e-2)) / 2e-2;
                let off = (gradient[at] - expected).abs();
                let got = gradient[at];
                assert!(
                    off < 1e-2 * expected.abs().max(0.5),
                    "{layers} {name}[{at}]: {got} {expected}"
                );
            }
        };
        for (i, leaf) in leaves.iter().enumerate() {
            let gradient = host(leaf.grad(&gradients).unwrap()).unwrap();
            let shifted = |at: usize, by: f32| {
                let mut values = host(value(i)).unwrap();
                values[at] += by;
                let mut weights: Vec<_> = (0..count).map(value).collect();
                weights[i] = flat(values, &network.device);
                host(loss(&network, &weights, rows(&network, &input))).unwrap()[0]
            };
            check(&network.parameters[i].name, gradient, &shifted);
        }
        let gradient = host(given.grad(&gradients).unwrap()).unwrap();
        let weights: Vec<_> = (0..count).map(value).collect();
        let shifted = |at: usize, by: f32| {
            let mut moved = input.clone();
            moved[at] += by;
            host(loss(&network, &weights, rows(&network, &moved))).unwrap()[0]
        };
        check("input", gradient, &shifted);
    }
}

#[test]
fn branches_meet_with_the_values_that_each_of_them_made() {
    // x and 2x by way of planes, joined in all ways.
    let ways = [
        "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum",
    ];
    let factor = |way: &str, x: f32| match way {
        "Add" => 3.0 * x,
        "Subtract" => -x,
        "Multiply" => 2.0 * x * x,
        "Average" => 1.5 * x,
        "Maximum" => x.max(2.0 * x),
        _ => x.min(2.0 * x),
    };
    let input = counting(8);
    for way in ways {
        let mut network = build(
            &[2, 2, 2],
            &json!([
                {"type": "Conv2D", "name": "double", "filters": 2, "kernel_size": 1},
                {"type": way, "inputs": ["input", "double"]}
            ]),
        );
        set(&mut network, "double/kernel", &[2.0, 0.0, 0.0, 2.0]);
        let expected: Vec<f32> = input.iter().map(|&x| factor(way, x)).collect();
        close(&infer(&network, &input), &expected, 1e-5);
    }
    let scaled = build(
        &[2, 1, 2],
        &json!([
            {"type": "GlobalMaxPooling2D"},
            {"type": "Reshape", "name": "largest", "target_shape": [1, 1, 2]},
            {"type": "Multiply", "inputs": ["input", "largest"]}
        ]),
    );
    close(
        &infer(&scaled, &[1.0, 2.0, 3.0, -4.0]),
        &[3.0, 4.0, 9.0, -8.0],
        1e-6,
    );
}

#[test]
fn noise_falls_on_channels_or_on_values_and_repeats_itself() {
    let run = |layer: Value, step| {
        let network = build(&[4, 4, 50], &json!([layer]));
        let mut pass = TrainingPass {
            seed: 3,
            step,
            moving: Vec::new(),
            outputs: None,
        };
        let input = rows(&network, &[1.0; 800]);
        let out = network.forward(&[], input, Ending::Whole, &mut Mode::Training(&mut pass));
        host(out).unwrap()
    };
    let spatial = json!({"type": "SpatialDropout2D", "rate": 0.5});
    let out = run(spatial.clone(), 1);
    let dropped = out[..50].iter().filter(|v| **v == 0.0).count();
    assert!((10..40).contains(&dropped), "{dropped}");
    assert!(out.chunks(50).all(|pixel| pixel == &out[..50]));
    assert_eq!(out, run(spatial.clone(), 1));
    assert_ne!(out, run(spatial, 2));
    let noisy = run(json!({"type": "GaussianNoise", "stddev": 0.5}), 1);
    let mean = noisy.iter().sum::<f32>() / 800.0;
    let variance = noisy.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 800.0;
    assert!(
        (mean - 1.0).abs() < 0.06 && (variance - 0.25).abs() < 0.05,
        "{mean} {variance}"
    );
}

#[test]
fn pytorchs_moving_variance_is_that_of_a_sample() {
    let spec: Spec = serde_json::from_value(json!({
        "defaults": "pytorch", "layers": [{"type": "BatchNormalization", "momentum": 0.9, "epsilon": 1e-5}]
    }))
    .unwrap();
    let network = Network::build(&spec.plan(&[1], "").unwrap(), 1, &Device::flex());
    let weights: Vec<_> = network.parameters.iter().map(|p| p.value.clone()).collect();
    let mut pass = TrainingPass {
        seed: 0,
        step: 0,
        moving: Vec::new(),
        outputs: None,
    };
    let input = rows(&network, &[1.0, 3.0, 5.0]);
    network.forward(
        &weights,
        input,
        Ending::Whole,
        &mut Mode::Training(&mut pass),
    );
    let moving: Vec<_> = pass
        .moving
        .into_iter()
        .map(|(_, v)| host(v).unwrap()[0])
        .collect();
    close(&moving, &[0.3, 0.9 + 0.4], 1e-5);
}
