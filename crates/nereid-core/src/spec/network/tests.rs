//! Graphs, names and shapes, against Keras' own figures.

use serde_json::json;

use super::*;
use crate::spec::{initializers::Initializer, layers::Layer, shapes};

fn read(layers: &Value) -> Result<Network, Violations> {
    let mut v = Violations::default();
    let network = Network::read(json!({ "layers": layers }), "", &mut v);
    v.into_result(network.unwrap())
}

#[test]
fn infers_keras_shapes_names_and_parameter_counts() {
    let network = read(&json!([
            {"type": "Conv2D", "filters": 32, "kernel_size": 3, "padding": "same", "activation": "relu"},
            {"type": "MaxPooling2D"},
            {"type": "Conv2D", "filters": 64, "kernel_size": [3, 3], "strides": 2},
            {"type": "BatchNormalization"},
            {"type": "Flatten"},
            {"type": "Dense", "units": 10},
        ]))
        .unwrap();
    let plan = network.plan(&[28, 28, 1], "").unwrap();
    let shapes: Vec<_> = plan
        .layers
        .iter()
        .map(|l| shapes::show(&l.shape.output))
        .collect();
    assert_eq!(
        shapes,
        [
            "(28, 28, 32)",
            "(14, 14, 32)",
            "(6, 6, 64)",
            "(6, 6, 64)",
            "(2304)",
            "(10)"
        ]
    );
    let names: Vec<_> = plan.layers.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "conv2d",
            "max_pooling2d",
            "conv2d_1",
            "batch_normalization",
            "flatten",
            "dense"
        ]
    );
    // Keras' `model.count_params()` of the same network.
    assert_eq!(plan.parameters(), 320 + 18_496 + 256 + 23_050);
}

#[test]
fn reports_every_mistake_with_its_pointer() {
    let errors = read(&json!([
        {"type": "Dense", "units": 0},
        {"type": "Dropout", "rate": 1.0},
        {"type": "Conv2d", "filters": 1},
        {"type": "Dense", "units": 3, "unit": 4},
        {"type": "Dense"},
    ]))
    .unwrap_err()
    .into_vec();
    let found: Vec<_> = errors
        .iter()
        .map(|v| (v.pointer.as_str(), v.code.as_str()))
        .collect();
    for expected in [
        ("/layers/2/type", "unknown_value"),
        ("/layers/3/unit", "unknown_field"),
        ("/layers/4", "missing"),
        ("/layers/0/units", "out_of_range"),
        ("/layers/1/rate", "out_of_range"),
    ] {
        assert!(found.contains(&expected), "{expected:?} not in {found:?}");
    }
}

#[test]
fn names_the_layer_that_refuses_its_input() {
    let network = read(&json!([
        {"type": "Flatten"},
        {"type": "Conv2D", "name": "first", "filters": 8, "kernel_size": 3},
    ]))
    .unwrap();
    let errors = network.plan(&[8, 8, 1], "/network").unwrap_err().into_vec();
    assert_eq!(errors[0].pointer, "/network/layers/1");
    assert!(
        errors[0].detail.contains("\"first\""),
        "{}",
        errors[0].detail
    );
    assert!(errors[0].detail.contains("(64)"), "{}", errors[0].detail);
}

fn details(layers: &Value, input: &[usize]) -> Vec<(String, String, String)> {
    let network = match read(layers) {
        Ok(network) => network,
        Err(e) => return list(e),
    };
    network.plan(input, "").err().map(list).unwrap_or_default()
}

fn list(violations: Violations) -> Vec<(String, String, String)> {
    let all = violations.into_vec().into_iter();
    all.map(|v| (v.pointer, v.code, v.detail)).collect()
}

