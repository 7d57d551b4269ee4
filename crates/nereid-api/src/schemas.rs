//! Shapes that exist for the OpenAPI document only: bodies that are read field by field.
//!
//! The readers in `nereid-core` report all mistakes at once, which derived ones cannot. Tests
//! check that what these shapes show is what the readers take.

#![expect(
    dead_code,
    clippy::large_enum_variant,
    reason = "nothing makes or reads these; they only describe"
)]

mod job;

use std::collections::BTreeMap;

use nereid_core::{
    Name,
    autoscaling::Autoscaling,
    batching::Batching,
    datasets::{DatasetFormat, FileRole, FileUris, TargetKind, columns::ColumnSpec},
    models::{Alias, Runtime},
    rollouts::Rollout,
    spec::{
        BatchPredictSpec, Callback, FitOptions, Loss, Metric, Network, NoopSpec, Optimizer, Rule,
        Task, Tolerance, TrainSpec, WeightFormat,
    },
    workers::DeviceKind,
};
use utoipa::ToSchema;

pub(crate) use self::job::{AnyJobSpec, JobSchema};

/// A job to submit.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum SubmitJob {
    /// Trains a network and publishes a model version.
    Train(SubmitTrainJob),
    /// Optimises a model version and serves it behind an endpoint.
    Deploy(SubmitDeployJob),
    /// Predicts the rows of files in S3 and writes the predictions to S3.
    BatchPredict(SubmitBatchPredictJob),
    /// Does nothing for a while: tries out and measures the queue.
    Noop(SubmitNoopJob),
}

/// The word `train`.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum TrainKind {
    /// A train job.
    Train,
}

/// The word `deploy`.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum DeployKind {
    /// A deploy job.
    Deploy,
}

/// The word `batch_predict`.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum BatchPredictKind {
    /// A batch prediction.
    BatchPredict,
}

/// The word `noop`.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum NoopKind {
    /// A no-op job.
    Noop,
}

/// How a job is queued.
#[derive(ToSchema)]
pub(crate) struct SubmitOptions {
    /// Free key-value pairs to find the job by.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// 0 (last) to 100 (first).
    #[serde(default)]
    #[schema(minimum = 0, maximum = 100, default = 50)]
    priority: u8,
    /// Most attempts before the job fails.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 20, default = 3)]
    max_attempts: u32,
    /// What the job has to be computed on; on anything unless given.
    #[schema(value_type = DeviceKind, required = false)]
    device: Option<DeviceKind>,
    /// Labels that a worker must have to take the job.
    #[serde(default)]
    worker_labels: BTreeMap<String, String>,
    /// Longest time the job may run, all attempts together, in seconds.
    #[schema(value_type = u32, required = false, minimum = 1, maximum = 31_536_000)]
    max_runtime_seconds: Option<u32>,
    /// Longest time the job may wait for a worker each time it is queued, in seconds.
    #[schema(value_type = u32, required = false, minimum = 1, maximum = 31_536_000)]
    max_queue_seconds: Option<u32>,
}

/// A train job to submit.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "kind": "train",
    "spec": {
        "model": "digits",
        "dataset": "digits",
        "network": {"layers": [
            {"type": "Conv2D", "filters": 16, "kernel_size": 3, "activation": "relu"},
            {"type": "MaxPooling2D"},
            {"type": "Flatten"},
            {"type": "Dense", "units": 10, "activation": "softmax"}
        ]},
        "loss": {"type": "sparse_categorical_crossentropy"},
        "optimizer": {"type": "adam", "learning_rate": 0.001},
        "metrics": [{"type": "accuracy"}],
        "fit": {"epochs": 10, "batch_size": 32, "validation_split": 0.1, "test_split": 0.1},
        "callbacks": [{"type": "early_stopping", "patience": 3}]
    },
    "labels": {"team": "vision"}
}))]
pub(crate) struct SubmitTrainJob {
    /// Kind of the job.
    kind: TrainKind,
    /// What to train, on what and how.
    spec: TrainSpec,
    /// How it is queued.
    #[serde(flatten)]
    options: SubmitOptions,
}

/// A deploy job to submit.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"kind": "deploy", "spec": {"model": "digits", "version": 1}}))]
pub(crate) struct SubmitDeployJob {
    /// Kind of the job.
    kind: DeployKind,
    /// What to deploy and where.
    spec: SubmitDeploySpec,
    /// How it is queued.
    #[serde(flatten)]
    options: SubmitOptions,
}

