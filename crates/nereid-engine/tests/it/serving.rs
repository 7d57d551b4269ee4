//! Artifacts: optimised without changing outputs, checked when they are loaded.

use std::{fs, path::Path, thread};

use nereid_core::{
    engine::{EngineError, Goal},
    spec::Tolerance,
    tensors::{Batch, TensorValues},
};
use nereid_engine::engine;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Numbers, Recorder, csv, input, spec, train};

/// Trains a network with batch normalisation, both foldable and not.
fn trained() -> TempDir {
    let mut numbers = Numbers(5);
    let header: Vec<_> = (0..36).map(|i| format!("p{i}")).collect();
    let mut text = header.join(",") + ",label\n";
    for row in 0..120 {
        for p in 0..36 {
            let bright = if p % 2 == row % 2 { 3.0 } else { 0.0 };
            text += &format!("{:.3},", bright + numbers.next());
        }
        text += if row % 2 == 0 { "even\n" } else { "odd\n" };
    }
    let data = json!({"format": "csv", "label_column": "label", "shape": [6, 6, 1]});
    let spec = spec(json!({
        "network": {"layers": [
            {"type": "Conv2D", "filters": 4, "kernel_size": [3, 2], "use_bias": false},
            {"type": "BatchNormalization"},
            {"type": "Activation", "activation": "relu"},
            {"type": "BatchNormalization"},
            {"type": "Dropout", "rate": 0.2},
            {"type": "Flatten"},
            {"type": "Dense", "units": 6},
            {"type": "Dropout", "rate": 0.1},
            {"type": "BatchNormalization", "momentum": 0.8},
            {"type": "Dense", "units": 1, "activation": "sigmoid"}
        ]},
        "loss": {"type": "binary_crossentropy"},
        "fit": {"epochs": 4, "batch_size": 8, "test_split": 0.2}
    }));
    let folder = tempfile::tempdir().unwrap();
    let data = input(data, csv(text));
    let model = train(&spec, &data, None, folder.path(), &mut Recorder::default()).unwrap();
    for file in &model.files {
        assert!(folder.path().join(file).is_file(), "{file}");
    }
    folder
}

