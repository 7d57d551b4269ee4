//! Rows of a table whatever its format: cells by column, and the features that they become.

use std::collections::{HashMap, HashSet};

use nereid_core::{
    datasets::{
        DatasetFormat, DatasetSchema, DatasetSource, FileRole,
        columns::ColumnSpec,
        encoding::{Cell, CellFault, TableEncoder, narrow},
    },
    engine::{DataFiles, EngineError},
    limits,
};

use super::{
    Check,
    bytes::{Place, Source},
    csv::CsvRecords,
    elements::check_sample,
    jsonl::{JsonArrays, JsonRecords, Lines},
    parquet::ParquetRecords,
    rows::{Label, Layout},
    shards::{self, ShardRecords},
    spool::Spool,
};

/// Columns named in an error message before it is cut.
const SHOWN_COLUMNS: usize = 20;

/// Reads a table record by record.
pub(super) trait Records: Send {
    /// Returns the columns found so far; JSON Lines may find more with each record.
    fn columns(&self) -> &[String];

    /// Reads the next record; `false` after the last.
    fn advance(&mut self) -> Result<bool, EngineError>;

    /// Returns a cell of the record read last.
    fn cell(&self, column: usize) -> Result<Cell<'_>, EngineError>;

    /// Returns the file, for error messages.
    fn place(&self) -> &Place;
}

/// A table, or samples that JSON Lines hold as nested arrays.
pub(super) enum Table {
    Records(Box<dyn Records>),
    Arrays(Box<JsonArrays>, Layout),
}

/// Opens a table.
pub(super) fn open(
    source: &DatasetSource,
    files: &dyn DataFiles,
    check: &mut Check<'_>,
) -> Result<Table, EngineError> {
    if source.format == DatasetFormat::Jsonl {
        let mut lines = open_lines(source, files)?;
        if let Some(found) = lines.find_array(source)? {
            let (rows, layout) = JsonArrays::new(lines, source, found);
            return Ok(Table::Arrays(Box::new(rows), layout));
        }
        return Ok(Table::Records(Box::new(JsonRecords::new(lines))));
    }
    Ok(Table::Records(open_table(source, files, check)?))
}

/// Opens JSON Lines.
pub(super) fn open_lines(
    source: &DatasetSource,
    files: &dyn DataFiles,
) -> Result<Lines, EngineError> {
    Ok(Lines::new(if source.is_many(FileRole::Data) {
        shards::Lines::open(files, FileRole::Data)?
    } else {
        Source::open(files, FileRole::Data)?
    }))
}

/// Opens a table with a header.
pub(super) fn open_table(
    source: &DatasetSource,
    files: &dyn DataFiles,
    check: &mut Check<'_>,
) -> Result<Box<dyn Records>, EngineError> {
    if source.is_many(FileRole::Data) {
        let source = source.clone();
        // The next objects are opened while rows are read, where it is asked often enough whether
        // to go on.
        let open = move |data, rows| open_records(&source, data, rows, &mut || Ok(()));
        return Ok(Box::new(ShardRecords::new(files, open)?));
    }
    let data = Source::open(files, FileRole::Data)?;
    open_records(source, data, 0, check)
}

/// Opens a table in one object, before whose rows there are so many others.
fn open_records(
    source: &DatasetSource,
    data: Source,
    rows: u64,
    check: &mut Check<'_>,
) -> Result<Box<dyn Records>, EngineError> {
    Ok(if source.format == DatasetFormat::Parquet {
        let spool = Spool::fill(data, check)?;
        let ignored = |name: &str| ignored(source, name);
        Box::new(ParquetRecords::new(spool, rows, ignored)?)
    } else {
        Box::new(CsvRecords::new(data, rows)?)
    })
}

/// Tells whether a column is no feature: declared so, or the index that pandas stores.
pub(super) fn ignored(source: &DatasetSource, column: &str) -> bool {
    match source.columns.get(column) {
        Some(declared) => *declared == ColumnSpec::Ignore {},
        None => {
            source.format == DatasetFormat::Parquet
                && column.starts_with("__index_level_")
                && column.ends_with("__")
        }
    }
}

/// Counts rows and refuses too many.
pub(super) fn count_row(place: &Place, rows: &mut u64) -> Result<(), EngineError> {
    *rows += 1;
    if *rows > limits::MAX_DATASET_ROWS {
        let detail = format!("it has more than {} rows", limits::MAX_DATASET_ROWS);
        return Err(place.fault("too_large", detail));
    }
    Ok(())
}

