//! The training process's end of the data: files that are read by asking the worker for them.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
};

use nereid_core::{datasets::FileRole, engine::DataFiles};

use super::{
    fault::IoFault,
    wire::{self, Part, Report},
};

/// Pieces asked for before they are needed.
const READ_AHEAD: usize = 4;

/// What the worker says about an open file.
pub(super) enum Answer {
    Opened,
    Piece(Vec<u8>),
    End,
    Failed(IoFault),
}

/// The way to the worker.
pub(super) struct Link {
    socket: Mutex<UnixStream>,
    streams: Mutex<HashMap<u32, Sender<Answer>>>,
    next: AtomicU32,
}

impl Link {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket: Mutex::new(socket),
            streams: Mutex::default(),
            next: AtomicU32::new(0),
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if it is too large; all others mean that the worker is gone.
    pub(super) fn send(&self, report: &Report) -> io::Result<()> {
        let frame = wire::message(report)?;
        lock(&self.socket).write_all(&frame)
    }

    /// Hands an answer to whoever reads the file, if anybody still does.
    pub(super) fn deliver(&self, stream: u32, answer: Answer) {
        if let Some(reader) = lock(&self.streams).get(&stream) {
            let _ = reader.send(answer);
        }
    }
}

// Nothing in a critical section here can panic half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The files of a dataset, as the worker reads them.
pub(super) struct RemoteFiles {
    pub(super) link: Arc<Link>,
    pub(super) part: Part,
}

impl DataFiles for RemoteFiles {
    fn open(&self, role: FileRole) -> io::Result<Box<dyn Read + Send>> {
        let link = &self.link;
        let stream = link.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = channel();
        lock(&link.streams).insert(stream, sender);
        let mut reader = RemoteReader {
            link: Arc::clone(link),
            stream,
            answers,
            piece: io::Cursor::default(),
            over: None,
        };
        let part = self.part;
        link.send(&Report::Open { stream, part, role })?;
        match reader.answer()? {
            Answer::Opened => {}
            Answer::Failed(fault) => return Err(fault.into()),
            Answer::Piece(_) | Answer::End => return Err(io::ErrorKind::InvalidData.into()),
        }
        for _ in 0..READ_AHEAD {
            reader.ask()?;
        }
        Ok(Box::new(reader))
    }
}

struct RemoteReader {
    link: Arc<Link>,
    stream: u32,
    answers: Receiver<Answer>,
    piece: io::Cursor<Vec<u8>>,
    /// How the file ended.
    over: Option<Result<(), IoFault>>,
}

impl RemoteReader {
    fn ask(&mut self) -> io::Result<()> {
        let stream = self.stream;
        self.link.send(&Report::Next { stream })
    }

    fn answer(&self) -> io::Result<Answer> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.answers.recv().map_err(gone)
    }
}

impl Read for RemoteReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.piece.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            match &self.over {
                Some(Ok(())) => return Ok(0),
                Some(Err(fault)) => return Err(fault.clone().into()),
                None => {}
            }
            match self.answer()? {
                Answer::Piece(bytes) => {
                    self.piece = io::Cursor::new(bytes);
                    self.ask()?;
                }
                Answer::End => self.over = Some(Ok(())),
                Answer::Failed(fault) => self.over = Some(Err(fault)),
                Answer::Opened => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
}

impl Drop for RemoteReader {
    fn drop(&mut self) {
        let stream = self.stream;
        lock(&self.link.streams).remove(&stream);
        // If it cannot be sent, nobody is there to know.
        let _ = self.link.send(&Report::Close { stream });
    }
}
