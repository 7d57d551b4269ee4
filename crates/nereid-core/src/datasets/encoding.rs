//! From the cells of a table to the inputs of a network: one place for training and serving.
//!
//! Missing numbers become NaN here; preprocessing puts the imputed value in, since the mean of
//! the training rows is only known once they are drawn.

use std::collections::HashMap;

use chrono::{Datelike, NaiveDate, NaiveTime, Timelike};

pub use super::cell::{Cell, CellFault};
use super::{
    cell::fault,
    columns::{CategoryEncoding, ColumnEncoding, ColumnSchema, TextEncoding, Unknown, table_width},
    words::{bucket, words},
};

/// Turns rows of cells into rows of inputs.
#[derive(Debug, Clone)]
pub struct TableEncoder {
    columns: Vec<Column>,
    width: usize,
}

#[derive(Debug, Clone)]
struct Column {
    encoding: ColumnEncoding,
    /// Position of each category or word.
    index: HashMap<String, usize>,
}

impl TableEncoder {
    /// Prepares for the columns of a schema or signature.
    #[must_use]
    pub fn new(columns: &[ColumnSchema]) -> Self {
        let column = |c: &ColumnSchema| {
            let (ColumnEncoding::Category {
                categories: known, ..
            }
            | ColumnEncoding::Text {
                vocabulary: known, ..
            }) = &c.encoding
            else {
                return Column {
                    encoding: c.encoding.clone(),
                    index: HashMap::new(),
                };
            };
            Column {
                encoding: c.encoding.clone(),
                index: known.iter().cloned().zip(0..).collect(),
            }
        };
        Self {
            width: table_width(columns),
            columns: columns.iter().map(column).collect(),
        }
    }

    /// Number of inputs per row.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Number of columns.
    #[must_use]
    pub const fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Appends the inputs of the column at a position to `out`; NaN for a missing number.
    ///
    /// # Errors
    /// A cell that is not of the column's kind, or missing where no training row lacked it and
    /// nothing stands for it.
    pub fn encode(
        &self,
        column: usize,
        cell: Cell<'_>,
        out: &mut Vec<f32>,
    ) -> Result<(), CellFault> {
        let Some(Column { encoding, index }) = self.columns.get(column) else {
            return Err(fault("unexpected_column", "there is no such column"));
        };
        let cell = cell.settle();
        match encoding {
            ColumnEncoding::Number { .. } => out.push(narrow(cell)?),
            ColumnEncoding::Boolean { .. } => {
                let value = match (cell, cell.boolean()) {
                    (Cell::Missing, _) => 0.0,
                    (_, Some(b)) => f32::from(u8::from(b)),
                    (other, None) => return Err(unfit(other, "true or false")),
                };
                out.push(value);
            }
            ColumnEncoding::Timestamp { .. } => out.extend(timestamp(cell)?),
            ColumnEncoding::Category {
                encoding: by,
                buckets,
                unknown,
                ..
            } => category(cell, index, (*by, *buckets, *unknown), out),
            ColumnEncoding::Text {
                encoding: TextEncoding::Hash,
                buckets,
                ..
            } => bag(cell, *buckets, out),
            ColumnEncoding::Text { length, .. } => tokens(cell, index, *length as usize, out),
        }
        if encoding.indicator() {
            out.push(f32::from(u8::from(cell == Cell::Missing)));
        }
        Ok(())
    }
}

fn unfit(cell: Cell<'_>, what: &str) -> CellFault {
    let code = if what == "a number" {
        "not_a_number"
    } else {
        "wrong_kind"
    };
    let shown = cell.category().unwrap_or_default();
    let shown: String = shown.chars().take(80).collect();
    fault(code, format!("{shown:?} is not {what}"))
}

/// Narrows a number to what networks compute in; NaN for a missing one.
///
/// # Errors
/// What is no number or does not fit.
pub fn narrow(cell: Cell<'_>) -> Result<f32, CellFault> {
    if cell == Cell::Missing {
        return Ok(f32::NAN);
    }
    narrow_number(cell.number().ok_or_else(|| unfit(cell, "a number"))?)
}

