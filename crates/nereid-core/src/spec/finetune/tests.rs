use serde_json::{Value, json};

use super::*;
use crate::{
    datasets::DatasetSchema, models::Signature, spec::network::Network, validation::Violation,
};

fn schema(features: usize, classes: usize) -> DatasetSchema {
    let classes: Vec<_> = (0..classes).map(|c| c.to_string()).collect();
    serde_json::from_value(json!({
        "shape": [features], "dtype": "FP32",
        "target": {"kind": "class", "name": "y", "classes": classes},
    }))
    .unwrap()
}

fn network(layers: &Value) -> Network {
    let mut v = Violations::default();
    let network = Network::read(json!({ "layers": layers }), "", &mut v);
    v.into_result(network).unwrap().unwrap()
}

/// Four features, ten classes.
fn trained() -> (Network, Signature) {
    let network = network(&json!([
        {"type": "Dense", "units": 8, "activation": "relu", "name": "hidden"},
        {"type": "BatchNormalization", "name": "norm"},
        {"type": "Dense", "units": 10, "name": "head"},
        {"type": "Activation", "activation": "softmax"},
    ]));
    let signature = serde_json::from_value(json!({
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}], "outputs": [],
        "preprocessing": {"normalization": "standard", "offset": [0.0, 0.0, 0.0, 0.0],
                          "scale": [1.0, 1.0, 1.0, 1.0]},
    }))
    .unwrap();
    (network, signature)
}

fn read(changes: Value) -> Result<TrainSpec, Vec<Violation>> {
    let mut spec = json!({
        "model": "m", "dataset": "d", "loss": {"type": "sparse_categorical_crossentropy"},
        "initialize_from": {"model": "base", "version": 3},
    });
    let Value::Object(changes) = changes else {
        panic!("changes are an object")
    };
    spec.as_object_mut().unwrap().extend(changes);
    let mut v = Violations::default();
    let spec = TrainSpec::read(spec, "", &mut v);
    v.into_result(()).map_err(Violations::into_vec)?;
    Ok(spec.unwrap())
}

/// As a submission does it.
fn submit(changes: Value, schema: &DatasetSchema) -> Result<(TrainSpec, Transfer), Vec<Violation>> {
    let mut spec = read(changes)?;
    let (network, signature) = trained();
    let base = Base {
        network: &network,
        signature: &signature,
    };
    let mut submit = || {
        spec.adopt(base, schema, "")?;
        let plan = spec.plan(schema, 100, "")?;
        spec.transfer(&plan, base, schema, "")
    };
    let transfer = submit().map_err(Violations::into_vec)?;
    Ok((spec, transfer))
}

/// The only mistake.
fn refused(changes: Value, schema: &DatasetSchema) -> (String, String) {
    let found = submit(changes, schema).unwrap_err();
    let [violation] = found.try_into().unwrap();
    (violation.pointer, violation.detail)
}

fn own_network(units: usize) -> Value {
    json!({"layers": [
        {"type": "Dense", "units": 8, "activation": "relu", "name": "hidden"},
        {"type": "BatchNormalization", "name": "norm"},
        {"type": "Dense", "units": units, "name": "head"},
        {"type": "Dense", "units": 10, "name": "new"},
    ]})
}

#[test]
fn a_network_left_out_is_the_versions() {
    let (spec, transfer) = submit(json!({}), &schema(4, 10)).unwrap();
    assert_eq!(spec.network.layers.len(), 4);
    assert_eq!(transfer.taken, ["hidden", "norm", "head"]);
    assert!(transfer.fresh.is_empty());

    let (at, detail) = refused(json!({}), &schema(4, 3));
    assert_eq!(at, "/initialize_from");
    for part in ["base@3", "10 values", "needs 3", "\"head\"", "skip"] {
        assert!(detail.contains(part), "{detail}");
    }
    let skip = json!({"initialize_from": {"model": "base", "version": 3, "mismatched": "skip"}});
    let (spec, transfer) = submit(skip, &schema(4, 3)).unwrap();
    assert_eq!(transfer.fresh, ["head"]);
    assert!(matches!(&spec.network.layers[2].layer, Layer::Dense(d) if d.units == 3));

    let found = read(json!({"initialize_from": null})).unwrap_err();
    assert_eq!(found[0].pointer, "/network");
}

#[test]
fn layers_match_by_name_and_shapes() {
    let data = schema(4, 10);
    let (_, transfer) = submit(json!({"network": own_network(10)}), &data).unwrap();
    assert_eq!(transfer.fresh, ["new"]);

    let (_, detail) = refused(json!({"network": own_network(5)}), &data);
    for part in ["\"head\"", "kernel", "(8, 5)", "(8, 10)", "base@3"] {
        assert!(detail.contains(part), "{detail}");
    }
    let from = json!({"model": "base", "version": 3, "mismatched": "skip"});
    let changes = json!({"network": own_network(5), "initialize_from": from});
    let (_, transfer) = submit(changes, &data).unwrap();
    assert_eq!(transfer.taken, ["hidden", "norm"]);

    // What is not picked may differ.
    let from = json!({"model": "base", "version": 3, "layers": ["hid*"]});
    let changes = json!({"network": own_network(5), "initialize_from": from});
    let (_, transfer) = submit(changes, &data).unwrap();
    assert_eq!(transfer.taken, ["hidden"]);

    let others = json!({"layers": [{"type": "Dense", "units": 10, "name": "other"}]});
    let (_, detail) = refused(json!({"network": others}), &data);
    assert!(detail.contains("hidden, norm, head"), "{detail}");
}

