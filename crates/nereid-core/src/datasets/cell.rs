//! Values of a table as they are read or sent, and what they can be understood as.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};

/// A value of a table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// No value.
    Missing,
    /// A number.
    Number(f64),
    /// True or false.
    Boolean(bool),
    /// Text, which may be read as a number, a date, ….
    Text(&'a str),
}

/// What is wrong with a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellFault {
    /// Kind of mistake, stable for programs.
    pub code: &'static str,
    /// What was found and what would be right.
    pub detail: String,
}

pub(super) fn fault(code: &'static str, detail: impl Into<String>) -> CellFault {
    CellFault {
        code,
        detail: detail.into(),
    }
}

/// Words for a missing value, those that pandas knows.
const MISSING: [&str; 15] = [
    "", "#N/A", "#NA", "-NaN", "-nan", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan",
    "null", "?",
];

impl Cell<'_> {
    /// Returns the cell, with the words that stand for a missing value understood.
    #[must_use]
    pub fn settle(self) -> Self {
        match self {
            Self::Text(text) => {
                let text = text.trim();
                // Most cells are told apart by a glance; tables have millions of them.
                let number = text.starts_with(|c: char| c.is_ascii_digit());
                if !number && text.len() <= 4 && MISSING.contains(&text) {
                    Self::Missing
                } else {
                    Self::Text(text)
                }
            }
            Self::Number(n) if n.is_nan() => Self::Missing,
            other => other,
        }
    }

    /// Reads the cell as a number, which may be infinite; `None` if it is none.
    #[must_use]
    pub fn number(self) -> Option<f64> {
        match self {
            Self::Number(n) => Some(n),
            Self::Boolean(b) => Some(f64::from(u8::from(b))),
            Self::Text(text) => text.parse().ok(),
            Self::Missing => None,
        }
    }

    /// Reads the cell as true or false.
    #[must_use]
    pub fn boolean(self) -> Option<bool> {
        match self {
            Self::Boolean(b) => Some(b),
            Self::Number(n) if n.to_bits() == 1.0_f64.to_bits() => Some(true),
            Self::Number(0.0) => Some(false),
            Self::Text(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" | "1.0" => Some(true),
                "false" | "no" | "0" | "0.0" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    /// Reads the cell as a time in UTC.
    #[must_use]
    pub fn timestamp(self) -> Option<NaiveDateTime> {
        let Self::Text(text) = self else { return None };
        // What is no date is found out cheaply, since every word of a table comes by here.
        if !text.starts_with(|c: char| c.is_ascii_digit()) || text.len() < 8 {
            return None;
        }
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Some(time.naive_utc());
        }
        for format in [
            "%Y-%m-%dT%H:%M:%S%.f",
            "%Y-%m-%d %H:%M:%S%.f",
            "%Y-%m-%d %H:%M",
        ] {
            if let Ok(time) = NaiveDateTime::parse_from_str(text, format) {
                return Some(time);
            }
        }
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        Some(date.and_time(NaiveTime::MIN))
    }

    /// Returns the cell as the name of a category: whole numbers have no decimal point.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be whole and small"
    )]
    pub fn category(self) -> Option<String> {
        Some(match self {
            Self::Missing => return None,
            Self::Number(n) if n.fract() == 0.0 && n.abs() <= 9e15 => (n as i64).to_string(),
            Self::Number(n) => n.to_string(),
            Self::Boolean(b) => b.to_string(),
            Self::Text(text) => match text.split_once('.') {
                // pandas writes a whole number so where others of its column are missing.
                Some((whole, zeros))
                    if !zeros.is_empty()
                        && zeros.bytes().all(|b| b == b'0')
                        && whole.parse().is_ok_and(|n: i64| n.to_string() == whole) =>
                {
                    whole.to_owned()
                }
                _ => text.to_owned(),
            },
        })
    }
}
