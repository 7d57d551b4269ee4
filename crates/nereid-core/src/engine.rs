//! How API and worker use the engine without linking it.
//!
//! All calls block and compute: callers run them off the async threads. Implementations know
//! nothing of S3 or Postgres; bytes come through [`DataFiles`] and results go into folders.

use std::{
    io::Read,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    datasets::{DatasetSchema, DatasetSource, FileRole, Inspection},
    events::{LogLevel, MetricPoint, RuleReport},
    ids::ReplicaId,
    inference::{Answer, InferError, InferOptions},
    jobs::{Directive, JobPhase, Progress, TerminationReason},
    models::{OptimisationReport, Runtime, Signature, TrainedModel},
    rows::InputRow,
    spec::{Tolerance, TrainSpec, WeightFormat},
    tensors::{Batch, Tensor},
    workers::DeviceKind,
};

/// Why the engine could not do what it was asked to.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The data does not hold what its declaration says.
    #[error("{0}")]
    InvalidData(DataError),
    /// Spec and data do not fit together, or a file is not what it should be.
    #[error("{0}")]
    InvalidInput(String),
    /// Loss or weights are no longer finite.
    #[error("training diverged at step {step}: {what}")]
    Diverged {
        /// Step after which it showed.
        step: u64,
        /// What was not finite.
        what: String,
    },
    /// Outputs differ from the reference.
    #[error("outputs differ from the reference: {0}")]
    Parity(String),
    /// The caller's [`Directive`] ended the work.
    #[error("stopped as asked")]
    Stopped,
    /// The snapshot to go on from cannot be restored; an older one may be.
    #[error("saved state: {0}")]
    BadState(String),
    /// There is less memory than the work needs.
    #[error("{0}")]
    OutOfMemory(String),
    /// The process that did the work died.
    #[error("{0}")]
    Crashed(String),
    /// Reading data or writing results failed.
    #[error("{context}: {source}")]
    Io {
        /// What was read or written.
        context: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A fault in the engine.
    #[error("engine fault: {0}")]
    Internal(String),
}

impl EngineError {
    /// Why an attempt that met this error ended; decides whether it is tried again.
    #[must_use]
    pub fn reason(&self) -> TerminationReason {
        match self {
            Self::InvalidData(_) | Self::InvalidInput(_) => TerminationReason::InvalidInput,
            Self::Diverged { .. } => TerminationReason::Diverged,
            Self::Parity(_) => TerminationReason::ParityFailed,
            Self::Stopped => TerminationReason::Cancelled,
            Self::OutOfMemory(_) => TerminationReason::OutOfMemory,
            Self::Crashed(_) => TerminationReason::Crashed,
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                TerminationReason::DiskFull
            }
            Self::Io { .. } => TerminationReason::Unavailable,
            Self::BadState(_) | Self::Internal(_) => TerminationReason::Internal,
        }
    }
}

impl From<DataError> for EngineError {
    fn from(e: DataError) -> Self {
        Self::InvalidData(e)
    }
}

/// What is wrong with a dataset's bytes, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{file} file{}: {detail}", place(*.row, .column.as_deref()), file = .file.as_str())]
pub struct DataError {
    /// File it is in.
    pub file: FileRole,
    /// Kind of mistake, stable for programs: `not_a_number`, `truncated`, `bad_header`, ….
    pub code: &'static str,
    /// Row, from 1 without the header.
    pub row: Option<u64>,
    /// Column.
    pub column: Option<String>,
    /// What was found and what would be right.
    pub detail: String,
}

fn place(row: Option<u64>, column: Option<&str>) -> String {
    let row = row.map_or(String::new(), |r| format!(", row {r}"));
    let column = column.map_or(String::new(), |c| format!(", column {c:?}"));
    format!("{row}{column}")
}

/// The files of a dataset version; each may be opened several times.
pub trait DataFiles: Send + Sync {
    /// Opens a file at its start, as stored (perhaps compressed).
    ///
    /// # Errors
    /// The cause, with the file named.
    fn open(&self, role: FileRole) -> std::io::Result<Box<dyn Read + Send>>;
}

