//! Rows of a CSV with a header row.

use std::{
    collections::{HashMap, HashSet},
    io::Read,
};

use ::csv::{ByteRecord, Reader, ReaderBuilder, Trim};
use nereid_core::{engine::EngineError, limits};

use super::{
    bytes::{Place, Source},
    elements::{check_sample, to_f32},
    rows::{Label, Layout},
};

/// Columns named in an error message before it is cut.
const SHOWN_COLUMNS: usize = 20;

/// Reads features and label of each row.
pub(super) struct CsvRows {
    reader: Reader<Box<dyn Read + Send>>,
    place: Place,
    record: ByteRecord,
    /// All columns of the file.
    header: Vec<String>,
    /// Position in the file of each feature, in the order of the layout.
    features: Vec<usize>,
    label: Option<usize>,
    next: u64,
}

impl CsvRows {
    /// Reads the header. With `expected`, features are found by name and take that order.
    pub(super) fn new(
        source: Source,
        label_column: Option<&str>,
        expected: Option<&[String]>,
    ) -> Result<(Self, Layout), EngineError> {
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
        let label = label_column
            .map(|name| position(&place, &header, name, "the label column"))
            .transpose()?;
        let features = match expected {
            None => (0..header.len()).filter(|&i| Some(i) != label).collect(),
            Some(names) => match_columns(&place, &header, label, names)?,
        };
        if features.is_empty() {
            return Err(place.fault("no_features", "it has no column beside the label"));
        }
        check_sample(&place, &[features.len()])?;
        let layout = Layout {
            shape: vec![features.len()],
            dtype: "FP32",
            columns: Some(features.iter().map(|&i| header[i].clone()).collect()),
        };
        let rows = Self {
            reader,
            place,
            record,
            header,
            features,
            label,
            next: 0,
        };
        Ok((rows, layout))
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn label_column(&self) -> Option<&str> {
        self.label.map(|i| self.header[i].as_str())
    }

    /// Reads the next row; `false` after the last.
    pub(super) fn next(
        &mut self,
        out: &mut Vec<f32>,
        label: &mut Label,
    ) -> Result<bool, EngineError> {
        out.clear();
        if !read(&mut self.reader, &mut self.record, &self.place)? {
            return Ok(false);
        }
        let row = self.next;
        self.next += 1;
        if self.next > limits::MAX_DATASET_ROWS {
            let detail = format!("it has more than {} rows", limits::MAX_DATASET_ROWS);
            return Err(self.place.fault("too_large", detail));
        }
        if self.record.len() != self.header.len() {
            let (got, expected) = (self.record.len(), self.header.len());
            let detail = format!("{got} cells where the header names {expected} columns");
            return Err(self.place.fault_at("ragged_row", Some(row), None, detail));
        }
        for &column in &self.features {
            let text = self.cell(row, column)?;
            let value: f64 = text.parse().map_err(|_| {
                let detail = format!("{:?} is not a number", clip(text));
                self.fault(row, column, "not_a_number", detail)
            })?;
            out.push(to_f32(&self.place, value, row, || {
                self.header[column].clone()
            })?);
        }
        if let Some(column) = self.label {
            label.set_text(self.cell(row, column)?);
        }
        Ok(true)
    }

    fn cell(&self, row: u64, column: usize) -> Result<&str, EngineError> {
        let bytes = self.record.get(column).unwrap_or_default();
        let text = std::str::from_utf8(bytes)
            .map_err(|e| self.fault(row, column, "invalid_utf8", e.to_string()))?;
        if text.is_empty() {
            let detail = "the cell is empty; fill it or leave the row out";
            return Err(self.fault(row, column, "missing_value", detail));
        }
        Ok(text)
    }

    fn fault(
        &self,
        row: u64,
        column: usize,
        code: &'static str,
        detail: impl Into<String>,
    ) -> EngineError {
        let column = self.header.get(column).map(String::as_str);
        self.place.fault_at(code, Some(row), column, detail)
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

fn position(
    place: &Place,
    header: &[String],
    name: &str,
    what: &str,
) -> Result<usize, EngineError> {
    header.iter().position(|c| c == name).ok_or_else(|| {
        let mut known: Vec<_> = header.iter().take(SHOWN_COLUMNS).map(|c| clip(c)).collect();
        if header.len() > SHOWN_COLUMNS {
            known.push(format!("and {} more", header.len() - SHOWN_COLUMNS));
        }
        let detail = format!(
            "{what} {name:?} is not there; columns are {}",
            known.join(", ")
        );
        place.fault("missing_column", detail)
    })
}

/// Finds the training data's columns, so that their order in other files does not matter.
fn match_columns(
    place: &Place,
    header: &[String],
    label: Option<usize>,
    names: &[String],
) -> Result<Vec<usize>, EngineError> {
    let at: HashMap<&str, usize> = header
        .iter()
        .enumerate()
        .map(|(i, c)| (c.as_str(), i))
        .collect();
    let features: Vec<usize> = names
        .iter()
        .map(|name| match at.get(name.as_str()) {
            Some(&i) if Some(i) != label => Ok(i),
            _ => position(place, &[], name, "the training data's column"),
        })
        .collect::<Result<_, _>>()?;
    let known: HashSet<usize> = features.iter().copied().chain(label).collect();
    if let Some(extra) = (0..header.len()).find(|i| !known.contains(i)) {
        let detail = format!("the training data has no column {:?}", clip(&header[extra]));
        return Err(place.fault("unexpected_column", detail));
    }
    Ok(features)
}

fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}
