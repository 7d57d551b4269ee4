//! Models, their immutable versions, signatures and the manifest that makes a version whole.

mod aliases;
mod approval;
pub mod compare;
mod edit;
pub mod search;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

pub use self::{
    aliases::{
        Alias, AliasAction, AliasChange, InvalidAlias, InvalidSelector, LATEST, ModelAlias,
        ModelRef, VersionSelector, check_one_of,
    },
    approval::{Approval, ApprovalStatus},
    edit::Edit,
};
use crate::{
    Name,
    datasets::columns::{ColumnSchema, table_width},
    ids::{ModelId, ModelVersionId},
    jobs::Lineage,
    spec::{DeploySpec, Normalization, TrainSpec, WeightFormat},
    tensors::TensorSpec,
};

/// File name of the manifest within a version's folder.
pub const MANIFEST_FILE: &str = "manifest.json";
/// Format of the manifest.
pub const MANIFEST_VERSION: u32 = 1;

/// How raw features become the network's input; the same in training and serving.
///
/// Columns of mixed kind are encoded first, then missing numbers imputed, then all scaled:
/// `y = (x - offset) / scale`, both repeated along the last axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Preprocessing {
    /// The method that gave the numbers.
    pub normalization: Normalization,
    /// Subtracted; one entry, or as many as the last axis is long.
    pub offset: Vec<f32>,
    /// Divided by; never 0.
    pub scale: Vec<f32>,
    /// Put in place of missing numbers before that, one for each input; empty if none may be
    /// missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub impute: Vec<f32>,
    /// How the columns of a table become inputs, of a table that does not hold numbers alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ColumnSchema>,
}

/// What a model takes and gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Signature {
    /// Raw features: one tensor, or one per column of a table of mixed columns.
    pub inputs: Vec<TensorSpec>,
    /// Outputs: `probabilities` and `class`, or `prediction`.
    pub outputs: Vec<TensorSpec>,
    /// Class names in the order of the probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
    /// Feature names, of a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// Applied to the features before the network.
    pub preprocessing: Preprocessing,
}

impl Signature {
    /// Shape of one encoded sample, without the batch dimension.
    #[must_use]
    pub fn sample_shape(&self) -> Vec<usize> {
        if !self.preprocessing.columns.is_empty() {
            return vec![table_width(&self.preprocessing.columns)];
        }
        let dims = self
            .inputs
            .first()
            .map_or(&[][..], |t| t.shape.get(1..).unwrap_or_default());
        dims.iter()
            .map(|&d| usize::try_from(d).unwrap_or(0))
            .collect()
    }
}

/// One file of a published version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactFile {
    /// Path below the manifest's folder.
    #[schema(example = "weights.safetensors")]
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

/// Everything about a version that somebody with only the bucket needs; `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Manifest {
    /// Format of this document.
    pub manifest_version: u32,
    /// Name of the model.
    pub model: Name,
    /// What was trained.
    pub spec: TrainSpec,
    /// What it takes and gives.
    pub signature: Signature,
    /// Final metrics.
    pub metrics: BTreeMap<String, f64>,
    /// What it was made from.
    pub lineage: Lineage,
    /// All files beside this one.
    pub files: Vec<ArtifactFile>,
}

/// What a training leaves in its output folder beside the files.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedModel {
    /// What it takes and gives.
    pub signature: Signature,
    /// Final metrics: `loss`, `accuracy`, `val_…`, `test_…`.
    pub metrics: BTreeMap<String, f64>,
    /// Metrics that are no single number, such as the confusion matrix.
    pub reports: BTreeMap<String, Value>,
    /// Relative paths of the files to publish.
    pub files: Vec<String>,
    /// Version of the framework that trained it.
    pub framework_version: String,
}

/// A registered model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Model {
    /// Identifier.
    pub id: ModelId,
    /// Unique name in the project.
    pub name: Name,
    /// Free text.
    pub description: String,
    /// Free key-value pairs.
    pub tags: BTreeMap<String, String>,
    /// Number of the newest version, if any is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_version: Option<u32>,
    /// Whether only approved versions may be deployed or get traffic.
    pub require_approval: bool,
    /// Its aliases and the versions that they point to.
    #[schema(value_type = BTreeMap<String, u32>)]
    pub aliases: BTreeMap<Alias, u32>,
    /// When the first training was published.
    pub created_at: DateTime<Utc>,
}

