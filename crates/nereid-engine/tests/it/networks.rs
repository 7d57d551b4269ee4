//! Random networks: whatever the spec allows trains, is written, loads and gives equal outputs.

mod layers;

use nereid_core::{
    engine::{DataInput, EngineError, Goal},
    spec::TrainSpec,
    tensors::Batch,
    validation::Violations,
};
use nereid_engine::engine;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use layers::{Described, described, mutation};

use crate::support::{Numbers, Recorder, csv, input, spec, train, weights};

const CLASSES: usize = 3;

fn data(shape: &[usize]) -> DataInput {
    let size: usize = shape.iter().product();
    let mut numbers = Numbers(13);
    let header: Vec<_> = (0..size).map(|i| format!("x{i}")).collect();
    let mut text = header.join(",") + ",y\n";
    for row in 0..12 {
        for _ in 0..size {
            // Whole numbers, so that an Embedding can look them up.
            text += &format!("{},", (numbers.next() * 5.0).floor());
        }
        text += &format!("c{}\n", row % CLASSES);
    }
    input(
        json!({"format": "csv", "label_column": "y", "shape": shape}),
        csv(text),
    )
}

/// Names layers and finds what each takes: any earlier outputs, by numbers taken modulo them.
fn graph(layers: &[Described]) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for (i, described) in layers.iter().enumerate() {
        let mut layer = described.layer.clone();
        layer["name"] = json!(format!("l{i}"));
        if !described.inputs.is_empty() {
            let name = |n: &usize| match n % (i + 1) {
                0 => json!("input"),
                n => json!(format!("l{}", n - 1)),
            };
            layer["inputs"] = described.inputs.iter().map(name).collect();
        }
        all.push(layer);
    }
    all
}

/// Joins all outputs that nobody took yet, and makes the classes' logits of them.
fn ended(mut layers: Vec<Value>) -> Vec<Value> {
    let mut open = vec!["input".to_owned()];
    for (i, layer) in layers.iter().enumerate() {
        let before = i
            .checked_sub(1)
            .map_or("input".to_owned(), |n| format!("l{n}"));
        let taken: Vec<String> = match layer.get("inputs") {
            Some(inputs) => serde_json::from_value(inputs.clone()).unwrap(),
            None => vec![before],
        };
        open.retain(|name| !taken.contains(name));
        open.push(format!("l{i}"));
    }
    for name in &open {
        let flat = format!("flat_{name}");
        layers.push(json!({"type": "Flatten", "name": flat, "inputs": [name]}));
    }
    if open.len() > 1 {
        let flat: Vec<_> = open.iter().map(|name| format!("flat_{name}")).collect();
        layers.push(json!({"type": "Concatenate", "inputs": flat}));
    }
    layers.push(json!({"type": "Dense", "units": CLASSES}));
    layers
}

fn whole(layers: &[Value], defaults: &str) -> Value {
    json!({
        "network": {"layers": layers, "defaults": defaults},
        "loss": {"type": "sparse_categorical_crossentropy"},
        "metrics": ["accuracy"],
        "fit": {"epochs": 1, "batch_size": 8, "test_split": 0.3}
    })
}

/// Takes those of `layers` that fit, and ends them in classes.
fn network(layers: Vec<Described>, data: &DataInput, defaults: &str) -> TrainSpec {
    let build = |layers: &[Described]| spec(whole(&ended(graph(layers)), defaults));
    let mut fitting = Vec::new();
    for layer in layers {
        fitting.push(layer);
        if build(&fitting).plan(&data.schema, 12, "").is_err() {
            fitting.pop();
        }
    }
    build(&fitting)
}

