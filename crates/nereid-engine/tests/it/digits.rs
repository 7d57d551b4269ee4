//! The digits that ship with Nereid: a small CNN learns them in seconds.

use nereid_core::{
    engine::{DataInput, Goal},
    models::Runtime,
    spec::{Tolerance, WeightFormat},
};
use nereid_engine::{Settings, engine_with};
use serde_json::json;

use crate::support::{Recorder, csv, input, spec, train};

const DIGITS: &[u8] = include_bytes!("../../../nereid/assets/digits.csv.gz");

pub fn digits() -> DataInput {
    let description = json!({"format": "csv", "label_column": "label", "shape": [8, 8, 1]});
    input(description, csv(DIGITS))
}

#[test]
fn a_small_cnn_learns_the_digits() {
    let data = digits();
    assert_eq!(data.schema.shape, [8, 8, 1]);
    assert_eq!(data.schema.classes().unwrap().len(), 10);
    let spec = spec(json!({
        "network": {"layers": [
            {"type": "Conv2D", "filters": 16, "kernel_size": 3, "padding": "same", "activation": "relu"},
            {"type": "MaxPooling2D"},
            {"type": "Conv2D", "filters": 32, "kernel_size": 3, "padding": "same", "activation": "relu"},
            {"type": "MaxPooling2D"},
            {"type": "Flatten"},
            {"type": "Dense", "units": 64, "activation": "relu"},
            {"type": "Dense", "units": 10}
        ]},
        "loss": {"type": "sparse_categorical_crossentropy"},
        "optimizer": {"type": "adam", "learning_rate": 0.003},
        "metrics": ["accuracy", "f1", "confusion_matrix"],
        "fit": {"epochs": 15, "batch_size": 32, "test_split": 0.2, "validation_split": 0.1, "seed": 7}
    }));
    let folder = tempfile::tempdir().unwrap();
    let started = std::time::Instant::now();
    let model = train(&spec, &data, None, folder.path(), &mut Recorder::default()).unwrap();
    println!("{:?} {:?}", started.elapsed(), model.metrics);
    assert!(
        model.metrics["test_accuracy"] >= 0.97,
        "{:?}",
        model.metrics
    );
    let counts = &model.reports["confusion_matrix"]["counts"];
    let total: u64 = counts
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|n| n.as_u64().unwrap())
        .sum();
    assert_eq!(total, 359);
}

#[test]
fn the_digits_in_8_bits_are_a_quarter_of_the_size_and_as_good() {
    let spec = spec(json!({
        "network": {"layers": [
            {"type": "Conv2D", "filters": 16, "kernel_size": 3, "padding": "same", "use_bias": false},
            {"type": "BatchNormalization"},
            {"type": "ReLU"},
            {"type": "MaxPooling2D"},
            {"type": "Conv2D", "filters": 32, "kernel_size": 3, "padding": "same", "activation": "relu"},
            {"type": "MaxPooling2D"},
            {"type": "Flatten"},
            {"type": "Dropout", "rate": 0.2},
            {"type": "Dense", "units": 64, "activation": "relu"},
            {"type": "Dense", "units": 10}
        ]},
        "loss": {"type": "sparse_categorical_crossentropy"},
        "optimizer": {"type": "adam", "learning_rate": 0.003},
        "metrics": ["accuracy"],
        "fit": {"epochs": 12, "batch_size": 32, "validation_split": 0.3, "seed": 7}
    }));
    let (folder, serving) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut recorder = Recorder::default();
    train(&spec, &digits(), None, folder.path(), &mut recorder).unwrap();
    let library = std::env::var_os("ORT_DYLIB_PATH").map(Into::into);
    let engine = engine_with(Settings {
        onnxruntime: library,
        probe: None,
    });
    let goal = Goal {
        tolerance: Tolerance::of(WeightFormat::Int8),
        weights: WeightFormat::Int8,
        runtime: None,
    };
    let optimised = engine
        .optimizer
        .optimise(folder.path(), serving.path(), goal, &mut recorder);
    let (report, _) = optimised.unwrap();
    println!("{}", serde_json::to_string_pretty(&report).unwrap());
    assert_eq!(report.weights, WeightFormat::Int8, "{:?}", report.steps);
    assert!(
        report.bytes_after * 10 <= report.bytes_before * 3,
        "{report:?}"
    );
    assert_eq!(report.samples, 539, "a third of the rows were held out");
    let metric = report.metric.unwrap();
    assert!(metric.before > 0.96 && metric.loss <= 0.5, "{metric:?}");
    let tract = report.runtimes.iter().find(|r| r.runtime == Runtime::Tract);
    assert_eq!(tract.unwrap().refused, None);
    engine.loader.load(serving.path()).unwrap();
}
