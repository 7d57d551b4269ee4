//! Replicas as a gateway sees them: how busy each is, and whether its worker may be dead.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use nereid_core::{
    endpoints::ReplicaAddress,
    ids::{ReplicaId, WorkerId},
};

/// How long a worker that did not answer is left alone while others can answer.
const SUSPICION: Duration = Duration::from_secs(2);
/// Where the times in [`Member`] begin.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A replica with the number of requests it is working on for this process.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) address: ReplicaAddress,
    outstanding: Arc<AtomicUsize>,
    /// Milliseconds since [`EPOCH`] until which its worker is suspected to be dead; 0 if not.
    suspected: Arc<AtomicU64>,
}

/// Counts a request as outstanding until dropped.
pub(super) struct Occupied(Arc<AtomicUsize>);

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is known of replicas and workers, and outlives a change of routes.
#[derive(Default)]
pub(super) struct Counters {
    outstanding: HashMap<ReplicaId, Arc<AtomicUsize>>,
    suspected: HashMap<WorkerId, Arc<AtomicU64>>,
}

impl Counters {
    /// Takes what is known of `members`.
    pub(super) fn of<'a>(members: impl Iterator<Item = &'a Member>) -> Self {
        let mut counters = Self::default();
        for member in members {
            let (id, worker) = (member.address.id, member.address.worker);
            counters.outstanding.insert(id, member.outstanding.clone());
            counters.suspected.insert(worker, member.suspected.clone());
        }
        counters
    }

    pub(super) fn member(&mut self, address: ReplicaAddress) -> Member {
        Member {
            outstanding: self
                .outstanding
                .get(&address.id)
                .cloned()
                .unwrap_or_default(),
            suspected: self.suspected.entry(address.worker).or_default().clone(),
            address,
        }
    }
}

/// Draws two of `count` members and returns the less busy one.
pub(super) fn draw<'a>(count: usize, member: impl Fn(usize) -> &'a Member) -> Option<&'a Member> {
    if count < 2 {
        return (count == 1).then(|| member(0));
    }
    let one = || member(rand::random_range(0..count));
    let (a, b) = (one(), one());
    Some(if a.load() <= b.load() { a } else { b })
}

/// Time since [`EPOCH`].
pub(super) fn millis() -> u64 {
    u64::try_from(EPOCH.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Member {
    pub(super) fn occupy(&self) -> Occupied {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        Occupied(self.outstanding.clone())
    }

    /// Its worker did not answer.
    pub(super) fn suspect(&self) {
        let until = EPOCH.elapsed() + SUSPICION;
        let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.suspected.store(until, Ordering::Relaxed);
    }

    /// Its worker answered.
    pub(super) fn trust(&self) {
        if self.suspected.load(Ordering::Relaxed) > 0 {
            self.suspected.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn is_suspect(&self, now: u64) -> bool {
        self.suspected.load(Ordering::Relaxed) > now
    }

    pub(super) fn load(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }
}