/// Where a table's records have the features and the label.
struct Columns {
    /// Names of the features.
    names: Vec<String>,
    /// Position in the records of each feature.
    features: Vec<Option<usize>>,
    /// Names of the labels.
    labels: Vec<String>,
    /// Position in the records of each label.
    labels_at: Vec<Option<usize>>,
    ignored: HashSet<String>,
    /// Columns of the records that are sorted out already.
    known: usize,
}

impl Columns {
    /// Sorts out the columns that the records have found since last time.
    fn find(&mut self, records: &dyn Records, row: Option<u64>) -> Result<(), EngineError> {
        let found = records.columns();
        if self.known == found.len() {
            return Ok(());
        }
        let at: HashMap<&String, usize> = self.names.iter().zip(0..).collect();
        let labels: HashMap<&String, usize> = self.labels.iter().zip(0..).collect();
        for (i, name) in found.iter().enumerate().skip(self.known) {
            if let Some(&label) = labels.get(name) {
                self.labels_at[label] = Some(i);
            } else if let Some(&feature) = at.get(name) {
                self.features[feature] = Some(i);
            } else if !self.ignored.contains(name) {
                let detail = format!("the training data has no column {:?}", clip(name));
                return Err(records
                    .place()
                    .fault_at("unexpected_column", row, None, detail));
            }
        }
        self.known = found.len();
        Ok(())
    }
}

/// Features and label of each row of a table.
pub(super) struct TableRows {
    records: Box<dyn Records>,
    columns: Columns,
    /// How cells become features; without one they are numbers and none is missing.
    encoder: Option<TableEncoder>,
    next: u64,
}

impl TableRows {
    /// Starts reading rows with the columns of `schema`, found by name, or else all columns.
    pub(super) fn new(
        records: Box<dyn Records>,
        source: &DatasetSource,
        schema: Option<&DatasetSchema>,
    ) -> Result<(Self, Layout), EngineError> {
        let place = records.place();
        let known = records.columns();
        // JSON Lines tells its columns row by row: what never comes is missing everywhere.
        let open_ended = source.format == DatasetFormat::Jsonl;
        let labels: Vec<String> = source.labels().cloned().collect();
        let there: HashSet<&String> = known.iter().collect();
        if let Some(name) = labels.iter().find(|name| !there.contains(name))
            && !open_ended
        {
            return Err(missing_column(place, known, name, "the label column"));
        }
        let is_label: HashSet<&String> = labels.iter().collect();
        let features = schema.map_or(&[][..], |s| &s.features);
        let encoder = (!features.is_empty()).then(|| TableEncoder::new(features));
        let expected = if features.is_empty() {
            schema.and_then(|s| s.columns.clone())
        } else {
            Some(features.iter().map(|c| c.name.clone()).collect())
        };
        let feature = |c: &&String| !ignored(source, c) && !is_label.contains(*c);
        let names = expected.unwrap_or_else(|| known.iter().filter(feature).cloned().collect());
        let mut columns = Columns {
            features: vec![None; names.len()],
            labels_at: vec![None; labels.len()],
            labels,
            ignored: source
                .columns
                .keys()
                .filter(|c| ignored(source, c))
                .cloned()
                .collect(),
            known: 0,
            names,
        };
        let absent = columns.names.iter().find(|name| !there.contains(name));
        if let Some(name) = absent.filter(|_| !open_ended) {
            let what = "the training data's column";
            return Err(missing_column(place, &[], name, what));
        }
        columns.find(records.as_ref(), None)?;
        if columns.names.is_empty() {
            return Err(place.fault("no_features", "it has no column beside the label"));
        }
        let width = encoder
            .as_ref()
            .map_or(columns.names.len(), TableEncoder::width);
        check_sample(place, &[width])?;
        let layout = Layout {
            shape: vec![width],
            dtype: "FP32",
            columns: Some(columns.names.clone()),
        };
        let rows = Self {
            records,
            columns,
            encoder,
            next: 0,
        };
        Ok((rows, layout))
    }

    pub(super) fn place(&self) -> &Place {
        self.records.place()
    }

    pub(super) fn labels(&self) -> &[String] {
        &self.columns.labels
    }

