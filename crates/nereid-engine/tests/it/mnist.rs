//! MNIST, the whole of it; slow in debug builds and without the files, so on request only.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nereid_core::{
    datasets::FileRole,
    engine::{DataInput, DataResources, TrainTask},
    jobs::Directive,
    workers::DeviceKind,
};
use nereid_engine::engine;
use serde_json::{Value, json};

use crate::support::{Memory, Recorder, input, spec, train};

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
    let (folder, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let task = TrainTask {
        spec: &spec,
        train,
        validation: None,
        test: Some(held_out),
        device: DeviceKind::Cpu,
        base: None,
        resume: None,
        resources: &DataResources::default(),
        scratch: scratch.path(),
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

/// Trains for a while, saving its state as often as told; returns samples a second and the
/// share of the time, in per cent, that training waited for that.
fn pace(data: &DataInput, network: &Value, every: u64) -> (f64, f64) {
    let mut description: Value = serde_json::from_str(MNIST_SPEC).unwrap();
    description["network"] = network.clone();
    description["fit"]["epochs"] = json!(1_000);
    description["callbacks"] = json!([{"type": "checkpoint", "every_seconds": every}]);
    let started = Instant::now();
    let mut recorder = Recorder::directed(move |_| {
        if started.elapsed() < MEASURED {
            Directive::Continue
        } else {
            Directive::Finish
        }
    });
    let folder = tempfile::tempdir().unwrap();
    train(&spec(description), data, None, folder.path(), &mut recorder).unwrap();
    let steps = recorder.progress.last().unwrap().step;
    let samples = 64.0 * f64::from(u32::try_from(steps).unwrap());
    let summary = recorder.lines.iter().find(|l| l.contains("waited"));
    let share = summary.map_or(0.0, |line| {
        println!("  {line}");
        let share = line.rsplit(", ").next().unwrap();
        share.split(' ').next().unwrap().parse().unwrap()
    });
    let sizes: Vec<u64> = recorder
        .snapshots
        .iter()
        .map(|s| std::fs::metadata(&s.path).unwrap().len())
        .collect();
    println!("  {} snapshots of {:?} bytes", sizes.len(), sizes.first());
    (samples / MEASURED.as_secs_f64(), share)
}

/// Measures how long a snapshot is written with nothing beside it.
fn writing(data: &DataInput, network: &Value) -> Duration {
    let mut description: Value = serde_json::from_str(MNIST_SPEC).unwrap();
    description["network"] = network.clone();
    let asked = Arc::new(Mutex::new(Instant::now()));
    let moment = Arc::clone(&asked);
    let mut recorder = Recorder::directed(move |n| {
        *moment.lock().unwrap() = Instant::now();
        // About every megabyte read, and then after every batch.
        if n < 230 {
            Directive::Continue
        } else {
            Directive::Suspend
        }
    });
    let folder = tempfile::tempdir().unwrap();
    train(&spec(description), data, None, folder.path(), &mut recorder).unwrap_err();
    assert_eq!(recorder.snapshots.len(), 1);
    let asked = *asked.lock().unwrap();
    asked.elapsed()
}

#[test]
#[ignore = "trains for minutes, to measure"]
fn training_waits_less_than_a_fiftieth_of_its_time_for_snapshots() {
    let data = input(
        json!({"format": "idx", "shape": [28, 28, 1]}),
        files("train"),
    );
    let cnn: Value = serde_json::from_str(MNIST_SPEC).unwrap();
    let mlp = json!({"layers": [
        {"type": "Flatten"},
        {"type": "Dense", "units": 2048, "activation": "relu"},
        {"type": "Dense", "units": 1700, "activation": "relu"},
        {"type": "Dense", "units": 10}
    ]});
    for (name, network) in [("CNN", &cnn["network"]), ("MLP", &mlp)] {
        println!(
            "{name}: a snapshot takes {:?} to write",
            writing(&data, network)
        );
        for every in [86_400, 30, 1, 86_400] {
            let (speed, share) = pace(&data, network, every);
            println!("{name}, each {every} s: {speed:.0} samples/s, waited {share} %");
            assert!(share < 2.0);
        }
    }
}

/// How long each case is measured.
const MEASURED: Duration = Duration::from_secs(40);

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
