//! Tables: the network of the README, regression, two classes with one output.

use std::fmt::Write;

use nereid_core::{
    engine::{DataInput, EngineError},
    models::Signature,
};
use serde_json::json;

use crate::support::{Numbers, Recorder, csv, input, spec, train};

/// Clusters around a point for each class, with 224 columns.
fn clusters(rows: usize) -> DataInput {
    let mut numbers = Numbers(42);
    let centres: Vec<Vec<f64>> = (0..10)
        .map(|_| (0..224).map(|_| numbers.next() * 4.0).collect())
        .collect();
    let header: Vec<_> = (0..224).map(|i| format!("f{i}")).collect();
    let mut text = header.join(",") + ",label\n";
    for row in 0..rows {
        let class = row % 10;
        for centre in &centres[class] {
            write!(text, "{:.4},", centre + numbers.next() * 2.0).unwrap();
        }
        writeln!(text, "class-{class}").unwrap();
    }
    input(json!({"format": "csv", "label_column": "label"}), csv(text))
}

#[test]
fn the_readme_network_learns_a_table() {
    let data = clusters(1_500);
    let spec = spec(json!({
        "network": {"layers": [
            {"type": "Dense", "units": 64, "activation": "relu"},
            {"type": "Dropout", "rate": 0.2},
            {"type": "Dense", "units": 64, "activation": "relu"},
            {"type": "Dropout", "rate": 0.5},
            {"type": "Dense", "units": 10}
        ]},
        "loss": {"type": "sparse_categorical_crossentropy", "from_logits": true},
        "metrics": ["accuracy", {"type": "top_k_accuracy", "k": 3}],
        "fit": {"epochs": 5, "batch_size": 32, "validation_split": 0.1},
        "callbacks": [{"type": "reduce_lr_on_plateau", "patience": 5}]
    }));
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::default();
    let model = train(&spec, &data, None, folder.path(), &mut recorder).unwrap();
    assert!(model.metrics["val_accuracy"] > 0.95, "{:?}", model.metrics);
    let epochs: Vec<_> = recorder
        .points
        .iter()
        .filter(|p| p.values.contains_key("val_loss"))
        .collect();
    assert_eq!(epochs.len(), 5);
    for key in [
        "loss",
        "accuracy",
        "learning_rate",
        "samples_per_second",
        "val_accuracy",
    ] {
        assert!(epochs[4].values.contains_key(key), "{key}");
    }
    assert!(recorder.points.len() <= 5 * 21);
    let last = recorder.progress.last().unwrap();
    assert_eq!((last.epoch, last.step, last.steps), (5, 215, 215));
    let Signature {
        outputs,
        classes,
        columns,
        ..
    } = model.signature;
    assert_eq!(outputs[0].shape, [-1, 10]);
    assert_eq!(classes.unwrap()[9], "class-9");
    assert_eq!(columns.unwrap().len(), 224);
}

/// Two columns and a label found from both.
fn pairs(rows: usize, label: impl Fn(f64, f64) -> String) -> String {
    let mut numbers = Numbers(7);
    let mut text = "a,b,y\n".to_owned();
    for _ in 0..rows {
        let (a, b) = (numbers.next() * 2.0 - 1.0, numbers.next() * 20.0);
        writeln!(text, "{a},{b},{}", label(a, b)).unwrap();
    }
    text
}

#[test]
fn a_regression_fits_a_line() {
    let text = pairs(600, |a, b| (3.0 * a - 0.2 * b + 1.0).to_string());
    let data = input(json!({"format": "csv", "label_column": "y"}), csv(text));
    let spec = spec(json!({
        "network": {"layers": [{"type": "Dense", "units": 1}]},
        "loss": {"type": "mse"},
        "optimizer": {"type": "sgd", "learning_rate": 0.05, "momentum": 0.9, "nesterov": true},
        "metrics": ["mae", "rmse", "r2"],
        "fit": {"epochs": 10, "test_split": 0.2, "clipnorm": 5.0}
    }));
    let folder = tempfile::tempdir().unwrap();
    let model = train(&spec, &data, None, folder.path(), &mut Recorder::default()).unwrap();
    assert!(model.metrics["test_r2"] > 0.999, "{:?}", model.metrics);
    assert!(model.metrics["test_mae"] < 0.05, "{:?}", model.metrics);
    assert_eq!(model.signature.outputs[0].name, "prediction");
}

#[test]
fn one_output_tells_two_classes_apart() {
    let text = pairs(800, |a, _| if a > 0.2 { "yes" } else { "no" }.to_owned());
    let data = input(json!({"format": "csv", "label_column": "y"}), csv(text));
    let spec = spec(json!({
        "network": {"layers": [
            {"type": "Dense", "units": 8, "activation": "tanh"},
            {"type": "Dense", "units": 1, "activation": "sigmoid"}
        ]},
        "loss": {"type": "binary_crossentropy"},
        "optimizer": {"type": "rmsprop", "learning_rate": 0.02},
        "metrics": ["accuracy", "precision", "recall", "f1"],
        "fit": {"epochs": 20, "validation_split": 0.2, "class_weight": "balanced"},
        "callbacks": [{"type": "early_stopping", "patience": 3, "restore_best_weights": true}]
    }));
    let folder = tempfile::tempdir().unwrap();
    let model = train(&spec, &data, None, folder.path(), &mut Recorder::default()).unwrap();
    assert!(model.metrics["val_accuracy"] > 0.95, "{:?}", model.metrics);
    assert_eq!(model.signature.outputs[0].shape, [-1, 2]);
}

#[test]
fn divergence_is_an_error_of_its_own() {
    let text = pairs(200, |a, b| (a + b).to_string());
    let data = input(json!({"format": "csv", "label_column": "y"}), csv(text));
    let spec = spec(json!({
        "network": {"layers": [
            {"type": "Dense", "units": 32, "activation": "relu"},
            {"type": "Dense", "units": 1}
        ]},
        "loss": {"type": "mse"},
        "optimizer": {"type": "sgd", "learning_rate": 90.0},
        "fit": {"epochs": 20}
    }));
    let folder = tempfile::tempdir().unwrap();
    let result = train(&spec, &data, None, folder.path(), &mut Recorder::default());
    assert!(
        matches!(result, Err(EngineError::Diverged { .. })),
        "{result:?}"
    );
}
