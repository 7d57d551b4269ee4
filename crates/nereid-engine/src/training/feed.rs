//! Prepares batches on threads of their own while the training computes.
//!
//! Threads take turns at drawing the next batch's rows and prepare it independently; the training
//! gets the batches in their order, whichever is ready first. So neither order nor content
//! depends on the number of threads.

use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nereid_core::{engine::EngineError, models::Preprocessing};

use super::{
    augment::{Augmenter, Position},
    batches::{self, HostBatch},
    order::Order,
};
use crate::{
    data::{Reader, Samples},
    guard,
};

/// Batches of fewer values from memory cost less to prepare than to hand over.
const HANDED_OVER: usize = 1 << 16;
/// Most bytes of batches that wait.
const WAITING_BYTES: usize = 64 << 20;
/// Batches that wait beyond one per thread.
const AHEAD: usize = 2;
/// How long the training waits for a batch before it asks again what to do.
const PATIENCE: Duration = Duration::from_secs(2);

/// What batches are made of.
#[derive(Clone, Copy)]
pub(super) struct Feed<'a> {
    pub(super) samples: &'a Samples,
    pub(super) preprocessing: &'a Preprocessing,
    /// What changes the samples, and the epoch that it depends on.
    pub(super) augmentation: Option<(&'a Augmenter, u32)>,
    /// Rows of a batch.
    pub(super) batch: usize,
    /// Threads to use; 0 prepares each batch when it is asked for.
    pub(super) threads: usize,
}

/// What the training gets when it asks for a batch.
pub(super) enum Next {
    Batch(HostBatch),
    /// None is ready for a while; time to ask what to do.
    Waiting,
    /// All batches were given.
    End,
}

impl<'a> Feed<'a> {
    /// Prepares the batches of `order` from the `skip`-th on while `consume` takes them.
    ///
    /// Threads end with it, however it ends.
    pub(super) fn run<T>(
        &self,
        mut order: Order<'a>,
        rows: usize,
        skip: usize,
        consume: impl FnOnce(&mut Batches<'_, 'a>) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let total = rows.div_ceil(self.batch);
        for _ in 0..skip * self.batch {
            order.next();
        }
        let plan = Plan {
            feed: *self,
            order,
            next: skip,
            total,
        };
        let threads = self.useful_threads().min(total.saturating_sub(skip));
        let mut readers = self.readers(&plan.order, threads.max(1));
        if threads == 0
            && let Some(reader) = readers.pop()
        {
            let mut batches = Batches::new(Supply::Inline(Box::new((plan, reader))), skip);
            return consume(&mut batches);
        }
        let queue = Queue::new(plan, self.capacity(threads));
        thread::scope(|scope| {
            // Dropped before the scope waits for its threads, which tells them to end.
            let mut batches = Batches::new(Supply::Queue(&queue), skip);
            for (i, reader) in readers.into_iter().enumerate() {
                let queue = &queue;
                thread::Builder::new()
                    .name(format!("loader-{i}"))
                    .spawn_scoped(scope, move || queue.work(reader))
                    .map_err(|source| EngineError::Io {
                        context: "starting a thread".to_owned(),
                        source,
                    })?;
            }
            consume(&mut batches)
        })
    }

    fn useful_threads(&self) -> usize {
        let small = self.batch.saturating_mul(self.samples.size) < HANDED_OVER;
        if self.samples.in_memory() && small && self.augmentation.is_none() {
            return 0;
        }
        // What can only be read from end to end has one reader.
        let most = if self.samples.is_streamed() {
            1
        } else {
            usize::MAX
        };
        self.threads.min(most)
    }

    /// Readers that know what of the data is still to come.
    fn readers(&self, order: &Order<'a>, n: usize) -> Vec<Reader<'a>> {
        if self.samples.is_streamed() {
            return vec![self.samples.reader_of(order.to_come())];
        }
        (0..n).map(|_| self.samples.reader()).collect()
    }

    fn capacity(&self, threads: usize) -> usize {
        let bytes = self
            .batch
            .saturating_mul(self.samples.size)
            .saturating_mul(4);
        (WAITING_BYTES / bytes.max(1)).clamp(1, threads + AHEAD)
    }
}

/// Which rows come next.
struct Plan<'a> {
    feed: Feed<'a>,
    order: Order<'a>,
    /// Number of the next batch.
    next: usize,
    total: usize,
}

impl Plan<'_> {
    fn draw(&mut self, rows: &mut Vec<u32>) {
        rows.clear();
        rows.extend(self.order.by_ref().take(self.feed.batch));
        self.next += 1;
    }
}

