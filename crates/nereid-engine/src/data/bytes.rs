//! The bytes of one file: gzip detection, limits, and telling bad data from failed reads.

use std::{
    io::{self, BufReader, Cursor, Read, Seek, SeekFrom},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use flate2::bufread::MultiGzDecoder;
use nereid_core::{
    datasets::FileRole,
    engine::{DataError, DataFiles, EngineError},
    limits,
};

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BUFFER_BYTES: usize = 128 << 10;

/// An open file, decompressed, with its place for error messages.
pub(super) struct Source {
    pub(super) reader: Box<dyn Read + Send>,
    pub(super) place: Place,
}

/// Names the file in errors and knows whether its storage failed.
#[derive(Clone)]
pub(super) struct Place {
    role: FileRole,
    failed: Arc<AtomicBool>,
    since_mark: Arc<AtomicU64>,
    /// What of an archive is being read.
    member: Option<Arc<str>>,
}

impl Source {
    /// Opens a file and looks at its first bytes for gzip's magic number.
    pub(super) fn open(files: &dyn DataFiles, role: FileRole) -> Result<Self, EngineError> {
        let raw = files.open(role).map_err(|source| EngineError::Io {
            context: format!("opening the {} file", role.as_str()),
            source,
        })?;
        let place = Place::new(role);
        let raw = place.watch(raw);
        Self::decode(raw, place, Budget::default())
    }

    /// Opens a file of several objects, which is a tar of them that nobody compressed.
    pub(super) fn open_many(files: &dyn DataFiles, role: FileRole) -> Result<Self, EngineError> {
        let raw = files.open(role).map_err(|source| EngineError::Io {
            context: format!("opening the {} file", role.as_str()),
            source,
        })?;
        let place = Place::new(role);
        let reader = BufReader::with_capacity(BUFFER_BYTES, place.watch(raw));
        Ok(Self {
            reader: Box::new(reader),
            place,
        })
    }

    /// Decompresses `raw` if it begins with gzip's magic number; it may take from `budget`.
    pub(super) fn decode(
        mut raw: impl Read + Send + 'static,
        place: Place,
        budget: Budget,
    ) -> Result<Self, EngineError> {
        let mut head = Vec::with_capacity(GZIP_MAGIC.len());
        (&mut raw)
            .take(GZIP_MAGIC.len() as u64)
            .read_to_end(&mut head)
            .map_err(|e| place.io(e))?;
        let gzip = head == GZIP_MAGIC;
        let whole = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(head).chain(raw));
        let decoded: Box<dyn Read + Send> = if gzip {
            Box::new(MultiGzDecoder::new(whole))
        } else {
            Box::new(whole)
        };
        let limited = Limited {
            inner: decoded,
            budget,
            since_mark: Arc::clone(&place.since_mark),
        };
        let reader = Box::new(BufReader::with_capacity(BUFFER_BYTES, limited));
        Ok(Self { reader, place })
    }

    /// Fills `buffer`, or says that the file ends too early.
    pub(super) fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), EngineError> {
        self.reader
            .read_exact(buffer)
            .map_err(|e| self.place.io(e))?;
        self.place.mark();
        Ok(())
    }

    /// Demands that nothing follows.
    pub(super) fn expect_end(&mut self) -> Result<(), EngineError> {
        let mut byte = [0];
        match self.reader.read(&mut byte) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.place.fault(
                "trailing_bytes",
                "bytes follow after the number of rows its header states",
            )),
            Err(e) => Err(self.place.io(e)),
        }
    }
}

impl Place {
    fn new(role: FileRole) -> Self {
        Self {
            role,
            failed: Arc::default(),
            since_mark: Arc::default(),
            member: None,
        }
    }

    /// A mistake in the file as a whole.
    pub(super) fn fault(&self, code: &'static str, detail: impl Into<String>) -> EngineError {
        self.fault_at(code, None, None, detail)
    }

    /// A mistake at a row (from 0) and perhaps a column.
    pub(super) fn fault_at(
        &self,
        code: &'static str,
        row: Option<u64>,
        column: Option<&str>,
        detail: impl Into<String>,
    ) -> EngineError {
        let detail = match &self.member {
            Some(member) => format!("{member}: {}", detail.into()),
            None => detail.into(),
        };
        EngineError::InvalidData(DataError {
            file: self.role,
            code,
            row: row.map(|r| r + 1),
            column: column.map(str::to_owned),
            detail,
        })
    }

    /// The same file, but within it something with a name of its own.
    pub(super) fn within(&self, member: &str) -> Self {
        let member: String = member.chars().take(80).collect();
        Self {
            member: Some(member.into()),
            ..self.clone()
        }
    }

    /// Notes when reading `inner` fails.
    pub(super) fn watch<R: Read>(&self, inner: R) -> Tap<R> {
        Tap {
            inner,
            failed: Arc::clone(&self.failed),
        }
    }

    /// Sorts a read error: storage failed, or the content is broken.
    pub(super) fn io(&self, error: io::Error) -> EngineError {
        if self.failed.load(Ordering::Relaxed) {
            return EngineError::Io {
                context: format!("reading the {} file", self.role.as_str()),
                source: error,
            };
        }
        if let Some(limit) = error.get_ref().and_then(|e| e.downcast_ref::<TooLarge>()) {
            return self.fault("too_large", limit.to_string());
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.fault("truncated", "it ends too early"),
            _ => self.fault(
                if self.member.is_some() {
                    "corrupt_archive"
                } else {
                    "corrupt_gzip"
                },
                format!("it cannot be decompressed: {error}"),
            ),
        }
    }

    /// Notes that a record was read whole, which restarts the limit on one record.
    pub(super) fn mark(&self) {
        self.since_mark.store(0, Ordering::Relaxed);
    }
}

/// Remembers that the storage below failed, whatever readers above make of the error.
pub(super) struct Tap<R> {
    inner: R,
    failed: Arc<AtomicBool>,
}

impl<R: Read> Read for Tap<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer);
        if result
            .as_ref()
            .is_err_and(|e| e.kind() != io::ErrorKind::Interrupted)
        {
            self.failed.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl<R: Seek> Seek for Tap<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

/// Largest single record; an unclosed quote would else pull the whole file into memory.
const MAX_RECORD_BYTES: u64 = 256 << 20;

#[derive(Debug, thiserror::Error)]
#[error("it holds more than {bytes} bytes {what}")]
struct TooLarge {
    bytes: u64,
    what: &'static str,
}

/// Decompressed bytes that may still come, of all objects of a file together.
#[derive(Clone)]
pub(super) struct Budget(Arc<AtomicU64>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(limits::MAX_DECODED_DATASET_BYTES)))
    }
}

struct Limited {
    inner: Box<dyn Read + Send>,
    budget: Budget,
    since_mark: Arc<AtomicU64>,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        // Whoever shares the budget reads on the same thread, one after the other.
        let left = self.budget.0.load(Ordering::Relaxed);
        let Some(left) = left.checked_sub(n as u64) else {
            return Err(io::Error::other(TooLarge {
                bytes: limits::MAX_DECODED_DATASET_BYTES,
                what: "once decompressed",
            }));
        };
        self.budget.0.store(left, Ordering::Relaxed);
        let record = self.since_mark.fetch_add(n as u64, Ordering::Relaxed);
        if record > MAX_RECORD_BYTES {
            return Err(io::Error::other(TooLarge {
                bytes: MAX_RECORD_BYTES,
                what: "in one row; a quote may be missing",
            }));
        }
        Ok(n)
    }
}
