//! Wake-ups by LISTEN/NOTIFY: coalesced, outside of the submitting transaction, never relied on.

use nereid_core::ids::{JobId, ProjectId};
use tokio::sync::broadcast;
use crate::{Store, StoreError};

/// What a wake-up is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// A job may be waiting (submitted, retried, handed back).
    Queue,
    /// Something happened to a job (event to read, stop requested).
    Job(JobId),
    /// Endpoints, replicas or workers changed.
    Endpoints,
    /// The LISTEN connection was lost and is back: anything may have been missed.
    Resync,
}

/// Receives wake-ups of one process and hands them to any number of listeners; reconnects by itself.
#[derive(Debug, Clone)]
pub struct Wakeups { pub(crate) sender: broadcast::Sender<Wake> }

impl Wakeups {
    pub fn subscribe(&self) -> broadcast::Receiver<Wake> { self.sender.subscribe() }
}

impl Store {
    /// Starts the one LISTEN connection of this process; ends with `shutdown`.
    pub fn listen(&self, shutdown: tokio_util::sync::CancellationToken) -> (Wakeups, impl Future<Output = ()> + Send + use<>) { (todo!(), async {}) }
    /// Queues a notification: sent within a few ms, together with others, deduplicated. Never blocks or fails.
    pub fn notify(&self, wake: Wake) { todo!() }
}
