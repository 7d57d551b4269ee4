//! The worker's side: a [`Trainer`] that has another process do it.

use std::{
    ffi::OsString,
    io::{self, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use nereid_core::{
    engine::{DataInput, EngineError, Monitor, Snapshot, TrainTask, Trainer},
    jobs::Directive,
    models::TrainedModel,
};

use super::{
    files::FileServer,
    memory,
    process::Process,
    wire::{self, Data, Incoming, Order, Report, Task},
};

/// Time between two looks at the directive.
const POLL: Duration = Duration::from_millis(25);
/// Time between two looks at the process's memory.
const MEMORY_POLL: Duration = Duration::from_millis(100);
/// Longest time between two signs of life to the process; shorter with short leases.
const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// How long a process may take to heed a stop, or to end after its last message; less to heed it
/// with short leases.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Least silence of the worker after which a process gives up; less would be a mere hiccup.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);
/// Frames that wait to be sent.
const OUTGOING: usize = 8;
/// Reports that wait to be passed on.
const INCOMING: usize = 64;

/// How training processes are started, and what they may use.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// What to run; it has to call [`serve`](super::serve).
    pub program: PathBuf,
    /// What the process is called in listings.
    pub name: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// All of its environment: nothing is inherited.
    pub environment: Vec<(OsString, OsString)>,
    /// Lease of the worker's jobs, of which it trusts four fifths: a process that hears nothing from
    /// its worker for the rest of it gives up, before somebody else has the job.
    pub lease: Duration,
    /// Longest time for the last snapshot of a training that is suspended.
    pub suspend_grace: Duration,
    /// Most resident memory of one training in bytes; watched on Linux only.
    pub memory_limit: Option<u64>,
}

/// Trains in a process of its own per training.
#[derive(Debug, Clone)]
pub struct ProcessTrainer {
    config: ProcessConfig,
}

impl ProcessTrainer {
    /// Makes a trainer; processes are started by its trainings.
    #[must_use]
    pub fn new(config: ProcessConfig) -> Self {
        Self { config }
    }
}

impl Trainer for ProcessTrainer {
    /// Blocks until the process has ended, and leaves none behind however it returns.
    fn train(
        &self,
        task: &TrainTask<'_>,
        monitor: &mut dyn Monitor,
    ) -> Result<TrainedModel, EngineError> {
        let patience = (self.config.lease / 5).max(LEAST_PATIENCE);
        let order = Order::Train(Box::new(describe(task, patience)));
        let first = wire::message(&order)
            .map_err(|e| EngineError::Internal(format!("the task cannot be handed over: {e}")))?;
        let start = || {
            let (process, socket) = Process::start(&self.config)?;
            let (reports, orders) = connect(socket, task, first)?;
            Ok((process, reports, orders))
        };
        let (process, reports, orders) = start().map_err(|source| EngineError::Io {
            context: "starting a process for the training".to_owned(),
            source,
        })?;
        tracing::debug!(process = process.id(), "training process started");
        let now = Instant::now();
        let supervision = Supervision {
            process,
            orders,
            suspend_grace: self.config.suspend_grace,
            memory_limit: self.config.memory_limit,
            stop_grace: STOP_GRACE.min(self.config.lease / 10),
            keep_alive: KEEP_ALIVE.min(patience / 4),
            wanted: Directive::Continue,
            since: now,
            told: Directive::Continue,
            looked: now,
            weighed: now,
            spoken: now,
        };
        supervision.run(&reports, monitor)
    }
}

fn describe(task: &TrainTask<'_>, patience: Duration) -> Task {
    let data = |input: &DataInput| Data {
        source: input.source.clone(),
        schema: input.schema.clone(),
        digest: input.digest.clone(),
    };
    Task {
        spec: task.spec.clone(),
        train: data(&task.train),
        validation: task.validation.as_ref().map(data),
        test: task.test.as_ref().map(data),
        device: task.device,
        base: task.base.map(Into::into),
        resume: task.resume.map(Into::into),
        resources: task.resources.clone(),
        scratch: task.scratch.into(),
        output: task.output.into(),
        patience,
    }
}

/// What comes from the process.
enum Event {
    Report(Report),
    /// It says nothing more; an error if what it said was no message.
    Closed(Option<io::Error>),
}

/// Starts the threads that read from and write to the process; they end with it.
fn connect(
    socket: UnixStream,
    task: &TrainTask<'_>,
    first: Vec<u8>,
) -> io::Result<(Receiver<Event>, SyncSender<Vec<u8>>)> {
    let (orders, outgoing) = sync_channel::<Vec<u8>>(OUTGOING);
    let (events, reports) = sync_channel(INCOMING);
    let mut incoming = socket.try_clone()?;
    let mut files = FileServer::new(task, orders.clone());
    let builder = || thread::Builder::new();
    builder().name("train-send".to_owned()).spawn(move || {
        let mut socket = socket;
        let frames = std::iter::once(first).chain(outgoing);
        for frame in frames {
            if socket.write_all(&frame).is_err() {
                return;
            }
        }
    })?;
    builder().name("train-receive".to_owned()).spawn(move || {
        let closed = receive(&mut incoming, &mut files, &events);
        // Nobody waits any more if this cannot be sent.
        let _ = events.send(Event::Closed(closed));
    })?;
    Ok((reports, orders))
}

/// Reads until the process closes its end; requests for data are answered here.
fn receive(
    incoming: &mut UnixStream,
    files: &mut FileServer,
    events: &SyncSender<Event>,
) -> Option<io::Error> {
    loop {
        let report = match wire::read(incoming) {
            Ok(Incoming::Message(report)) => report,
            Ok(Incoming::Piece { .. }) => {
                return Some(io::Error::other("a piece of a file came back"));
            }
            Err(e) if e.kind() == io::ErrorKind::InvalidData => return Some(e),
            Err(_) => return None,
        };
        match report {
            Report::Open { stream, part, role } => files.open(stream, part, role),
            Report::Next { stream } => files.next(stream),
            Report::Close { stream } => files.close(stream),
            report => {
                if events.send(Event::Report(report)).is_err() {
                    return None;
                }
            }
        }
    }
}

/// One training under way.
struct Supervision {
    process: Process,
    orders: SyncSender<Vec<u8>>,
    suspend_grace: Duration,
    stop_grace: Duration,
    memory_limit: Option<u64>,
    keep_alive: Duration,
    /// The last directive, and since when it is wanted.
    wanted: Directive,
    since: Instant,
    /// The last directive that was sent.
    told: Directive,
    looked: Instant,
    weighed: Instant,
    spoken: Instant,
}

impl Supervision {
    fn run(
        mut self,
        reports: &Receiver<Event>,
        monitor: &mut dyn Monitor,
    ) -> Result<TrainedModel, EngineError> {
        loop {
            match reports.recv_timeout(POLL) {
                Ok(Event::Report(Report::Outcome(outcome))) => {
                    return self.close(reports, outcome.map(|m| (*m).into()).map_err(Into::into));
                }
                Ok(Event::Report(report)) => pass_on(report, monitor),
                Ok(Event::Closed(None)) | Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.bury());
                }
                Ok(Event::Closed(Some(error))) => {
                    // Dropped, and thereby killed.
                    let what = format!("the training process talks nonsense: {error}");
                    return Err(EngineError::Internal(what));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.looked.elapsed() >= POLL {
                self.looked = Instant::now();
                self.look(monitor)?;
            }
        }
    }

    /// Passes directions on, shows that this side lives, and enforces the limits.
    fn look(&mut self, monitor: &mut dyn Monitor) -> Result<(), EngineError> {
        let wanted = monitor.directive();
        if wanted != self.wanted {
            (self.wanted, self.since) = (wanted, Instant::now());
        }
        if self.told != wanted && self.send(&Order::Directive(wanted))? {
            self.told = wanted;
        }
        let grace = match wanted {
            Directive::Continue | Directive::Finish => None,
            Directive::Suspend => Some(self.suspend_grace),
            Directive::Stop => Some(self.stop_grace),
        };
        if grace.is_some_and(|grace| self.since.elapsed() >= grace) {
            let process = self.process.id();
            tracing::warn!(
                process,
                ?wanted,
                "training process does not obey and is killed"
            );
            return Err(EngineError::Stopped);
        }
        if self.spoken.elapsed() >= self.keep_alive && self.send(&Order::Alive)? {
            self.spoken = Instant::now();
        }
        if self.weighed.elapsed() >= MEMORY_POLL {
            self.weighed = Instant::now();
            self.weigh()?;
        }
        Ok(())
    }

    fn weigh(&mut self) -> Result<(), EngineError> {
        let used = self.process.memory();
        match (used, self.memory_limit) {
            (Some(used), Some(limit)) if used > limit => {
                let (used, limit) = (memory::readable(used), memory::readable(limit));
                let what = format!(
                    "the training used {used} of memory, more than the {limit} that this worker allows"
                );
                Err(EngineError::OutOfMemory(what))
            }
            _ => Ok(()),
        }
    }

    /// Queues a message; false if there is no room now.
    fn send(&self, order: &Order) -> Result<bool, EngineError> {
        let frame = wire::message(order).map_err(|e| EngineError::Internal(e.to_string()))?;
        match self.orders.try_send(frame) {
            Err(TrySendError::Full(_)) => Ok(false),
            // One that cannot be heard any more is about to be found dead.
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(true),
        }
    }

    /// Waits for the end of a process that has said its last word.
    fn close(
        mut self,
        reports: &Receiver<Event>,
        outcome: Result<TrainedModel, EngineError>,
    ) -> Result<TrainedModel, EngineError> {
        let deadline = Instant::now() + STOP_GRACE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match reports.recv_timeout(left) {
                Ok(Event::Report(_)) => {}
                Ok(Event::Closed(_)) | Err(_) => break,
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if let Err(error) = self.process.end(left) {
            tracing::warn!(%error, "cannot wait for a training process");
        }
        outcome
    }

    /// Finds out why the process died.
    fn bury(&mut self) -> EngineError {
        match self.process.end(STOP_GRACE) {
            // It died of what it was told, before it could say so.
            Ok(_) if self.wanted == Directive::Stop => EngineError::Stopped,
            Ok(status) => self.process.diagnose(status),
            Err(e) => EngineError::Crashed(format!("the training process is lost: {e}")),
        }
    }
}

fn pass_on(report: Report, monitor: &mut dyn Monitor) {
    match report {
        Report::Phase(phase) => monitor.phase(phase),
        Report::Progress(progress) => monitor.progress(progress),
        Report::Metrics(point) => monitor.metrics(point),
        Report::Rule(report) => monitor.rule(report),
        Report::Log(level, message) => monitor.log(level, message),
        Report::Checkpoint { step, path } => monitor.checkpoint(Snapshot { step, path }),
        // Dealt with where they are received.
        Report::Open { .. } | Report::Next { .. } | Report::Close { .. } | Report::Outcome(_) => {}
    }
}