/// Narrows a number to what networks compute in.
///
/// # Errors
/// What is not finite or does not fit.
pub fn narrow_number(value: f64) -> Result<f32, CellFault> {
    #[expect(clippy::cast_possible_truncation, reason = "what overflows is refused")]
    let narrow = value as f32;
    if narrow.is_finite() {
        return Ok(narrow);
    }
    Err(if value.is_finite() {
        fault(
            "out_of_range",
            format!("{value} does not fit a 32-bit float"),
        )
    } else {
        fault("not_a_number", format!("{value} is not a finite number"))
    })
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "dates have few digits"
)]
fn timestamp(cell: Cell<'_>) -> Result<[f32; 6], CellFault> {
    if cell == Cell::Missing {
        return Ok([f32::NAN; 6]);
    }
    let time = cell
        .timestamp()
        .ok_or_else(|| unfit(cell, "a date or time by ISO 8601"))?;
    let epoch = NaiveDate::from_ymd_opt(2000, 1, 1)
        .unwrap_or_default()
        .and_time(NaiveTime::MIN);
    let days = (time - epoch).num_milliseconds() as f64 / 86_400_000.0;
    Ok([
        days as f32,
        time.year() as f32,
        time.month() as f32,
        time.day() as f32,
        time.weekday().num_days_from_monday() as f32,
        time.hour() as f32,
    ])
}

fn category(
    cell: Cell<'_>,
    index: &HashMap<String, usize>,
    (encoding, buckets, unknown): (CategoryEncoding, u32, Unknown),
    out: &mut Vec<f32>,
) {
    let name = cell.category();
    let found = name.as_ref().and_then(|n| index.get(n)).copied();
    let (width, set) = match encoding {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^24 categories")]
        CategoryEncoding::Index => {
            out.push(found.map_or(0.0, |i| i as f32 + 1.0));
            return;
        }
        CategoryEncoding::OneHot if unknown == Unknown::Bucket => {
            let own = index.len();
            let set = found.or(name.is_some().then_some(own));
            (own + 1, set)
        }
        CategoryEncoding::OneHot => (index.len(), found),
        CategoryEncoding::Hash => {
            let set = name.map(|n| bucket(&n, buckets) as usize);
            (buckets as usize, set)
        }
    };
    let start = out.len();
    out.resize(start + width, 0.0);
    if let Some(at) = set {
        out[start + at] = 1.0;
    }
}

fn with_text<R>(cell: Cell<'_>, read: impl FnOnce(&str) -> R) -> R {
    match cell {
        Cell::Text(text) => read(text),
        other => read(&other.category().unwrap_or_default()),
    }
}

/// A bag of words in buckets, counts of length 1.
fn bag(cell: Cell<'_>, buckets: u32, out: &mut Vec<f32>) {
    let start = out.len();
    out.resize(start + buckets as usize, 0.0);
    let counts = &mut out[start..];
    with_text(cell, |text| {
        for word in words(text) {
            counts[bucket(&word, buckets) as usize] += 1.0;
        }
    });
    let length = counts.iter().map(|n| n * n).sum::<f32>().sqrt();
    if length > 0.0 {
        for n in counts {
            *n /= length;
        }
    }
}

