//! Presets against the parameter counts of the published networks.

use serde_json::{Value, json};

use super::*;
use crate::spec::network::Plan;

fn read(network: Value) -> Result<Network, Violations> {
    let mut v = Violations::default();
    let network = Network::read(network, "", &mut v);
    match network {
        Some(network) => v.into_result(network),
        None => Err(v),
    }
}

fn plan(network: Value, input: &[usize], outputs: usize) -> Plan {
    let written = read(network).unwrap().expand(input, outputs, "").unwrap();
    // What is stored is read again as it was written out.
    let stored = serde_json::to_value(&written).unwrap();
    assert_eq!(read(stored).unwrap(), written);
    let plan = written.plan(input, "").unwrap();
    assert_eq!(plan.output(), [outputs]);
    plan
}

#[test]
fn residual_networks_have_the_published_numbers_of_parameters() {
    let image = [224, 224, 3];
    // torchvision's `sum(p.numel() for p in model.parameters())`.
    for (name, count) in [
        ("resnet18", 11_689_512),
        ("resnet50", 25_557_032),
        ("mobilenet_v2", 3_504_872),
    ] {
        let plan = plan(json!({ "preset": name }), &image, 1000);
        assert_eq!(plan.trainable_parameters(), count, "{name}");
        let pooled = plan.layers.iter().find(|l| l.name == "pool").unwrap();
        assert_eq!(pooled.inputs[0][..2], [7, 7], "{name}");
    }
    let half = plan(
        json!({"preset": "mobilenet_v2", "alpha": 0.5}),
        &image,
        1000,
    );
    assert_eq!(half.trainable_parameters(), 1_968_680);
}

#[test]
fn small_planes_begin_with_a_small_stem() {
    let resnet = plan(json!({"preset": "resnet18"}), &[32, 32, 3], 10);
    // 3·3·3·64 instead of 7·7·3·64, and ten classes instead of a thousand.
    let expected = 11_689_512 - 64 * 3 * (49 - 9) - 990 * 513;
    assert_eq!(resnet.trainable_parameters(), expected);
    for name in ["resnet18", "resnet50", "mobilenet_v2"] {
        let plan = plan(json!({ "preset": name }), &[32, 32, 3], 10);
        let pooled = plan.layers.iter().find(|l| l.name == "pool").unwrap();
        assert_eq!(pooled.inputs[0][..2], [4, 4], "{name}");
    }
    let stem = json!({"preset": "resnet18", "stem": "imagenet"});
    let large = plan(stem, &[32, 32, 3], 1000);
    assert_eq!(large.trainable_parameters(), 11_689_512);
}

#[test]
fn other_presets_count_as_their_formulas_say() {
    let mlp =
        json!({"preset": "mlp", "hidden": [8, 4], "dropout": 0.1, "batch_normalization": true});
    let count = plan(mlp, &[2, 3], 2).trainable_parameters();
    assert_eq!(count, (6 * 8 + 8) + 16 + (8 * 4 + 4) + 8 + (4 * 2 + 2));
    let cnn = plan(json!({"preset": "cnn"}), &[28, 28, 1], 10);
    assert_eq!(
        cnn.parameters(),
        320 + 18_496 + (7 * 7 * 64 * 128 + 128) + 1290
    );
    plan(
        json!({"preset": "cnn", "filters": [2, 2, 2, 2, 2, 2]}),
        &[8, 8, 1],
        1,
    );
    let (d, ff, words, steps) = (16, 32, 50, 7);
    let encoder = json!({"preset": "transformer_encoder", "vocabulary_size": words, "model_dim": d,
        "num_heads": 4, "num_layers": 3, "intermediate_dim": ff});
    let layer = 4 * (d * d + d) + 2 * 2 * d + (d * ff + ff) + (ff * d + d);
    let count = words * d + steps * d + 3 * layer + 2 * d + (d * 2 + 2);
    let plan_of = |spec: Value, input: &[usize]| plan(spec, input, 2).parameters();
    assert_eq!(plan_of(encoder, &[7]), count);
    let numbers = json!({"preset": "transformer_encoder", "model_dim": 8, "num_heads": 2});
    assert_eq!(plan_of(numbers.clone(), &[7, 1]), plan_of(numbers, &[7]));
    let lstm =
        json!({"preset": "lstm_classifier", "units": 4, "num_layers": 2, "bidirectional": true});
    let first = 2 * 4 * (4 * (3 + 4) + 4);
    let second = 2 * 4 * (4 * (8 + 4) + 4);
    assert_eq!(plan_of(lstm, &[5, 3]), first + second + 8 * 2 + 2);
    let words =
        json!({"preset": "lstm_classifier", "vocabulary_size": 9, "embedding_dim": 3, "units": 4});
    assert_eq!(plan_of(words, &[5]), 27 + 4 * (4 * (3 + 4) + 4) + 4 * 2 + 2);
}

#[test]
fn mistakes_in_presets_name_their_field() {
    for (spec, pointer, code) in [
        (json!({"preset": "resnet19"}), "/preset", "unknown_value"),
        (json!({"preset": 18}), "/preset", "unknown_value"),
        (
            json!({"preset": "mlp", "hiden": [3]}),
            "/hiden",
            "unknown_field",
        ),
        (
            json!({"preset": "mlp", "hidden": [0]}),
            "/hidden/0",
            "out_of_range",
        ),
        (
            json!({"preset": "cnn", "filters": []}),
            "/filters",
            "out_of_range",
        ),
        (
            json!({"preset": "cnn", "dropout": 1}),
            "/dropout",
            "out_of_range",
        ),
        (
            json!({"preset": "mobilenet_v2", "alpha": 0}),
            "/alpha",
            "out_of_range",
        ),
        (
            json!({"preset": "transformer_encoder", "num_heads": 3}),
            "/num_heads",
            "out_of_range",
        ),
        (
            json!({"preset": "lstm_classifier", "num_layers": 99}),
            "/num_layers",
            "out_of_range",
        ),
        (json!({}), "/layers", "missing"),
    ] {
        let found = read(spec.clone()).unwrap_err().into_vec();
        let fits = found.iter().any(|v| v.pointer == pointer && v.code == code);
        assert!(fits, "{spec}: {found:?}");
    }
    for (name, input) in [
        ("cnn", &[8][..]),
        ("resnet18", &[8, 8]),
        ("mobilenet_v2", &[8]),
        ("transformer_encoder", &[8, 8, 1]),
        ("lstm_classifier", &[8, 8, 1]),
    ] {
        let network = read(json!({ "preset": name })).unwrap();
        let found = network.expand(input, 2, "/network").unwrap_err().into_vec();
        assert_eq!(found[0].pointer, "/network/preset", "{found:?}");
        assert!(
            found[0].detail.contains("needs samples of shape"),
            "{found:?}"
        );
    }
}