/// Trains a network and returns the folder of its files.
fn trained(
    shape: &[usize],
    layers: Vec<Described>,
    defaults: &str,
) -> Result<TempDir, EngineError> {
    let data = data(shape);
    let spec = network(layers, &data, defaults);
    let folder = tempfile::tempdir().unwrap();
    let mut monitor = Recorder {
        quiet: true,
        ..Recorder::default()
    };
    train(&spec, &data, None, folder.path(), &mut monitor)?;
    Ok(folder)
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop::sample::select(vec![vec![6], vec![5, 4], vec![6, 5, 2], vec![4, 4, 1]])
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn failed(e: EngineError) -> TestCaseError {
    TestCaseError::fail(e.to_string())
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn a_valid_network_trains_and_survives_its_files(
        shape in shapes(),
        layers in prop::collection::vec(described(), 0..9),
        defaults in prop::sample::select(vec!["keras", "pytorch"]),
    ) {
        let folder = trained(&shape, layers, defaults).map_err(failed)?;
        let size: usize = shape.iter().product();
        let values = [1.0, 0.0, 4.0].into_iter().cycle().take(2 * size).collect();
        let batch = Batch { rows: 2, values };
        let load = || engine().loader.load(folder.path());
        let outputs = load().map_err(failed)?.predict(&batch).map_err(failed)?;
        let again = load().map_err(failed)?.predict(&batch).map_err(failed)?;
        prop_assert_eq!(outputs, again);
    }
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn frozen_layers_of_any_kind_stay_as_they_are(
        shape in shapes(),
        layers in prop::collection::vec(described(), 1..9),
        frozen in prop::collection::vec(any::<bool>(), 9),
    ) {
        let data = data(&shape);
        let mut spec = network(layers, &data, "keras");
        let names = spec.network.layers.iter().filter_map(|l| l.name.clone());
        let names: Vec<_> = names.filter(|n| n.starts_with('l')).collect();
        for (name, _) in names.into_iter().zip(frozen).filter(|(_, frozen)| *frozen) {
            spec.fit.trainable.insert(nereid_core::spec::Pattern(name), false);
        }
        let mut left = Vec::new();
        for epochs in [1, 2] {
            spec.fit.epochs = epochs;
            let folder = tempfile::tempdir().unwrap();
            let mut monitor = Recorder { quiet: true, ..Recorder::default() };
            train(&spec, &data, None, folder.path(), &mut monitor).map_err(failed)?;
            left.push(weights(folder.path()));
        }
        for (name, values) in &left[0] {
            let layer = name.split_once('/').unwrap().0;
            let kept = left[1][name] == *values;
            prop_assert!(kept || spec.trains(layer, false), "{name} changed");
        }
    }
}

proptest! {
    #![proptest_config(config(12))]

    #[test]
    fn a_valid_network_survives_optimisation(
        shape in shapes(),
        mut layers in prop::collection::vec(described(), 0..6),
    ) {
        layers.push(json!({"type": "Dense", "units": 3}).into());
        layers.push(json!({"type": "BatchNormalization"}).into());
        let folder = trained(&shape, layers, "keras").map_err(failed)?;
        let serving = tempfile::tempdir().unwrap();
        let mut monitor = Recorder { quiet: true, ..Recorder::default() };
        let goal = Goal::default();
        let (report, _) = engine().optimizer
            .optimise(folder.path(), serving.path(), goal, &mut monitor)
            .map_err(failed)?;
        prop_assert!(report.steps[1].kept, "{:?}", report.steps);
        engine().loader.load(serving.path()).map_err(failed)?;
    }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn an_invalid_network_is_refused_by_the_name_of_its_layer(
        shape in shapes(),
        layers in prop::collection::vec(described(), 1..8),
        at in 0..8_usize,
        (field, value) in mutation(),
    ) {
        let data = data(&shape);
        // Not only those that fit: most of these networks are wrong in more than one way.
        let mut layers = ended(graph(&layers));
        let at = at % layers.len();
        let layer = layers[at].as_object_mut().unwrap();
        match value {
            Some(value) => layer.insert(field.to_owned(), value),
            None => layer.remove(field),
        };
        let mut spec = whole(&layers, "keras");
        spec["model"] = json!("test");
        spec["dataset"] = json!("test");
        let mut violations = Violations::default();
        let read = TrainSpec::read(spec, "", &mut violations);
        let planned = match (violations.is_empty(), read) {
            (true, Some(spec)) => spec.plan(&data.schema, 12, "").map(drop),
            _ => Err(violations),
        };
        if let Err(violations) = planned {
            let found = violations.into_vec();
            let names = |v: &nereid_core::validation::Violation| {
                v.pointer.starts_with("/network/layers/") || v.detail.contains("layer \"")
            };
            prop_assert!(found.iter().any(names), "{found:?}");
        }
    }
}
