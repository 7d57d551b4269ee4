//! Things that one caller at a time may use, as many as there are callers.

use std::sync::{
    Mutex, PoisonError, TryLockError,
    atomic::{AtomicUsize, Ordering},
};

use nereid_core::engine::EngineError;

/// Most of them: callers beyond wait for each other.
const MOST: usize = 16;

/// A pool in which nobody waits while a place is free.
pub(super) struct Slots<T> {
    slots: Vec<Mutex<Option<T>>>,
    next: AtomicUsize,
}

impl<T> Slots<T> {
    /// As many places as the machine runs threads.
    pub(super) fn new() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            slots: (0..threads.min(MOST)).map(|_| Mutex::new(None)).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// Uses a place, filling it the first time; after an error it is filled anew.
    pub(super) fn with<R>(
        &self,
        make: impl FnOnce() -> Result<T, EngineError>,
        run: impl FnOnce(&mut T) -> Result<R, EngineError>,
    ) -> Result<R, EngineError> {
        let mut slot = self.free();
        let mut thing = match slot.take() {
            Some(thing) => thing,
            None => make()?,
        };
        let result = run(&mut thing)?;
        *slot = Some(thing);
        Ok(result)
    }

    /// The first places are the ones that are filled: who calls alone uses but one.
    fn free(&self) -> std::sync::MutexGuard<'_, Option<T>> {
        for slot in &self.slots {
            match slot.try_lock() {
                Ok(slot) => return slot,
                // What was in use when its user panicked was taken out.
                Err(TryLockError::Poisoned(slot)) => return slot.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len();
        self.slots[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_made_anew_and_what_worked_is_kept() {
        let (slots, fillings) = (Slots::<u32>::new(), AtomicUsize::new(0));
        let make = || {
            fillings.fetch_add(1, Ordering::Relaxed);
            Ok(0)
        };
        let count = |n: &mut u32| {
            *n += 1;
            Ok(*n)
        };
        assert_eq!(slots.with(make, count).unwrap(), 1);
        assert_eq!(slots.with(make, count).unwrap(), 2);
        let fail = |_: &mut u32| Err::<(), _>(EngineError::Stopped);
        slots.with(make, fail).unwrap_err();
        assert_eq!(slots.with(make, count).unwrap(), 1);
        assert_eq!(fillings.load(Ordering::Relaxed), 2);
    }
}
