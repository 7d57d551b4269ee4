//! Checks what pages of a Parquet file claim before memory is set aside for it.
//!
//! A page's header states its decompressed size, a delta encoding and a dictionary their number
//! of values, and the decoder believes them: a file of a few bytes could ask for gigabytes.

use std::io::Read;

use ::parquet::{
    basic::Encoding,
    column::page::{Page, PageMetadata, PageReader},
    errors::{ParquetError, Result},
    file::reader::ChunkReader,
};

use super::Spool;

/// Largest page once decompressed; writers aim at one megabyte.
const MAX_PAGE_BYTES: i64 = 256 << 20;
/// Largest page header that is looked at, with the statistics in it.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// Deepest nesting of a page header; it has three levels.
const MAX_DEPTH: usize = 8;

fn fault(detail: impl Into<String>) -> ParquetError {
    ParquetError::General(detail.into())
}

/// Walks over the page headers of a column chunk.
pub(super) fn check_chunk(spool: &Spool, start: u64, length: u64) -> Result<()> {
    let end = start
        .checked_add(length)
        .ok_or_else(|| fault("a column chunk lies beyond the end"))?;
    let mut at = start;
    while at < end {
        let (header, size) = read_header(spool, at, end)?;
        if !(0..=MAX_PAGE_BYTES).contains(&size.decompressed) {
            return Err(fault(format!(
                "a page of {} bytes is larger than the {MAX_PAGE_BYTES} allowed",
                size.decompressed
            )));
        }
        let stored = u64::try_from(size.stored).map_err(|_| fault("a page has a negative size"))?;
        at = at
            .checked_add(header + stored)
            .ok_or_else(|| fault("a page lies beyond the end"))?;
    }
    Ok(())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Sizes {
    decompressed: i64,
    stored: i64,
}

/// Reads a page header and returns its length and what it states.
fn read_header(spool: &Spool, at: u64, end: u64) -> Result<(u64, Sizes)> {
    for window in [1 << 10, MAX_HEADER_BYTES] {
        let mut bytes = Vec::new();
        let window = window.min(end - at);
        spool.get_read(at)?.take(window).read_to_end(&mut bytes)?;
        let mut thrift = Thrift {
            bytes: &bytes,
            at: 0,
        };
        let mut sizes = Sizes::default();
        if thrift.page_header(&mut sizes).is_some() {
            return Ok((thrift.at as u64, sizes));
        }
    }
    Err(fault("a page header cannot be read"))
}

/// Just enough of Thrift's compact protocol to find two numbers and pass over the rest.
struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn pass(&mut self, bytes: u64) -> Option<()> {
        let at = self.at.checked_add(usize::try_from(bytes).ok()?)?;
        self.at = (at <= self.bytes.len()).then_some(at)?;
        Some(())
    }

    /// Returns the next field's type, 0 at the end of a structure, and counts its number on.
    fn field(&mut self, last: &mut i64) -> Option<u8> {
        let byte = self.byte()?;
        if byte == 0 {
            return Some(0);
        }
        *last = match byte >> 4 {
            0 => self.zigzag()?,
            delta => *last + i64::from(delta),
        };
        Some(byte & 0x0f)
    }

    fn page_header(&mut self, sizes: &mut Sizes) -> Option<()> {
        let mut field = 0;
        loop {
            let kind = self.field(&mut field)?;
            match (field, kind) {
                (_, 0) => return Some(()),
                (2, 5) => sizes.decompressed = self.zigzag()?,
                (3, 5) => sizes.stored = self.zigzag()?,
                _ => self.value(kind, false, 0)?,
            }
        }
    }

    /// Passes over a value; booleans take a byte in a list and none in a field.
    fn value(&mut self, kind: u8, listed: bool, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match kind {
            1 | 2 => self.pass(u64::from(listed)),
            3 => self.pass(1),
            4..=6 => self.varint().map(drop),
            7 => self.pass(8),
            8 => {
                let length = self.varint()?;
                self.pass(length)
            }
            9 | 10 => {
                let byte = self.byte()?;
                let n = match byte >> 4 {
                    15 => self.varint()?,
                    n => u64::from(n),
                };
                // Each takes a byte at least, so that this ends with the bytes.
                (0..n).try_for_each(|_| self.value(byte & 0x0f, true, depth + 1))
            }
            12 => {
                let mut field = 0;
                loop {
                    match self.field(&mut field)? {
                        0 => return Some(()),
                        kind => self.value(kind, false, depth + 1)?,
                    }
                }
            }
            _ => None,
        }
    }
}