fn predict(folder: &Path, values: &[f32]) -> Vec<f32> {
    let predictor = engine().loader.load(folder).unwrap();
    let batch = Batch {
        rows: values.len() / 36,
        values: values.to_vec(),
    };
    let outputs = predictor.predict(&batch).unwrap();
    assert_eq!(outputs[0].shape, [batch.rows, 2]);
    assert_eq!(
        (outputs[1].name.as_str(), outputs[1].shape.as_slice()),
        ("class", &[batch.rows][..])
    );
    match &outputs[0].values {
        TensorValues::Fp32(values) => values.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn optimisation_folds_batch_normalisation_and_keeps_outputs() {
    let (original, serving) = (trained(), tempfile::tempdir().unwrap());
    let goal = Goal::default();
    let mut monitor = Recorder::default();
    let optimizer = engine().optimizer;
    let (report, files) = optimizer
        .optimise(original.path(), serving.path(), goal, &mut monitor)
        .unwrap();
    assert!(report.steps.iter().all(|s| s.kept), "{:?}", report.steps);
    let detail = &report.steps[1].detail;
    assert!(
        detail.contains("batch_normalization into conv2d"),
        "{detail}"
    );
    assert!(detail.contains("batch_normalization_1 stays"), "{detail}");
    assert!(
        detail.contains("batch_normalization_2 into dense"),
        "{detail}"
    );
    assert!(report.bytes_after < report.bytes_before);
    assert!(report.max_difference < 1e-5, "{report:?}");
    assert_eq!(report.samples, 24);
    assert_eq!(
        report.after.iter().map(|l| l.batch).collect::<Vec<_>>(),
        [1, 8, 32]
    );
    assert_eq!(files.len(), 3);

    let mut numbers = Numbers(9);
    #[expect(clippy::cast_possible_truncation, reason = "test data")]
    let values: Vec<f32> = (0..36 * 5).map(|_| (numbers.next() * 4.0) as f32).collect();
    let pairs = predict(original.path(), &values);
    for (a, b) in pairs.iter().zip(predict(serving.path(), &values)) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
    for pair in pairs.chunks(2) {
        assert!((pair[0] + pair[1] - 1.0).abs() < 1e-6);
    }
    let strict = Goal {
        tolerance: Tolerance {
            max_difference: -1.0,
            ..Tolerance::default()
        },
        ..Goal::default()
    };
    let refused = optimizer.optimise(original.path(), serving.path(), strict, &mut monitor);
    assert!(matches!(refused, Err(EngineError::Parity(_))));
}

#[test]
fn normalisation_is_folded_along_branches_only_where_nobody_else_looks() {
    let mut numbers = Numbers(7);
    let header: Vec<_> = (0..32).map(|i| format!("p{i}")).collect();
    let mut text = header.join(",") + ",label\n";
    for row in 0..60 {
        for _ in 0..32 {
            text += &format!("{:.3},", numbers.next() + f64::from(row % 2));
        }
        text += if row % 2 == 0 { "even\n" } else { "odd\n" };
    }
    let data = json!({"format": "csv", "label_column": "label", "shape": [4, 4, 2]});
    let spec = spec(json!({
        "network": {"layers": [
            {"type": "Conv2D", "name": "shared", "filters": 4, "kernel_size": 3, "padding": "same"},
            {"type": "BatchNormalization", "name": "shared_bn"},
            {"type": "Dropout", "name": "noise", "rate": 0.2},
            {"type": "DepthwiseConv2D", "name": "deep", "kernel_size": 3, "padding": "same", "depth_multiplier": 2, "inputs": ["shared"]},
            {"type": "BatchNormalization", "name": "deep_bn"},
            {"type": "SeparableConv2D", "name": "split", "filters": 4, "kernel_size": 2, "padding": "same"},
            {"type": "BatchNormalization", "name": "split_bn"},
            {"type": "Conv2DTranspose", "name": "up", "filters": 4, "kernel_size": 3, "padding": "same", "inputs": ["noise"]},
            {"type": "BatchNormalization", "name": "up_bn"},
            {"type": "Add", "inputs": ["up_bn", "split_bn", "noise"]},
            {"type": "GlobalAveragePooling2D"},
            {"type": "Dense", "units": 2},
            {"type": "Dropout", "rate": 0.1}
        ]},
        "loss": {"type": "sparse_categorical_crossentropy"},
        "fit": {"epochs": 3, "batch_size": 8, "test_split": 0.2}
    }));
    let (folder, serving) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (data, mut monitor) = (input(data, csv(text)), Recorder::default());
    train(&spec, &data, None, folder.path(), &mut monitor).unwrap();
    let goal = Goal::default();
    let optimizer = engine().optimizer;
    let (report, _) = optimizer
        .optimise(folder.path(), serving.path(), goal, &mut monitor)
        .unwrap();
    assert!(report.steps.iter().all(|s| s.kept), "{:?}", report.steps);
    let detail = &report.steps[1].detail;
    for into in ["deep_bn into deep", "split_bn into split", "up_bn into up"] {
        assert!(detail.contains(into), "{detail}");
    }
    assert!(detail.contains("shared_bn stays: 1 more take"), "{detail}");
    assert!(report.max_difference < 1e-5, "{report:?}");
    let document = fs::read(serving.path().join("model.json")).unwrap();
    let document: Value = serde_json::from_slice(&document).unwrap();
    let layers = document["network"]["layers"].as_array().unwrap();
    let names: Vec<_> = layers.iter().map(|l| l["name"].as_str().unwrap()).collect();
    let expected = [
        "shared",
        "shared_bn",
        "deep",
        "split",
        "up",
        "add",
        "global_average_pooling2d",
        "dense",
    ];
    assert_eq!(names, expected);
    assert_eq!(layers[5]["inputs"], json!(["up", "split", "shared_bn"]));
    engine().loader.load(serving.path()).unwrap();
}

fn load(folder: &TempDir) -> Result<(), EngineError> {
    engine().loader.load(folder.path()).map(|_| ())
}

#[test]
fn tampered_files_do_not_load() {
    let model = trained();
    let path = |name: &str| model.path().join(name);
    load(&model).unwrap();

    let weights = fs::read(path("weights.safetensors")).unwrap();
    let mut flipped = weights.clone();
    let n = flipped.len();
    flipped[n - 60..].copy_from_slice(&1.5_f32.to_le_bytes().repeat(15));
    fs::write(path("weights.safetensors"), flipped).unwrap();
    assert!(matches!(load(&model), Err(EngineError::Parity(_))));

    for broken in [&weights[..weights.len() - 4], b"", b"not tensors at all"] {
        fs::write(path("weights.safetensors"), broken).unwrap();
        assert!(matches!(load(&model), Err(EngineError::InvalidInput(_))));
    }
    fs::write(path("weights.safetensors"), &weights).unwrap();

    let document = fs::read(path("model.json")).unwrap();
    let change = |f: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(&document).unwrap();
        f(&mut value);
        fs::write(path("model.json"), value.to_string()).unwrap();
        load(&model)
    };
    for (expected, f) in [
        (
            "dense/kernel",
            (&|v: &mut Value| v["network"]["layers"][6]["units"] = json!(7)) as &dyn Fn(&mut Value),
        ),
        ("belongs to no layer", &|v| {
            v["network"]["layers"][6]["use_bias"] = json!(false);
        }),
        ("\"conv2d/bias\" is missing", &|v| {
            v["network"]["layers"][0]["use_bias"] = json!(true);
        }),
        ("format", &|v| {
            v["format"] = json!(2);
        }),
        ("differ", &|v| {
            v["network"]["input_shape"] = json!([6, 7, 1]);
        }),
        ("scales", &|v| {
            v["signature"]["preprocessing"]["scale"] = json!([0.0]);
        }),
        ("output", &|v| {
            v["network"]["layers"] = json!([]);
        }),
    ] {
        match change(f) {
            Err(EngineError::InvalidInput(detail)) => {
                assert!(detail.contains(expected), "{expected}: {detail}");
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
    fs::remove_file(path("model.json")).unwrap();
    assert!(matches!(load(&model), Err(EngineError::InvalidInput(_))));
}

#[test]
fn predictions_are_checked_and_run_in_parallel() {
    let model = trained();
    let predictor = engine().loader.load(model.path()).unwrap();
    for (rows, values) in [
        (0, vec![]),
        (1, vec![0.0; 35]),
        (2, vec![0.0; 36]),
        (usize::MAX, vec![0.0; 36]),
        (1, vec![f32::NAN; 36]),
        (1, vec![f32::INFINITY; 36]),
    ] {
        let result = predictor.predict(&Batch { rows, values });
        assert!(matches!(result, Err(EngineError::InvalidInput(_))));
    }
    let batch = Batch {
        rows: 3,
        values: vec![1.0; 3 * 36],
    };
    let expected = predictor.predict(&batch).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(predictor.predict(&batch).unwrap(), expected);
                }
            });
        }
    });
}
