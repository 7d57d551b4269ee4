//! Search for versions: conditions in the syntax of MLflow's `filter_string`, all of which hold.
//!
//! ```text
//! filter     = condition { "and" condition }
//! condition  = field comparator value
//! field      = word | prefix "." key
//! key        = word | "`" … "`" | '"' … '"'
//! comparator = "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=" | "like" | "ilike"
//! value      = number | "'" … "'" | '"' … '"'
//! order_by   = field [ "asc" | "desc" ]
//! ```
//! Words of the language are taken in any case; a quote within quotes is written twice. A
//! condition about something that a version lacks does not hold, `!=` included. Keys and values
//! are data: whoever searches binds them, and nothing of a filter ever becomes part of a statement.

mod lexer;
mod parser;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use self::{lexer::Token, parser::Parser};
use crate::{limits, words::words};

/// Why a filter or an order cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("at character {at}: {detail}")]
pub struct SyntaxError {
    /// Character at which it goes wrong, from 1.
    pub at: usize,
    /// What is wrong there, and what would be right.
    pub detail: String,
}

/// What a condition is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// A final metric; a number.
    Metric(String),
    /// Number of the version.
    Version,
    /// Size of all files in bytes.
    Bytes,
    /// When it was published; microseconds since 1970.
    CreatedAt,
    /// Version of the training data; a number.
    DatasetVersion,
    /// A tag; text.
    Tag(String),
    /// Name of the model.
    Model,
    /// Any alias that points to it.
    Alias,
    /// Word of its approval.
    Approval,
    /// Name of the training data.
    Dataset,
    /// Job that trained it.
    Job,
}

/// Fields without a key and how they are written, MLflow's names among them.
const FIELDS: [(&str, Field); 15] = [
    ("version", Field::Version),
    ("version_number", Field::Version),
    ("bytes", Field::Bytes),
    ("created_at", Field::CreatedAt),
    ("creation_timestamp", Field::CreatedAt),
    ("dataset_version", Field::DatasetVersion),
    ("model", Field::Model),
    ("name", Field::Model),
    ("alias", Field::Alias),
    ("aliases", Field::Alias),
    ("approval", Field::Approval),
    ("approval_status", Field::Approval),
    ("dataset", Field::Dataset),
    ("job_id", Field::Job),
    ("run_id", Field::Job),
];
const KNOWN_FIELDS: &str = "metrics.…, tags.…, model, version, alias, approval, dataset, \
                            dataset_version, job_id, bytes and created_at";

impl Field {
    /// Returns the word by which the store tells fields apart.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Metric(_) => "metric",
            Self::Version => "version",
            Self::Bytes => "bytes",
            Self::CreatedAt => "created_at",
            Self::DatasetVersion => "dataset_version",
            Self::Tag(_) => "tag",
            Self::Model => "model",
            Self::Alias => "alias",
            Self::Approval => "approval",
            Self::Dataset => "dataset",
            Self::Job => "job",
        }
    }

    /// Returns the metric's or tag's key; nothing of other fields.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Metric(key) | Self::Tag(key) => key,
            _ => "",
        }
    }

    const fn is_number(&self) -> bool {
        matches!(
            self,
            Self::Metric(_) | Self::Version | Self::Bytes | Self::CreatedAt | Self::DatasetVersion
        )
    }
}

words! {
    /// How a field is compared.
    Comparator {
        /// Equal.
        Equal = "=",
        /// There, and not equal.
        NotEqual = "!=",
        /// Less; of numbers.
        Less = "<",
        /// At most; of numbers.
        AtMost = "<=",
        /// Greater; of numbers.
        Greater = ">",
        /// At least; of numbers.
        AtLeast = ">=",
        /// A pattern: `%` is any text, `_` any character; of text.
        Like = "like",
        /// A pattern in any case; of text.
        Ilike = "ilike",
    }
}

/// What a field is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A finite number.
    Number(f64),
    /// Text, or a pattern.
    Text(String),
}

/// One condition of a filter.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// What is compared.
    pub field: Field,
    /// How.
    pub comparator: Comparator,
    /// With what; a number if the field is one.
    pub operand: Operand,
}

/// Conditions that all must hold; none is true of every version.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter(pub Vec<Condition>);

/// The order in which versions are listed; those without the field's value come last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// A field that is a number.
    pub field: Field,
    /// Greatest first.
    pub descending: bool,
}

impl Default for Order {
    /// Newest first.
    fn default() -> Self {
        Self {
            field: Field::CreatedAt,
            descending: true,
        }
    }
}

impl FromStr for Filter {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let mut parser = Parser::new(text)?;
        let mut conditions = Vec::new();
        if parser.peek().is_none() {
            return Ok(Self(conditions));
        }
        loop {
            conditions.push(parser.condition()?);
            match parser.next() {
                None => return Ok(Self(conditions)),
                Some(Token::Word(word)) if word.eq_ignore_ascii_case("and") => {}
                Some(Token::Word(word)) if word.eq_ignore_ascii_case("or") => {
                    return Err(parser.error("conditions are joined by \"and\" only"));
                }
                Some(other) => return Err(parser.unexpected(&other, "\"and\" or the end")),
            }
            if conditions.len() >= limits::MAX_CONDITIONS {
                let max = limits::MAX_CONDITIONS;
                return Err(parser.error(&format!("more than the {max} conditions allowed")));
            }
        }
    }
}

impl FromStr for Order {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let mut parser = Parser::new(text)?;
        let field = parser.field()?;
        if !field.is_number() {
            return Err(parser.error(
                "versions are ordered by a number: metrics.…, version, dataset_version, bytes or created_at",
            ));
        }
        let descending = match parser.next() {
            None => {
                return Ok(Self {
                    field,
                    descending: false,
                });
            }
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("asc") => false,
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("desc") => true,
            Some(other) => return Err(parser.unexpected(&other, "\"asc\" or \"desc\"")),
        };
        match parser.next() {
            None => Ok(Self { field, descending }),
            Some(other) => Err(parser.unexpected(&other, "the end: one field orders the list")),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
