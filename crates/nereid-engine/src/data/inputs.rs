//! Rows to predict, as they lie in their files: no target, and nothing encoded yet.

use nereid_core::{
    datasets::{DatasetFormat, DatasetSource, encoding::Cell},
    engine::{DataError, DataFiles, EngineError, InputRows, RowReader},
    rows::{InputRow, Numbers},
};
use serde_json::Value;

use super::{
    jsonl::{Fields, Lines},
    rows::{Label, Rows},
    tables::{self, Records},
};
use crate::guard;

/// Mistakes of a single row, after which the next one can be read.
const OF_ONE_ROW: [&str; 11] = [
    "bad_header",
    "bad_image",
    "bad_json",
    "duplicate_column",
    "invalid_utf8",
    "missing_value",
    "nested_column",
    "not_a_number",
    "out_of_range",
    "ragged_row",
    "shape_mismatch",
];

/// The [`RowReader`] of this engine.
pub(crate) struct DatasetRows;

impl RowReader for DatasetRows {
    fn open(
        &self,
        source: &DatasetSource,
        files: &dyn DataFiles,
        check: &mut dyn FnMut() -> Result<(), EngineError>,
    ) -> Result<Box<dyn InputRows>, EngineError> {
        let reader = guard::panics("opening rows to predict", || {
            Ok(match source.format {
                DatasetFormat::Jsonl => Reader::Lines(tables::open_lines(source, files)?),
                DatasetFormat::Csv | DatasetFormat::Parquet => {
                    Reader::Table(tables::open_table(source, files, check)?)
                }
                _ => Reader::Samples {
                    rows: Box::new(Rows::open(source, files, None, check)?),
                    label: Label::default(),
                },
            })
        })?;
        Ok(Box::new(DatasetInput { reader, read: 0 }))
    }
}

/// How rows are told apart.
enum Reader {
    Table(Box<dyn Records>),
    Lines(Lines),
    Samples { rows: Box<Rows>, label: Label },
}

struct DatasetInput {
    reader: Reader,
    /// Rows read, those that could not be included.
    read: u64,
}

impl InputRows for DatasetInput {
    fn header(&self) -> Option<&[String]> {
        match &self.reader {
            Reader::Table(records) => Some(records.columns()),
            Reader::Lines(_) | Reader::Samples { .. } => None,
        }
    }

    fn next(&mut self) -> Result<Option<InputRow>, EngineError> {
        let row = self.read + 1;
        let reader = &mut self.reader;
        let read = guard::panics("reading rows to predict", || reader.next());
        if !matches!(read, Ok(None)) {
            self.read = row;
        }
        read.map_err(|e| place(e, row))
    }
}

/// Says of a mistake which row it is in, if it is in no other.
///
/// Readers count the rows that they can read, so their number is not the one in the file.
fn place(error: EngineError, row: u64) -> EngineError {
    match error {
        EngineError::InvalidData(e) if e.row.is_some() => {
            let of_one_row = OF_ONE_ROW.contains(&e.code);
            EngineError::InvalidData(if of_one_row {
                DataError {
                    row: Some(row),
                    ..e
                }
            } else {
                DataError {
                    row: None,
                    detail: format!("row {row}: {}", e.detail),
                    ..e
                }
            })
        }
        other => other,
    }
}

impl Reader {
    fn next(&mut self) -> Result<Option<InputRow>, EngineError> {
        match self {
            Self::Table(records) => {
                if !records.advance()? {
                    return Ok(None);
                }
                let value = |(i, name): (usize, &String)| {
                    let value = records.cell(i)?;
                    Ok((name.clone(), shown(value)))
                };
                let columns = records.columns().iter().enumerate().map(value);
                let columns = columns.collect::<Result<_, EngineError>>()?;
                Ok(Some(InputRow::Columns(columns)))
            }
            Self::Lines(lines) => {
                if !lines.advance()? {
                    return Ok(None);
                }
                let text = lines.text();
                let row = if text.starts_with(b"[") {
                    serde_json::from_slice(text).map(InputRow::Values)
                } else {
                    serde_json::from_slice(text).map(|Fields(fields)| InputRow::Columns(fields))
                };
                row.map(Some).map_err(|e| lines.no_json(&e))
            }
            Self::Samples { rows, label } => {
                let mut values = Vec::new();
                if !rows.next(&mut values, label)? {
                    return Ok(None);
                }
                Ok(Some(InputRow::Values(Numbers {
                    values,
                    shape: rows.layout().shape.clone(),
                    ..Numbers::default()
                })))
            }
        }
    }
}

