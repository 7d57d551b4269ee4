//! Decoded rows in a file: a header, records of one size, then a target for each.
//!
//! Read back by position from any number of threads. Numbers are little-endian.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
};

use serde::{Deserialize, Serialize};

use super::{
    digest::Digest,
    samples::{Targets, TargetsKind, Width},
};

const MAGIC: &[u8; 8] = b"NEREIDR1";
/// Records begin here.
pub(super) const HEADER_BYTES: usize = 4096;
/// Most bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// Data and decoder that it came from.
    pub(super) key: String,
    pub(super) rows: u32,
    /// Values of a row.
    pub(super) size: usize,
    pub(super) width: Width,
    pub(super) targets: TargetsKind,
    /// Digest of all rows and targets.
    pub(super) digest: u64,
}

impl Header {
    pub(super) fn row_bytes(&self) -> usize {
        self.size * self.width.bytes()
    }

    /// Bytes of the whole file.
    fn total(&self) -> u64 {
        let row = self.row_bytes() as u64 + self.targets.words() as u64 * 4;
        HEADER_BYTES as u64 + u64::from(self.rows).saturating_mul(row)
    }

    /// Encodes it, filled up to its fixed size.
    ///
    /// # Errors
    /// If it does not fit.
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let json = serde_json::to_vec(self)?;
        let length = u32::try_from(json.len()).map_err(io::Error::other)?;
        let mut bytes = [MAGIC.as_slice(), &length.to_le_bytes(), &json].concat();
        if bytes.len() > HEADER_BYTES {
            return Err(io::Error::other("the header is too long"));
        }
        bytes.resize(HEADER_BYTES, 0);
        Ok(bytes)
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let json = rest.get(..u32::from_le_bytes(*length) as usize)?;
        serde_json::from_slice(json).ok()
    }
}

/// Complete records.
#[derive(Debug)]
pub(crate) struct Records {
    file: File,
    row_bytes: usize,
}

impl Records {
    pub(super) fn new(file: File, header: &Header) -> Self {
        Self {
            file,
            row_bytes: header.row_bytes(),
        }
    }

    /// Opens a file that must hold what `key` names; `None` if it is anything else or damaged.
    ///
    /// Reads all of it once: a file that lost a block to a crash or a bad disk is not used.
    pub(super) fn open<E>(
        mut file: File,
        key: &str,
        check: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<Option<(Self, Header, Targets)>, E> {
        let mut head = [0; HEADER_BYTES];
        if let Err(error) = file.read_exact(&mut head) {
            tracing::debug!(%error, "a cache file has no header");
            return Ok(None);
        }
        let header = Header::decode(&head).filter(|h| h.key == key);
        let length = file.metadata().map(|m| m.len()).unwrap_or_default();
        let Some(header) = header.filter(|h| h.total() == length && h.rows > 0) else {
            return Ok(None);
        };
        let records = Self::new(file, &header);
        let Ok(targets) = records.targets(&header) else {
            return Ok(None);
        };
        let mut digest = Digest::default();
        let (mut bytes, mut target) = (Vec::new(), Vec::new());
        let at_once = (READ_BYTES / header.row_bytes().max(1)).max(1);
        let mut row = 0_u32;
        while row < header.rows {
            check()?;
            let n = at_once.min((header.rows - row) as usize);
            if records.read(row, n, &mut bytes).is_err() {
                return Ok(None);
            }
            for record in bytes.chunks_exact(header.row_bytes()) {
                target.clear();
                targets.encode(row as usize, &mut target);
                digest.row(record, &target);
                row += 1;
            }
        }
        let right = digest.finish() == header.digest;
        Ok(right.then_some((records, header, targets)))
    }

    /// Reads `n` neighbours from `row` on, in place of what `bytes` held.
    pub(super) fn read(&self, row: u32, n: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.resize(n * self.row_bytes, 0);
        let at = HEADER_BYTES as u64 + u64::from(row) * self.row_bytes as u64;
        self.file.read_exact_at(bytes, at)
    }

    /// Rows worth reading at once.
    pub(super) fn at_once(&self) -> usize {
        (READ_BYTES / self.row_bytes.max(1)).max(1)
    }

    fn targets(&self, header: &Header) -> io::Result<Targets> {
        let at = HEADER_BYTES as u64 + u64::from(header.rows) * self.row_bytes as u64;
        (&self.file).seek(SeekFrom::Start(at))?;
        let mut reader = io::BufReader::with_capacity(READ_BYTES, &self.file);
        let mut next = || {
            let mut bytes = [0; 4];
            reader.read_exact(&mut bytes)?;
            Ok::<_, io::Error>(u32::from_le_bytes(bytes))
        };
        let words = u64::from(header.rows) * header.targets.words() as u64;
        Targets::decode(header.targets, (0..words).map(|_| next()))
    }
}
