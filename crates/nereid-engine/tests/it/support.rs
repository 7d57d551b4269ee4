//! Datasets in memory, a monitor that records, and shorthand for whole trainings.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Cursor, Read, Write},
    path::Path,
    sync::Arc,
};

use nereid_core::{
    datasets::{DatasetSource, FileRole, Inspection},
    engine::{DataFiles, DataInput, DataResources, EngineError, Monitor, Snapshot, TrainTask},
    events::{LogLevel, MetricPoint, RuleReport},
    jobs::{Directive, JobPhase, Progress},
    models::TrainedModel,
    spec::TrainSpec,
    validation::Violations,
    workers::DeviceKind,
};
use nereid_engine::engine;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Files of a dataset in memory.
#[derive(Clone, Default)]
pub struct Memory(pub HashMap<FileRole, Vec<u8>>);

impl DataFiles for Memory {
    fn open(&self, role: FileRole) -> io::Result<Box<dyn Read + Send>> {
        let bytes = self.0.get(&role).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(bytes.clone())))
    }
}

/// Describes a dataset; `source` lacks its files, unless they are several objects each.
pub fn source(mut source: Value, files: &Memory) -> DatasetSource {
    let uris: BTreeMap<&str, String> = files
        .0
        .keys()
        .map(|r| (r.as_str(), format!("s3://test/{}", r.as_str())))
        .collect();
    if source["files"].is_null() {
        source["files"] = json!(uris);
    }
    serde_json::from_value(source).unwrap()
}

pub fn inspect(description: Value, files: &Memory) -> Result<Inspection, EngineError> {
    engine()
        .inspector
        .inspect(&source(description, files), files)
}

/// A dataset as inspection leaves it.
pub fn input(description: Value, files: Memory) -> DataInput {
    let source = source(description, &files);
    let inspection = engine().inspector.inspect(&source, &files).unwrap();
    DataInput {
        source,
        schema: inspection.schema,
        files: Arc::new(files),
        digest: None,
    }
}

pub fn csv(text: impl Into<Vec<u8>>) -> Memory {
    Memory(HashMap::from([(FileRole::Data, text.into())]))
}

/// A dataset in one file.
pub fn file(bytes: &[u8]) -> Memory {
    csv(bytes)
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Reads a spec; model and dataset are filled in.
pub fn spec(mut spec: Value) -> TrainSpec {
    spec["model"] = json!("test");
    spec["dataset"] = json!("test");
    let mut violations = Violations::default();
    let read = TrainSpec::read(spec, "", &mut violations);
    violations.into_result(read).unwrap().unwrap()
}

/// Tells what to do each time it is asked, from the number of times before.
pub type Directions = Box<dyn FnMut(usize) -> Directive + Send>;

/// Records everything and gives directions.
#[derive(Default)]
pub struct Recorder {
    pub phases: Vec<JobPhase>,
    pub points: Vec<MetricPoint>,
    pub progress: Vec<Progress>,
    pub rules: Vec<RuleReport>,
    pub lines: Vec<String>,
    pub snapshots: Vec<Snapshot>,
    pub scratch: Scratch,
    /// What a training may use for its data.
    pub resources: DataResources,
    /// Times that directions were asked for.
    pub asked: usize,
    pub directions: Option<Directions>,
    /// Whether log lines are not printed.
    pub quiet: bool,
}

/// Folder for snapshots, removed with its recorder.
pub struct Scratch(pub TempDir);

impl Default for Scratch {
    fn default() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Recorder {
    pub fn directed(directions: impl FnMut(usize) -> Directive + Send + 'static) -> Self {
        Self {
            directions: Some(Box::new(directions)),
            quiet: true,
            ..Self::default()
        }
    }
}

impl Monitor for Recorder {
    fn phase(&mut self, phase: JobPhase) {
        self.phases.push(phase);
    }
    fn progress(&mut self, progress: Progress) {
        self.progress.push(progress);
    }
    fn metrics(&mut self, point: MetricPoint) {
        self.points.push(point);
    }
    fn rule(&mut self, report: RuleReport) {
        self.rules.push(report);
    }
    fn log(&mut self, _: LogLevel, message: String) {
        if !self.quiet {
            println!("{message}");
        }
        self.lines.push(message);
    }
    fn checkpoint(&mut self, snapshot: Snapshot) {
        self.snapshots.push(snapshot);
    }
    fn directive(&mut self) -> Directive {
        let n = self.asked;
        self.asked += 1;
        let directions = self.directions.as_mut();
        directions.map_or(Directive::Continue, |directions| directions(n))
    }
}

/// Trains on one dataset, from which validation and test data are split off.
pub fn train(
    spec: &TrainSpec,
    data: &DataInput,
    resume: Option<&Path>,
    output: &Path,
    monitor: &mut Recorder,
) -> Result<TrainedModel, EngineError> {
    tune(spec, data, None, resume, output, monitor)
}

/// As [`train`], starting from a version's files.
pub fn tune(
    spec: &TrainSpec,
    data: &DataInput,
    base: Option<&Path>,
    resume: Option<&Path>,
    output: &Path,
    monitor: &mut Recorder,
) -> Result<TrainedModel, EngineError> {
    let scratch = monitor.scratch.0.path().to_owned();
    let resources = monitor.resources.clone();
    let task = TrainTask {
        spec,
        train: data.clone(),
        validation: None,
        test: None,
        device: DeviceKind::Cpu,
        base,
        resume,
        resources: &resources,
        scratch: &scratch,
        output,
    };
    engine().trainer.train(&task, monitor)
}

/// The weights in a model's folder, by name.
pub fn weights(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    tensors(&folder.join("weights.safetensors"))
}

/// The 32-bit floats in a safetensors file, by name.
pub fn tensors(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| {
        let (floats, _) = data.as_chunks();
        floats.iter().map(|&b| f32::from_le_bytes(b)).collect()
    };
    let all = file.tensors().into_iter();
    all.map(|(name, view)| (name, values(view.data())))
        .collect()
}

/// A generator of numbers that needs no crate: xorshift64*.
pub struct Numbers(pub u64);

impl Numbers {
    /// Returns a number from 0 to below 1.
    pub fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        f64::from(u32::try_from(high).unwrap()) / (f64::from(u32::MAX) + 1.0)
    }

    /// Returns a whole number from 0 to below `n`.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "small and not negative"
    )]
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() * n as f64) as usize
    }
}
