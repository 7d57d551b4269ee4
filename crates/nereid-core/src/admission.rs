//! How many requests, and how many bytes of them, a process takes in at the same time.
//!
//! Whoever is turned away at the door costs next to nothing, so that the rest is still answered
//! in time: without a bound all requests would get slower until all time out.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A door that lets in so many requests, and so many bytes.
#[derive(Debug)]
pub struct Admission {
    requests: AtomicUsize,
    bytes: AtomicUsize,
    max_requests: usize,
    max_bytes: usize,
}

/// A request that was let in, until dropped.
#[derive(Debug)]
pub struct Admitted {
    door: Arc<Admission>,
    bytes: usize,
}

impl Admission {
    /// Makes a door for `max_requests` of `max_bytes` together.
    #[must_use]
    pub fn new(max_requests: usize, max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_requests,
            max_bytes,
        })
    }

    /// Lets in a request of `bytes`, unless there are too many. One alone always gets in.
    #[must_use]
    pub fn enter(self: &Arc<Self>, bytes: usize) -> Option<Admitted> {
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let admitted = Admitted {
            door: Arc::clone(self),
            bytes,
        };
        let fits = held.saturating_add(bytes) <= self.max_bytes || held == 0;
        // One that does not get in leaves again by being dropped.
        (before < self.max_requests && fits).then_some(admitted)
    }

    /// Number of requests inside.
    #[must_use]
    pub fn inside(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.door.requests.fetch_sub(1, Ordering::Relaxed);
        self.door.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_requests_and_bytes() {
        let door = Admission::new(2, 100);
        let first = door.enter(60).unwrap();
        assert!(door.enter(50).is_none());
        let second = door.enter(40).unwrap();
        assert!(door.enter(0).is_none());
        drop((first, second));
        assert_eq!(door.inside(), 0);
        // What is larger than all the room gets in alone.
        let large = door.enter(1_000).unwrap();
        assert!(door.enter(1).is_none());
        drop(large);
        assert!(door.enter(1).is_some());
    }
}
