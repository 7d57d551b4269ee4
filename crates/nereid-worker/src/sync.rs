//! Small pieces of synchronisation: locks that survive a panic, wake-ups, jitter.

use std::{
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use nereid_store::notify::{Wake, Wakeups};
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// Locks; what a panicking holder left is whole, because no critical section here can panic
/// half-way through a change.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for reading; see [`lock`].
pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for writing; see [`lock`].
pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// A listener's end of the wake-ups.
pub(crate) struct Waker(Receiver<Wake>);

impl Waker {
    pub(crate) fn new(wakeups: &Wakeups) -> Self {
        Self(wakeups.subscribe())
    }

    /// Waits for a wake-up; whoever was too slow to read them all may have missed anything.
    pub(crate) async fn next(&mut self) -> Wake {
        match self.0.recv().await {
            Ok(wake) => wake,
            Err(RecvError::Lagged(_)) => Wake::Resync,
            // The listener has ended: only polls are left.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }

    /// Waits for a wake-up that `relevant` accepts; a resync always is.
    pub(crate) async fn until(&mut self, relevant: impl Fn(&Wake) -> bool) {
        loop {
            let wake = self.next().await;
            if wake == Wake::Resync || relevant(&wake) {
                return;
            }
        }
    }
}

/// Returns a time between three quarters and five quarters of `base`, so that processes which
/// started together do not act together.
pub(crate) fn jittered(base: Duration) -> Duration {
    base.mul_f64(0.75 + 0.5 * rand::random::<f64>())
}

/// Growing pauses between tries.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, max }
    }

    /// Returns the next pause, jittered.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = jittered(self.next);
        self.next = (self.next * 2).min(self.max);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let pauses: Vec<_> = (0..10).map(|_| backoff.pause()).collect();
        assert!(pauses[0] <= Duration::from_millis(125));
        assert!(pauses[9] >= Duration::from_millis(750));
        assert!(pauses[9] <= Duration::from_millis(1250));
    }
}
