//! An engine that does in milliseconds what the test tells it to.

use std::{
    collections::BTreeMap,
    io::Read,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use nereid_core::{
    clock::{Clock, SystemClock},
    datasets::{DatasetSource, FileRole, Inspection},
    engine::{
        DataFiles, Engine, EngineError, Goal, InputRows, Inspector, Loader, Monitor, Optimizer,
        Predictor, RowReader, Snapshot, TrainTask, Trainer,
    },
    events::MetricPoint,
    jobs::{Directive, JobPhase, Progress},
    models::{OptimisationReport, Runtime, Signature, TrainedModel},
    rows::InputRow,
    spec::WeightFormat,
    tensors::{Batch, Tensor, TensorValues},
};
use serde_json::json;

/// What a test's training does.
pub type Script =
    dyn Fn(&TrainTask<'_>, &mut dyn Monitor) -> Result<TrainedModel, EngineError> + Send + Sync;

/// The parts of the engine, and what was asked of them.
#[derive(Clone)]
pub struct Scripted {
    script: Arc<Script>,
    pub optimised: Arc<AtomicU32>,
    pub loaded: Arc<AtomicU32>,
    /// Rows that a batch prediction may read before it waits.
    pub readable: Arc<AtomicU64>,
}

impl Scripted {
    pub fn new(
        script: impl Fn(&TrainTask<'_>, &mut dyn Monitor) -> Result<TrainedModel, EngineError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            script: Arc::new(script),
            optimised: Arc::default(),
            loaded: Arc::default(),
            readable: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }

    pub fn engine(&self) -> Engine {
        let parts = Arc::new(self.clone());
        Engine {
            inspector: Arc::clone(&parts) as _,
            trainer: Arc::clone(&parts) as _,
            optimizer: Arc::clone(&parts) as _,
            loader: Arc::clone(&parts) as _,
            rows: parts,
        }
    }
}

/// Trains for three steps and writes a model.
pub fn short(task: &TrainTask<'_>, monitor: &mut dyn Monitor) -> Result<TrainedModel, EngineError> {
    read(task)?;
    monitor.phase(JobPhase::Training);
    for step in 1..=3 {
        monitor.progress(Progress {
            steps: 3,
            ..progress(step)
        });
        monitor.metrics(point(step));
    }
    monitor.phase(JobPhase::Evaluating);
    Ok(write_model(task.output))
}

/// Trains until told otherwise; returns what it was told. Told to suspend, it takes a snapshot
/// of step 7 first.
pub fn until_told(task: &TrainTask<'_>, monitor: &mut dyn Monitor) -> Directive {
    monitor.progress(progress(7));
    loop {
        match monitor.directive() {
            Directive::Continue => pause(5),
            told => {
                if told == Directive::Suspend {
                    monitor.checkpoint(snapshot(task, 7, "after seven steps"));
                }
                return told;
            }
        }
    }
}

/// Progress of a training of ten steps.
pub fn progress(step: u64) -> Progress {
    Progress {
        epoch: 1,
        epochs: 1,
        step,
        steps: 10,
        metrics: BTreeMap::new(),
    }
}

/// Metrics of a step.
pub fn point(step: u64) -> MetricPoint {
    MetricPoint {
        step,
        epoch: 1.0,
        values: BTreeMap::from([("loss".to_owned(), 0.5)]),
        at: SystemClock.now(),
    }
}

/// Writes the file of a snapshot.
pub fn snapshot(task: &TrainTask<'_>, step: u64, content: &str) -> Snapshot {
    let path = task.scratch.join(format!("step-{step}"));
    std::fs::write(&path, content).unwrap();
    Snapshot { step, path }
}

/// Reads what the training is to go on from.
pub fn resumed(task: &TrainTask<'_>) -> Option<String> {
    task.resume
        .map(|path| std::fs::read_to_string(path).unwrap())
}

/// Lets some milliseconds pass on the training thread.
#[expect(clippy::disallowed_methods, reason = "it stands for a computation")]
pub fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

fn read(task: &TrainTask<'_>) -> Result<String, EngineError> {
    let mut text = String::new();
    task.train
        .files
        .open(FileRole::Data)
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(|source| EngineError::Io {
            context: "reading the data".to_owned(),
            source,
        })?;
    Ok(text)
}

/// Writes the files of a model.
pub fn write_model(folder: &Path) -> TrainedModel {
    for (file, content) in [("weights.bin", "weights"), ("parts/golden.bin", "golden")] {
        let path = folder.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    TrainedModel {
        signature: signature(),
        metrics: BTreeMap::from([("loss".to_owned(), 0.25), ("odd".to_owned(), f64::NAN)]),
        reports: BTreeMap::from([("matrix".to_owned(), json!([[1]]))]),
        files: vec!["weights.bin".to_owned(), "parts/golden.bin".to_owned()],
        framework_version: "test 1".to_owned(),
    }
}

pub fn signature() -> Signature {
    serde_json::from_value(json!({
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "prediction", "datatype": "FP32", "shape": [-1]}],
        "preprocessing": {"normalization": "none", "offset": [0.0], "scale": [1.0]},
    }))
    .unwrap()
}

impl Trainer for Scripted {
    fn train(
        &self,
        task: &TrainTask<'_>,
        monitor: &mut dyn Monitor,
    ) -> Result<TrainedModel, EngineError> {
        (self.script)(task, monitor)
    }
}

impl Optimizer for Scripted {
    fn optimise(
        &self,
        model: &Path,
        output: &Path,
        _: Goal,
        _: &mut dyn Monitor,
    ) -> Result<(OptimisationReport, Vec<String>), EngineError> {
        self.optimised.fetch_add(1, Ordering::Relaxed);
        std::fs::copy(model.join("weights.bin"), output.join("served.bin")).unwrap();
        let report = OptimisationReport {
            steps: vec![],
            before: vec![],
            after: vec![],
            bytes_before: 7,
            bytes_after: 7,
            samples: 1,
            agreement: 1.0,
            max_difference: 0.0,
            metric: None,
            weights: WeightFormat::default(),
            requested_weights: WeightFormat::default(),
            runtime: Runtime::default(),
            requested_runtime: None,
            runtimes: vec![],
            machine: None,
        };
        Ok((report, vec!["served.bin".to_owned()]))
    }
}

impl Loader for Scripted {
    fn load(&self, folder: &Path) -> Result<Arc<dyn Predictor>, EngineError> {
        self.loaded.fetch_add(1, Ordering::Relaxed);
        let served = std::fs::read_to_string(folder.join("served.bin"));
        let trained = || std::fs::read_to_string(folder.join("weights.bin"));
        match served.or_else(|_| trained()).as_deref() {
            Ok("weights") => Ok(Arc::new(Sum(signature()))),
            other => Err(EngineError::Parity(format!("{other:?}"))),
        }
    }
}

impl RowReader for Scripted {
    fn open(
        &self,
        _: &DatasetSource,
        files: &dyn DataFiles,
        _: &mut dyn FnMut() -> Result<(), EngineError>,
    ) -> Result<Box<dyn InputRows>, EngineError> {
        let mut text = String::new();
        let read = files.open(FileRole::Data);
        let read = read.and_then(|mut file| file.read_to_string(&mut text));
        read.map_err(|source| EngineError::Io {
            context: "reading rows".to_owned(),
            source,
        })?;
        let rows: Vec<_> = text.lines().map(str::to_owned).collect();
        Ok(Box::new(Numbered {
            rows: rows.into_iter(),
            read: 0,
            readable: Arc::clone(&self.readable),
        }))
    }
}

/// Rows that are JSON arrays of numbers, read no faster than the test allows.
struct Numbered {
    rows: std::vec::IntoIter<String>,
    read: u64,
    readable: Arc<AtomicU64>,
}

impl InputRows for Numbered {
    fn header(&self) -> Option<&[String]> {
        None
    }

    fn next(&mut self) -> Result<Option<InputRow>, EngineError> {
        while self.read >= self.readable.load(Ordering::Relaxed) {
            pause(2);
        }
        self.read += 1;
        let row = self.rows.next();
        Ok(row.map(|row| InputRow::Values(serde_json::from_str(&row).unwrap())))
    }
}

impl Inspector for Scripted {
    fn inspect(&self, _: &DatasetSource, _: &dyn DataFiles) -> Result<Inspection, EngineError> {
        Err(EngineError::Internal(
            "a worker inspects nothing".to_owned(),
        ))
    }

    fn framework_version(&self) -> String {
        "test 1".to_owned()
    }
}

/// Adds up each row.
struct Sum(Signature);

impl Predictor for Sum {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn predict(&self, batch: &Batch) -> Result<Vec<Tensor>, EngineError> {
        if batch.values.len() != batch.rows * 2 {
            return Err(EngineError::InvalidInput("a row has 2 values".to_owned()));
        }
        let sums = batch.values.chunks(2).map(|row| row.iter().sum()).collect();
        Ok(vec![Tensor {
            name: "prediction".to_owned(),
            shape: vec![batch.rows],
            values: TensorValues::Fp32(sums),
        }])
    }
}