#[test]
fn layers_take_what_they_name() {
    let network = read(&json!([
        {"type": "Conv2D", "name": "a", "filters": 4, "kernel_size": 3, "padding": "same"},
        {"type": "Conv2D", "name": "b", "filters": 4, "kernel_size": 1, "inputs": ["input"]},
        {"type": "Add", "inputs": ["a", "b"]},
        {"type": "GlobalAveragePooling2D"},
        {"type": "Concatenate", "inputs": ["global_average_pooling2d", "global_average_pooling2d"]},
    ]))
    .unwrap();
    let plan = network.plan(&[5, 5, 2], "").unwrap();
    assert_eq!(plan.layers[1].sources, [Source::Input]);
    assert_eq!(plan.layers[2].sources, [Source::Layer(0), Source::Layer(1)]);
    assert_eq!(plan.output(), [8]);
    let mut specs = plan.specs();
    simplify(&mut specs);
    let inputs: Vec<_> = specs.iter().map(|l| l.inputs.is_some()).collect();
    assert_eq!(inputs, [false, true, true, false, true]);
    let again = Network {
        layers: specs,
        ..network
    };
    assert_eq!(again.plan(&[5, 5, 2], "").unwrap(), plan);
}

#[test]
fn mistakes_in_graphs_name_their_layer() {
    let dense = |name: &str| json!({"type": "Dense", "units": 3, "name": name});
    let taking = |name: &str, kind: &str, inputs: &[&str]| json!({"type": kind, "name": name, "inputs": inputs});
    for (layers, pointer, code, named) in [
        (
            json!([dense("a"), taking("b", "Flatten", &["c"])]),
            "/layers/1/inputs/0",
            "unknown_value",
            "\"b\"",
        ),
        (
            json!([taking("a", "Flatten", &["b"]), dense("b")]),
            "/layers/0/inputs/0",
            "layer_order",
            "\"a\"",
        ),
        (
            json!([taking("a", "Flatten", &["a"])]),
            "/layers/0/inputs/0",
            "layer_order",
            "\"a\"",
        ),
        (
            json!([dense("a"), taking("b", "Flatten", &["input"])]),
            "/layers/0",
            "unused_layer",
            "\"a\"",
        ),
        (
            json!([dense("a"), taking("b", "Flatten", &["a", "input"])]),
            "/layers/1/inputs",
            "out_of_range",
            "\"b\"",
        ),
        (
            json!([dense("a"), taking("b", "Flatten", &[])]),
            "/layers/1/inputs",
            "out_of_range",
            "0 inputs",
        ),
        (
            json!([dense("a"), taking("sum", "Add", &["a", "input"])]),
            "/layers/1/inputs",
            "shape_mismatch",
            "(3) and (4)",
        ),
        (
            json!([dense("a"), {"type": "Add"}]),
            "/layers/1/inputs",
            "out_of_range",
            "\"add\"",
        ),
        (
            json!([dense("input"), taking("b", "Flatten", &["input"])]),
            "/layers/0/name",
            "invalid_value",
            "input",
        ),
        (
            json!([dense("a"), {"type": "Embedding", "input_dim": 4, "output_dim": 2}]),
            "/layers/1",
            "layer_order",
            "\"embedding\"",
        ),
        (
            json!([{"type": "Reshape", "target_shape": [2, 2]}, {"type": "PositionEmbedding", "sequence_length": 9}]),
            "/layers/1",
            "lost_input",
            "\"position_embedding\"",
        ),
        (
            json!([{"type": "Reshape", "target_shape": [4, 1]}, {"type": "LSTM", "units": 5000}]),
            "/layers/1",
            "shape_mismatch",
            "orthogonal",
        ),
        (
            json!([{"type": "Dense", "units": 3, "kernel_initializer": {"type": "random_normal", "stddev": -1}}]),
            "/layers/0/kernel_initializer",
            "out_of_range",
            "stddev",
        ),
    ] {
        let found = details(&layers, &[4]);
        let fits =
            |(p, c, d): &(String, String, String)| p == pointer && c == code && d.contains(named);
        assert!(found.iter().any(fits), "{layers}: {found:?}");
    }
    let unknown = json!([{"type": "Dense", "units": 3, "kernel_initializer": "glorot"}]);
    let found = details(&unknown, &[4]);
    assert!(found[0].2.contains("glorot_uniform"), "{found:?}");
}

