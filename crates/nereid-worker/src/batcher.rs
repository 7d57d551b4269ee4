//! A replica's model behind a queue: what arrives while it computes forms the next batch.
//!
//! Work-conserving: an idle engine begins at once, unless `max_queue_delay_us` asks it to wait. A
//! request that finds it idle, and a model known to be fast, is computed on the caller's thread:
//! handing it to another one and back takes longer than such a model does. Everything else is
//! computed on threads of the replica's own.

mod cores;
mod execute;
mod queue;
#[cfg(test)]
mod tests;

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::available_parallelism,
    time::{Duration, Instant},
};

use nereid_core::{
    batching::Batching,
    engine::{EngineError, Inferring, LocalReplica, Predictor},
    inference::{Answer, InferError, InferOptions},
    statistics::Statistics,
    tensors::Batch,
};
use tokio::sync::oneshot;

pub(crate) use self::cores::Cores;
use self::queue::{Entry, Queue, Reply};
use crate::sync::lock;

/// Longest execution on a caller's thread, which meanwhile serves no other connection.
const INLINE: Duration = Duration::from_micros(250);
/// Idle time after which a thread ends; the next request that needs one starts it again.
const IDLE: Duration = Duration::from_secs(10);

/// A replica: a model, its queue and its threads, which end when this is dropped.
pub(crate) struct Batcher(Arc<Shared>);

struct Shared {
    model: Arc<dyn Predictor>,
    settings: Batching,
    /// Executions at the same time.
    concurrency: usize,
    /// Values of one row.
    row: usize,
    cores: Arc<Cores>,
    state: Mutex<State>,
    /// Something arrived, or an execution ended.
    changed: Condvar,
    /// What a row takes, by the executions so far, in nanoseconds.
    row_nanos: AtomicU64,
    statistics: Statistics,
}

struct State {
    queue: Queue,
    /// Executions under way, or about to begin.
    running: usize,
    threads: usize,
    /// Threads that wait for something to do.
    waiting: usize,
    closed: bool,
}

impl Batcher {
    /// Puts a queue before `model`; `cores` are shared by all replicas of the process.
    pub(crate) fn new(model: Arc<dyn Predictor>, settings: Batching, cores: Arc<Cores>) -> Self {
        let processors = available_parallelism().map_or(1, NonZeroUsize::get);
        let concurrency = match settings.concurrency {
            0 => processors,
            n => n as usize,
        };
        let row = model.signature().sample_shape().iter().product();
        let state = State {
            queue: Queue::new(&settings),
            running: 0,
            threads: 0,
            waiting: 0,
            closed: false,
        };
        Self(Arc::new(Shared {
            model,
            settings,
            concurrency,
            row,
            cores,
            state: Mutex::new(state),
            changed: Condvar::new(),
            row_nanos: AtomicU64::new(u64::MAX),
            statistics: Statistics::default(),
        }))
    }

    /// Computes batches of one row and of as many as are allowed, so that the first requests find
    /// everything allocated; `fresh` if no other replica has done so with this model.
    ///
    /// # Errors
    /// What the model fails with.
    pub(crate) fn warm_up(&self, fresh: bool) -> Result<(), EngineError> {
        let sizes = [self.0.settings.max_batch_size as usize, 1, 1, 1];
        for rows in sizes.into_iter().skip(usize::from(!fresh)) {
            let values = vec![0.0; rows * self.0.row];
            let began = Instant::now();
            self.0.model.predict(&Batch { rows, values })?;
            self.0.learn(rows, began.elapsed());
        }
        Ok(())
    }

    /// Number of requests that wait or are computed.
    pub(crate) fn under_way(&self) -> u64 {
        self.0.statistics.in_flight.load(Relaxed)
    }

    /// What happened to its requests.
    pub(crate) fn statistics(&self) -> &Statistics {
        &self.0.statistics
    }

    /// Answers a batch; one whose future is dropped is not computed, unless it is already.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) async fn answer(
        &self,
        batch: Arc<Batch>,
        options: InferOptions,
    ) -> Result<Answer, InferError> {
        let shared = &self.0;
        let (rows, arrived) = (batch.rows, Instant::now());
        let _in_flight = shared.statistics.enter();
        let result = shared.answer(batch, options, arrived).await;
        match &result {
            Ok(answer) => {
                let latency = arrived.elapsed();
                shared.statistics.answered(rows, latency, &answer.timing);
            }
            Err(e) => shared.statistics.refused(e),
        }
        result
    }
}

