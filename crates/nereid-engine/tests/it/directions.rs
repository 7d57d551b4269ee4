//! What a caller asks of a running training: to end early, to stop; and a disk that is full.

use std::{
    fs,
    io::{self, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use nereid_core::{
    datasets::FileRole,
    engine::{DataFiles, EngineError},
    jobs::{Directive, JobPhase},
};
use nereid_engine::engine;
use serde_json::{Value, json};

use crate::{
    resume::{description, pictures},
    support::{Memory, Recorder, input, spec, train},
};

fn from(n: usize, directive: Directive) -> Recorder {
    let go_on = Directive::Continue;
    Recorder::directed(move |asked| if asked < n { go_on } else { directive })
}

fn epochs(folder: &Path) -> Vec<Value> {
    let text = fs::read(folder.join("history.json")).unwrap();
    let history: Value = serde_json::from_slice(&text).unwrap();
    history["epochs"].as_array().unwrap().clone()
}

#[test]
fn ended_early_a_training_gives_the_model_it_has() {
    let (spec, data) = (spec(description()), pictures());
    // Two questions before training, ten an epoch: the fifth batch of the second epoch.
    let mut recorder = from(17, Directive::Finish);
    let folder = tempfile::tempdir().unwrap();
    let model = train(&spec, &data, None, folder.path(), &mut recorder).unwrap();
    assert_eq!(recorder.phases.last(), Some(&JobPhase::Evaluating));
    let last = recorder.points.last().unwrap();
    assert_eq!((last.step, last.epoch), (13, 1.625));
    assert!(last.values.contains_key("val_loss"));
    let same = recorder.points.iter().filter(|p| p.step == 13).count();
    assert_eq!(same, 1, "the last step is reported once");
    assert_eq!(epochs(folder.path()).len(), 2);
    // The better of both epochs was kept, as early stopping has it.
    let losses: Vec<f64> = epochs(folder.path())
        .iter()
        .map(|e| e["val_loss"].as_f64().unwrap())
        .collect();
    assert!((model.metrics["val_loss"] - losses[0].min(losses[1])).abs() < 1e-12);
    engine().loader.load(folder.path()).unwrap();

    // Suspended within the second epoch, and then ended: nothing more is trained.
    let mut first = from(17, Directive::Suspend);
    let resumed = tempfile::tempdir().unwrap();
    assert!(train(&spec, &data, None, resumed.path(), &mut first).is_err());
    let state = &first.snapshots.last().unwrap().path;
    let mut second = from(0, Directive::Finish);
    train(&spec, &data, Some(state), resumed.path(), &mut second).unwrap();
    assert_eq!(second.progress[0].step, 13, "where it stands");
    for name in ["weights.safetensors", "history.json"] {
        let read = |folder: &Path| fs::read(folder.join(name)).unwrap();
        assert!(read(folder.path()) == read(resumed.path()), "{name}");
    }
}

#[test]
fn ended_before_the_first_step_there_is_no_model() {
    let (spec, data) = (spec(description()), pictures());
    let folder = tempfile::tempdir().unwrap();
    for asked in [0, 2] {
        let mut recorder = from(asked, Directive::Finish);
        let result = train(&spec, &data, None, folder.path(), &mut recorder);
        assert!(matches!(result, Err(EngineError::Stopped)), "{result:?}");
        assert!(recorder.snapshots.is_empty());
    }
}

#[test]
fn ended_while_it_is_evaluated_a_training_is_complete() {
    let (spec, data) = (spec(description()), pictures());
    let whole = tempfile::tempdir().unwrap();
    let mut recorder = from(usize::MAX, Directive::Stop);
    train(&spec, &data, None, whole.path(), &mut recorder).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut late = from(recorder.asked - 1, Directive::Finish);
    train(&spec, &data, None, folder.path(), &mut late).unwrap();
    let read = |folder: &Path| fs::read(folder.join("weights.safetensors")).unwrap();
    assert!(read(whole.path()) == read(folder.path()));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_costs_a_snapshot_and_not_the_training() {
    let (spec, data) = (spec(description()), pictures());
    let mut recorder = from(usize::MAX, Directive::Stop);
    let partial = recorder.scratch.0.path().join("step-3.partial");
    std::os::unix::fs::symlink("/dev/full", partial).unwrap();
    let folder = tempfile::tempdir().unwrap();
    train(&spec, &data, None, folder.path(), &mut recorder).unwrap();
    let lost: Vec<_> = recorder
        .lines
        .iter()
        .filter(|l| l.contains("is lost"))
        .collect();
    assert_eq!(lost.len(), 1);
    assert!(
        lost[0].contains("step 3") && lost[0].contains("No space left"),
        "{lost:?}"
    );
    assert!(recorder.snapshots.iter().all(|s| s.step > 3));
    assert!(!recorder.snapshots.is_empty());
}

/// Counts the bytes that are read.
struct Counted(Memory, Arc<AtomicU64>);

impl DataFiles for Counted {
    fn open(&self, role: FileRole) -> io::Result<Box<dyn Read + Send>> {
        let (file, count) = (self.0.open(role)?, Arc::clone(&self.1));
        Ok(Box::new(CountedFile(file, count)))
    }
}

struct CountedFile(Box<dyn Read + Send>, Arc<AtomicU64>);

impl Read for CountedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// A file of `numpy.save` that holds zeros, as bytes.
fn zeros(shape: &str, n: usize, fortran: &str) -> Vec<u8> {
    let header = format!("{{'descr': '|u1', 'fortran_order': {fortran}, 'shape': {shape}, }}");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + n, 0);
    bytes
}

#[test]
fn a_stop_reaches_a_training_that_still_reads_its_data() {
    let spec = spec(json!({
        "network": {"layers": [{"type": "Dense", "units": 1}]},
        "loss": {"type": "mse"}
    }));
    for fortran in ["False", "True"] {
        let files = Memory(std::collections::HashMap::from([
            (FileRole::Data, zeros("(8192, 1024)", 8 << 20, fortran)),
            (FileRole::Labels, zeros("(8192,)", 8192, "False")),
        ]));
        let source = json!({"format": "npy", "target": "value"});
        let mut data = input(source, files.clone());
        let read = Arc::new(AtomicU64::new(0));
        data.files = Arc::new(Counted(files, Arc::clone(&read)));
        let mut recorder = from(1, Directive::Stop);
        let folder = tempfile::tempdir().unwrap();
        let result = train(&spec, &data, None, folder.path(), &mut recorder);
        assert!(matches!(result, Err(EngineError::Stopped)), "{result:?}");
        let read = read.load(Ordering::Relaxed);
        assert!(read < 4 << 20, "{read} bytes were read");
    }
}
