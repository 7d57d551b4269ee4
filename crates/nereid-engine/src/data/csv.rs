//! Records of a CSV with a header row.

use std::{collections::HashSet, io::Read};

use ::csv::{ByteRecord, Reader, ReaderBuilder, Trim};
use nereid_core::{datasets::encoding::Cell, engine::EngineError};

use super::{
    bytes::{Place, Source},
    tables::{Records, clip},
};

/// Reads a CSV record by record.
pub(super) struct CsvRecords {
    reader: Reader<Box<dyn Read + Send>>,
    place: Place,
    record: ByteRecord,
    header: Vec<String>,
    /// Records read.
    rows: u64,
}

impl CsvRecords {
    /// Reads the header; `rows` come before those of this table.
    pub(super) fn new(source: Source, rows: u64) -> Result<Self, EngineError> {
        let place = source.place;
        let mut reader = ReaderBuilder::new()
            .flexible(true)
            .has_headers(false)
            .trim(Trim::All)
            .from_reader(source.reader);
        let mut record = ByteRecord::new();
        if !read(&mut reader, &mut record, &place)? {
            return Err(place.fault("empty", "it has no header row"));
        }
        let header = parse_header(&place, &record)?;
        Ok(Self {
            reader,
            place,
            record,
            header,
            rows,
        })
    }
}

impl Records for CsvRecords {
    fn columns(&self) -> &[String] {
        &self.header
    }

    fn advance(&mut self) -> Result<bool, EngineError> {
        if !read(&mut self.reader, &mut self.record, &self.place)? {
            return Ok(false);
        }
        if self.record.len() != self.header.len() {
            let (got, expected) = (self.record.len(), self.header.len());
            let detail = format!("{got} cells where the header names {expected} columns");
            return Err(self
                .place
                .fault_at("ragged_row", Some(self.rows), None, detail));
        }
        self.rows += 1;
        Ok(true)
    }

    fn cell(&self, column: usize) -> Result<Cell<'_>, EngineError> {
        let bytes = self.record.get(column).unwrap_or_default();
        let text = std::str::from_utf8(bytes).map_err(|e| {
            let (row, name) = (self.rows.saturating_sub(1), self.header.get(column));
            let name = name.map(String::as_str);
            self.place
                .fault_at("invalid_utf8", Some(row), name, e.to_string())
        })?;
        Ok(if text.is_empty() {
            Cell::Missing
        } else {
            Cell::Text(text)
        })
    }

    fn place(&self) -> &Place {
        &self.place
    }
}

fn read(
    reader: &mut Reader<Box<dyn Read + Send>>,
    record: &mut ByteRecord,
    place: &Place,
) -> Result<bool, EngineError> {
    place.mark();
    reader
        .read_byte_record(record)
        .map_err(|e| match e.into_kind() {
            ::csv::ErrorKind::Io(e) => place.io(e),
            other => place.fault("bad_csv", format!("{other:?}")),
        })
}

fn parse_header(place: &Place, record: &ByteRecord) -> Result<Vec<String>, EngineError> {
    let mut header = Vec::with_capacity(record.len());
    let mut seen = HashSet::new();
    for (i, bytes) in record.iter().enumerate() {
        let name = std::str::from_utf8(bytes).map_err(|e| {
            place.fault(
                "invalid_utf8",
                format!("column {} of the header: {e}", i + 1),
            )
        })?;
        let name = if i == 0 {
            name.trim_start_matches('\u{feff}')
        } else {
            name
        };
        if name.is_empty() {
            let detail = format!("column {} of the header has no name", i + 1);
            return Err(place.fault("bad_header", detail));
        }
        if !seen.insert(name) {
            let detail = format!("the header names {:?} twice", clip(name));
            return Err(place.fault("duplicate_column", detail));
        }
        header.push(name.to_owned());
    }
    Ok(header)
}
