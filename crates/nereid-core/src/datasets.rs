//! Datasets: what a client declares, what Nereid finds in the bytes, and immutable versions.

mod cell;
pub mod columns;
pub mod encoding;
mod files;
mod source;
pub mod words;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    Name,
    ids::{DatasetId, DatasetVersionId},
};

use columns::ColumnSchema;
pub use files::FileUris;
pub use source::{DatasetFormat, DatasetSource, FileRole, TargetKind};

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
    /// Kind and encoding of each feature, of a table that does not hold numbers alone; `shape` is
    /// then the number of inputs that they become.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<ColumnSchema>,
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
    /// Several labels, each of which a sample has (1) or has not (0).
    Labels {
        /// Their file, or `label_columns`.
        name: String,
        /// Names of the labels in the order of the network's outputs.
        labels: Vec<String>,
    },
    /// Several numbers.
    Values {
        /// Their file, or `label_columns`.
        name: String,
        /// Names of the numbers in the order of the network's outputs.
        values: Vec<String>,
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

    /// Returns the labels, if the target is several of them.
    #[must_use]
    pub fn labels(&self) -> Option<&[String]> {
        match &self.target {
            Some(TargetSchema::Labels { labels, .. }) => Some(labels),
            _ => None,
        }
    }
}

/// Figures over all rows of a dataset version.
///
/// `mean`, `std`, `min` and `max` have one entry per column of a table of numbers, one per channel
/// of an image with channels, and a single one otherwise. They are empty for a table of mixed
/// columns, whose figures are in `columns`.
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
    /// Figures of each feature of a table of mixed columns, in the order of the schema's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ColumnStatistics>,
    /// Rows of each class, in the order of the schema's classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_counts: Option<Vec<u64>>,
    /// Statistics of a numeric target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<ValueStatistics>,
}

/// Figures of one column of a table over all rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ColumnStatistics {
    /// Its name.
    pub name: String,
    /// Rows with a value.
    pub present: u64,
    /// Rows without one.
    pub missing: u64,
    /// Number of distinct values, unless there are too many to count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distinct: Option<u64>,
    /// Figures of the values that are numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<ValueStatistics>,
    /// The most frequent values of what is no number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frequent: Vec<FrequentValue>,
}

/// A value that many rows have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FrequentValue {
    /// The value, perhaps cut.
    pub value: String,
    /// Number of rows that have it.
    pub rows: u64,
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
    /// Its S3 URI; of a file in several objects, that of the list of them.
    pub uri: String,
    /// Size in bytes, as stored, of all objects together.
    pub bytes: u64,
    /// SHA-256 of the stored bytes, hexadecimal; of several objects that of their names, sizes and
    /// bytes, which are read as a tar.
    pub sha256: String,
    /// Entity tag of `uri` at that time: reading demands the same one.
    pub etag: String,
    /// The objects, if the file is a prefix or a list of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<FileObjects>,
}

/// The objects that make up a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileObjects {
    /// How many there are.
    pub count: u64,
    /// SHA-256 of the list, hexadecimal.
    pub list_sha256: String,
}

/// One row as shown in a preview.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PreviewRow {
    /// Values in row-major order, cut after 1,024.
    pub features: Vec<f64>,
    /// The cells of a table of mixed columns, in the order of the schema's features; `features`
    /// holds what they become, where a missing number shows as 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cells: Vec<Value>,
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
