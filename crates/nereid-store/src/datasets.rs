//! Datasets and their immutable versions.

use std::collections::BTreeMap;
use nereid_core::{Name, datasets::*, ids::*};
use crate::{Page, PageRequest, Store, StoreError, WriteTx};

/// A dataset version that was inspected and is to be registered.
#[derive(Debug, Clone)]
pub struct NewDatasetVersion {
    pub name: Name,
    /// Replaces the dataset's description if given.
    pub description: Option<String>,
    /// Merged into the dataset's tags.
    pub tags: BTreeMap<String, String>,
    pub source: DatasetSource,
    pub files: BTreeMap<FileRole, DatasetFile>,
    pub digest: String,
    pub inspection: Inspection,
}

impl WriteTx {
    /// Registers a new version, and the dataset with its first one. Re-registering bytes with the same digest as an
    /// existing version of that dataset makes no new version but returns that one.
    pub async fn register_dataset_version(&mut self, new: &NewDatasetVersion) -> Result<DatasetVersion, StoreError> { todo!() }
}

impl Store {
    pub async fn dataset(&self, project: ProjectId, name: &Name) -> Result<Dataset, StoreError> { todo!() }
    /// Newest version if `version` is none.
    pub async fn dataset_version(&self, project: ProjectId, name: &Name, version: Option<u32>) -> Result<DatasetVersion, StoreError> { todo!() }
    pub async fn dataset_versions(&self, project: ProjectId, name: &Name, page: &PageRequest) -> Result<Page<DatasetVersion>, StoreError> { todo!() }
    pub async fn dataset_preview(&self, project: ProjectId, name: &Name, version: Option<u32>) -> Result<Vec<PreviewRow>, StoreError> { todo!() }
    pub async fn datasets(&self, project: ProjectId, page: &PageRequest) -> Result<Page<Dataset>, StoreError> { todo!() }
    /// Refused (Conflict `in_use`) while a queued or running job reads it. Lineage of models keeps their copy of what they need.
    pub async fn delete_dataset(&self, project: ProjectId, name: &Name) -> Result<(), StoreError> { todo!() }
}
