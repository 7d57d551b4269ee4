//! Records of a Parquet file without nested columns.
//!
//! Without Arrow: columns are read page by page through the format's own types.

use ::parquet::{
    basic::{ConvertedType, LogicalType, TimeUnit, Type as PhysicalType},
    column::reader::{ColumnReader, get_column_reader},
    errors::ParquetError,
    file::{
        properties::ReaderProperties,
        reader::{FileReader, RowGroupReader},
        serialized_reader::{ReadOptionsBuilder, SerializedFileReader},
    },
    schema::types::ColumnDescriptor,
};
use nereid_core::{datasets::encoding::Cell, engine::EngineError, limits};

use super::{
    bytes::Place,
    spool::Spool,
    tables::{Records, clip},
};

mod pages;
mod values;

use pages::Guarded;
use values::{Kind, Value, read_values};

/// Rows decoded at once.
const BATCH_ROWS: usize = 1_024;

/// Reads a Parquet file record by record.
pub(super) struct ParquetRecords {
    file: SerializedFileReader<Spool>,
    spool: Spool,
    place: Place,
    names: Vec<String>,
    columns: Vec<Column>,
    /// Next row group to open.
    group: usize,
    /// Rows of the open row group that are not decoded yet.
    left: usize,
    /// Rows decoded, and how many of them were handed out.
    rows: usize,
    at: usize,
    total: u64,
}

struct Column {
    /// Position among the file's leaves.
    leaf: usize,
    kind: Kind,
    max_level: i16,
    reader: Option<ColumnReader>,
    /// Values of the rows decoded last.
    values: Vec<Value>,
}

impl ParquetRecords {
    /// Reads the footer; columns for which `ignored` holds are left out, and `before` rows come
    /// before those of this table.
    pub(super) fn new(
        spool: Spool,
        before: u64,
        ignored: impl Fn(&str) -> bool,
    ) -> Result<Self, EngineError> {
        let place = spool.place.clone();
        let properties = ReaderProperties::builder().set_read_bloom_filter(false);
        let options = ReadOptionsBuilder::new().with_reader_properties(properties.build());
        let file = SerializedFileReader::new_with_options(spool.clone(), options.build())
            .map_err(|e| bad(&place, &e))?;
        let schema = file.metadata().file_metadata().schema_descr();
        let (mut names, mut columns) = (Vec::new(), Vec::new());
        for (leaf, descriptor) in schema.columns().iter().enumerate() {
            let root = schema.get_column_root(leaf);
            if ignored(root.name()) {
                continue;
            }
            if !root.is_primitive() || descriptor.max_rep_level() > 0 {
                let detail = "it is nested; flatten it, or declare it as ignore";
                return Err(place.fault_at("nested_column", None, Some(root.name()), detail));
            }
            if names.iter().any(|n| n == root.name()) {
                let detail = format!("the schema names {:?} twice", clip(root.name()));
                return Err(place.fault("duplicate_column", detail));
            }
            columns.push(Column {
                leaf,
                kind: Kind::of(descriptor).map_err(|detail| {
                    place.fault_at("unsupported_type", None, Some(root.name()), detail)
                })?,
                max_level: descriptor.max_def_level(),
                reader: None,
                values: Vec::new(),
            });
            names.push(root.name().to_owned());
        }
        let rows = file.metadata().file_metadata().num_rows();
        if u64::try_from(rows).is_ok_and(|n| n > limits::MAX_DATASET_ROWS) {
            let detail = format!("it has more than {} rows", limits::MAX_DATASET_ROWS);
            return Err(place.fault("too_large", detail));
        }
        Ok(Self {
            file,
            spool,
            place,
            names,
            columns,
            group: 0,
            left: 0,
            rows: 0,
            at: 0,
            total: before,
        })
    }

