//! Replicas that this process holds: who answers, and how many requests each is answering.

mod load;
mod reconcile;

use std::{
    collections::HashMap,
    sync::{
        Arc, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use nereid_core::{
    engine::{EngineError, LocalReplicas, Predictor},
    ids::ReplicaId,
    jobs::TerminationReason,
    models::Signature,
    tensors::{Batch, Tensor},
};

pub(crate) use reconcile::run;

use crate::{
    error::RunError,
    sync::{read, write},
};

/// A replica's model, counting the requests it is answering.
pub(crate) struct Held {
    predictor: Arc<dyn Predictor>,
    in_flight: AtomicUsize,
}

/// Counts one request until dropped, also when the model panics.
struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn enter(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Predictor for Held {
    fn signature(&self) -> &Signature {
        self.predictor.signature()
    }

    fn predict(&self, batch: &Batch) -> Result<Vec<Tensor>, EngineError> {
        let _in_flight = InFlight::enter(&self.in_flight);
        self.predictor.predict(batch)
    }
}

/// The replicas that answer; reading it neither waits nor allocates.
#[derive(Default)]
pub(crate) struct Registry {
    held: RwLock<HashMap<ReplicaId, Arc<Held>>>,
}

impl LocalReplicas for Registry {
    fn get(&self, replica: ReplicaId) -> Option<Arc<dyn Predictor>> {
        let held = read(&self.held).get(&replica).cloned()?;
        Some(held)
    }
}

impl Registry {
    fn insert(&self, replica: ReplicaId, predictor: Arc<dyn Predictor>) {
        let held = Held {
            predictor,
            in_flight: AtomicUsize::new(0),
        };
        write(&self.held).insert(replica, Arc::new(held));
    }

    fn remove(&self, replica: ReplicaId) {
        // Dropped outside of the lock: freeing a large model takes its time.
        let held = write(&self.held).remove(&replica);
        drop(held);
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
        held.get(&replica)
            .is_some_and(|h| h.in_flight.load(Ordering::Relaxed) > 0)
    }

    /// Tells whether any replica is answering a request right now.
    pub(crate) fn any_busy(&self) -> bool {
        let held = read(&self.held);
        held.values()
            .any(|h| h.in_flight.load(Ordering::Relaxed) > 0)
    }
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
