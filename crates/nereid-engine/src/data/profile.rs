//! Finds out what the columns of a table are: numbers, categories, text, …, and what is missing.

use std::collections::HashMap;

use nereid_core::{
    datasets::{
        ColumnStatistics, ValueStatistics,
        columns::{
            CategoryEncoding, ColumnEncoding, ColumnSchema, ColumnSpec, DEFAULT_CATEGORIES,
            DEFAULT_CATEGORY_BUCKETS, DEFAULT_TEXT_BUCKETS, DEFAULT_TOKENS, DEFAULT_VOCABULARY,
            TextEncoding, Unknown,
        },
        encoding::{Cell, CellFault, narrow},
        words::words,
    },
    engine::EngineError,
};

use super::{bytes::Place, statistics::Statistics, tables::clip};

/// Distinct values of a column that are counted; fewer while all of them are numbers.
const MAX_DISTINCT: usize = 100_000;
const MAX_DISTINCT_NUMBERS: usize = 1_000;
/// Bytes that the distinct values of all columns may take, roughly.
pub(super) const DISTINCT_BYTES: usize = 256 << 20;
/// What an entry takes beside its text.
const ENTRY_BYTES: usize = 64;
/// Words with at most so many distinct values are categories with an input each.
const FEW_CATEGORIES: usize = 64;
/// Values that hold so many words on average are text, if they are not few.
const TEXT_WORDS: f64 = 3.0;
/// If so large a share of a column's values are numbers, the others are taken for mistakes.
const MOSTLY_NUMBERS: f64 = 0.9;
/// Most frequent values that statistics name.
const SHOWN_VALUES: usize = 10;
/// Rows from which on a column of distinct values looks like an identifier.
const IDENTIFIER_ROWS: u64 = 50;

/// Counts of values or words, as long as there are not too many.
struct Counts {
    counts: HashMap<String, u64>,
    full: bool,
}

impl Counts {
    fn new() -> Self {
        Self {
            counts: HashMap::new(),
            full: false,
        }
    }

    fn push(&mut self, value: &str, most: usize, budget: &mut usize) {
        if let Some(n) = self.counts.get_mut(value) {
            *n += 1;
            return;
        }
        match budget.checked_sub(value.len() + ENTRY_BYTES) {
            Some(left) if self.counts.len() < most => {
                *budget = left;
                self.counts.insert(value.to_owned(), 1);
            }
            _ => self.full = true,
        }
    }

