//! Decides what a column is, as declared or from its values.

use nereid_core::{
    datasets::columns::{
        CategoryEncoding, ColumnEncoding, ColumnSchema, ColumnSpec, DEFAULT_CATEGORIES,
        DEFAULT_CATEGORY_BUCKETS, DEFAULT_TEXT_BUCKETS, DEFAULT_TOKENS, DEFAULT_VOCABULARY,
        TextEncoding, Unknown,
    },
    engine::EngineError,
};

use super::{
    super::{bytes::Place, tables::clip},
    Profile,
};

/// Words with at most so many distinct values are categories with an input each.
const FEW_CATEGORIES: usize = 64;
/// Values that hold so many words on average are text, if they are not few.
const TEXT_WORDS: f64 = 3.0;
/// If so large a share of a column's values are numbers, the others are taken for mistakes.
const MOSTLY_NUMBERS: f64 = 0.9;
/// Rows from which on a column of distinct values looks like an identifier.
const IDENTIFIER_ROWS: u64 = 50;

impl Profile {
    /// Decides what the column is.
    pub(in crate::data) fn finish(&self, place: &Place) -> Result<ColumnSchema, EngineError> {
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

    pub(super) fn distinct(&self) -> Option<u64> {
        let values = self.values.as_ref().filter(|v| !v.full)?;
        Some(values.counts.len() as u64)
    }
}