/// A batch prediction to submit.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "kind": "batch_predict",
    "spec": {
        "model": "digits",
        "version": 1,
        "input": {"uri": "s3://bucket/new/", "format": "csv", "label_column": "label"},
        "output": {"uri": "s3://bucket/predictions/2026-01-31/", "id_columns": ["id"]},
        "on_error": "skip",
        "max_errors": 100
    }
}))]
pub(crate) struct SubmitBatchPredictJob {
    /// Kind of the job.
    kind: BatchPredictKind,
    /// What to predict, by what, and where to.
    spec: BatchPredictSpec,
    /// How it is queued.
    #[serde(flatten)]
    options: SubmitOptions,
}

/// A job that does nothing, to submit.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"kind": "noop", "spec": {"seconds": 0.5}}))]
pub(crate) struct SubmitNoopJob {
    /// Kind of the job.
    kind: NoopKind,
    /// How long to do nothing.
    spec: NoopSpec,
    /// How it is queued.
    #[serde(flatten)]
    options: SubmitOptions,
}

/// What to deploy and where.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubmitDeploySpec {
    /// Name of the model.
    model: Name,
    /// Version to deploy; this or `alias` is needed.
    #[schema(value_type = u32, required = false, minimum = 1, maximum = 2_147_483_647)]
    version: Option<u32>,
    /// Alias of the version to deploy, in its number's place. The job keeps the number that it
    /// points to now.
    #[schema(value_type = Alias, required = false)]
    alias: Option<Alias>,
    /// Endpoint to create or update; named like the model unless given.
    #[schema(value_type = Name, required = false)]
    endpoint: Option<Name>,
    /// Copies to keep loaded.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 64, default = 1)]
    replicas: u32,
    /// How far optimisation may stray.
    #[serde(default)]
    tolerance: Tolerance,
    /// How the replicas form batches of the requests that wait for them.
    #[serde(default)]
    batching: Batching,
    /// Sends a request that is not answered after so many microseconds to a second replica, too.
    #[schema(value_type = u32, required = false, minimum = 1, maximum = 60_000_000)]
    hedge_after_us: Option<u32>,
    /// Chooses the number of replicas by the load; `replicas` is then what it begins with.
    #[schema(value_type = Autoscaling, required = false)]
    autoscaling: Option<Autoscaling>,
    /// How traffic goes over to the version.
    #[serde(default)]
    rollout: Rollout,
    /// In what form weights are stored.
    #[serde(default)]
    weights: WeightFormat,
    /// What computes the model; the fastest on the worker that deploys it unless given.
    #[serde(default)]
    runtime: Option<Runtime>,
}

/// A training of the model that the path names.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "dataset": "digits",
    "network": {"layers": [
        {"type": "Flatten"},
        {"type": "Dense", "units": 64, "activation": "relu"},
        {"type": "Dense", "units": 10, "activation": "softmax"}
    ]},
    "loss": {"type": "sparse_categorical_crossentropy"},
    "metrics": [{"type": "accuracy"}],
    "fit": {"epochs": 10, "validation_split": 0.2}
}))]
pub(crate) struct TrainModel {
    /// Training data: a dataset's name, or `name@version`.
    #[schema(
        pattern = "^[a-z0-9][a-z0-9._-]*(@[1-9][0-9]*)?$",
        max_length = 74,
        example = "digits@1"
    )]
    dataset: String,
    /// Data to validate on after each epoch, instead of `fit.validation_split`.
    #[schema(value_type = String, required = false, pattern = "^[a-z0-9][a-z0-9._-]*(@[1-9][0-9]*)?$", max_length = 74)]
    validation_dataset: Option<String>,
    /// Data for the final evaluation, instead of `fit.test_split`.
    #[schema(value_type = String, required = false, pattern = "^[a-z0-9][a-z0-9._-]*(@[1-9][0-9]*)?$", max_length = 74)]
    test_dataset: Option<String>,
    /// The layers.
    network: Network,
    /// What is learnt; found from the dataset's target unless given.
    #[schema(value_type = Task, required = false)]
    task: Option<Task>,
    /// What training minimises.
    loss: Loss,
    /// What changes the weights; Adam unless given.
    #[serde(default)]
    optimizer: Optimizer,
    /// What is measured beside the loss.
    #[serde(default)]
    #[schema(max_items = 16)]
    metrics: Vec<MetricOrName>,
    /// Options of the training loop.
    #[serde(default)]
    fit: FitOptions,
    /// What happens after epochs.
    #[serde(default)]
    #[schema(max_items = 16)]
    callbacks: Vec<Callback>,
    /// Signs of an ill training to warn of, or to end it by.
    #[serde(default)]
    #[schema(max_items = 16)]
    rules: Vec<Rule>,
    /// How it is queued.
    #[serde(flatten)]
    options: SubmitOptions,
}

