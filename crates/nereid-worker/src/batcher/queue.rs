//! Requests that wait for a replica, by level of priority, each level in order of arrival.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use nereid_core::{
    batching::Batching,
    inference::{Answer, InferError},
    tensors::Batch,
};
use tokio::sync::oneshot;

/// Least time between two searches of a full queue for requests that nobody waits for.
const SWEEP: Duration = Duration::from_millis(1);

/// Where an answer goes.
pub(super) struct Reply(pub(super) oneshot::Sender<Result<Answer, InferError>>);

/// A request that waits.
pub(super) struct Entry {
    pub(super) batch: Arc<Batch>,
    pub(super) reply: Reply,
    pub(super) arrived: Instant,
    pub(super) deadline: Option<Instant>,
}

/// The queue of one replica, bounded.
pub(super) struct Queue {
    levels: Vec<VecDeque<Entry>>,
    requests: usize,
    rows: usize,
    capacity: usize,
    swept: Option<Instant>,
}

impl Reply {
    /// Sends an answer; a client that has gone gets none.
    pub(super) fn send(self, answer: Result<Answer, InferError>) {
        let _gone = self.0.send(answer);
    }
}

impl Entry {
    fn is_dead(&self, now: Instant) -> bool {
        self.reply.0.is_closed() || self.deadline.is_some_and(|at| at <= now)
    }

    /// Tells a client that still waits that its time is over.
    fn give_up(self) {
        self.reply.send(Err(InferError::Expired));
    }
}

impl Queue {
    pub(super) fn new(settings: &Batching) -> Self {
        let levels = settings.priority_levels.max(1);
        Self {
            levels: (0..levels).map(|_| VecDeque::new()).collect(),
            requests: 0,
            rows: 0,
            capacity: settings.max_queue_size as usize,
            swept: None,
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.requests == 0
    }

    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    /// When the request that waits for longest arrived.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let first = self.levels.iter().filter_map(VecDeque::front);
        first.map(|entry| entry.arrived).min()
    }

    /// Adds a request.
    ///
    /// # Errors
    /// [`InferError::Busy`] if the queue is full of requests that somebody waits for.
    pub(super) fn push(&mut self, level: usize, entry: Entry) -> Result<(), InferError> {
        if self.requests >= self.capacity {
            self.sweep(entry.arrived);
        }
        let last = self.levels.len() - 1;
        if self.requests >= self.capacity {
            return Err(InferError::Busy);
        }
        self.requests += 1;
        self.rows += entry.batch.rows;
        self.levels[level.min(last)].push_back(entry);
        Ok(())
    }

    /// Takes requests of `rows` rows together, the most urgent first, but at least one; those
    /// whose client has gone or whose time is over are dropped.
    pub(super) fn take(&mut self, rows: usize, now: Instant) -> Vec<Entry> {
        let (mut taken, mut size) = (Vec::new(), 0);
        for level in &mut self.levels {
            while let Some(entry) = level.pop_front() {
                let dead = entry.is_dead(now);
                if !dead && !taken.is_empty() && size + entry.batch.rows > rows {
                    level.push_front(entry);
                    return taken;
                }
                self.requests -= 1;
                self.rows -= entry.batch.rows;
                if dead {
                    entry.give_up();
                } else {
                    size += entry.batch.rows;
                    taken.push(entry);
                }
            }
        }
        taken
    }

    /// Forgets all requests.
    pub(super) fn clear(&mut self) {
        self.levels.iter_mut().for_each(VecDeque::clear);
        (self.requests, self.rows) = (0, 0);
    }

    /// Drops dead requests wherever they are, not more often than it is worth.
    fn sweep(&mut self, now: Instant) {
        if self
            .swept
            .is_some_and(|at| now.saturating_duration_since(at) < SWEEP)
        {
            return;
        }
        self.swept = Some(now);
        for level in &mut self.levels {
            for _ in 0..level.len() {
                let Some(entry) = level.pop_front() else {
                    break;
                };
                if entry.is_dead(now) {
                    self.requests -= 1;
                    self.rows -= entry.batch.rows;
                    entry.give_up();
                } else {
                    level.push_back(entry);
                }
            }
        }
    }
}