/// Whole numbers from here on are not all told apart by a float.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Returns a cell as JSON has it.
fn shown(cell: Cell<'_>) -> Value {
    match cell {
        Cell::Missing => Value::Null,
        Cell::Boolean(b) => Value::Bool(b),
        Cell::Text(text) => Value::String(text.to_owned()),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "checked to be whole and exact"
        )]
        Cell::Number(n) if n.fract() == 0.0 && n.abs() < EXACT => Value::from(n as i64),
        Cell::Number(n) if n.is_nan() => Value::Null,
        Cell::Number(n) if n.is_infinite() => Value::String(n.to_string()),
        Cell::Number(n) => Value::from(n),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};

    use nereid_core::datasets::FileRole;
    use serde_json::json;

    use super::*;

    struct Text(&'static [u8]);

    impl DataFiles for Text {
        fn open(&self, _: FileRole) -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(self.0))
        }
    }

    /// Reads all rows; those that cannot be read by their number and code.
    fn read(format: &str, text: &'static str) -> Vec<Result<InputRow, (u64, &'static str)>> {
        let source = json!({"format": format, "files": {"data": "s3://b/k"}});
        let source = serde_json::from_value(source).unwrap();
        let files = Text(text.as_bytes());
        let mut rows = DatasetRows.open(&source, &files, &mut || Ok(())).unwrap();
        let mut found = Vec::new();
        loop {
            match rows.next() {
                Ok(None) => return found,
                Ok(Some(row)) => found.push(Ok(row)),
                Err(EngineError::InvalidData(e)) => found.push(Err((e.row.unwrap(), e.code))),
                Err(e) => panic!("{e}"),
            }
        }
    }

    fn columns(value: &Value) -> InputRow {
        let fields = value.as_object().unwrap().clone();
        InputRow::Columns(fields.into_iter().collect())
    }

    #[test]
    fn reading_goes_on_after_a_row_that_cannot_be_read() {
        let csv = read("csv", "a,b\n1,x\n2\n3,\n");
        let expected = [
            Ok(columns(&json!({"a": "1", "b": "x"}))),
            Err((2, "ragged_row")),
            Ok(columns(&json!({"a": "3", "b": null}))),
        ];
        assert_eq!(csv, expected);
        let lines = read("jsonl", "{oops\n\n{\"a\": [1, 2]}\n3\n[1, 2]\n");
        assert_eq!(lines[0], Err((1, "bad_json")));
        assert_eq!(lines[1], Ok(columns(&json!({"a": [1, 2]}))));
        assert_eq!(lines[2], Err((3, "bad_json")));
        let Ok(InputRow::Values(numbers)) = &lines[3] else {
            panic!("no values")
        };
        assert_eq!(numbers.values, [1.0, 2.0]);
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn what_ends_the_reading_has_no_row() {
        let whole = EngineError::InvalidData(DataError {
            file: FileRole::Data,
            code: "too_large",
            row: Some(3),
            column: None,
            detail: "x".to_owned(),
        });
        let EngineError::InvalidData(e) = place(whole, 7) else {
            panic!("another error")
        };
        assert_eq!((e.row, e.detail.as_str()), (None, "row 7: x"));
    }

    #[test]
    fn numbers_keep_what_they_are() {
        assert_eq!(shown(Cell::Number(3.0)), json!(3));
        assert_eq!(shown(Cell::Number(0.5)), json!(0.5));
        assert_eq!(shown(Cell::Number(f64::NAN)), Value::Null);
        assert_eq!(shown(Cell::Number(1e20)), json!(1e20));
    }
}
