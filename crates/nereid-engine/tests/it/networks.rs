//! Random networks: whatever the spec allows trains, is written, loads and gives equal outputs.

use nereid_core::{
    engine::{DataInput, EngineError},
    spec::{Tolerance, TrainSpec},
    tensors::Batch,
};
use nereid_engine::engine;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Numbers, Recorder, csv, input, spec, train};

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

fn padding() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("valid"), Just("same")]
}

fn activation() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "linear",
        "relu",
        "leaky_relu",
        "gelu",
        "sigmoid",
        "tanh",
        "softmax",
    ])
}

fn layer() -> impl Strategy<Value = Value> {
    let conv = || {
        (
            1..4_usize,
            1..4_usize,
            1..4_usize,
            1..3_usize,
            padding(),
            activation(),
            any::<bool>(),
        )
    };
    let conv2 = conv().prop_map(|(f, k, l, s, p, a, b)| {
        json!({"type": "Conv2D", "filters": f, "kernel_size": [k, l], "strides": [s, 1],
               "padding": p, "activation": a, "use_bias": b})
    });
    let conv1 = conv().prop_map(|(f, k, d, s, p, a, b)| {
        json!({"type": "Conv1D", "filters": f, "kernel_size": k, "strides": s, "padding": p,
               "dilation_rate": if s == 1 { d } else { 1 }, "activation": a, "use_bias": b})
    });
    let pool = (
        prop::sample::select(vec!["Max", "Average"]),
        1..3_usize,
        1..4_usize,
        1..3_usize,
        padding(),
    );
    let pool = pool.prop_map(|(kind, rank, size, stride, p)| {
        json!({"type": format!("{kind}Pooling{rank}D"), "pool_size": size, "strides": stride, "padding": p})
    });
    let plain = prop::sample::select(vec![
        json!({"type": "GlobalAveragePooling1D"}),
        json!({"type": "GlobalAveragePooling2D"}),
        json!({"type": "Flatten"}),
        json!({"type": "Reshape", "target_shape": [-1, 2]}),
        json!({"type": "Reshape", "target_shape": [2, -1, 1]}),
        json!({"type": "Dropout", "rate": 0.3}),
        json!({"type": "BatchNormalization"}),
        json!({"type": "LayerNormalization"}),
        json!({"type": "Embedding", "input_dim": 5, "output_dim": 3}),
    ]);
    prop_oneof![
        3 => conv2,
        2 => conv1,
        2 => pool,
        4 => plain,
        2 => (1..5_usize, activation()).prop_map(|(u, a)| json!({"type": "Dense", "units": u, "activation": a})),
        1 => activation().prop_map(|a| json!({"type": "Activation", "activation": a})),
    ]
}

/// Appends those of `layers` that fit, then what makes the output one of classes.
fn network(layers: Vec<Value>, data: &DataInput) -> TrainSpec {
    let ending = [
        json!({"type": "Flatten"}),
        json!({"type": "Dense", "units": CLASSES}),
    ];
    let build = |layers: &[Value]| {
        let layers = [layers, &ending[..]].concat();
        spec(json!({
            "network": {"layers": layers},
            "loss": {"type": "sparse_categorical_crossentropy"},
            "metrics": ["accuracy"],
            "fit": {"epochs": 1, "batch_size": 8, "test_split": 0.3}
        }))
    };
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
fn trained(shape: &[usize], layers: Vec<Value>) -> Result<TempDir, EngineError> {
    let data = data(shape);
    let spec = network(layers, &data);
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
        layers in prop::collection::vec(layer(), 0..6),
    ) {
        let folder = trained(&shape, layers).map_err(failed)?;
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
    #![proptest_config(config(12))]

    #[test]
    fn a_valid_network_survives_optimisation(
        shape in shapes(),
        mut layers in prop::collection::vec(layer(), 0..4),
    ) {
        layers.push(json!({"type": "Dense", "units": 3}));
        layers.push(json!({"type": "BatchNormalization"}));
        let folder = trained(&shape, layers).map_err(failed)?;
        let serving = tempfile::tempdir().unwrap();
        let mut monitor = Recorder { quiet: true, ..Recorder::default() };
        let tolerance = Tolerance::default();
        let (report, _) = engine().optimizer
            .optimise(folder.path(), serving.path(), tolerance, &mut monitor)
            .map_err(failed)?;
        prop_assert!(report.steps[1].kept, "{:?}", report.steps);
        engine().loader.load(serving.path()).map_err(failed)?;
    }
}