/// An immutable version of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelVersion {
    /// Identifier.
    pub id: ModelVersionId,
    /// Name of the model.
    pub model: Name,
    /// Number, from 1; never given out again.
    pub version: u32,
    /// S3 URI of the manifest.
    pub manifest_uri: String,
    /// SHA-256 of the manifest, hexadecimal.
    pub manifest_sha256: String,
    /// Size of all files in bytes.
    pub bytes: u64,
    /// What was trained.
    pub spec: TrainSpec,
    /// What it takes and gives.
    pub signature: Signature,
    /// Final metrics.
    pub metrics: BTreeMap<String, f64>,
    /// Metrics that are no single number, such as the confusion matrix.
    pub reports: BTreeMap<String, Value>,
    /// What it was made from.
    pub lineage: Lineage,
    /// Free text.
    pub description: String,
    /// Free key-value pairs.
    pub tags: BTreeMap<String, String>,
    /// Aliases that point to it.
    pub aliases: Vec<Alias>,
    /// Whether it was found fit to serve.
    pub approval: Approval,
    /// The artifact made for serving, once deployed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<ServingArtifact>,
    /// When it was published.
    pub created_at: DateTime<Utc>,
}

/// A version made fit for serving: immutable, checked against the original's outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServingArtifact {
    /// S3 key prefix of its files in Nereid's bucket.
    pub prefix: String,
    /// Its files.
    pub files: Vec<ArtifactFile>,
    /// What optimisation did.
    pub report: OptimisationReport,
}

/// What computes a model when it serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// The framework that trained it, with Nereid's own kernels.
    #[default]
    Burn,
    /// tract: ONNX in pure Rust.
    Tract,
    /// ONNX Runtime, where its library is found.
    Onnxruntime,
}

impl Runtime {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::Burn, Self::Tract, Self::Onnxruntime];

    /// Returns the name in specs and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Burn => "burn",
            Self::Tract => "tract",
            Self::Onnxruntime => "onnxruntime",
        }
    }
}

/// Latency of one batch in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Latency {
    /// Samples per batch.
    pub batch: u32,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Samples a second, one batch after the other on one thread; 0 in reports of older versions.
    #[serde(default)]
    pub throughput: f64,
}

/// A metric of the original and of the optimised model on held-out samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MetricComparison {
    /// `accuracy`, `label_accuracy` or `rmse`.
    #[schema(example = "accuracy")]
    pub name: String,
    /// Of the original.
    pub before: f64,
    /// Of the optimised model.
    pub after: f64,
    /// What was lost, in points: hundredths of the accuracy, or of the standard deviation of what
    /// is to be predicted.
    pub loss: f64,
}

/// How a runtime did on the machine of the deploy job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RuntimeReport {
    /// Which one.
    pub runtime: Runtime,
    /// Its latencies; empty if it was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latency: Vec<Latency>,
    /// Why it is no candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// The machine that measurements were taken on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Machine {
    /// Model of the processor, if it tells.
    pub cpu: String,
    /// Threads that it runs at once.
    pub threads: u32,
}

/// What optimisation did to a version, and what it measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OptimisationReport {
    /// Steps in order.
    pub steps: Vec<OptimisationStep>,
    /// Latency of the original.
    pub before: Vec<Latency>,
    /// Latency of the optimised model on the same machine.
    pub after: Vec<Latency>,
    /// Size of the original's weights in bytes.
    pub bytes_before: u64,
    /// Size of the optimised weights in bytes.
    pub bytes_after: u64,
    /// Samples that both were compared on.
    pub samples: u32,
    /// Share of samples with the same most likely class (1 for numbers).
    pub agreement: f64,
    /// Largest difference of any output; of numbers beyond 1, relative to them.
    pub max_difference: f64,
    /// The metric on samples with known targets, if the version has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<MetricComparison>,
    /// In what form weights are stored.
    #[serde(default)]
    pub weights: WeightFormat,
    /// The form that was asked for.
    #[serde(default)]
    pub requested_weights: WeightFormat,
    /// What computes the model.
    #[serde(default)]
    pub runtime: Runtime,
    /// The runtime that was asked for; the fastest unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_runtime: Option<Runtime>,
    /// What was measured of each runtime, or why it was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<RuntimeReport>,
    /// Where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
}

/// One optimisation and whether it was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OptimisationStep {
    /// What was tried.
    #[schema(example = "fold_batch_normalization")]
    pub name: String,
    /// Whether it was kept.
    pub kept: bool,
    /// What it changed, or why it was refused.
    pub detail: String,
}

/// A deployment's spec with the version it resolved to.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// The spec.
    pub spec: DeploySpec,
    /// The version to serve.
    pub version: ModelVersion,
}
