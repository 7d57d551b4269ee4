//! The worker's end of the data: reads the files that a training process asks for.

use std::{
    collections::HashMap,
    io::{self, Read},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel},
    },
    thread,
};

use nereid_core::{
    datasets::FileRole,
    engine::{DataFiles, TrainTask},
};

use super::{
    fault::IoFault,
    wire::{self, Order, PIECE, Part},
};

/// The files of one training.
///
/// Each open file has a thread, which reads a piece when one is asked for: what is not wanted yet
/// stays where it is, and memory is bounded by what the process asks for in advance.
pub(super) struct FileServer {
    train: Arc<dyn DataFiles>,
    validation: Option<Arc<dyn DataFiles>>,
    test: Option<Arc<dyn DataFiles>>,
    out: SyncSender<Vec<u8>>,
    open: HashMap<u32, Sender<()>>,
}

impl FileServer {
    pub(super) fn new(task: &TrainTask<'_>, out: SyncSender<Vec<u8>>) -> Self {
        let files = |data: &nereid_core::engine::DataInput| Arc::clone(&data.files);
        Self {
            train: files(&task.train),
            validation: task.validation.as_ref().map(files),
            test: task.test.as_ref().map(files),
            out,
            open: HashMap::new(),
        }
    }

    pub(super) fn open(&mut self, stream: u32, part: Part, role: FileRole) {
        let files = match part {
            Part::Train => Some(&self.train),
            Part::Validation => self.validation.as_ref(),
            Part::Test => self.test.as_ref(),
        };
        let answers = Answers {
            stream,
            out: self.out.clone(),
        };
        let Some(files) = files.cloned() else {
            answers.failed(&io::Error::other(format!("there is no {part:?} data")));
            return;
        };
        let (asked, wanted) = channel();
        let name = format!("data-{stream}");
        let spawned = thread::Builder::new().name(name).spawn({
            let answers = answers.clone();
            move || answers.all(|answers| send(&*files, role, &wanted, answers))
        });
        match spawned {
            Ok(_) => {
                self.open.insert(stream, asked);
            }
            Err(e) => answers.failed(&e),
        }
    }

    /// Asks for one more piece.
    pub(super) fn next(&self, stream: u32) {
        if let Some(asked) = self.open.get(&stream) {
            // A thread that is through has said so.
            let _ = asked.send(());
        }
    }

    pub(super) fn close(&mut self, stream: u32) {
        self.open.remove(&stream);
    }
}

/// The way back of one open file; what cannot be sent is not wanted any more.
#[derive(Clone)]
struct Answers {
    stream: u32,
    out: SyncSender<Vec<u8>>,
}

impl Answers {
    fn send(&self, frame: io::Result<Vec<u8>>) -> io::Result<()> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.out.send(frame?).map_err(gone)
    }

    fn failed(&self, error: &io::Error) {
        let (stream, fault) = (self.stream, IoFault::from(error));
        let _ = self.send(wire::message(&Order::Failed { stream, fault }));
    }

    /// Runs `work` and passes on how it failed, so that the other side never waits in vain.
    fn all(&self, work: impl FnOnce(&Self) -> io::Result<()>) {
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(Ok(())) => {}
            Ok(Err(e)) => self.failed(&e),
            Err(_) => self.failed(&io::Error::other("a fault in the reader")),
        }
    }
}

fn send(
    files: &dyn DataFiles,
    role: FileRole,
    wanted: &Receiver<()>,
    answers: &Answers,
) -> io::Result<()> {
    let stream = answers.stream;
    let mut reader = files.open(role)?;
    answers.send(wire::message(&Order::Opened { stream }))?;
    let mut bytes = Vec::new();
    while wanted.recv().is_ok() {
        bytes.clear();
        let read = (&mut reader).take(PIECE as u64).read_to_end(&mut bytes);
        // What came before an error is data all the same.
        if !bytes.is_empty() {
            answers.send(wire::piece(stream, &bytes))?;
        }
        if read? == 0 {
            return answers.send(wire::message(&Order::End { stream }));
        }
    }
    Ok(())
}