/// Batches in their order, for the training.
pub(super) struct Batches<'q, 'a> {
    supply: Supply<'q, 'a>,
    /// Number of the next batch.
    next: usize,
    rows: Vec<u32>,
    /// Time that the training stood still for data.
    pub(super) waited: Duration,
}

enum Supply<'q, 'a> {
    Inline(Box<(Plan<'a>, Reader<'a>)>),
    Queue(&'q Queue<'a>),
}

impl<'q, 'a> Batches<'q, 'a> {
    fn new(supply: Supply<'q, 'a>, next: usize) -> Self {
        Self {
            supply,
            next,
            rows: Vec::new(),
            waited: Duration::ZERO,
        }
    }

    /// Returns the next batch, or the error of its preparation.
    pub(super) fn next(&mut self) -> Result<Next, EngineError> {
        let started = Instant::now();
        let next = match &mut self.supply {
            Supply::Inline(inline) => {
                let (plan, reader) = &mut **inline;
                if plan.next == plan.total {
                    Ok(Next::End)
                } else {
                    plan.draw(&mut self.rows);
                    let number = plan.next - 1;
                    prepare(plan.feed, reader, number, &self.rows).map(Next::Batch)
                }
            }
            Supply::Queue(queue) => queue.take(self.next),
        };
        if matches!(next, Ok(Next::Batch(_))) {
            self.next += 1;
        }
        self.waited += started.elapsed();
        next
    }
}

impl Drop for Batches<'_, '_> {
    fn drop(&mut self) {
        if let Supply::Queue(queue) = &self.supply {
            queue.close();
        }
    }
}

fn prepare(
    feed: Feed<'_>,
    reader: &mut Reader<'_>,
    number: usize,
    rows: &[u32],
) -> Result<HostBatch, EngineError> {
    let augmentation = feed.augmentation.map(|(augmenter, epoch)| {
        let first = number as u64 * feed.batch as u64;
        (augmenter, Position { epoch, first })
    });
    let Feed {
        samples,
        preprocessing,
        ..
    } = feed;
    batches::assemble(samples, reader, rows, preprocessing, augmentation)
}

/// Between the loader threads and the training.
struct Queue<'a> {
    state: Mutex<State<'a>>,
    /// A batch was taken, or no more are wanted.
    room: Condvar,
    /// A batch is ready.
    ready: Condvar,
    capacity: usize,
}

struct State<'a> {
    plan: Plan<'a>,
    /// Number of the batch that the training takes next.
    wanted: usize,
    done: BTreeMap<usize, Result<HostBatch, EngineError>>,
    /// Why no more batches come, beyond those that are done.
    broken: Option<EngineError>,
    closed: bool,
}

impl<'a> Queue<'a> {
    fn new(plan: Plan<'a>, capacity: usize) -> Self {
        let state = State {
            wanted: plan.next,
            plan,
            done: BTreeMap::new(),
            broken: None,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            room: Condvar::new(),
            ready: Condvar::new(),
            capacity,
        }
    }

    // A panic while it is held is caught, and ends the training.
    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares batches until there is no more to do.
    fn work(&self, mut reader: Reader<'_>) {
        let result = guard::panics("preparing batches", || {
            let feed = self.lock().plan.feed;
            let mut rows = Vec::with_capacity(feed.batch);
            while let Some(number) = self.draw(&mut rows) {
                let batch = prepare(feed, &mut reader, number, &rows);
                let failed = batch.is_err();
                self.lock().done.insert(number, batch);
                self.ready.notify_one();
                if failed {
                    break;
                }
            }
            Ok(())
        });
        if let Err(e) = result {
            self.lock().broken = Some(e);
            self.ready.notify_one();
        }
    }

    /// Waits for room, and takes on the next batch.
    fn draw(&self, rows: &mut Vec<u32>) -> Option<usize> {
        let full = |s: &mut State<'_>| {
            !s.closed && s.plan.next < s.plan.total && s.plan.next >= s.wanted + self.capacity
        };
        let waited = self.room.wait_while(self.lock(), full);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.closed || state.plan.next == state.plan.total {
            return None;
        }
        let number = state.plan.next;
        state.plan.draw(rows);
        Some(number)
    }

    /// Takes the batch of a number once it is ready.
    fn take(&self, number: usize) -> Result<Next, EngineError> {
        let state = self.lock();
        if number == state.plan.total {
            return Ok(Next::End);
        }
        let missing = |s: &mut State<'_>| !s.done.contains_key(&number) && s.broken.is_none();
        let waited = self.ready.wait_timeout_while(state, PATIENCE, missing);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        let Some(batch) = state.done.remove(&number) else {
            return state.broken.take().map_or(Ok(Next::Waiting), Err);
        };
        state.wanted = number + 1;
        drop(state);
        self.room.notify_one();
        batch.map(Next::Batch)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.room.notify_all();
    }
}
