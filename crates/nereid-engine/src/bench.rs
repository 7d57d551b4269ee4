//! Measures training: the networks of the benchmark, on made-up data.
//!
//! Goes through [`nereid_core::engine`]'s traits as a worker does; nothing is left out for speed.

use std::{
    collections::BTreeMap,
    io::{self, Cursor, Read},
    path::Path,
    sync::Arc,
};

use nereid_core::{
    datasets::{DatasetSource, FileRole},
    engine::{DataFiles, DataInput, DataResources, EngineError, Monitor, Snapshot, TrainTask},
    events::{LogLevel, MetricPoint, RuleReport},
    jobs::{Directive, JobPhase, Progress},
    spec::{DtypePolicy, TrainSpec},
    validation::Violations,
    workers::DeviceKind,
};
use serde_json::{Value, json};

const CLASSES: u32 = 10;

/// A network with data to train it on.
#[derive(Debug, Clone)]
pub struct Case {
    /// Name, for programs.
    pub name: &'static str,
    /// Network, loss and optimiser; batch size and number of epochs are filled in.
    pub spec: Value,
    /// Samples per step.
    pub batch: u32,
    /// Shape of a sample, channels last.
    pub shape: Vec<usize>,
    /// Number of samples.
    pub rows: u32,
    /// In which numbers layers are computed.
    pub dtype_policy: DtypePolicy,
}

/// Returns the networks of the benchmark.
#[must_use]
pub fn cases() -> Vec<Case> {
    let chain = |layers: Value| json!({ "layers": layers });
    let tabular = chain(json!([
        {"type": "Dense", "units": 64, "activation": "relu"},
        {"type": "Dropout", "rate": 0.2},
        {"type": "Dense", "units": 64, "activation": "relu"},
        {"type": "Dropout", "rate": 0.5},
        {"type": "Dense", "units": CLASSES}
    ]));
    let cnn = chain(json!([
        {"type": "Conv2D", "filters": 32, "kernel_size": 3, "activation": "relu"},
        {"type": "MaxPooling2D"},
        {"type": "Conv2D", "filters": 64, "kernel_size": 3, "activation": "relu"},
        {"type": "MaxPooling2D"},
        {"type": "Flatten"},
        {"type": "Dense", "units": 128, "activation": "relu"},
        {"type": "Dense", "units": CLASSES}
    ]));
    let resnet = json!({"preset": "resnet18"});
    let lstm = json!({"preset": "lstm_classifier", "num_layers": 2});
    let transformer = json!({
        "preset": "transformer_encoder", "model_dim": 64, "intermediate_dim": 256, "dropout": 0.0
    });
    vec![
        Case::new("tabular-32", &tabular, 32, &[224], 16_384),
        Case::new("tabular-256", &tabular, 256, &[224], 65_536),
        Case::new("mnist-cnn-64", &cnn, 64, &[28, 28, 1], 4_096),
        Case::new("resnet18-32", &resnet, 32, &[32, 32, 3], 256),
        Case::new("lstm-32", &lstm, 32, &[32, 16], 2_048),
        Case::new("transformer-32", &transformer, 32, &[32, 16], 2_048),
    ]
}

impl Case {
    fn new(name: &'static str, network: &Value, batch: u32, shape: &[usize], rows: u32) -> Self {
        Self {
            name,
            spec: json!({
                "model": "bench",
                "dataset": "bench",
                "network": network,
                "loss": {"type": "sparse_categorical_crossentropy", "from_logits": true},
                "optimizer": {"type": "adam"},
                "metrics": ["accuracy"],
            }),
            batch,
            shape: shape.to_vec(),
            rows,
            dtype_policy: DtypePolicy::Float32,
        }
    }

    /// Trains for so many epochs and returns the samples per second of each.
    ///
    /// Data lies in memory, unless the case's [files](Self::files) are somewhere else: then they are
    /// streamed from there in each epoch, shuffled through a window of a quarter of the rows.
    /// Whatever training writes goes into `scratch`, an empty folder.
    ///
    /// # Errors
    /// What went wrong in training or in making the data.
    pub fn run(
        &self,
        epochs: u32,
        device: DeviceKind,
        streamed: Option<Arc<dyn DataFiles>>,
        scratch: &Path,
    ) -> Result<Vec<f64>, EngineError> {
        let mut spec = self.spec.clone();
        spec["fit"] = json!({
            "epochs": epochs, "batch_size": self.batch, "normalization": "none",
            "dtype_policy": self.dtype_policy
        });
        let mut resources = DataResources::default();
        if streamed.is_some() {
            spec["fit"]["shuffle_buffer"] = json!(self.rows / 4);
            resources.memory = self.values() * 4 / 2;
            resources.cache_limit = 0;
        }
        let mut violations = Violations::default();
        let read = TrainSpec::read(spec, "", &mut violations);
        let spec = violations.into_result(read).ok().flatten();
        let internal = |what: &str| EngineError::Internal(format!("{}: {what}", self.name));
        let spec = spec.ok_or_else(|| internal("the spec of the benchmark is wrong"))?;
        let (snapshots, output) = (scratch.join("snapshots"), scratch.join("output"));
        for folder in [&snapshots, &output] {
            std::fs::create_dir_all(folder).map_err(|source| EngineError::Io {
                context: format!("making {}", folder.display()),
                source,
            })?;
        }
        let task = TrainTask {
            spec: &spec,
            train: self.data(streamed)?,
            validation: None,
            test: None,
            device,
            base: None,
            resume: None,
            resources: &resources,
            scratch: &snapshots,
            output: &output,
        };
        let mut speeds = Speeds(Vec::new());
        crate::engine().trainer.train(&task, &mut speeds)?;
        Ok(speeds.0)
    }

