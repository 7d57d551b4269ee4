//! The digits that ship with Nereid: a small CNN learns them in seconds.

use nereid_core::engine::DataInput;
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