    /// Decodes the next rows of all columns; `false` after the last.
    fn decode(&mut self) -> Result<bool, EngineError> {
        while self.left == 0 {
            if self.group == self.file.num_row_groups() {
                return Ok(false);
            }
            self.open_group()?;
        }
        let n = self.left.min(BATCH_ROWS);
        for (column, name) in self.columns.iter_mut().zip(&self.names) {
            column.values.clear();
            let Some(reader) = &mut column.reader else {
                continue;
            };
            read_values(
                reader,
                &column.kind,
                column.max_level,
                n,
                &mut column.values,
            )
            .map_err(|e| {
                let detail = format!("it cannot be decoded: {e}");
                let row = Some(self.total);
                self.place
                    .fault_at("corrupt_parquet", row, Some(name), detail)
            })?;
            if column.values.len() != n {
                let detail = "it holds fewer values than its row group has rows";
                let row = Some(self.total + column.values.len() as u64);
                return Err(self.place.fault_at("truncated", row, Some(name), detail));
            }
        }
        (self.left, self.rows, self.at) = (self.left - n, n, 0);
        Ok(true)
    }

    fn open_group(&mut self) -> Result<(), EngineError> {
        let group = self
            .file
            .get_row_group(self.group)
            .map_err(|e| bad(&self.place, &e))?;
        self.left = usize::try_from(group.metadata().num_rows()).map_err(|_| {
            self.place
                .fault("corrupt_parquet", "a row group has fewer than no rows")
        })?;
        for (column, name) in self.columns.iter_mut().zip(&self.names) {
            let reader = column.open(group.as_ref(), &self.spool, self.left);
            column.reader = Some(reader.map_err(|e| {
                let detail = format!("it cannot be read: {e}");
                self.place
                    .fault_at("corrupt_parquet", None, Some(name), detail)
            })?);
        }
        self.group += 1;
        Ok(())
    }
}

impl Column {
    /// Starts reading the column in a row group.
    fn open(
        &self,
        group: &dyn RowGroupReader,
        spool: &Spool,
        rows: usize,
    ) -> Result<ColumnReader, ParquetError> {
        let chunk = group.metadata().column(self.leaf);
        let start = chunk
            .dictionary_page_offset()
            .unwrap_or_else(|| chunk.data_page_offset());
        let negative = |_| ParquetError::General("a negative offset or size".to_owned());
        let start = u64::try_from(start).map_err(negative)?;
        let length = u64::try_from(chunk.compressed_size()).map_err(negative)?;
        pages::check_chunk(spool, start, length)?;
        let pages = Guarded {
            inner: group.get_column_page_reader(self.leaf)?,
            rows,
            optional: self.max_level > 0,
        };
        Ok(get_column_reader(chunk.column_descr_ptr(), Box::new(pages)))
    }
}

fn bad(place: &Place, error: &ParquetError) -> EngineError {
    place.fault("corrupt_parquet", format!("it cannot be read: {error}"))
}

impl Records for ParquetRecords {
    fn columns(&self) -> &[String] {
        &self.names
    }

    fn advance(&mut self) -> Result<bool, EngineError> {
        self.at += 1;
        if self.at >= self.rows && !self.decode()? {
            return Ok(false);
        }
        self.total += 1;
        Ok(true)
    }

    fn cell(&self, column: usize) -> Result<Cell<'_>, EngineError> {
        let value = self.columns.get(column).and_then(|c| c.values.get(self.at));
        Ok(match value {
            None | Some(Value::Missing) => Cell::Missing,
            Some(Value::Number(n)) => Cell::Number(*n),
            Some(Value::Boolean(b)) => Cell::Boolean(*b),
            Some(Value::Text(text)) => Cell::Text(text),
            Some(Value::Bytes(bytes)) => {
                Cell::Text(std::str::from_utf8(bytes.data()).map_err(|e| {
                    let (row, name) = (self.total.saturating_sub(1), self.names.get(column));
                    let name = name.map(String::as_str);
                    self.place
                        .fault_at("invalid_utf8", Some(row), name, e.to_string())
                })?)
            }
        })
    }

    fn place(&self) -> &Place {
        &self.place
    }
}
