//! Batch predictions under way: what one is bound to, the parts it has finished, its manifest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Name,
    datasets::{DatasetFile, DatasetSource, FileRole},
    ids::JobId,
    models::ArtifactFile,
};

/// Format of the manifest.
pub const MANIFEST_VERSION: u32 = 1;
/// Object, written last, that says that all predictions are there: the manifest.
///
/// Programs that read such folders, Spark among them, pass over names that begin with `_`.
pub const SUCCESS_FILE: &str = "_SUCCESS";
/// Object, written first, that says which job writes below a prefix.
pub const CLAIM_FILE: &str = "_JOB";

/// What all attempts at a batch prediction have in common, decided by the first.
///
/// A later attempt goes on where an earlier one was, so it must read the same bytes and ask the
/// same model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchPlan {
    /// How the input is to be read.
    pub source: DatasetSource,
    /// Its files, pinned.
    pub files: BTreeMap<FileRole, DatasetFile>,
    /// Rows of the input, if they are known before they are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// SHA-256 over the model's files or of the manifest that lists them, hexadecimal.
    pub model_digest: String,
    /// The files made for serving; of a version that was never deployed those that training wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<PlannedArtifact>,
}

/// Where a serving artifact lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedArtifact {
    /// Key prefix in Nereid's bucket.
    pub prefix: String,
    /// Its files.
    pub files: Vec<ArtifactFile>,
}

/// A finished part of the output: the predictions of some rows, and what was wrong with others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchPart {
    /// Its number, from 0.
    pub part: u32,
    /// Rows read, those among them that were passed over included.
    pub rows: u64,
    /// Rows passed over.
    pub rejected: u64,
    /// Time it took in seconds.
    #[serde(skip)]
    pub seconds: f64,
    /// File of predictions, unless all rows were passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predictions: Option<ArtifactFile>,
    /// File of the rows that were passed over, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejections: Option<ArtifactFile>,
}

/// The manifest of a finished batch prediction.
///
/// Nothing in it differs between attempts, so that whichever writes it writes the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchManifest {
    /// Format of this document.
    pub manifest_version: u32,
    /// The job.
    pub job_id: JobId,
    /// Name of the model.
    pub model: Name,
    /// Its version.
    pub version: u32,
    /// SHA-256 over the model's files or of the manifest that lists them, hexadecimal.
    pub model_digest: String,
    /// The files that were read, as they were at that time.
    pub input: BTreeMap<FileRole, DatasetFile>,
    /// Rows that were predicted.
    pub rows: u64,
    /// Rows that were passed over.
    pub rejected: u64,
    /// All parts in their order; paths are below the manifest's folder.
    pub parts: Vec<BatchPart>,
}

/// Rows, those passed over among them, and seconds of parts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BatchTotals {
    /// Rows read.
    pub rows: u64,
    /// Rows passed over.
    pub rejected: u64,
    /// Time in seconds.
    pub seconds: f64,
}

impl BatchTotals {
    /// Adds up parts.
    #[must_use]
    pub fn of(parts: &[BatchPart]) -> Self {
        parts.iter().fold(Self::default(), |sum, part| Self {
            rows: sum.rows + part.rows,
            rejected: sum.rejected + part.rejected,
            seconds: sum.seconds + part.seconds,
        })
    }

    /// Rows per second; 0 if nothing was measured.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate is told in few digits")]
    pub fn rows_per_second(&self) -> f64 {
        if self.seconds > 0.0 {
            self.rows as f64 / self.seconds
        } else {
            0.0
        }
    }
}