/// A dataset version to read.
#[derive(Clone)]
pub struct DataInput {
    /// What the client declared.
    pub source: DatasetSource,
    /// What inspection found.
    pub schema: DatasetSchema,
    /// The bytes.
    pub files: Arc<dyn DataFiles>,
    /// Digest of the dataset version, in hexadecimal; what is decoded of data without one is kept
    /// for nobody else.
    pub digest: Option<String>,
}

/// What a training may use for its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataResources {
    /// Most bytes of decoded features in memory; what is larger is held on disk.
    pub memory: u64,
    /// Folder of decoded data, which trainings share; without one each uses its scratch folder.
    pub cache_folder: Option<PathBuf>,
    /// Most bytes in that folder; what was not used for longest makes room.
    pub cache_limit: u64,
    /// Threads that prepare batches beside the training; 0 prepares each when it is needed.
    pub loader_threads: usize,
}

impl Default for DataResources {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            cache_folder: None,
            cache_limit: 20 << 30,
            loader_threads: 2,
        }
    }
}

/// Reads all of a dataset and describes it.
pub trait Inspector: Send + Sync {
    /// Reads the files once and returns schema, statistics and preview.
    ///
    /// # Errors
    /// [`EngineError::InvalidData`] with row and column, or [`EngineError::Io`].
    fn inspect(
        &self,
        source: &DatasetSource,
        files: &dyn DataFiles,
    ) -> Result<Inspection, EngineError>;

    /// Version of the framework, recorded with what it makes.
    fn framework_version(&self) -> String;
}

/// What to train.
pub struct TrainTask<'a> {
    /// The spec, checked against the training data's schema.
    pub spec: &'a TrainSpec,
    /// Training data.
    pub train: DataInput,
    /// Validation data, unless split off.
    pub validation: Option<DataInput>,
    /// Test data, unless split off.
    pub test: Option<DataInput>,
    /// What to compute on.
    pub device: DeviceKind,
    /// Folder with the files of the version that the spec's `initialize_from` names.
    pub base: Option<&'a Path>,
    /// File of a snapshot to go on from.
    pub resume: Option<&'a Path>,
    /// What it may use for its data.
    pub resources: &'a DataResources,
    /// Folder for snapshots.
    pub scratch: &'a Path,
    /// Empty folder for the files to publish.
    pub output: &'a Path,
}

/// State of a training at a step, enough to go on elsewhere.
///
/// Whoever gets one owns its file and deletes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Steps done.
    pub step: u64,
    /// Complete file; opaque to everyone but the engine that wrote it.
    pub path: PathBuf,
}

/// Where a running training reports to and takes directions from.
///
/// Called from the training thread; implementations must not block on the network.
pub trait Monitor: Send {
    /// The phase changed.
    fn phase(&mut self, phase: JobPhase);
    /// Training came on: at most a few times a second and after each epoch.
    fn progress(&mut self, progress: Progress);
    /// Metrics of a step or epoch.
    fn metrics(&mut self, point: MetricPoint);
    /// A rule of the spec found the training ill.
    fn rule(&mut self, report: RuleReport);
    /// A line for the job's log.
    fn log(&mut self, level: LogLevel, message: String);
    /// A snapshot was taken and its file is complete.
    fn checkpoint(&mut self, snapshot: Snapshot);
    /// What to do; asked after each batch.
    fn directive(&mut self) -> Directive;
}

/// Trains networks.
pub trait Trainer: Send + Sync {
    /// Trains, evaluates and writes the model's files into `task.output`.
    ///
    /// # Errors
    /// [`EngineError::Stopped`] if a directive ended it, or what went wrong.
    fn train(
        &self,
        task: &TrainTask<'_>,
        monitor: &mut dyn Monitor,
    ) -> Result<TrainedModel, EngineError>;
}

/// What a version is to be made into.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Goal {
    /// How far it may stray from the original.
    pub tolerance: Tolerance,
    /// In what form weights are stored.
    pub weights: WeightFormat,
    /// What computes it; the fastest unless given.
    pub runtime: Option<Runtime>,
}

