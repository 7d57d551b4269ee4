//! Datasets: what a client declares, what Nereid finds in the bytes, and immutable versions.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    Name,
    ids::{DatasetId, DatasetVersionId},
    limits,
    validation::Violations,
};

/// File format; each also gzip-compressed, which is detected from the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DatasetFormat {
    /// Comma-separated values with a header row (RFC 4180).
    Csv,
    /// The format of MNIST (<http://yann.lecun.com/exdb/mnist/>).
    Idx,
    /// One `NumPy` array (`numpy.save`).
    Npy,
}

/// What a file of a dataset holds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum FileRole {
    /// Features; with `csv` also the label.
    Data,
    /// Labels in a file of their own (`idx`, `npy`).
    Labels,
}

impl FileRole {
    /// Returns the name used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Labels => "labels",
        }
    }
}

/// Kind of the value to predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// One of a set of classes.
    Class,
    /// A number.
    Value,
}

/// What a client says about a dataset's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DatasetSource {
    /// File format.
    pub format: DatasetFormat,
    /// S3 URI of each file: `data`, and `labels` where the format needs it.
    #[schema(example = json!({"data": "s3://bucket/digits.csv.gz"}))]
    pub files: BTreeMap<FileRole, String>,
    /// CSV column that holds the label; without one the dataset has no target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub label_column: Option<String>,
    /// Shape of one sample, channels last, if it is not the one found in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 4, example = json!([8, 8, 1]))]
    pub shape: Option<Vec<usize>>,
    /// Whether the label is a class or a number; found from the values unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetKind>,
}

impl DatasetSource {
    /// Records every mistake that shows without reading the files.
    pub fn check(&self, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        if !self.files.contains_key(&FileRole::Data) {
            v.push(at("files/data"), "missing", "\"data\" is required");
        }
        let csv = self.format == DatasetFormat::Csv;
        if csv && self.files.contains_key(&FileRole::Labels) {
            let detail = "a CSV holds its labels in label_column, not in a file of their own";
            v.push(at("files/labels"), "conflict", detail);
        }
        if !csv && self.label_column.is_some() {
            v.push(
                at("label_column"),
                "conflict",
                "label_column is only for format csv",
            );
        }
        if let Some(column) = &self.label_column {
            v.check(
                (1..=256).contains(&column.len()),
                &at("label_column"),
                "too_long",
                || format!("{} bytes are not between 1 and 256", column.len()),
            );
        }
        if let Some(shape) = &self.shape {
            v.check(
                (1..=limits::MAX_RANK).contains(&shape.len()),
                &at("shape"),
                "out_of_range",
                || {
                    format!(
                        "{} dimensions are not between 1 and {}",
                        shape.len(),
                        limits::MAX_RANK
                    )
                },
            );
            let size = crate::spec::shapes::size(shape);
            let max = limits::MAX_FEATURES as u64;
            v.check(
                (1..=max).contains(&size),
                &at("shape"),
                "out_of_range",
                || format!("{shape:?} holds {size} values, not between 1 and {max}"),
            );
        }
    }
}

/// What the features and the target look like, found by reading all of the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DatasetSchema {
    /// Shape of one sample, channels last.
    pub shape: Vec<usize>,
    /// Element type in the file (`FP32`, `UINT8`, …), by Open Inference Protocol name.
    #[schema(example = "UINT8")]
    pub dtype: String,
    /// Feature names, of a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// The value to predict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetSchema>,
}

/// The value to predict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TargetSchema {
    /// One of a set of classes.
    Class {
        /// Its column or file.
        name: String,
        /// Class names in the order of the network's outputs: numbers by value, words by name.
        classes: Vec<String>,
    },
    /// A number.
    Value {
        /// Its column or file.
        name: String,
    },
}

impl DatasetSchema {
    /// Returns the classes, if the target is one.
    #[must_use]
    pub fn classes(&self) -> Option<&[String]> {
        match &self.target {
            Some(TargetSchema::Class { classes, .. }) => Some(classes),
            _ => None,
        }
    }
}

/// Figures over all rows of a dataset version.
///
/// `mean`, `std`, `min` and `max` have one entry per column of a table, one per channel of an
/// image with channels, and a single one otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DatasetStatistics {
    /// Number of samples.
    pub rows: u64,
    /// Means.
    pub mean: Vec<f64>,
    /// Standard deviations (of the population).
    pub std: Vec<f64>,
    /// Smallest values.
    pub min: Vec<f64>,
    /// Largest values.
    pub max: Vec<f64>,
    /// Rows of each class, in the order of the schema's classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_counts: Option<Vec<u64>>,
    /// Statistics of a numeric target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<ValueStatistics>,
}

/// Figures of one number over all rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ValueStatistics {
    /// Mean.
    pub mean: f64,
    /// Standard deviation (of the population).
    pub std: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
}

/// One file of a dataset version, pinned to the bytes that were inspected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatasetFile {
    /// Its S3 URI.
    pub uri: String,
    /// Size in bytes, as stored.
    pub bytes: u64,
    /// SHA-256 of the stored bytes, hexadecimal.
    pub sha256: String,
    /// Entity tag at that time: reading demands the same one.
    pub etag: String,
}

/// One row as shown in a preview.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PreviewRow {
    /// Values in row-major order, cut after 1,024.
    pub features: Vec<f64>,
    /// Class name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Value>,
}

/// What inspection of the bytes found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// Shape, types, classes.
    pub schema: DatasetSchema,
    /// Figures over all rows.
    pub statistics: DatasetStatistics,
    /// The first rows.
    pub preview: Vec<PreviewRow>,
}

/// An immutable version of a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DatasetVersion {
    /// Identifier.
    pub id: DatasetVersionId,
    /// Name of the dataset.
    pub dataset: Name,
    /// Number, from 1.
    pub version: u32,
    /// What the client declared.
    pub source: DatasetSource,
    /// The files, pinned.
    pub files: BTreeMap<FileRole, DatasetFile>,
    /// SHA-256 over format, shape, label and the files' digests.
    pub digest: String,
    /// Detected schema.
    pub schema: DatasetSchema,
    /// Figures over all rows.
    pub statistics: DatasetStatistics,
    /// When it was registered.
    pub created_at: DateTime<Utc>,
}

/// A dataset with its latest version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Dataset {
    /// Identifier.
    pub id: DatasetId,
    /// Unique name in the project.
    pub name: Name,
    /// Free text.
    pub description: String,
    /// Free key-value pairs.
    pub tags: BTreeMap<String, String>,
    /// When the first version was registered.
    pub created_at: DateTime<Utc>,
    /// The newest version.
    pub latest: DatasetVersion,
}