#[test]
fn scaling_is_the_versions_unless_it_cannot_be() {
    let of_one = json!({"network": {"layers": [
        {"type": "Dense", "units": 4, "name": "first"},
        {"type": "Dense", "units": 8, "name": "hidden"},
        {"type": "Dense", "units": 10},
    ]}});
    let (at, detail) = refused(of_one.clone(), &schema(2, 10));
    assert_eq!(at, "/initialize_from/preprocessing");
    assert!(
        detail.contains("4 features") && detail.contains("\"data\""),
        "{detail}"
    );
    let mut by_data = of_one;
    by_data["initialize_from"] = json!({"model": "base", "version": 3, "preprocessing": "data"});
    assert!(submit(by_data, &schema(2, 10)).is_ok());

    let found = read(json!({"fit": {"normalization": "min_max"}})).unwrap_err();
    assert_eq!(found[0].pointer, "/fit/normalization");
}

#[test]
fn the_longest_pattern_decides_what_is_trained() {
    let fit = json!({"trainable": {"*": false, "head": true, "he*": false}});
    let spec = read(json!({ "fit": fit })).unwrap();
    let trained = ["hidden", "norm", "head"].map(|l| spec.trains(l, true));
    assert_eq!(trained, [false, false, true]);

    let lora = json!({"lora": {"rank": 2}, "trainable": {"norm": true}});
    let spec = read(json!({ "fit": lora })).unwrap();
    assert!(!spec.trains("hidden", true) && spec.trains("hidden", false));
    assert!(spec.trains("norm", true));
    assert!((spec.fit.lora.unwrap().scale() - 1.0).abs() < 1e-12);
}

#[test]
fn options_that_pick_nothing_are_refused() {
    let data = schema(4, 10);
    for (fit, pointer) in [
        (
            json!({"trainable": {"hiden": false}}),
            "/fit/trainable/hiden",
        ),
        (json!({"trainable": {"*": false}}), "/fit/trainable"),
        (
            json!({"lora": {"rank": 2, "layers": ["norm"]}}),
            "/fit/lora/layers/0",
        ),
        (
            json!({"lora": {"rank": 2}, "trainable": {"*": false}}),
            "/fit/lora",
        ),
    ] {
        assert_eq!(refused(json!({ "fit": fit }), &data).0, pointer);
    }
    for (changes, pointer) in [
        (json!({"fit": {"lora": {"rank": 0}}}), "/fit/lora/rank"),
        (
            json!({"fit": {"lora": {"rank": 1, "alpha": -1.0}}}),
            "/fit/lora/alpha",
        ),
        (
            json!({"fit": {"trainable": {"a/b": false}}}),
            "/fit/trainable/a~1b",
        ),
        (
            json!({"initialize_from": {"model": "b", "version": 0}}),
            "/initialize_from/version",
        ),
        (
            json!({"initialize_from": {"model": "b", "layers": []}}),
            "/initialize_from/layers",
        ),
        (
            json!({"initialize_from": {"model": "b", "mismatch": "skip"}}),
            "/initialize_from/mismatch",
        ),
        (
            json!({"initialize_from": null, "network": own_network(10), "fit": {"lora": {"rank": 1}}}),
            "/fit/lora",
        ),
    ] {
        assert_eq!(read(changes).unwrap_err()[0].pointer, pointer);
    }
}

#[test]
fn what_is_a_matrix_can_be_adapted() {
    let network = network(&json!([
        {"type": "Embedding", "input_dim": 20, "output_dim": 6, "name": "words"},
        {"type": "MultiHeadAttention", "num_heads": 2, "key_dim": 3, "name": "attention"},
        {"type": "GlobalAveragePooling1D"},
        {"type": "Dense", "units": 4, "name": "head"},
    ]));
    let plan = network.plan(&[5], "").unwrap();
    let spec = read(json!({"fit": {"lora": {"rank": 2}}})).unwrap();
    let found: Vec<_> = plan
        .layers
        .iter()
        .flat_map(|l| l.weights.iter().map(move |w| (l, w)))
        .filter_map(|(l, w)| Some((format!("{}/{}", l.name, w.role), spec.adapts(l, w)?)))
        .collect();
    let expected = [
        ("words/embeddings", [20, 6]),
        ("attention/query/kernel", [6, 6]),
        ("attention/key/kernel", [6, 6]),
        ("attention/value/kernel", [6, 6]),
        ("attention/attention_output/kernel", [6, 6]),
        ("head/kernel", [6, 4]),
    ];
    assert_eq!(
        found,
        expected.map(|(name, matrix)| (name.to_owned(), matrix))
    );
}
