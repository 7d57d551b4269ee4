//! MNIST, the whole of it; slow in debug builds and without the files, so on request only.

use std::{collections::HashMap, path::PathBuf, time::Instant};

use nereid_core::{datasets::FileRole, engine::TrainTask, workers::DeviceKind};
use nereid_engine::engine;
use serde_json::json;

use crate::support::{Memory, Recorder, input, spec};

fn files(kind: &str) -> Memory {
    let folder = std::env::var_os("NEREID_TEST_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")),
        PathBuf::from,
    );
    let read = |name: &str| {
        let path = folder.join("mnist").join(format!("{kind}-{name}-ubyte.gz"));
        std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    Memory(HashMap::from([
        (FileRole::Data, read("images-idx3")),
        (FileRole::Labels, read("labels-idx1")),
    ]))
}

#[test]
#[ignore = "trains for about a minute on all of MNIST"]
fn a_small_cnn_learns_mnist() {
    let description = json!({"format": "idx", "shape": [28, 28, 1]});
    let started = Instant::now();
    let train = input(description.clone(), files("train"));
    let held_out = input(description, files("t10k"));
    println!("inspection of both: {:?}", started.elapsed());
    let spec = spec(serde_json::from_str(MNIST_SPEC).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let task = TrainTask {
        spec: &spec,
        train,
        validation: None,
        test: Some(held_out),
        device: DeviceKind::Cpu,
        resume: None,
        output: folder.path(),
    };
    let started = Instant::now();
    let mut recorder = Recorder::default();
    let model = engine().trainer.train(&task, &mut recorder).unwrap();
    println!("training: {:?}", started.elapsed());
    for p in &recorder.points {
        if let Some(speed) = p.values.get("samples_per_second") {
            println!("epoch {}: {speed:.0} samples/s", p.epoch);
        }
    }
    assert!(
        model.metrics["test_accuracy"] >= 0.985,
        "{:?}",
        model.metrics
    );
}

const MNIST_SPEC: &str = r#"{
    "network": {"layers": [
        {"type": "Conv2D", "filters": 8, "kernel_size": 3, "activation": "relu"},
        {"type": "MaxPooling2D"},
        {"type": "Conv2D", "filters": 24, "kernel_size": 3, "activation": "relu"},
        {"type": "MaxPooling2D"},
        {"type": "Flatten"},
        {"type": "Dense", "units": 64, "activation": "relu"},
        {"type": "Dense", "units": 10}
    ]},
    "loss": {"type": "sparse_categorical_crossentropy"},
    "optimizer": {"type": "adam", "learning_rate": 0.003},
    "metrics": ["accuracy"],
    "fit": {"epochs": 3, "batch_size": 64, "seed": 1}
}"#;
