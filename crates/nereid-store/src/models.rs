//! Models and their versions.

use std::collections::BTreeMap;
use nereid_core::{Name, ids::*, models::*};
use crate::{Page, PageRequest, Store, StoreError};

impl Store {
    pub async fn model(&self, project: ProjectId, name: &Name) -> Result<Model, StoreError> { todo!() }
    pub async fn models(&self, project: ProjectId, page: &PageRequest) -> Result<Page<Model>, StoreError> { todo!() }
    pub async fn model_version(&self, project: ProjectId, name: &Name, version: u32) -> Result<ModelVersion, StoreError> { todo!() }
    pub async fn model_versions(&self, project: ProjectId, name: &Name, page: &PageRequest) -> Result<Page<ModelVersion>, StoreError> { todo!() }
    /// Replaces description (if given) and tags (if given).
    pub async fn update_model(&self, project: ProjectId, name: &Name, description: Option<&str>, tags: Option<&BTreeMap<String, String>>) -> Result<Model, StoreError> { todo!() }
    pub async fn update_model_version(&self, project: ProjectId, name: &Name, version: u32, tags: &BTreeMap<String, String>) -> Result<ModelVersion, StoreError> { todo!() }
    /// Refused (Conflict `in_use`) while an endpoint's serving or newest generation, or a queued/running deploy job, uses it. Soft delete.
    pub async fn delete_model_version(&self, project: ProjectId, name: &Name, version: u32) -> Result<(), StoreError> { todo!() }
    /// All versions; refused while any is in use or a job trains it.
    pub async fn delete_model(&self, project: ProjectId, name: &Name) -> Result<(), StoreError> { todo!() }
}
