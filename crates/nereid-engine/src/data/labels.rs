//! Finds out what the labels are: classes with an order, or numbers.

pub(super) mod many;

use std::collections::HashMap;

use nereid_core::{
    datasets::{TargetKind, TargetSchema},
    engine::EngineError,
    limits,
};

use super::{
    bytes::Place,
    rows::Label,
    statistics::{Column, Statistics},
};

/// Whole numbers with at most so many distinct values are classes.
const FEW_CLASSES: usize = 20;
/// Whole numbers that count up from 0 or 1 without a gap may be this many classes …
const MANY_CLASSES: usize = 1_000;
/// … if there are that many rows of each on average.
const ROWS_PER_CLASS: u64 = 20;

/// Codes of classes by name, with a fast path for whole numbers.
#[derive(Default)]
pub(super) struct ClassCodes {
    integers: HashMap<i64, u32>,
    texts: HashMap<String, u32>,
}

impl ClassCodes {
    pub(super) fn new(classes: &[String]) -> Self {
        let mut codes = Self::default();
        for (class, code) in classes.iter().zip(0..) {
            let mut label = Label::default();
            label.set_text(class);
            codes.insert(&label, code);
        }
        codes
    }

    pub(super) fn get(&self, label: &Label) -> Option<u32> {
        match label.integer() {
            Some(n) => self.integers.get(&n).copied(),
            None => self.texts.get(&label.name()).copied(),
        }
    }

    fn insert(&mut self, label: &Label, code: u32) {
        match label.integer() {
            Some(n) => self.integers.insert(n, code),
            None => self.texts.insert(label.name(), code),
        };
    }
}

/// Collects the labels of all rows in one pass.
pub(super) struct Labels {
    name: String,
    rows: u64,
    codes: ClassCodes,
    /// Name and number of rows of each class in order of appearance; `None` once there are too many.
    classes: Option<Vec<(String, u64)>>,
    statistics: Statistics,
    first_text: Option<(u64, String)>,
    first_fraction: Option<(u64, f64)>,
}

/// What the labels turned out to be.
pub(super) struct Target {
    pub(super) schema: TargetSchema,
    pub(super) class_counts: Option<Vec<u64>>,
    pub(super) statistics: Option<Column>,
}

impl Labels {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            rows: 0,
            codes: ClassCodes::default(),
            classes: Some(Vec::new()),
            statistics: Statistics::new(1),
            first_text: None,
            first_fraction: None,
        }
    }

    pub(super) fn push(&mut self, label: &Label) {
        let row = self.rows;
        self.rows += 1;
        match label.number() {
            Some(n) => {
                self.statistics.push(0, n);
                if label.integer().is_none() && self.first_fraction.is_none() {
                    self.first_fraction = Some((row, n));
                }
            }
            None if self.first_text.is_none() => self.first_text = Some((row, label.name())),
            None => {}
        }
        let Some(classes) = &mut self.classes else {
            return;
        };
        if let Some(code) = self.codes.get(label) {
            classes[code as usize].1 += 1;
        } else if classes.len() == limits::MAX_CLASSES {
            self.classes = None;
        } else {
            let code = u32::try_from(classes.len()).unwrap_or(u32::MAX);
            self.codes.insert(label, code);
            classes.push((label.name(), 1));
        }
    }

    /// Decides between classes and numbers: as declared, or text → classes, fractions → numbers,
    /// whole numbers → classes if there are few of them or they are numbered without gaps.
    pub(super) fn finish(
        self,
        declared: Option<TargetKind>,
        place: &Place,
    ) -> Result<Target, EngineError> {
        let kind = declared.unwrap_or_else(|| self.guess());
        let column = Some(self.name.clone());
        let column = column.as_deref();
        match kind {
            TargetKind::Class => {
                if let (Some((row, n)), None) = (self.first_fraction, &self.first_text) {
                    let detail = format!("{n} is no class; classes are whole numbers or words");
                    return Err(place.fault_at("not_an_integer", Some(row), column, detail));
                }
                let Some(classes) = self.classes else {
                    let max = limits::MAX_CLASSES;
                    let detail = format!(
                        "more than {max} distinct labels; is it a number (target \"value\")?"
                    );
                    return Err(place.fault_at("too_many_classes", None, column, detail));
                };
                Ok(class_target(self.name, classes, self.first_text.is_none()))
            }
            TargetKind::Value => {
                if let Some((row, text)) = self.first_text {
                    let text: String = text.chars().take(80).collect();
                    let detail = format!("{text:?} is not a number");
                    return Err(place.fault_at("not_a_number", Some(row), column, detail));
                }
                Ok(Target {
                    schema: TargetSchema::Value { name: self.name },
                    class_counts: None,
                    statistics: self.statistics.columns().into_iter().next(),
                })
            }
        }
    }

    fn guess(&self) -> TargetKind {
        if self.first_text.is_some() {
            return TargetKind::Class;
        }
        let Some(classes) = &self.classes else {
            return TargetKind::Value;
        };
        if self.first_fraction.is_some() {
            return TargetKind::Value;
        }
        let n = classes.len();
        let range = self.statistics.columns().into_iter().next();
        // All are whole numbers here, so that halves tell them apart.
        #[expect(clippy::cast_precision_loss, reason = "at most 10,000 classes")]
        let gapless = range.is_some_and(|c| {
            c.min > -0.5 && c.min < 1.5 && (c.max - c.min - (n as f64 - 1.0)).abs() < 0.5
        });
        let many = gapless && n <= MANY_CLASSES && self.rows >= n as u64 * ROWS_PER_CLASS;
        if n <= FEW_CLASSES || many {
            TargetKind::Class
        } else {
            TargetKind::Value
        }
    }
}

fn class_target(name: String, mut classes: Vec<(String, u64)>, numbers: bool) -> Target {
    if numbers {
        classes.sort_by_key(|(name, _)| name.parse::<i64>().unwrap_or(i64::MAX));
    } else {
        classes.sort();
    }
    let (classes, counts) = classes.into_iter().unzip();
    Target {
        schema: TargetSchema::Class { name, classes },
        class_counts: Some(counts),
        statistics: None,
    }
}