impl LocalReplica for Batcher {
    fn infer(self: Arc<Self>, batch: Arc<Batch>, options: InferOptions) -> Inferring {
        Box::pin(async move { Self::answer(&self, batch, options).await })
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        lock(&self.0.state).closed = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    async fn answer(
        self: &Arc<Self>,
        batch: Arc<Batch>,
        options: InferOptions,
        arrived: Instant,
    ) -> Result<Answer, InferError> {
        self.check(&batch)?;
        if let Some(turn) = self.inline(&batch) {
            let answer = self.execute_one(&batch, arrived);
            drop(turn);
            return answer;
        }
        let default = Duration::from_micros(self.settings.default_timeout_us);
        let timeout = options.timeout.or((!default.is_zero()).then_some(default));
        let deadline = timeout.and_then(|t| arrived.checked_add(t));
        let level = self.settings.level(options.priority);
        let (reply, answer) = oneshot::channel();
        self.enqueue(
            level,
            Entry {
                batch,
                reply: Reply(reply),
                arrived,
                deadline,
            },
        )?;
        let answer = match deadline {
            None => answer.await,
            Some(at) => match tokio::time::timeout_at(at.into(), answer).await {
                Ok(answer) => answer,
                Err(_) => return Err(InferError::Expired),
            },
        };
        answer.unwrap_or(Err(InferError::Gone))
    }

    /// Refuses what would spoil a batch that it became part of.
    fn check(&self, batch: &Batch) -> Result<(), InferError> {
        let (rows, values, row) = (batch.rows, batch.values.len(), self.row);
        if rows > 0 && rows.checked_mul(row) == Some(values) {
            return Ok(());
        }
        Err(InferError::Invalid(format!(
            "{values} values are no {rows} rows of {row}"
        )))
    }

    /// Takes a turn for an execution on the caller's thread, if the engine is idle and fast.
    fn inline(self: &Arc<Self>, batch: &Batch) -> Option<Turn<'_>> {
        let nanos = self
            .row_nanos
            .load(Relaxed)
            .saturating_mul(batch.rows as u64);
        let fast = u128::from(nanos) <= INLINE.as_nanos();
        if !fast || self.settings.max_queue_delay_us > 0 {
            return None;
        }
        let mut state = lock(&self.state);
        if state.running >= self.concurrency || !state.queue.is_empty() {
            return None;
        }
        let core = self.cores.try_take()?;
        state.running += 1;
        Some(Turn {
            shared: self,
            core: Some(core),
            last: true,
        })
    }

    fn enqueue(self: &Arc<Self>, level: usize, entry: Entry) -> Result<(), InferError> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(InferError::Gone);
        }
        state.queue.push(level, entry)?;
        self.rouse(state);
        Ok(())
    }

    /// Makes sure that a thread attends to the queue.
    fn rouse(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.waiting > 0 {
            drop(state);
            self.changed.notify_one();
        } else if state.threads < self.concurrency {
            state.threads += 1;
            let shared = Arc::clone(self);
            let work = move || shared.work();
            let thread = std::thread::Builder::new().name("replica".to_owned());
            if let Err(e) = thread.spawn(work) {
                state.threads -= 1;
                tracing::error!(error = %e, "no thread for a replica");
                if state.threads == 0 {
                    // Nobody would ever attend to them: they are answered by being dropped.
                    state.queue.clear();
                }
            }
        }
    }

    /// What a thread does: batch after batch, until there was nothing for a while.
    fn work(self: &Arc<Self>) {
        while self.wait() {
            let core = Some(self.cores.take());
            let turn = Turn {
                shared: self,
                core,
                last: false,
            };
            // What arrived while there was no core for it comes along.
            let now = Instant::now();
            let batch = {
                let mut state = lock(&self.state);
                let rows = self.settings.rows_of_next(state.queue.rows());
                let batch = state.queue.take(rows, now);
                if !state.queue.is_empty() {
                    self.rouse(state);
                }
                batch
            };
            self.execute(batch, now);
            drop(turn);
        }
    }

    /// Waits for a batch to be due and takes a turn for it; false if the thread is to end.
    fn wait(&self) -> bool {
        let mut state = lock(&self.state);
        loop {
            let now = Instant::now();
            let mut pause = IDLE;
            if !state.queue.is_empty() && state.running < self.concurrency {
                if let Some(left) = self.delay(&state, now) {
                    pause = left;
                } else {
                    state.running += 1;
                    return true;
                }
            } else if state.queue.is_empty() && state.closed {
                state.threads -= 1;
                return false;
            }
            state.waiting += 1;
            let waited = self.changed.wait_timeout(state, pause);
            let (locked, result) = waited.unwrap_or_else(PoisonError::into_inner);
            state = locked;
            state.waiting -= 1;
            if result.timed_out() && pause == IDLE && state.queue.is_empty() {
                state.threads -= 1;
                return false;
            }
        }
    }

    /// How much longer the queue may wait for a fuller batch.
    fn delay(&self, state: &State, now: Instant) -> Option<Duration> {
        let delay = Duration::from_micros(self.settings.max_queue_delay_us.into());
        let full = state.queue.rows() >= self.settings.rows_worth_waiting_for();
        if delay.is_zero() || full || state.closed {
            return None;
        }
        let waited = now.saturating_duration_since(state.queue.oldest()?);
        delay.checked_sub(waited).filter(|left| !left.is_zero())
    }

    /// Takes the time of an execution into what a row is believed to take.
    fn learn(&self, rows: usize, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) / rows.max(1) as u64;
        let before = self.row_nanos.load(Relaxed);
        // Down at once, since slow ones are due to others on the machine; up slowly.
        let now = if nanos < before {
            nanos
        } else {
            before.saturating_mul(15) / 16 + nanos / 16
        };
        self.row_nanos.store(now, Relaxed);
    }
}

/// The right to one execution; gives it back, and sees to what arrived meanwhile.
struct Turn<'a> {
    shared: &'a Arc<Shared>,
    core: Option<cores::Core>,
    /// Whoever has it looks after the queue no more.
    last: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        drop(self.core.take());
        let mut state = lock(&self.shared.state);
        state.running -= 1;
        if self.last && !state.queue.is_empty() {
            self.shared.rouse(state);
        }
    }
}
