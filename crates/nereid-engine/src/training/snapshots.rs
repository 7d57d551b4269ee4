//! Snapshots on their way into files: when they are due, and the thread that writes them.
//!
//! The training thread only catches the state, which copies no tensor, and later picks up the
//! finished file. At most one snapshot is being written; the next waits until that is done.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nereid_core::{
    engine::{EngineError, Monitor, Snapshot},
    events::LogLevel,
};

use super::{callbacks::CheckpointPlan, state::Frozen};
use crate::guard;

/// Takes snapshots of one training.
pub(super) struct Snapshots {
    folder: PathBuf,
    plan: CheckpointPlan,
    /// When the newest one was begun.
    last: Instant,
    due: bool,
    /// Step of the newest one begun, or of the state that the training went on from.
    newest: u64,
    pending: Option<Pending>,
    /// How many were begun.
    taken: u64,
    /// Time that training stood still for them.
    waited: Duration,
}

/// A snapshot that is being written.
struct Pending {
    step: u64,
    abandoned: Arc<AtomicBool>,
    thread: JoinHandle<Result<Snapshot, EngineError>>,
}

impl Snapshots {
    pub(super) fn new(folder: &Path, plan: CheckpointPlan) -> Self {
        Self {
            folder: folder.to_owned(),
            plan,
            last: Instant::now(),
            due: false,
            newest: 0,
            pending: None,
            taken: 0,
            waited: Duration::ZERO,
        }
    }

    /// Notes that training goes on from a saved state.
    pub(super) fn resumed(&mut self, step: u64) {
        self.newest = step;
    }

    /// Hands over a snapshot that was finished, and tells whether to begin another.
    ///
    /// To be asked after each step, since one that falls due stays so until it is begun.
    pub(super) fn poll(&mut self, step: u64, monitor: &mut dyn Monitor) -> bool {
        self.collect(monitor);
        if self.newest == step {
            return false;
        }
        let by_steps = self
            .plan
            .every_steps
            .is_some_and(|n| step.is_multiple_of(n));
        self.due |= by_steps || self.last.elapsed() >= self.plan.every;
        self.due && self.pending.is_none()
    }

    /// Hands over a snapshot that was finished.
    pub(super) fn collect(&mut self, monitor: &mut dyn Monitor) {
        if let Some(pending) = self.pending.take_if(|p| p.thread.is_finished()) {
            self.deliver(pending, monitor);
        }
    }

    /// Begins to write a snapshot, caught by `freeze`, beside the training.
    pub(super) fn begin(&mut self, freeze: impl FnOnce() -> Frozen, monitor: &mut dyn Monitor) {
        let started = Instant::now();
        let frozen = freeze();
        let step = frozen.step();
        let abandoned = Arc::new(AtomicBool::new(false));
        let (folder, flag) = (self.folder.clone(), Arc::clone(&abandoned));
        let work = move || guard::panics("a snapshot", || write(frozen, &folder, &flag));
        let spawned = thread::Builder::new()
            .name("snapshot".to_owned())
            .spawn(work);
        self.begun(step);
        match spawned {
            Ok(thread) => {
                self.pending = Some(Pending {
                    step,
                    abandoned,
                    thread,
                });
            }
            Err(source) => {
                let context = "starting a thread".to_owned();
                warn(step, &EngineError::Io { context, source }, monitor);
            }
        }
        self.waited += started.elapsed();
    }

    /// Writes and hands over a last snapshot, unless the newest one is of this very step.
    pub(super) fn last(&mut self, frozen: Frozen, monitor: &mut dyn Monitor) {
        let step = frozen.step();
        if let Some(pending) = self.pending.take_if(|p| p.step == step) {
            self.deliver(pending, monitor);
        } else if self.newest != step {
            // One that is under way would be outdated at once, and storing it take time.
            self.abandon();
            self.begun(step);
            match write(frozen, &self.folder, &AtomicBool::new(false)) {
                Ok(snapshot) => monitor.checkpoint(snapshot),
                Err(e) => warn(step, &e, monitor),
            }
        }
    }

    /// Describes how many were taken and at what cost, for the log.
    pub(super) fn summary(&self, training: Duration) -> Option<String> {
        let share = self.waited.as_secs_f64() / training.as_secs_f64().max(1e-9);
        let taken = self.taken;
        (taken > 0).then(|| {
            format!(
                "training waited {:.3} ms for {taken} snapshots, {:.4} % of its time",
                self.waited.as_secs_f64() * 1e3,
                share * 100.0
            )
        })
    }

    fn begun(&mut self, step: u64) {
        self.newest = step;
        self.due = false;
        self.last = Instant::now();
        self.taken += 1;
    }

    fn deliver(&mut self, pending: Pending, monitor: &mut dyn Monitor) {
        let started = Instant::now();
        let step = pending.step;
        match pending.join() {
            Ok(snapshot) => monitor.checkpoint(snapshot),
            Err(e) => warn(step, &e, monitor),
        }
        self.waited += started.elapsed();
    }

    /// Gives up the snapshot that is being written, if there is one.
    fn abandon(&mut self) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        pending.abandoned.store(true, Ordering::Relaxed);
        if let Ok(snapshot) = pending.join() {
            remove(&snapshot.path);
        }
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl Pending {
    fn join(self) -> Result<Snapshot, EngineError> {
        self.thread.join().unwrap_or_else(|_| {
            let detail = "the thread that writes snapshots panicked".to_owned();
            Err(EngineError::Internal(detail))
        })
    }
}

/// Training without a snapshot is worth more than no training.
fn warn(step: u64, error: &EngineError, monitor: &mut dyn Monitor) {
    let message = format!("the snapshot of step {step} is lost: {error}");
    monitor.log(LogLevel::Warn, message);
}

/// Writes a snapshot's file under a temporary name and renames it once it is complete.
fn write(frozen: Frozen, folder: &Path, abandoned: &AtomicBool) -> Result<Snapshot, EngineError> {
    let step = frozen.step();
    let path = folder.join(format!("step-{step}.safetensors"));
    let partial = folder.join(format!("step-{step}.partial"));
    let failed = |source| EngineError::Io {
        context: "writing a snapshot".to_owned(),
        source,
    };
    let written = File::create(&partial).map_err(failed).and_then(|file| {
        frozen.write(&mut Abandonable { file, abandoned })?;
        fs::rename(&partial, &path).map_err(failed)
    });
    if written.is_err() {
        remove(&partial);
    }
    written.map(|()| Snapshot { step, path })
}

/// Removes a file; should that fail, it goes with its folder.
fn remove(path: &Path) {
    if let Err(e) = fs::remove_file(path) {
        tracing::debug!(path = %path.display(), error = %e, "a snapshot's file is left behind");
    }
}

/// A file that takes no more bytes once nobody wants it.
struct Abandonable<'a> {
    file: File,
    abandoned: &'a AtomicBool,
}

impl Write for Abandonable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.abandoned.load(Ordering::Relaxed) {
            return Err(io::Error::other("abandoned"));
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
