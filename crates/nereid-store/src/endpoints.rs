//! Endpoints: desired generations of variants, replicas that workers hold, routes for the gateway.

use nereid_core::{Name, endpoints::*, ids::*};
use crate::{Page, PageRequest, Store, StoreError, WriteTx};

impl WriteTx {
    /// Creates an endpoint; each variant's version must have a serving artifact (Conflict `not_deployed`, naming which).
    pub async fn create_endpoint(&mut self, name: &Name, spec: &EndpointSpec) -> Result<Endpoint, StoreError> { todo!() }
    /// A new generation with the variants of the one that served before the newest (Conflict `no_previous` if none).
    pub async fn rollback_endpoint(&mut self, name: &Name) -> Result<Endpoint, StoreError> { todo!() }
}

impl Store {
    /// A new generation with these variants.
    pub async fn update_endpoint(&self, project: ProjectId, name: &Name, spec: &EndpointSpec) -> Result<Endpoint, StoreError> { todo!() }
    pub async fn endpoint(&self, project: ProjectId, name: &Name) -> Result<Endpoint, StoreError> { todo!() }
    pub async fn endpoints(&self, project: ProjectId, page: &PageRequest) -> Result<Page<Endpoint>, StoreError> { todo!() }
    pub async fn delete_endpoint(&self, project: ProjectId, name: &Name) -> Result<(), StoreError> { todo!() }
    /// All routes of all projects that can answer, keyed by project and name, for the gateway's cache.
    pub async fn routes(&self) -> Result<Vec<(ProjectId, Name, Route)>, StoreError> { todo!() }
    /// Takes on missing replicas for this worker (guarded, at most one replica of a variant per worker unless no other
    /// active worker could hold it; in a single-worker cluster all replicas land on it), advances endpoints
    /// whose newest generation is all ready (serving_generation = generation; older generations' replicas become draining;
    /// replica rows of deleted endpoints too), and returns what this worker is to hold now. One call = the worker's whole reconcile read.
    pub async fn reconcile(&self, worker: WorkerId) -> Result<Vec<Assignment>, StoreError> { todo!() }
    /// Ready → also advances the endpoint's serving generation if all variants are ready now. Failed → error kept, endpoint status failed.
    pub async fn set_replica_status(&self, replica: ReplicaId, worker: WorkerId, status: ReplicaStatus, error: Option<&str>) -> Result<(), StoreError> { todo!() }
    /// The worker has unloaded it.
    pub async fn remove_replica(&self, replica: ReplicaId, worker: WorkerId) -> Result<(), StoreError> { todo!() }
}
