//! Between rows and domain types: every value read is checked, and names its cell if it is wrong.

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use nereid_core::Name;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::StoreError;

/// A row being read, for the error that names a corrupt cell.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    table: &'static str,
    id: &'a (dyn Display + Sync),
}

impl<'a> Row<'a> {
    pub(crate) fn new(table: &'static str, id: &'a (dyn Display + Sync)) -> Self {
        Self { table, id }
    }

    /// Builds the error for `column`.
    pub(crate) fn corrupt(
        self,
        column: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StoreError {
        StoreError::Corrupt {
            table: self.table,
            column,
            id: self.id.to_string(),
            source: source.into(),
        }
    }

    /// Reads a JSON document.
    pub(crate) fn json<T: DeserializeOwned>(
        self,
        column: &'static str,
        value: Value,
    ) -> Result<T, StoreError> {
        serde_json::from_value(value).map_err(|e| self.corrupt(column, e))
    }

    /// Reads a JSON document that may be absent.
    pub(crate) fn json_opt<T: DeserializeOwned>(
        self,
        column: &'static str,
        value: Option<Value>,
    ) -> Result<Option<T>, StoreError> {
        value.map(|v| self.json(column, v)).transpose()
    }

    /// Reads a word of an enumeration.
    pub(crate) fn word<T>(self, column: &'static str, word: &str) -> Result<T, StoreError>
    where
        T: FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        word.parse().map_err(|e: T::Err| self.corrupt(column, e))
    }

    /// Reads a word that may be absent.
    pub(crate) fn word_opt<T>(
        self,
        column: &'static str,
        word: Option<&str>,
    ) -> Result<Option<T>, StoreError>
    where
        T: FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        word.map(|w| self.word(column, w)).transpose()
    }

    /// Reads a name.
    pub(crate) fn name(self, column: &'static str, name: String) -> Result<Name, StoreError> {
        Name::try_from(name).map_err(|e| self.corrupt(column, e))
    }

    /// Reads a number that is never negative, or not as large as its column allows.
    pub(crate) fn number<N, T>(self, column: &'static str, number: N) -> Result<T, StoreError>
    where
        T: TryFrom<N>,
        T::Error: std::error::Error + Send + Sync + 'static,
    {
        T::try_from(number).map_err(|e| self.corrupt(column, e))
    }

    /// Reads a number that may be absent.
    pub(crate) fn number_opt<N, T>(
        self,
        column: &'static str,
        number: Option<N>,
    ) -> Result<Option<T>, StoreError>
    where
        T: TryFrom<N>,
        T::Error: std::error::Error + Send + Sync + 'static,
    {
        number.map(|n| self.number(column, n)).transpose()
    }
}

/// Turns a number into the type of its column.
pub(crate) fn bind<N, T>(number: N) -> Result<T, StoreError>
where
    T: TryFrom<N>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    T::try_from(number).map_err(|e| StoreError::Database(sqlx::Error::Encode(Box::new(e))))
}

/// Turns a value into JSON.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Result<Value, StoreError> {
    serde_json::to_value(value).map_err(|e| StoreError::Database(sqlx::Error::Encode(Box::new(e))))
}

/// Leaves out what JSON cannot hold: infinities and not-a-number would come back as null.
pub(crate) fn finite(values: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let finite = values.iter().filter(|(_, v)| v.is_finite());
    finite.map(|(k, v)| (k.clone(), *v)).collect()
}

/// Replaces NUL, which Postgres' text cannot hold, in text that comes from programs.
pub(crate) fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