/// Hands pages on whose numbers of values are possible.
pub(super) struct Guarded {
    pub(super) inner: Box<dyn PageReader>,
    /// Values of the column in the row group.
    pub(super) rows: usize,
    /// Whether values may be missing, and levels so lie before them.
    pub(super) optional: bool,
}

impl Guarded {
    fn check(&self, page: &Page) -> Result<()> {
        let values = page.num_values() as usize;
        if let Page::DictionaryPage { buf, .. } = page {
            // Each entry takes a byte at least.
            if values > buf.len() {
                return Err(fault(format!(
                    "a dictionary of {values} values is too short"
                )));
            }
            return Ok(());
        }
        if values > self.rows {
            let rows = self.rows;
            return Err(fault(format!(
                "a page has {values} values, its row group {rows} rows"
            )));
        }
        if self.delta_counts(page).is_none_or(|n| n > values as u64) {
            return Err(fault("a page's encoding has more values than the page"));
        }
        Ok(())
    }

    /// Returns the largest number of values that a delta encoding states.
    fn delta_counts(&self, page: &Page) -> Option<u64> {
        let (data, encoding) = match page {
            Page::DataPage { buf, encoding, .. } => {
                let mut start = 0;
                if self.optional {
                    let length = buf.get(..4)?.try_into().ok()?;
                    start = 4 + u32::from_le_bytes(length) as usize;
                }
                (buf.get(start..), *encoding)
            }
            Page::DataPageV2 {
                buf,
                encoding,
                def_levels_byte_len,
                rep_levels_byte_len,
                ..
            } => {
                let start = *def_levels_byte_len as usize + *rep_levels_byte_len as usize;
                (buf.get(start..), *encoding)
            }
            Page::DictionaryPage { .. } => return Some(0),
        };
        let lists = match encoding {
            Encoding::DELTA_LENGTH_BYTE_ARRAY => 1,
            Encoding::DELTA_BYTE_ARRAY => 2,
            _ => return Some(0),
        };
        let mut thrift = Thrift {
            bytes: data?,
            at: 0,
        };
        (0..lists)
            .map(|_| thrift.delta_list())
            .try_fold(0, |most, n| Some(n?.max(most)))
    }
}

impl Thrift<'_> {
    /// Passes over a list in `DELTA_BINARY_PACKED` and returns the number of values it states.
    fn delta_list(&mut self) -> Option<u64> {
        let (block, parts, total) = (self.varint()?, self.varint()?, self.varint()?);
        self.varint()?;
        let per_part = block.checked_div(parts).filter(|&n| n > 0)?;
        let mut left = total.saturating_sub(1);
        while left > 0 {
            self.varint()?;
            let widths = self.at;
            self.pass(parts)?;
            for part in 0..usize::try_from(parts).ok()? {
                if left == 0 {
                    break;
                }
                let width = u64::from(*self.bytes.get(widths + part)?);
                self.pass(width.checked_mul(per_part)?.div_ceil(8))?;
                left = left.saturating_sub(per_part);
            }
        }
        Some(total)
    }
}

impl Iterator for Guarded {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Guarded {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.inner.get_next_page()?;
        if let Some(page) = &page {
            self.check(page)?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.inner.skip_next_page()
    }
}

#[cfg(test)]
mod tests {
    use nereid_core::{datasets::FileRole, engine::DataFiles};

