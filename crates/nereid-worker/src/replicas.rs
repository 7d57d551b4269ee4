//! Replicas that this process holds: who answers, each behind its queue.

mod load;
mod reconcile;

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, RwLock},
    thread::available_parallelism,
};

use nereid_core::{
    batching::VariantSettings,
    engine::{LocalReplica, LocalReplicas, Predictor},
    ids::ReplicaId,
    jobs::TerminationReason,
    statistics::Snapshot,
};

pub(crate) use reconcile::run;

use crate::{
    batcher::{Batcher, Cores},
    error::RunError,
    sync::{read, write},
};

/// The replicas that answer; reading it neither waits nor allocates.
pub(crate) struct Registry {
    held: RwLock<HashMap<ReplicaId, Arc<Batcher>>>,
    cores: Arc<Cores>,
}

impl Default for Registry {
    fn default() -> Self {
        let processors = available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            held: RwLock::default(),
            cores: Cores::new(processors),
        }
    }
}

impl LocalReplicas for Registry {
    fn get(&self, replica: ReplicaId) -> Option<Arc<dyn LocalReplica>> {
        let held = self.find(replica)?;
        Some(held)
    }
}

impl Registry {
    /// Puts a queue before a model.
    fn batcher(&self, model: Arc<dyn Predictor>, settings: &VariantSettings) -> Batcher {
        Batcher::new(model, settings.batching.clone(), Arc::clone(&self.cores))
    }

    fn insert(&self, replica: ReplicaId, batcher: Batcher) {
        write(&self.held).insert(replica, Arc::new(batcher));
    }

    fn remove(&self, replica: ReplicaId) {
        // Dropped outside of the lock: freeing a large model takes its time.
        let held = write(&self.held).remove(&replica);
        drop(held);
    }

    pub(crate) fn find(&self, replica: ReplicaId) -> Option<Arc<Batcher>> {
        read(&self.held).get(&replica).cloned()
    }

    fn contains(&self, replica: ReplicaId) -> bool {
        read(&self.held).contains_key(&replica)
    }

    fn ids(&self) -> Vec<ReplicaId> {
        read(&self.held).keys().copied().collect()
    }

    /// Number of replicas that answer.
    pub(crate) fn len(&self) -> usize {
        read(&self.held).len()
    }

    /// Tells whether a replica is answering a request right now.
    fn is_busy(&self, replica: ReplicaId) -> bool {
        let held = read(&self.held);
        held.get(&replica).is_some_and(|h| h.under_way() > 0)
    }

    /// Tells whether any replica is answering a request right now.
    pub(crate) fn any_busy(&self) -> bool {
        read(&self.held).values().any(|h| h.under_way() > 0)
    }

    /// What happened to the requests of each replica so far.
    pub(crate) fn statistics(&self) -> Vec<ReplicaStatistics> {
        let held = read(&self.held);
        let of = held.iter().map(|(id, batcher)| ReplicaStatistics {
            replica: *id,
            counted: batcher.statistics().snapshot(),
        });
        of.collect()
    }
}

/// What happened to the requests of a replica, since it was loaded.
#[derive(Debug, Clone)]
pub struct ReplicaStatistics {
    /// The replica.
    pub replica: ReplicaId,
    /// What was counted.
    pub counted: Snapshot,
}

/// Writes why a replica could not be loaded; [`split_reason`] reads it.
fn join_reason(error: &RunError) -> String {
    let reason = error.reason().unwrap_or(TerminationReason::Internal);
    format!("{reason}: {}", error.describe())
}

/// Reads the kind of failure out of a replica's error.
pub(crate) fn split_reason(error: &str) -> (TerminationReason, &str) {
    error
        .split_once(": ")
        .and_then(|(word, message)| Some((word.parse().ok()?, message)))
        .unwrap_or((TerminationReason::Internal, error))
}

#[cfg(test)]
mod tests {
    use nereid_core::engine::EngineError;

    use super::*;

    #[test]
    fn a_replicas_error_keeps_its_kind() {
        let error = RunError::Engine(EngineError::Parity("by 0.5".to_owned()));
        let (reason, message) = (error.reason().unwrap(), error.to_string());
        let written = join_reason(&error);
        assert_eq!(split_reason(&written), (reason, message.as_str()));
        let foreign = "the worker is gone: no sign of life";
        assert_eq!(
            split_reason(foreign),
            (TerminationReason::Internal, foreign)
        );
    }
}
