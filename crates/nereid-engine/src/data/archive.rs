//! Members of a tar, one after the other.

use std::io::{ErrorKind, Read};

use nereid_core::engine::EngineError;
use tar::{EntryType, Header, PaxExtensions};

use super::bytes::{Place, Source};

const BLOCK: u64 = 512;
/// Most bytes of what describes a member beside its header.
const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;

/// Reads a tar in its order.
pub(super) struct Archive {
    source: Source,
    /// Bytes of the last member, with padding, that nobody has read.
    left: u64,
}

/// A file in a tar.
pub(super) struct Member {
    /// Path, as written.
    pub(super) name: String,
    pub(super) size: u64,
}

impl Archive {
    pub(super) fn new(source: Source) -> Self {
        Self { source, left: 0 }
    }

    pub(super) fn place(&self) -> &Place {
        &self.source.place
    }

    /// Returns the next file; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Member>, EngineError> {
        let (mut long_name, mut long_size) = (None, None);
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = header.size().map_err(|e| self.bad(&e.to_string()))?;
            let kind = header.entry_type();
            match kind {
                EntryType::GNULongName => {
                    let bytes = self.description(size)?;
                    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
                    long_name = Some(bytes[..end].to_vec());
                }
                EntryType::XHeader => {
                    let bytes = self.description(size)?;
                    for extension in PaxExtensions::new(&bytes) {
                        let extension = extension.map_err(|e| self.bad(&e.to_string()))?;
                        match extension.key_bytes() {
                            b"path" => long_name = Some(extension.value_bytes().to_vec()),
                            b"size" => {
                                let size = extension.value().ok().and_then(|v| v.parse().ok());
                                long_size =
                                    Some(size.ok_or_else(|| self.bad("a size is no number"))?);
                            }
                            _ => {}
                        }
                    }
                }
                EntryType::Regular | EntryType::Continuous => {
                    let size = long_size.unwrap_or(size);
                    let name = long_name
                        .take()
                        .unwrap_or_else(|| header.path_bytes().into_owned());
                    self.left = padded(size).ok_or_else(|| self.bad("a size is too large"))?;
                    let name = String::from_utf8_lossy(&name).into_owned();
                    return Ok(Some(Member { name, size }));
                }
                EntryType::GNUSparse => return Err(self.bad("a member is sparse")),
                _ => {
                    // Folders, links and the like hold no data of interest.
                    let size = if kind.is_dir() || kind.is_symlink() || kind.is_hard_link() {
                        0
                    } else {
                        long_size.unwrap_or(size)
                    };
                    self.left = padded(size).ok_or_else(|| self.bad("a size is too large"))?;
                    (long_name, long_size) = (None, None);
                }
            }
        }
    }

    /// Reads the content of the member returned last.
    pub(super) fn read(&mut self, member: &Member) -> Result<Vec<u8>, EngineError> {
        let mut content = Vec::new();
        let n = (&mut self.source.reader)
            .take(member.size)
            .read_to_end(&mut content)
            .map_err(|e| self.source.place.io(e))?;
        if (n as u64) < member.size {
            return Err(self.source.place.io(ErrorKind::UnexpectedEof.into()));
        }
        self.left -= member.size;
        self.source.place.mark();
        Ok(content)
    }

    /// Reads a part of the content of the member returned last; at most what is left of it.
    pub(super) fn read_part(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.source.reader.read(buffer)?;
        self.left = self.left.saturating_sub(n as u64);
        Ok(n)
    }

    fn description(&mut self, size: u64) -> Result<Vec<u8>, EngineError> {
        if size > MAX_DESCRIPTION_BYTES {
            return Err(self.bad("a member's description is too long"));
        }
        self.left = padded(size).unwrap_or(0);
        self.read(&Member {
            name: String::new(),
            size,
        })
    }

    /// Passes over what is left of the last member.
    fn skip(&mut self) -> Result<(), EngineError> {
        let mut chunk = [0; 8 << 10];
        while self.left > 0 {
            let n = self.left.min(chunk.len() as u64);
            #[expect(clippy::cast_possible_truncation, reason = "no longer than the chunk")]
            self.source.read_exact(&mut chunk[..n as usize])?;
            self.left -= n;
        }
        Ok(())
    }

    /// Reads a header; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, EngineError> {
        let mut header = Header::new_old();
        let mut got = 0;
        while got < header.as_bytes().len() {
            match self.source.reader.read(&mut header.as_mut_bytes()[got..]) {
                Ok(0) if got == 0 => return Ok(None),
                Ok(0) => return Err(self.source.place.io(ErrorKind::UnexpectedEof.into())),
                Ok(n) => got += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.source.place.io(e)),
            }
        }
        let bytes = header.as_bytes();
        if bytes.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        // The checksum counts its own field as blanks.
        let sum: u32 = (0..)
            .zip(bytes)
            .map(|(i, &b)| u32::from(if (148..156).contains(&i) { b' ' } else { b }))
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(self.bad("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn bad(&self, detail: &str) -> EngineError {
        let detail = format!("it is no tar, or damaged: {detail}");
        self.source.place.fault("bad_tar", detail)
    }
}

/// Rounds up to whole blocks.
fn padded(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK)
}