/// A deployment of the version that the path names.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"endpoint": "digits", "replicas": 1}))]
pub(crate) struct DeployModel {
    /// Endpoint to create or update; named like the model unless given.
    #[schema(value_type = Name, required = false)]
    endpoint: Option<Name>,
    /// Copies to keep loaded.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 64, default = 1)]
    replicas: u32,
    /// How far optimisation may stray.
    #[serde(default)]
    tolerance: Tolerance,
    /// How the replicas form batches of the requests that wait for them.
    #[serde(default)]
    batching: Batching,
    /// Sends a request that is not answered after so many microseconds to a second replica, too.
    #[schema(value_type = u32, required = false, minimum = 1, maximum = 60_000_000)]
    hedge_after_us: Option<u32>,
    /// In what form weights are stored.
    #[serde(default)]
    weights: WeightFormat,
    /// What computes the model; the fastest on the worker that deploys it unless given.
    #[serde(default)]
    runtime: Option<Runtime>,
    /// How it is queued.
    #[serde(flatten)]
    options: SubmitOptions,
}

/// A metric with its parameters, or its name alone.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum MetricOrName {
    /// With its parameters.
    Metric(Metric),
    /// With the parameters' defaults.
    Name(MetricName),
}

/// Name of a metric.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MetricName {
    Accuracy,
    TopKAccuracy,
    BinaryAccuracy,
    Precision,
    Recall,
    F1,
    Auc,
    HammingLoss,
    MatthewsCorrelation,
    ConfusionMatrix,
    Mae,
    Mse,
    Rmse,
    Mape,
    R2,
}

/// S3 URIs of a dataset's files.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatasetFiles {
    /// Features, of a table and of images also the label: one object, a list of objects (shards)
    /// or a prefix that ends in `/` (a folder of images, or of shards).
    #[schema(example = "s3://bucket/digits.csv.gz")]
    data: FileUris,
    /// Labels in a file of their own (`idx`, `npy`).
    #[schema(value_type = String, required = false, pattern = "^s3://", max_length = 1100)]
    labels: Option<String>,
}

/// A dataset version to register.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "name": "digits",
    "description": "Handwritten digits, 8 by 8",
    "format": "csv",
    "files": {"data": "s3://nereid-data/digits.csv.gz"},
    "label_column": "label",
    "shape": [8, 8, 1]
}))]
pub(crate) struct RegisterDataset {
    /// Name of the dataset; a known one gets another version.
    name: Name,
    /// Free text; replaces the dataset's.
    #[schema(value_type = String, required = false, max_length = 2048)]
    description: Option<String>,
    /// Free key-value pairs, merged into the dataset's.
    #[serde(default)]
    tags: BTreeMap<String, String>,
    /// File format.
    format: DatasetFormat,
    /// Where the files lie.
    files: DatasetFiles,
    /// Column of a table that holds the label; without one the dataset has no target.
    #[schema(value_type = String, required = false, min_length = 1, max_length = 256)]
    label_column: Option<String>,
    /// Columns of a table that hold several labels (0 and 1, or true and false) or several numbers
    /// to predict, in the order of the network's outputs; instead of `label_column`.
    #[schema(required = false, min_items = 2, max_items = 1000, example = json!(["rain", "wind"]))]
    label_columns: Vec<String>,
    /// Shape of one sample, channels last, if it is not the one found in the file.
    #[schema(value_type = Vec<u32>, required = false, min_items = 1, max_items = 4)]
    shape: Option<Vec<u32>>,
    /// Whether the label is a class or a number, or several are labels (`class`) or numbers
    /// (`value`); found from the values unless given.
    #[schema(value_type = TargetKind, required = false)]
    target: Option<TargetKind>,
    /// Kinds of a table's columns by name; found from the values unless given.
    #[schema(required = false, example = json!({"age": {"kind": "number"}, "id": {"kind": "ignore"}}))]
    columns: BTreeMap<String, ColumnSpec>,
    /// Names of the arrays in an `npz`: `data` and `labels`.
    #[schema(required = false, example = json!({"data": "x_train", "labels": "y_train"}))]
    arrays: BTreeMap<FileRole, String>,
}
