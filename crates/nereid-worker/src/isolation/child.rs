//! The training process: takes one task from its worker, trains, and reports.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use nereid_core::{
    engine::{DataInput, EngineError, Monitor, Snapshot, TrainTask, Trainer},
    events::{LogLevel, MetricPoint, RuleReport},
    jobs::{Directive, JobPhase, Progress},
    models::TrainedModel,
};

use super::{
    Ending,
    fault::Fault,
    memory,
    remote::{Answer, Link, RemoteFiles},
    wire::{self, Data, Incoming, Order, Part, Report, Task},
};

/// After its patience without a word, what has come meanwhile gets this long to be read: it may have
/// been this process that stood still.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// Trains what the worker at the other end of standard input asks for, and reports to it.
///
/// Returns when the outcome is sent. The process ends on its own, in the middle of the training,
/// when the worker goes away or is silent for too long.
pub fn serve(trainer: &dyn Trainer) -> ExitCode {
    memory::volunteer();
    let (mut incoming, outgoing) = match sockets() {
        Ok(sockets) => sockets,
        Err(error) => {
            tracing::error!(%error, "standard input is no connection to a worker");
            return Ending::Garbled.into();
        }
    };
    let task = match wire::read(&mut incoming) {
        Ok(Incoming::Message(Order::Train(task))) => *task,
        Err(error) if error.kind() != io::ErrorKind::InvalidData => {
            tracing::error!(%error, "only a worker starts this process");
            return Ending::Orphaned.into();
        }
        other => {
            tracing::error!(first = ?other.err(), "the first message is no task");
            return Ending::Garbled.into();
        }
    };
    let shared = Arc::new(Shared {
        link: Arc::new(Link::new(outgoing)),
        directive: AtomicU8::new(encode(Directive::Continue)),
    });
    let (heard, words) = channel();
    let patience = task.patience;
    let listening = Arc::clone(&shared);
    thread::spawn(move || listen(&mut incoming, &listening, &heard));
    thread::spawn(move || watch(&words, patience));
    let outcome = train(trainer, task, &shared);
    let outcome = outcome.map(|m| Box::new(m.into())).map_err(Fault::from);
    let sent = match shared.link.send(&Report::Outcome(outcome)) {
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            let fault = Fault::Internal(format!("the result cannot be handed over: {e}"));
            shared.link.send(&Report::Outcome(Err(fault)))
        }
        sent => sent,
    };
    sent.map_or(Ending::Orphaned.into(), |()| ExitCode::SUCCESS)
}

/// Both directions of standard input.
fn sockets() -> io::Result<(UnixStream, UnixStream)> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    Ok((socket.try_clone()?, socket))
}

fn leave(ending: Ending) -> ! {
    tracing::error!("the training is given up: {}", ending.describe());
    std::process::exit(ending as i32)
}

/// What the threads of this process share.
struct Shared {
    link: Arc<Link>,
    directive: AtomicU8,
}

impl Shared {
    fn report(&self, report: &Report) {
        match self.link.send(report) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::error!(%error, "a report is dropped");
            }
            Err(_) => leave(Ending::Orphaned),
        }
    }
}

/// Takes in what the worker says, for as long as the process lives.
fn listen(incoming: &mut UnixStream, shared: &Shared, heard: &Sender<()>) {
    loop {
        match wire::read(incoming) {
            Ok(Incoming::Piece { stream, bytes }) => {
                shared.link.deliver(stream, Answer::Piece(bytes));
            }
            Ok(Incoming::Message(order)) => match order {
                Order::Directive(directive) => {
                    shared.directive.store(encode(directive), Ordering::Relaxed);
                }
                Order::Alive => {}
                Order::Opened { stream } => shared.link.deliver(stream, Answer::Opened),
                Order::End { stream } => shared.link.deliver(stream, Answer::End),
                Order::Failed { stream, fault } => {
                    shared.link.deliver(stream, Answer::Failed(fault));
                }
                Order::Train(_) => leave(Ending::Garbled),
            },
            Err(e) if e.kind() == io::ErrorKind::InvalidData => leave(Ending::Garbled),
            Err(_) => leave(Ending::Orphaned),
        }
        // The watch lives as long as this thread does.
        let _ = heard.send(());
    }
}

/// Ends the process when nothing was heard for `patience`.
fn watch(words: &Receiver<()>, patience: Duration) {
    loop {
        match words.recv_timeout(patience) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => {
                if words.recv_timeout(SECOND_LOOK).is_err() {
                    leave(Ending::Abandoned);
                }
            }
            Err(RecvTimeoutError::Disconnected) => leave(Ending::Orphaned),
        }
    }
}

fn train(
    trainer: &dyn Trainer,
    task: Task,
    shared: &Arc<Shared>,
) -> Result<TrainedModel, EngineError> {
    let input = |data: Data, part| DataInput {
        source: data.source,
        schema: data.schema,
        files: Arc::new(RemoteFiles {
            link: Arc::clone(&shared.link),
            part,
        }),
        digest: data.digest,
    };
    let task_here = TrainTask {
        spec: &task.spec,
        train: input(task.train, Part::Train),
        validation: task.validation.map(|data| input(data, Part::Validation)),
        test: task.test.map(|data| input(data, Part::Test)),
        device: task.device,
        base: task.base.as_deref(),
        resume: task.resume.as_deref(),
        resources: &task.resources,
        scratch: &task.scratch,
        output: &task.output,
    };
    let mut monitor = SocketMonitor(Arc::clone(shared));
    catch_unwind(AssertUnwindSafe(|| trainer.train(&task_here, &mut monitor))).unwrap_or_else(
        |panic| {
            let what = crate::threads::panic_message(&*panic);
            Err(EngineError::Internal(format!(
                "the training panicked: {what}"
            )))
        },
    )
}

/// Reports to the worker; its directive is always at hand.
struct SocketMonitor(Arc<Shared>);

impl Monitor for SocketMonitor {
    fn phase(&mut self, phase: JobPhase) {
        self.0.report(&Report::Phase(phase));
    }

    fn progress(&mut self, progress: Progress) {
        self.0.report(&Report::Progress(progress));
    }

    fn metrics(&mut self, point: MetricPoint) {
        self.0.report(&Report::Metrics(point));
    }

    fn rule(&mut self, report: RuleReport) {
        self.0.report(&Report::Rule(report));
    }

    fn log(&mut self, level: LogLevel, message: String) {
        self.0.report(&Report::Log(level, message));
    }

    fn checkpoint(&mut self, snapshot: Snapshot) {
        let Snapshot { step, path } = snapshot;
        self.0.report(&Report::Checkpoint { step, path });
    }

    fn directive(&mut self) -> Directive {
        decode(self.0.directive.load(Ordering::Relaxed))
    }
}

const fn encode(directive: Directive) -> u8 {
    match directive {
        Directive::Continue => 0,
        Directive::Finish => 1,
        Directive::Suspend => 2,
        Directive::Stop => 3,
    }
}

const fn decode(byte: u8) -> Directive {
    match byte {
        0 => Directive::Continue,
        1 => Directive::Finish,
        2 => Directive::Suspend,
        _ => Directive::Stop,
    }
}
