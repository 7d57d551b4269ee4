//! A training that goes on from a snapshot ends with the very same bytes.

use std::fs;

use nereid_core::engine::EngineError;
use serde_json::{Value, json};

use crate::support::{Numbers, Recorder, csv, input, spec, train};

fn pictures() -> String {
    let mut numbers = Numbers(3);
    let header: Vec<_> = (0..36).map(|i| format!("p{i}")).collect();
    let mut text = header.join(",") + ",label\n";
    for row in 0..150 {
        for p in 0..36 {
            let bright = if p % 3 == row % 3 { 2.0 } else { 0.0 };
            text += &format!("{:.3},", bright + numbers.next());
        }
        text += &format!("{}\n", row % 3);
    }
    text
}

fn description() -> Value {
    json!({
        "network": {"layers": [
            {"type": "Conv2D", "filters": 4, "kernel_size": 3, "padding": "same", "strides": 2},
            {"type": "BatchNormalization"},
            {"type": "Activation", "activation": "relu"},
            {"type": "Dropout", "rate": 0.3},
            {"type": "Flatten"},
            {"type": "LayerNormalization"},
            {"type": "Dense", "units": 3, "activation": "softmax"}
        ]},
        "loss": {"type": "categorical_crossentropy", "label_smoothing": 0.1},
        "optimizer": {"type": "adamw", "learning_rate": 0.01},
        "metrics": ["accuracy", "f1"],
        "fit": {"epochs": 6, "batch_size": 16, "validation_split": 0.2, "seed": 11},
        "callbacks": [
            {"type": "early_stopping", "patience": 4, "restore_best_weights": true},
            {"type": "reduce_lr_on_plateau", "patience": 1, "min_delta": 0.05},
            {"type": "checkpoint", "every_steps": 7}
        ]
    })
}

#[test]
fn a_resumed_training_ends_with_the_same_bytes() {
    let data = json!({"format": "csv", "label_column": "label", "shape": [6, 6, 1]});
    let data = input(data, csv(pictures()));
    let spec = spec(description());
    let read = |folder: &tempfile::TempDir, name: &str| fs::read(folder.path().join(name)).unwrap();

    let whole = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::default();
    let expected = train(&spec, &data, None, whole.path(), &mut recorder).unwrap();
    assert_eq!(
        recorder.snapshots[2].step, 21,
        "8 steps an epoch: the third lies within one"
    );

    for stop_after in [1, 3, 5] {
        let mut first = Recorder {
            stop_at_snapshot: Some(stop_after),
            ..Recorder::default()
        };
        let resumed = tempfile::tempdir().unwrap();
        let stopped = train(&spec, &data, None, resumed.path(), &mut first);
        assert!(matches!(stopped, Err(EngineError::Stopped)));
        let state = first.snapshots.pop().unwrap().bytes;
        let mut second = Recorder::default();
        let got = train(&spec, &data, Some(state), resumed.path(), &mut second).unwrap();
        assert_eq!(got.metrics, expected.metrics);
        for name in [
            "weights.safetensors",
            "golden.safetensors",
            "history.json",
            "model.json",
        ] {
            assert!(read(&whole, name) == read(&resumed, name), "{name} differs");
        }
    }
}

#[test]
fn a_state_fits_only_the_spec_it_was_saved_with() {
    let data = json!({"format": "csv", "label_column": "label", "shape": [6, 6, 1]});
    let data = input(data, csv(pictures()));
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder {
        stop_at_snapshot: Some(1),
        ..Recorder::default()
    };
    let _ = train(
        &spec(description()),
        &data,
        None,
        folder.path(),
        &mut recorder,
    );
    let state = recorder.snapshots.pop().unwrap().bytes;

    let mut other = description();
    other["fit"]["seed"] = json!(12);
    let mut damaged = state.clone();
    damaged.truncate(state.len() / 2);
    for (spec, state) in [(spec(other), state), (spec(description()), damaged)] {
        let result = train(
            &spec,
            &data,
            Some(state),
            folder.path(),
            &mut Recorder::default(),
        );
        assert!(
            matches!(result, Err(EngineError::InvalidInput(_))),
            "{result:?}"
        );
    }
}