/// Reads the rows of files as they lie there, to predict them.
pub trait RowReader: Send + Sync {
    /// Opens the data file; `check` is asked about every megabyte and ends the reading by an error.
    ///
    /// # Errors
    /// [`EngineError::InvalidData`] or [`EngineError::Io`].
    fn open(
        &self,
        source: &DatasetSource,
        files: &dyn DataFiles,
        check: &mut dyn FnMut() -> Result<(), EngineError>,
    ) -> Result<Box<dyn InputRows>, EngineError>;
}

/// Rows of a file, one after the other.
pub trait InputRows: Send {
    /// Returns the columns that a header names.
    fn header(&self) -> Option<&[String]>;

    /// Reads the next row; `None` after the last.
    ///
    /// # Errors
    /// [`EngineError::InvalidData`] with a row (from 1): it cannot be read, but the next one may
    /// be. After any other error there is nothing more to read.
    fn next(&mut self) -> Result<Option<InputRow>, EngineError>;
}

/// Makes a published version fit for serving.
pub trait Optimizer: Send + Sync {
    /// Reads the version in `model`, writes the serving files into `output` and compares both.
    ///
    /// Returns the report and the relative paths of the files to publish.
    ///
    /// # Errors
    /// [`EngineError::Parity`] if even the plain copy strays too far, or what went wrong.
    fn optimise(
        &self,
        model: &Path,
        output: &Path,
        goal: Goal,
        monitor: &mut dyn Monitor,
    ) -> Result<(OptimisationReport, Vec<String>), EngineError>;
}

/// Loads serving artifacts.
pub trait Loader: Send + Sync {
    /// Loads the artifact in `folder`, checks it against its golden samples and warms it up.
    ///
    /// # Errors
    /// [`EngineError::Parity`] if it does not reproduce its golden outputs on this machine.
    fn load(&self, folder: &Path) -> Result<Arc<dyn Predictor>, EngineError>;
}

/// Decodes images to predict just as those of a dataset are.
pub trait ImageDecoder: Send + Sync {
    /// Decodes a PNG or JPEG and appends its values to `out`, row-major with the channels last.
    ///
    /// `shape` is height, width and, unless 1, channels; an image of another size is resized, and
    /// colours become grey or the other way round.
    ///
    /// # Errors
    /// What is wrong with the image, for people.
    fn decode(&self, image: &[u8], shape: &[usize], out: &mut Vec<f32>) -> Result<(), String>;
}

/// A loaded model.
pub trait Predictor: Send + Sync {
    /// What it takes and gives.
    fn signature(&self) -> &Signature;

    /// Runs a batch: `batch.values` are raw features, preprocessing is done inside.
    ///
    /// # Errors
    /// [`EngineError::InvalidInput`] if the batch does not fit the signature.
    fn predict(&self, batch: &Batch) -> Result<Vec<Tensor>, EngineError>;
}

/// Replicas in this process, through which the gateway answers without a network hop.
pub trait LocalReplicas: Send + Sync {
    /// Returns a ready replica, if this process holds it.
    fn get(&self, replica: ReplicaId) -> Option<Arc<dyn LocalReplica>>;
}

/// What a replica will answer.
pub type Inferring = Pin<Box<dyn Future<Output = Result<Answer, InferError>> + Send>>;

/// A replica in this process: a model behind its queue.
pub trait LocalReplica: Send + Sync {
    /// Queues a batch and returns its answer; dropping the future gives it up.
    fn infer(self: Arc<Self>, batch: Arc<Batch>, options: InferOptions) -> Inferring;
}

/// The engine as a whole, as the binary hands it to API and worker.
#[derive(Clone)]
pub struct Engine {
    /// Describes datasets.
    pub inspector: Arc<dyn Inspector>,
    /// Trains.
    pub trainer: Arc<dyn Trainer>,
    /// Makes versions fit for serving.
    pub optimizer: Arc<dyn Optimizer>,
    /// Loads what is served.
    pub loader: Arc<dyn Loader>,
    /// Reads what is predicted.
    pub rows: Arc<dyn RowReader>,
}