#[test]
fn pytorchs_defaults_fill_in_what_is_left_out() {
    let mut v = Violations::default();
    let layers = json!([
        {"type": "Dense", "units": 8, "activation": "leaky_relu"},
        {"type": "BatchNormalization"},
        {"type": "LayerNormalization", "epsilon": 0.1},
        {"type": "Reshape", "target_shape": [4, 2]},
        {"type": "Bidirectional", "layer": {"type": "LSTM", "units": 3}},
    ]);
    let spec = json!({"defaults": "pytorch", "layers": layers});
    let network = Network::read(spec, "", &mut v).unwrap();
    let network = v.into_result(network).unwrap();
    let plan = network.plan(&[4], "").unwrap();
    let initial = |layer: usize, weight: usize| plan.layers[layer].weights[weight].clone();
    assert_eq!(initial(0, 0).initializer, Initializer::PytorchUniform {});
    assert!((initial(0, 1).fan - 4.0).abs() < 1e-9);
    let Layer::BatchNormalization(norm) = &plan.layers[1].layer else {
        panic!()
    };
    assert_eq!((norm.momentum, norm.epsilon), (0.9, 1e-5));
    let Layer::LayerNormalization(norm) = &plan.layers[2].layer else {
        panic!()
    };
    assert!((norm.epsilon - 0.1).abs() < 1e-12);
    let bias = initial(4, 2);
    assert_eq!((bias.role.as_str(), &bias.ones), ("forward/bias", &None));
    assert!((bias.fan - 3.0).abs() < 1e-9);
    // Stored and read anew, it means the same.
    let stored = serde_json::to_value(&network).unwrap();
    let mut v = Violations::default();
    assert_eq!(Network::read(stored, "", &mut v).unwrap(), network);
    assert!(v.is_empty());
}

#[test]
fn weights_have_keras_shapes_and_counts() {
    // From Keras' `layer.weights` and `count_params()`.
    for (layer, input, count) in [
        (
            json!({"type": "Conv2D", "filters": 6, "kernel_size": 3, "groups": 2}),
            vec![5, 5, 4],
            114,
        ),
        (
            json!({"type": "Conv2DTranspose", "filters": 6, "kernel_size": 3}),
            vec![5, 5, 4],
            222,
        ),
        (
            json!({"type": "DepthwiseConv2D", "kernel_size": 3, "depth_multiplier": 2}),
            vec![5, 5, 4],
            80,
        ),
        (
            json!({"type": "SeparableConv2D", "filters": 6, "kernel_size": 3}),
            vec![5, 5, 4],
            66,
        ),
        (json!({"type": "SimpleRNN", "units": 5}), vec![3, 4], 50),
        (json!({"type": "LSTM", "units": 5}), vec![3, 4], 200),
        (json!({"type": "GRU", "units": 5}), vec![3, 4], 165),
        (
            json!({"type": "GRU", "units": 5, "reset_after": false}),
            vec![3, 4],
            150,
        ),
        (
            json!({"type": "Bidirectional", "layer": {"type": "LSTM", "units": 5}}),
            vec![3, 4],
            400,
        ),
        (
            json!({"type": "MultiHeadAttention", "num_heads": 2, "key_dim": 3}),
            vec![3, 4],
            118,
        ),
        (
            json!({"type": "GroupNormalization", "groups": 2}),
            vec![3, 4],
            8,
        ),
        (json!({"type": "RMSNormalization"}), vec![3, 4], 4),
        (json!({"type": "PReLU", "shared_axes": [1]}), vec![3, 4], 4),
    ] {
        let network = read(&json!([layer])).unwrap();
        let plan = network.plan(&input, "").unwrap();
        assert_eq!(plan.parameters(), count, "{layer}");
    }
}
