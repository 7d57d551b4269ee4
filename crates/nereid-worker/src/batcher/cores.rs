//! The processors of this machine, which all replicas of a process share.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::sync::lock;

/// As many permits as there are processors: more executions at a time only make each slower.
pub(crate) struct Cores {
    state: Mutex<Free>,
    returned: Condvar,
}

struct Free {
    cores: usize,
    waiting: usize,
}

/// A processor to compute on, given back when dropped.
pub(super) struct Core(Arc<Cores>);

impl Cores {
    pub(crate) fn new(cores: usize) -> Arc<Self> {
        let state = Mutex::new(Free { cores, waiting: 0 });
        let returned = Condvar::new();
        Arc::new(Self { state, returned })
    }

    /// Takes a processor that is free and that nobody waits for.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<Core> {
        let mut free = lock(&self.state);
        if free.cores == 0 || free.waiting > 0 {
            return None;
        }
        free.cores -= 1;
        Some(Core(Arc::clone(self)))
    }

    /// Waits for a processor; blocks the thread.
    pub(super) fn take(self: &Arc<Self>) -> Core {
        let mut free = lock(&self.state);
        while free.cores == 0 {
            free.waiting += 1;
            let waited = self.returned.wait(free);
            free = waited.unwrap_or_else(PoisonError::into_inner);
            free.waiting -= 1;
        }
        free.cores -= 1;
        Core(Arc::clone(self))
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let mut free = lock(&self.0.state);
        free.cores += 1;
        if free.waiting > 0 {
            drop(free);
            self.0.returned.notify_one();
        }
    }
}
