//! Finds out what the columns of a table are: numbers, categories, text, …, and what is missing.

mod counts;
mod decide;

use nereid_core::datasets::{
    ColumnStatistics, FrequentValue, ValueStatistics,
    columns::{ColumnSpec, TextEncoding},
    encoding::{Cell, CellFault, narrow_number},
    words::words,
};

use super::{statistics::Statistics, tables::clip};
use counts::Counts;

/// Distinct values of a column that are counted; fewer while all of them are numbers.
const MAX_DISTINCT: usize = 100_000;
const MAX_DISTINCT_NUMBERS: usize = 1_000;
/// Bytes that the distinct values of all columns may take, roughly.
pub(super) const DISTINCT_BYTES: usize = 256 << 20;
/// Most frequent values that statistics name.
const SHOWN_VALUES: usize = 10;

/// What is known of a column from the rows read so far.
pub(super) struct Profile {
    name: String,
    declared: Option<ColumnSpec>,
    present: u64,
    missing: u64,
    numbers: u64,
    booleans: u64,
    timestamps: u64,
    words: u64,
    /// Whole numbers that each are one more than the one before.
    counting: bool,
    last: f64,
    figures: Statistics,
    values: Option<Counts>,
    tokens: Option<Counts>,
    /// The first value that is no number, and the first number that cannot be used.
    first_text: Option<(u64, String)>,
    first_fault: Option<(u64, CellFault)>,
    /// The first value that is not of the declared kind.
    first_unfit: Option<(u64, String)>,
}

impl Profile {
    /// A column that is first seen after `missing` rows without it.
    pub(super) fn new(name: &str, declared: Option<&ColumnSpec>, missing: u64) -> Self {
        let tokens = matches!(
            declared,
            Some(ColumnSpec::Text {
                encoding: TextEncoding::Tokens,
                ..
            })
        );
        let text = matches!(declared, Some(ColumnSpec::Text { .. }));
        Self {
            name: name.to_owned(),
            declared: declared.cloned(),
            present: 0,
            missing,
            numbers: 0,
            booleans: 0,
            timestamps: 0,
            words: 0,
            counting: true,
            last: 0.0,
            figures: Statistics::new(1),
            values: (!text).then(Counts::new),
            tokens: tokens.then(Counts::new),
            first_text: None,
            first_fault: None,
            first_unfit: None,
        }
    }

    /// Takes the column's cell of a row in; `budget` is what is left of [`DISTINCT_BYTES`].
    pub(super) fn push(&mut self, row: u64, cell: Cell<'_>, budget: &mut usize) {
        let cell = cell.settle();
        if cell == Cell::Missing {
            self.missing += 1;
            return;
        }
        self.present += 1;
        self.push_number(row, cell);
        if let Cell::Text(text) = cell {
            if self.numbers < self.present {
                self.words += text.split_whitespace().count() as u64;
            }
            if let Some(tokens) = &mut self.tokens {
                words(text).for_each(|word| tokens.push(&word, MAX_DISTINCT * 10, budget));
            }
        }
        let fits = match &self.declared {
            Some(ColumnSpec::Boolean {}) => cell.boolean().is_some(),
            Some(ColumnSpec::Timestamp {}) => cell.timestamp().is_some(),
            _ => true,
        };
        if !fits && self.first_unfit.is_none() {
            self.first_unfit = Some((row, cell.category().unwrap_or_default()));
        }
        // Once values are too many to count, none of this column's is worth a string.
        let most = if self.declared.is_none() && self.numbers == self.present {
            MAX_DISTINCT_NUMBERS
        } else {
            MAX_DISTINCT
        };
        if let Some(values) = self.values.as_mut().filter(|v| !v.full) {
            match cell {
                Cell::Text(text) if !text.contains('.') => values.push(text, most, budget),
                other => values.push(&other.category().unwrap_or_default(), most, budget),
            }
        }
    }

    fn push_number(&mut self, row: u64, cell: Cell<'_>) {
        match (cell, cell.number()) {
            (Cell::Boolean(_), _) => self.booleans += 1,
            (_, Some(value)) => {
                self.numbers += 1;
                self.counting &= self.numbers == 1 || (value - self.last - 1.0).abs() < 1e-9;
                self.last = value;
                match narrow_number(value) {
                    Ok(n) => self.figures.push(0, f64::from(n)),
                    Err(fault) if self.first_fault.is_none() => {
                        self.first_fault = Some((row, fault));
                    }
                    Err(_) => {}
                }
            }
            (cell, None) => {
                let word = matches!(cell, Cell::Text(t) if t.eq_ignore_ascii_case("true") || t.eq_ignore_ascii_case("false"));
                self.booleans += u64::from(word);
                self.timestamps += u64::from(cell.timestamp().is_some());
                if self.first_text.is_none() {
                    self.first_text = Some((row, cell.category().unwrap_or_default()));
                }
            }
        }
    }

    /// Tells whether the column is one of numbers with none missing, and nothing else was asked.
    pub(super) fn is_plain(&self) -> bool {
        let asked = match self.declared {
            None => true,
            Some(ColumnSpec::Number { impute }) => impute.is_none(),
            _ => false,
        };
        asked && self.missing == 0 && self.numbers == self.present
    }

    /// Returns the figures of a column of numbers.
    pub(super) fn figures(&self) -> super::statistics::Column {
        self.figures.columns()[0]
    }

    /// Describes the column.
    pub(super) fn statistics(&self) -> ColumnStatistics {
        let figures = self.figures();
        let numbers = self.numbers > 0 && self.first_text.is_none() && self.first_fault.is_none();
        let frequent = self.values.as_ref().filter(|v| !numbers && !v.full);
        ColumnStatistics {
            name: self.name.clone(),
            present: self.present,
            missing: self.missing,
            distinct: self.distinct(),
            numbers: numbers.then_some(ValueStatistics {
                mean: figures.mean,
                std: figures.std,
                min: figures.min,
                max: figures.max,
            }),
            frequent: frequent.map_or(Vec::new(), |v| {
                let shown = v.by_count().into_iter().take(SHOWN_VALUES);
                let named = |(value, rows)| FrequentValue {
                    value: clip(value),
                    rows,
                };
                shown.map(named).collect()
            }),
        }
    }
}
