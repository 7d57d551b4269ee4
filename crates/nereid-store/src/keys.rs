//! API keys: only a hash is stored.

use nereid_core::{Name, ids::*, keys::*};
use crate::{Page, PageRequest, Store, StoreError, WriteTx};

/// The project of `dev` and of a fresh installation.
pub const DEFAULT_PROJECT: &str = "default";

impl WriteTx {
    /// `secret_sha256` is the hash of the whole secret, `prefix` its first 12 characters.
    pub async fn create_key(&mut self, name: &Name, role: Role, prefix: &str, secret_sha256: &[u8]) -> Result<ApiKey, StoreError> { todo!() }
}

impl Store {
    /// Id of a project by name; the migration makes "default".
    pub async fn project(&self, name: &str) -> Result<ProjectId, StoreError> { todo!() }
    /// Actor of an unrevoked key, by hash of its secret.
    pub async fn authenticate(&self, secret_sha256: &[u8]) -> Result<Option<Actor>, StoreError> { todo!() }
    pub async fn keys(&self, project: ProjectId, page: &PageRequest) -> Result<Page<ApiKey>, StoreError> { todo!() }
    pub async fn revoke_key(&self, project: ProjectId, id: KeyId) -> Result<(), StoreError> { todo!() }
    /// Whether any usable admin key exists.
    pub async fn has_keys(&self) -> Result<bool, StoreError> { todo!() }
}