    /// Reads the next row; `false` after the last.
    pub(super) fn next(
        &mut self,
        out: &mut Vec<f32>,
        label: &mut Label,
    ) -> Result<bool, EngineError> {
        out.clear();
        if !self.records.advance()? {
            return Ok(false);
        }
        let row = self.next;
        count_row(self.records.place(), &mut self.next)?;
        self.columns.find(self.records.as_ref(), Some(row))?;
        for (i, &at) in self.columns.features.iter().enumerate() {
            let cell = self.cell(at)?;
            let done = match &self.encoder {
                Some(encoder) => encoder.encode(i, cell, out),
                None => number(cell).map(|n| out.push(n)),
            };
            done.map_err(|f| self.fault(row, &self.columns.names[i], f))?;
        }
        let columns = &self.columns;
        let several = columns.labels.len() > 1;
        label.values_mut().clear();
        for (name, &at) in columns.labels.iter().zip(&columns.labels_at) {
            let cell = self.cell(at)?;
            let read = if several {
                label_value(cell).map(|n| label.values_mut().push(n))
            } else {
                set_label(label, cell)
            };
            read.map_err(|f| self.fault(row, name, f))?;
        }
        Ok(true)
    }

    fn cell(&self, at: Option<usize>) -> Result<Cell<'_>, EngineError> {
        at.map_or(Ok(Cell::Missing), |at| self.records.cell(at))
    }

    fn fault(&self, row: u64, column: &str, fault: CellFault) -> EngineError {
        let place = self.records.place();
        place.fault_at(fault.code, Some(row), Some(column), fault.detail)
    }
}

/// Reads a cell of a table of numbers.
fn number(cell: Cell<'_>) -> Result<f32, CellFault> {
    match narrow(cell.settle()) {
        Ok(n) if n.is_nan() => Err(missing()),
        other => other,
    }
}

fn missing() -> CellFault {
    CellFault {
        code: "missing_value",
        detail: "the cell is empty; fill it or leave the row out".to_owned(),
    }
}

/// Takes a cell as label.
pub(super) fn set_label(label: &mut Label, cell: Cell<'_>) -> Result<(), CellFault> {
    match cell {
        Cell::Missing => return Err(missing()),
        Cell::Text(text) if text.trim().is_empty() => return Err(missing()),
        Cell::Text(text) => label.set_text(text),
        Cell::Number(n) if n.is_nan() => return Err(missing()),
        Cell::Number(n) if n.is_finite() => label.set_number(n),
        Cell::Number(n) => {
            return Err(CellFault {
                code: "not_a_number",
                detail: format!("{n} is not a finite number"),
            });
        }
        Cell::Boolean(b) => label.set_text(if b { "true" } else { "false" }),
    }
    Ok(())
}

/// Reads a cell as one of several labels or numbers; true is 1 and false is 0.
pub(super) fn label_value(cell: Cell<'_>) -> Result<f32, CellFault> {
    let cell = cell.settle();
    let number = match cell {
        Cell::Missing => return Err(missing()),
        other => other
            .number()
            .or_else(|| other.boolean().map(|b| f64::from(u8::from(b)))),
    };
    #[expect(clippy::cast_possible_truncation, reason = "what overflows is refused")]
    let value = number.map(|n| n as f32).filter(|n| n.is_finite());
    value.ok_or_else(|| {
        let shown = cell.category().unwrap_or_default();
        CellFault {
            code: "not_a_number",
            detail: format!(
                "{:?} is neither a number nor true or false, as each of several labels is",
                clip(&shown)
            ),
        }
    })
}

/// Returns the name of the target that these columns hold.
pub(super) fn target(labels: &[String]) -> Option<String> {
    match labels {
        [] => None,
        [one] => Some(one.clone()),
        _ => Some("label_columns".to_owned()),
    }
}

/// Says which column is not there, and which are.
pub(super) fn missing_column(
    place: &Place,
    known: &[String],
    name: &str,
    what: &str,
) -> EngineError {
    let mut shown: Vec<_> = known.iter().take(SHOWN_COLUMNS).map(|c| clip(c)).collect();
    if known.len() > SHOWN_COLUMNS {
        shown.push(format!("and {} more", known.len() - SHOWN_COLUMNS));
    }
    let columns = if shown.is_empty() {
        String::new()
    } else {
        format!("; columns are {}", shown.join(", "))
    };
    let detail = format!("{what} {:?} is not there{columns}", clip(name));
    place.fault("missing_column", detail)
}

/// Cuts text for an error message.
pub(super) fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}