    use super::*;
    use crate::data::bytes::Source;

    #[test]
    fn page_headers_are_walked_over() {
        // Type 0, 300 bytes decompressed, 20 stored, and a structure with a list and a string.
        let bytes = [
            0x15, 0x00, 0x15, 0xd8, 0x04, 0x15, 0x28, 0x2c, 0x19, 0x25, 0x02, 0x04, 0x18, 0x02,
            b'a', b'b', 0x11, 0x00, 0x00, 0xff,
        ];
        let mut sizes = Sizes::default();
        let mut thrift = Thrift {
            bytes: &bytes,
            at: 0,
        };
        thrift.page_header(&mut sizes).unwrap();
        let expected = Sizes {
            decompressed: 300,
            stored: 20,
        };
        assert_eq!((thrift.at, sizes), (bytes.len() - 1, expected));
        for end in 0..bytes.len() - 1 {
            let mut cut = Thrift {
                bytes: &bytes[..end],
                at: 0,
            };
            assert_eq!(cut.page_header(&mut Sizes::default()), None, "{end}");
        }
        // A list of 2^60 structures and a structure in a structure in a structure, ….
        for hostile in [
            [&[0x19, 0xfc][..], &[0xff; 8], &[0x0f]].concat(),
            vec![0x1c; 1_000],
        ] {
            let mut thrift = Thrift {
                bytes: &hostile,
                at: 0,
            };
            assert_eq!(thrift.page_header(&mut Sizes::default()), None);
        }
    }

    struct One(Vec<u8>);

    impl DataFiles for One {
        fn open(&self, _: FileRole) -> std::io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(std::io::Cursor::new(self.0.clone())))
        }
    }

    #[test]
    fn a_page_may_not_claim_more_than_the_limit() {
        let check = |bytes: &[u8], length| {
            let source = Source::open(&One(bytes.to_vec()), FileRole::Data).unwrap();
            let spool = Spool::fill(source, &mut || Ok(())).unwrap();
            check_chunk(&spool, 4, length).map_err(|e| e.to_string())
        };
        // Two pages of 300 bytes that are stored in 3.
        let page = [0x15, 0x00, 0x15, 0xd8, 0x04, 0x15, 0x06, 0x00, 1, 2, 3];
        let good = [b"PAR1", &page[..], &page].concat();
        assert_eq!(check(&good, 22), Ok(()));
        // The second one claims two thousand million.
        let claim = [
            0x15, 0x00, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 0x06, 0x00, 1,
        ];
        let bomb = [b"PAR1", &page[..], &claim].concat();
        let error = check(&bomb, 23).unwrap_err();
        assert!(error.contains("2147483647 bytes"), "{error}");
        assert!(check(&good[..13], 22).is_err());
        assert!(check(&good, u64::MAX).is_err());
    }

    #[test]
    fn delta_lists_state_how_many_values_they_have() {
        // The specification's example: 1 to 5 have deltas of 1, in blocks of 128 in 4 parts.
        let mut bytes = vec![0x80, 0x01, 0x04, 0x05, 0x02, 0x02, 0, 0, 0, 0];
        let list = |bytes: &[u8]| {
            let mut thrift = Thrift { bytes, at: 0 };
            thrift.delta_list().map(|n| (n, thrift.at))
        };
        assert_eq!(list(&bytes), Some((5, 10)));
        bytes[6] = 2;
        assert_eq!(list(&bytes), None, "its values are cut off");
        bytes.extend([0; 8]);
        assert_eq!(list(&bytes), Some((5, 18)));
        // Four thousand million values in a few bytes need as many blocks.
        assert_eq!(
            list(&[0x80, 0x01, 0x04, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x02]),
            None
        );
        assert_eq!(list(&[0x00, 0x00, 0x05, 0x02]), None);
    }
}