/// Word indices: 0 pads, 1 is unknown.
fn tokens(cell: Cell<'_>, index: &HashMap<String, usize>, length: usize, out: &mut Vec<f32>) {
    let end = out.len() + length;
    with_text(cell, |text| {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^24 words")]
        let token = |word: String| index.get(&word).map_or(1.0, |&i| i as f32 + 2.0);
        out.extend(words(text).take(length).map(token));
    });
    out.resize(end, 0.0);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn encode(
        column: serde_json::Value,
        cells: &[Cell<'_>],
    ) -> Vec<Result<Vec<f32>, &'static str>> {
        let mut column = column;
        column["name"] = json!("c");
        let column: ColumnSchema = serde_json::from_value(column).unwrap();
        let encoder = TableEncoder::new(std::slice::from_ref(&column));
        let one = |&cell: &Cell<'_>| {
            let mut out = Vec::new();
            encoder.encode(0, cell, &mut out).map_err(|f| f.code)?;
            assert_eq!(out.len(), encoder.width());
            Ok(out)
        };
        cells.iter().map(one).collect()
    }

    #[test]
    fn categories_take_one_input_each_and_survive_unknown_ones() {
        let cells = [
            Cell::Text(" 3.0 "),
            Cell::Number(1.0),
            Cell::Text("new"),
            Cell::Text("NA"),
        ];
        let column = |more: serde_json::Value| {
            let mut column =
                json!({"kind": "category", "encoding": "one_hot", "categories": ["1", "3"]});
            column
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            encode(column, &cells)
                .into_iter()
                .map(Result::unwrap)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            column(json!({})),
            [[0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
        );
        assert_eq!(
            column(json!({"unknown": "bucket", "indicator": true})),
            [
                [0.0, 1.0, 0.0, 0.0],
                [1.0, 0.0, 0.0, 0.0],
                [0.0, 0.0, 1.0, 0.0],
                [0.0, 0.0, 0.0, 1.0]
            ]
        );
        assert_eq!(
            column(json!({"encoding": "index", "indicator": true})),
            [[2.0], [1.0], [0.0], [0.0]]
        );
        let hashed = column(json!({"encoding": "hash", "buckets": 5}));
        assert!(
            hashed[..3].iter().all(|h| h.iter().sum::<f32>() > 0.5),
            "{hashed:?}"
        );
        assert_eq!(hashed[3], [0.0; 5]);
    }

    #[test]
    fn text_becomes_tokens_or_a_bag() {
        let cells = [
            Cell::Text("The cat, the dog"),
            Cell::Text("cat"),
            Cell::Missing,
        ];
        let column = json!({"kind": "text", "encoding": "tokens", "vocabulary": ["the", "cat"], "length": 3});
        let tokens: Vec<_> = encode(column, &cells)
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert_eq!(tokens, [[2.0, 3.0, 2.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]);
        let column = json!({"kind": "text", "encoding": "hash", "buckets": 64});
        let bags: Vec<_> = encode(column, &cells)
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let length = |bag: &[f32]| bag.iter().map(|n| n * n).sum::<f32>();
        assert!((length(&bags[0]) - 1.0).abs() < 1e-6);
        assert!((bags[1][bucket("cat", 64) as usize] - 1.0).abs() < 1e-6);
        assert!(length(&bags[2]) < 1e-6);
    }

    #[test]
    fn numbers_flags_and_times_are_checked() {
        let number = |cell| encode(json!({"kind": "number", "indicator": true}), &[cell]).remove(0);
        assert_eq!(number(Cell::Text("1e3")), Ok(vec![1000.0, 0.0]));
        let missing = number(Cell::Number(f64::NAN)).unwrap();
        assert!(missing[0].is_nan() && missing[1] > 0.5);
        assert_eq!(number(Cell::Text("five")), Err("not_a_number"));
        assert_eq!(number(Cell::Text("inf")), Err("not_a_number"));
        assert_eq!(number(Cell::Number(1e300)), Err("out_of_range"));
        let flag = |cell| encode(json!({"kind": "boolean"}), &[cell]).remove(0);
        assert_eq!(flag(Cell::Text("Yes")), Ok(vec![1.0]));
        assert_eq!(flag(Cell::Boolean(false)), Ok(vec![0.0]));
        assert_eq!(flag(Cell::Number(2.0)), Err("wrong_kind"));
        let time = |text| encode(json!({"kind": "timestamp"}), &[Cell::Text(text)]).remove(0);
        // The first of March 2000 was a Wednesday.
        let expected = vec![60.5, 2000.0, 3.0, 1.0, 2.0, 12.0];
        assert_eq!(time("2000-03-01T14:00:00+02:00"), Ok(expected.clone()));
        assert_eq!(time("2000-03-01 12:00"), Ok(expected));
        assert_eq!(time("2000-03-32"), Err("wrong_kind"));
    }
}
