//! A file that is read at several places: kept in memory while small, else in a temporary file.
//!
//! Files come as streams, because a worker hands them to its training process through a socket
//! and inspection hashes all bytes anyway. Formats with their directory at the end need to jump:
//! they are spooled first. That keeps the interface and costs one sequential write; ranged reads
//! would cost a request to S3 per column and row group, and could not be hashed. The file has no
//! name, so that nothing is left when the process dies.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    sync::Arc,
};

use bytes::Bytes;
use nereid_core::engine::EngineError;
use parquet::{
    errors::{ParquetError, Result as ParquetResult},
    file::reader::{ChunkReader, Length},
};

use super::{
    Check,
    bytes::{Place, Source},
};

/// Most bytes that are kept in memory.
const MEMORY_BYTES: usize = 8 << 20;
const CHUNK_BYTES: usize = 1 << 20;

/// All bytes of a file, decompressed if it was gzip.
#[derive(Clone)]
pub(super) struct Spool {
    store: Store,
    length: u64,
    pub(super) place: Place,
}

#[derive(Clone)]
enum Store {
    Memory(Bytes),
    File(Arc<File>),
}

impl Spool {
    /// Reads `source` to its end; the limit on decompressed bytes is the source's.
    pub(super) fn fill(mut source: Source, check: &mut Check<'_>) -> Result<Self, EngineError> {
        let place = source.place;
        let failed = |source| EngineError::Io {
            context: "spooling the data to a temporary file".to_owned(),
            source,
        };
        let mut memory = Vec::new();
        let mut file: Option<File> = None;
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut length = 0;
        loop {
            let n = match source.reader.read(&mut chunk) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(place.io(e)),
            };
            if n == 0 {
                break;
            }
            place.mark();
            length += n as u64;
            if file.is_none() && memory.len() + n <= MEMORY_BYTES {
                memory.extend_from_slice(&chunk[..n]);
                continue;
            }
            if file.is_none() {
                let mut new = tempfile::tempfile().map_err(failed)?;
                new.write_all(&std::mem::take(&mut memory))
                    .map_err(failed)?;
                file = Some(new);
            }
            if let Some(file) = &mut file {
                file.write_all(&chunk[..n]).map_err(failed)?;
            }
            check()?;
        }
        let store = match file {
            Some(file) => Store::File(Arc::new(file)),
            None => Store::Memory(memory.into()),
        };
        Ok(Self {
            store,
            length,
            place,
        })
    }

    /// Reads a part of the file from its start on.
    pub(super) fn range(&self, start: u64, length: u64) -> SpoolReader {
        let start = start.min(self.length);
        SpoolReader {
            store: self.store.clone(),
            start,
            at: start,
            end: start.saturating_add(length).min(self.length),
        }
    }

    /// Reads all of the file.
    pub(super) fn reader(&self) -> SpoolReader {
        self.range(0, self.length)
    }
}

/// Reads a range of a [`Spool`], with a position of its own.
pub(super) struct SpoolReader {
    store: Store,
    start: u64,
    at: u64,
    end: u64,
}

impl Read for SpoolReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let want = left.min(buffer.len());
        let n = match &self.store {
            Store::File(file) => file.read_at(&mut buffer[..want], self.at)?,
            Store::Memory(bytes) => {
                let at = usize::try_from(self.at).map_err(io::Error::other)?;
                buffer[..want].copy_from_slice(&bytes[at..at + want]);
                want
            }
        };
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for SpoolReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(n) => self.start.checked_add(n),
            SeekFrom::End(n) => self.end.checked_add_signed(n),
            SeekFrom::Current(n) => self.at.checked_add_signed(n),
        };
        let at = at.filter(|&at| at >= self.start);
        // Beyond the end there is nothing, which a read there says.
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?.min(self.end);
        Ok(self.at - self.start)
    }
}

impl Length for Spool {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Spool {
    type T = SpoolReader;

    fn get_read(&self, start: u64) -> ParquetResult<SpoolReader> {
        Ok(self.range(start, u64::MAX))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let end = start.checked_add(length as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(ParquetError::EOF(format!(
                "{length} bytes at {start} lie beyond the end"
            )));
        }
        match &self.store {
            Store::Memory(bytes) => {
                let at = usize::try_from(start).map_err(|e| ParquetError::External(e.into()))?;
                Ok(bytes.slice(at..at + length))
            }
            Store::File(file) => {
                let mut out = vec![0; length];
                file.read_exact_at(&mut out, start)?;
                Ok(out.into())
            }
        }
    }
}