    /// Returns the data, by role in the dataset: samples and their classes, as `numpy.save` writes
    /// them.
    #[must_use]
    pub fn files(&self) -> BTreeMap<FileRole, Vec<u8>> {
        let values = usize::try_from(self.values()).unwrap_or(usize::MAX);
        let data = npy("<f4", &self.dimensions(), (values, noise));
        let labels = npy("<i4", &[self.rows], (self.rows as usize, class));
        [(FileRole::Data, data), (FileRole::Labels, labels)].into()
    }

    /// Number of values of all samples.
    fn values(&self) -> u64 {
        u64::from(self.rows) * self.shape.iter().product::<usize>() as u64
    }

    fn data(&self, files: Option<Arc<dyn DataFiles>>) -> Result<DataInput, EngineError> {
        let files = files.unwrap_or_else(|| Arc::new(Memory(self.files())));
        let source = json!({
            "format": "npy",
            "files": {"data": "s3://bench/data.npy", "labels": "s3://bench/labels.npy"},
            "target": "class",
        });
        let source: DatasetSource = serde_json::from_value(source)
            .map_err(|e| EngineError::Internal(format!("{}: {e}", self.name)))?;
        let inspected = crate::engine().inspector.inspect(&source, &*files)?;
        Ok(DataInput {
            source,
            schema: inspected.schema,
            files,
            digest: None,
        })
    }

    fn dimensions(&self) -> Vec<u32> {
        let sizes = self.shape.iter().filter_map(|&n| u32::try_from(n).ok());
        std::iter::once(self.rows).chain(sizes).collect()
    }
}

/// Bytes of the `i`-th value: one of 0…1 that looks like chance.
fn noise(i: u32) -> [u8; 4] {
    let mixed = i.wrapping_mul(0x9E37_79B9).rotate_left(13) ^ i;
    let value = mixed.wrapping_mul(0x85EB_CA6B) >> 16;
    #[expect(clippy::cast_precision_loss, reason = "16 bits")]
    let value = value as f32 / 65_536.0;
    value.to_le_bytes()
}

fn class(i: u32) -> [u8; 4] {
    (i.wrapping_mul(7) % CLASSES).to_le_bytes()
}

/// Writes an array in the format of `numpy.save`.
fn npy(kind: &str, shape: &[u32], (n, value): (usize, fn(u32) -> [u8; 4])) -> Vec<u8> {
    let sizes: Vec<String> = shape.iter().map(|n| format!("{n},")).collect();
    let sizes = sizes.join(" ");
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({sizes}), }}");
    // Magic, version and length take 10 bytes; the whole is a multiple of 64.
    let room = (header.len() + 11).next_multiple_of(64) - 10;
    while header.len() + 1 < room {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = Vec::with_capacity(10 + room + 4 * n);
    bytes.extend(b"\x93NUMPY\x01\x00");
    bytes.extend(u16::try_from(room).unwrap_or(u16::MAX).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend((0..u32::try_from(n).unwrap_or(u32::MAX)).flat_map(value));
    bytes
}

struct Memory(BTreeMap<FileRole, Vec<u8>>);

impl DataFiles for Memory {
    fn open(&self, role: FileRole) -> io::Result<Box<dyn Read + Send>> {
        let bytes = self.0.get(&role).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(bytes.clone())))
    }
}

/// Keeps the samples per second of each epoch.
struct Speeds(Vec<f64>);

impl Monitor for Speeds {
    fn phase(&mut self, _phase: JobPhase) {}
    fn progress(&mut self, _progress: Progress) {}
    fn metrics(&mut self, point: MetricPoint) {
        // Points within an epoch have the speed of a few steps.
        if point.epoch.fract() == 0.0 {
            self.0.extend(point.values.get("samples_per_second"));
        }
    }
    fn rule(&mut self, _report: RuleReport) {}
    fn log(&mut self, _level: LogLevel, _message: String) {}
    fn checkpoint(&mut self, snapshot: Snapshot) {
        // Its owner removes it; a leftover goes with the folder.
        let _removed = std::fs::remove_file(snapshot.path);
    }
    fn directive(&mut self) -> Directive {
        Directive::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_trains() {
        for case in cases() {
            let small = Case { rows: 64, ..case };
            let elsewhere: Arc<dyn DataFiles> = Arc::new(Memory(small.files()));
            for streamed in [None, Some(elsewhere)] {
                let folder = tempfile::tempdir().unwrap();
                let speeds = small.run(2, DeviceKind::Cpu, streamed, folder.path());
                let speeds = speeds.unwrap();
                assert_eq!(speeds.len(), 2, "{}", small.name);
                assert!(speeds.iter().all(|s| *s > 0.0));
            }
        }
    }
}
