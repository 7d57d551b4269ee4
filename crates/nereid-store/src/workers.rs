//! Workers: registration, draining, listing.

use nereid_core::{ids::WorkerId, workers::*};
use crate::{Page, PageRequest, Store, StoreError};

impl Store {
    pub async fn register_worker(&self, new: &NewWorker) -> Result<(), StoreError> { todo!() }
    /// Status draining: claims nothing, its replicas move.
    pub async fn drain_worker(&self, id: WorkerId) -> Result<Worker, StoreError> { todo!() }
    /// The worker left in good order.
    pub async fn retire_worker(&self, id: WorkerId) -> Result<(), StoreError> { todo!() }
    pub async fn worker(&self, id: WorkerId) -> Result<Worker, StoreError> { todo!() }
    pub async fn workers(&self, page: &PageRequest) -> Result<Page<Worker>, StoreError> { todo!() }
}