    /// Values by falling count.
    fn by_count(&self) -> Vec<(&str, u64)> {
        let mut values: Vec<_> = self.counts.iter().map(|(v, &n)| (v.as_str(), n)).collect();
        values.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        values
    }
}

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
            self.words += text.split_whitespace().count() as u64;
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
                match narrow(cell) {
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

    /// Decides what the column is.
    pub(super) fn finish(&self, place: &Place) -> Result<ColumnSchema, EngineError> {
        let encoding = match &self.declared {
            Some(spec) => self.declared(spec, place)?,
            None => self.guess(place)?,
        };
        Ok(ColumnSchema {
            name: self.name.clone(),
            note: self.note(&encoding),
            encoding,
            missing: self.missing,
        })
    }

    fn guess(&self, place: &Place) -> Result<ColumnEncoding, EngineError> {
        let all = |n: u64| self.present > 0 && n == self.present;
        if all(self.booleans) {
            return self.declared(&ColumnSpec::Boolean {}, place);
        }
        if all(self.timestamps) {
            return self.declared(&ColumnSpec::Timestamp {}, place);
        }
        #[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]
        let (numbers, present, words) =
            (self.numbers as f64, self.present as f64, self.words as f64);
        if numbers >= MOSTLY_NUMBERS * present {
            return self.declared(&ColumnSpec::Number { impute: None }, place);
        }
        let few = self
            .values
            .as_ref()
            .is_some_and(|v| !v.full && v.counts.len() <= FEW_CATEGORIES);
        if !few && words >= TEXT_WORDS * present {
            let spec = ColumnSpec::Text {
                encoding: TextEncoding::Hash,
                buckets: None,
                vocabulary: None,
                length: None,
            };
            return self.declared(&spec, place);
        }
        let encoding = if few {
            CategoryEncoding::OneHot
        } else {
            CategoryEncoding::Hash
        };
        let spec = ColumnSpec::Category {
            encoding,
            max_categories: None,
            buckets: None,
            unknown: Unknown::Ignore,
        };
        self.declared(&spec, place)
    }

    fn declared(&self, spec: &ColumnSpec, place: &Place) -> Result<ColumnEncoding, EngineError> {
        let indicator = self.missing > 0;
        let fault = |row, code, detail: String| {
            Err(place.fault_at(code, Some(row), Some(&self.name), detail))
        };
        Ok(match spec {
            ColumnSpec::Number { impute } => {
                if let Some((row, text)) = &self.first_text {
                    let detail = format!(
                        "{:?} is not a number; if it is right, declare the column as category or text",
                        clip(text)
                    );
                    return fault(*row, "not_a_number", detail);
                }
                if let Some((row, f)) = &self.first_fault {
                    return fault(*row, f.code, f.detail.clone());
                }
                ColumnEncoding::Number {
                    impute: *impute,
                    indicator,
                }
            }
            ColumnSpec::Boolean {} | ColumnSpec::Timestamp {} => {
                let boolean = matches!(spec, ColumnSpec::Boolean {});
                if let Some((row, text)) = &self.first_unfit {
                    let what = if boolean {
                        "true or false"
                    } else {
                        "a date or time by ISO 8601"
                    };
                    let detail = format!("{:?} is not {what}", clip(text));
                    return fault(*row, "wrong_kind", detail);
                }
                if boolean {
                    ColumnEncoding::Boolean { indicator }
                } else {
                    ColumnEncoding::Timestamp { indicator }
                }
            }
            ColumnSpec::Category {
                encoding,
                max_categories,
                buckets,
                unknown,
            } => ColumnEncoding::Category {
                encoding: *encoding,
                categories: match encoding {
                    CategoryEncoding::Hash => Vec::new(),
                    _ => self.categories(max_categories.unwrap_or(DEFAULT_CATEGORIES)),
                },
                buckets: match encoding {
                    CategoryEncoding::Hash => buckets.unwrap_or(DEFAULT_CATEGORY_BUCKETS),
                    _ => 0,
                },
                unknown: *unknown,
                indicator: indicator && *encoding != CategoryEncoding::Index,
            },
            ColumnSpec::Text {
                encoding,
                buckets,
                vocabulary,
                length,
            } => match encoding {
                TextEncoding::Hash => ColumnEncoding::Text {
                    encoding: *encoding,
                    buckets: buckets.unwrap_or(DEFAULT_TEXT_BUCKETS),
                    vocabulary: Vec::new(),
                    length: 0,
                },
                TextEncoding::Tokens => ColumnEncoding::Text {
                    encoding: *encoding,
                    buckets: 0,
                    vocabulary: self.vocabulary(vocabulary.unwrap_or(DEFAULT_VOCABULARY)),
                    length: length.unwrap_or(DEFAULT_TOKENS),
                },
            },
            ColumnSpec::Ignore {} => {
                let detail = "an ignored column is no feature".to_owned();
                return Err(EngineError::Internal(detail));
            }
        })
    }

    /// The most frequent categories: numbers by value, words by name.
    fn categories(&self, most: u32) -> Vec<String> {
        let Some(values) = &self.values else {
            return Vec::new();
        };
        let kept = values.by_count().into_iter().take(most as usize);
        let mut kept: Vec<String> = kept.map(|(v, _)| v.to_owned()).collect();
        kept.sort();
        if kept.iter().all(|v| v.parse::<f64>().is_ok()) {
            let value = |v: &String| v.parse().unwrap_or(f64::INFINITY);
            kept.sort_by(|a, b| value(a).total_cmp(&value(b)));
        }
        kept
    }

    /// The most frequent words; of equals the last by name first, as Keras has them.
    fn vocabulary(&self, size: u32) -> Vec<String> {
        let Some(tokens) = &self.tokens else {
            return Vec::new();
        };
        let mut words: Vec<_> = tokens.counts.iter().collect();
        words.sort_by(|a, b| b.1.cmp(a.1).then(b.0.cmp(a.0)));
        // Padding and unknown are part of the size.
        let most = (size as usize).saturating_sub(2);
        words
            .into_iter()
            .take(most)
            .map(|(w, _)| w.clone())
            .collect()
    }

    fn note(&self, encoding: &ColumnEncoding) -> Option<String> {
        if self.present == 0 {
            return Some("no row has a value; consider to ignore it".to_owned());
        }
        let distinct = self.distinct();
        let constant = distinct == Some(1) && self.missing == 0;
        if constant {
            return Some("every row has the same value; consider to ignore it".to_owned());
        }
        let many = self.present >= IDENTIFIER_ROWS;
        match encoding {
            ColumnEncoding::Number { .. } if many && self.counting => {
                Some("counts the rows, like an identifier; consider to ignore it".to_owned())
            }
            ColumnEncoding::Category {
                encoding: CategoryEncoding::Hash,
                ..
            } if many && distinct.is_none_or(|n| n * 2 > self.present) => Some(
                "nearly every row has a value of its own, like an identifier; consider to ignore it"
                    .to_owned(),
            ),
            ColumnEncoding::Category { categories, .. }
                if distinct.is_none_or(|n| n > categories.len() as u64)
                    && !categories.is_empty() =>
            {
                let n = categories.len();
                Some(format!("only the {n} most frequent values are categories"))
            }
            _ => None,
        }
    }

    fn distinct(&self) -> Option<u64> {
        let values = self.values.as_ref().filter(|v| !v.full)?;
        Some(values.counts.len() as u64)
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
                shown.map(|(v, n)| (clip(v), n)).collect()
            }),
        }
    }
}
