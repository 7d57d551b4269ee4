//! Reads nested JSON arrays of numbers straight into one vector, noting the first mistake.
//!
//! A generic JSON tree of a 64 MiB request would take twenty times its size in memory.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::{datasets::encoding::Cell, limits::MAX_PREDICT_ROWS};

/// Deepest nesting of arrays: a batch of samples of the highest rank, and some room.
const MAX_DEPTH: usize = 8;

/// Numbers in row-major order with the shape that their nesting has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Numbers {
    /// The values; booleans read as 0 and 1.
    pub values: Vec<f32>,
    /// The first values as exactly as they were written, of a type that FP32 does not hold all of
    /// and where [`exact`] asked for them: a category is told by all of its digits.
    pub wide: Vec<f64>,
    /// Length of each level of arrays, outermost first.
    pub shape: Vec<usize>,
    /// Pointer to the first boolean.
    pub boolean: Option<String>,
    /// Pointer to the first null, which reads as NaN.
    pub null: Option<String>,
    /// Strings, which are no numbers and so are a mistake as well.
    pub texts: Vec<String>,
    /// The first mistake.
    pub fault: Option<Fault>,
}

/// What is wrong in nested arrays, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer below the outermost array.
    pub pointer: String,
    /// Kind of mistake.
    pub code: &'static str,
    /// What would be right.
    pub detail: String,
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut collector = Collector::default();
        Level(&mut collector).deserialize(deserializer)?;
        Ok(collector.finish())
    }
}

/// Reads numbers, if there are any, and keeps the exact values of as many as a column of a table
/// may have.
///
/// # Errors
/// What is no JSON.
pub fn exact<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Numbers>, D::Error> {
    deserializer.deserialize_option(Exact)
}

struct Exact;

impl<'de> Visitor<'de> for Exact {
    type Value = Option<Numbers>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nested arrays of numbers")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let mut collector = Collector {
            keep_wide: MAX_PREDICT_ROWS,
            ..Collector::default()
        };
        Level(&mut collector).deserialize(deserializer)?;
        Ok(Some(collector.finish()))
    }
}

/// Returns the shortest decimal number that rounds to this one.
///
/// A client that holds 0.1 in FP32 means 0.1, and not the 0.100000001490116 that it widens to.
#[must_use]
pub fn shortest(value: f32) -> f64 {
    if value.fract() == 0.0 {
        return f64::from(value);
    }
    value
        .to_string()
        .parse()
        .unwrap_or_else(|_| f64::from(value))
}

/// A row of a prediction request.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// An array, flat or nested.
    Values(Numbers),
    /// An object by column name.
    Columns(Vec<(String, Given)>),
}

/// A value of a column in a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// No value.
    Null,
    /// True or false.
    Boolean(bool),
    /// A number.
    Number(f64),
    /// Text.
    Text(String),
    /// A nested value.
    Array,
    /// A nested value with names.
    Object,
}

impl Given {
    /// Returns the value as a table's cell; `None` if it is nested.
    #[must_use]
    pub fn cell(&self) -> Option<Cell<'_>> {
        Some(match self {
            Self::Null => Cell::Missing,
            Self::Boolean(b) => Cell::Boolean(*b),
            Self::Number(n) => Cell::Number(*n),
            Self::Text(text) => Cell::Text(text),
            Self::Array | Self::Object => return None,
        })
    }

    /// Names the kind of value in an error message.
    #[must_use]
    pub const fn what(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(GivenVisitor)
    }
}

struct GivenVisitor;

impl<'de> Visitor<'de> for GivenVisitor {
    type Value = Given;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column's value")
    }

    fn visit_unit<E>(self) -> Result<Given, E> {
        Ok(Given::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Given, E> {
        Ok(Given::Boolean(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "models compute in FP32")]
    fn visit_i64<E>(self, value: i64) -> Result<Given, E> {
        Ok(Given::Number(value as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "models compute in FP32")]
    fn visit_u64<E>(self, value: u64) -> Result<Given, E> {
        Ok(Given::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Given, E> {
        Ok(Given::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Given, E> {
        Ok(Given::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Given, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Given::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Given::Object)
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RowVisitor)
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of numbers or an object by column name")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Row, A::Error> {
        let mut collector = Collector::default();
        Level(&mut collector).visit_seq(seq)?;
        Ok(Row::Values(collector.finish()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
        let mut columns = Vec::new();
        while let Some(entry) = map.next_entry()? {
            columns.push(entry);
        }
        Ok(Row::Columns(columns))
    }
}

#[derive(Default)]
struct Collector {
    values: Vec<f32>,
    wide: Vec<f64>,
    /// How many wide values are kept.
    keep_wide: usize,
    lengths: Vec<Option<usize>>,
    /// Depth at which numbers lie, known from the first one.
    leaf: Option<usize>,
    path: Vec<usize>,
    boolean: Option<String>,
    null: Option<String>,
    texts: Vec<String>,
    fault: Option<Fault>,
}

impl Collector {
    fn finish(self) -> Numbers {
        Numbers {
            values: self.values,
            wide: self.wide,
            shape: self.lengths.into_iter().flatten().collect(),
            boolean: self.boolean,
            null: self.null,
            texts: self.texts,
            fault: self.fault,
        }
    }

    fn pointer(&self) -> String {
        self.path
            .iter()
            .fold(String::new(), |at, i| at + "/" + &i.to_string())
    }

    fn fail(&mut self, code: &'static str, detail: impl Into<String>) {
        if self.fault.is_none() {
            let pointer = self.pointer();
            self.fault = Some(Fault {
                pointer,
                code,
                detail: detail.into(),
            });
        }
    }

    fn push(&mut self, wide: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "models compute in FP32; infinity is refused"
        )]
        let value = wide as f32;
        if !value.is_finite() {
            self.fail("not_finite", "the number does not fit into FP32");
        }
        self.place(value, wide);
    }

    fn place(&mut self, value: f32, wide: f64) {
        if self.wide.len() < self.keep_wide {
            self.wide.push(wide);
        }
        let depth = self.path.len();
        if *self.leaf.get_or_insert(depth) != depth || self.lengths.get(depth).is_some() {
            self.fail("ragged", "a number stands where others have an array");
        }
        self.values.push(value);
    }

    fn close(&mut self, depth: usize, length: usize) {
        if self.lengths.len() <= depth {
            self.lengths.resize(depth + 1, None);
        }
        let first = *self.lengths[depth].get_or_insert(length);
        if first != length {
            self.fail(
                "ragged",
                format!("an array of {length} stands beside one of {first}"),
            );
        }
    }
}

struct Level<'a>(&'a mut Collector);

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nested arrays of numbers")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        if self.0.boolean.is_none() {
            self.0.boolean = Some(self.0.pointer());
        }
        self.0.push(f64::from(u8::from(value)));
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "models compute in FP32")]
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.push(value as f64);
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "models compute in FP32")]
    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.push(value as f64);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.push(value);
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0
            .fail("not_a_number", "expected a number, got a string");
        self.0.texts.push(text.to_owned());
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        if self.0.null.is_none() {
            self.0.null = Some(self.0.pointer());
        }
        self.0.place(f32::NAN, f64::NAN);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0
            .fail("not_a_number", "expected a number, got an object");
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let depth = self.0.path.len();
        if depth >= MAX_DEPTH {
            self.0.fail(
                "too_deep",
                format!("arrays are nested more than {MAX_DEPTH} deep"),
            );
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        if self.0.leaf.is_some_and(|leaf| leaf <= depth) {
            self.0
                .fail("ragged", "an array stands where others have a number");
        }
        let mut length = 0;
        self.0.path.push(0);
        while seq.next_element_seed(Level(self.0))?.is_some() {
            length += 1;
            if let Some(last) = self.0.path.last_mut() {
                *last = length;
            }
        }
        self.0.path.pop();
        self.0.close(depth, length);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Numbers {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn flattens_and_finds_the_shape() {
        let numbers = read("[[[1, 2.5], [3, 4]], [[5, 6], [7, -8e0]]]");
        assert_eq!(numbers.shape, [2, 2, 2]);
        assert_eq!(numbers.values, [1.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, -8.0]);
        assert_eq!(numbers.fault, None);
        assert_eq!(read("[]").shape, [0]);
        assert_eq!(read("[true, false]").boolean.as_deref(), Some("/0"));
        let missing = read("[1, null]");
        assert_eq!((missing.null.as_deref(), missing.fault), (Some("/1"), None));
        assert!(missing.values[1].is_nan());
        assert_eq!(read(r#"["x", "y"]"#).texts, ["x", "y"]);
    }

    #[test]
    fn names_the_first_mistake() {
        let fault = |json| read(json).fault.map(|f| (f.pointer, f.code)).unwrap();
        assert_eq!(
            fault(r#"[[1, 2], [3, "x"]]"#),
            ("/1/1".to_owned(), "not_a_number")
        );
        assert_eq!(fault("[1, 1e39]"), ("/1".to_owned(), "not_finite"));
        assert_eq!(fault("[[1, 2], [3]]"), ("/1".to_owned(), "ragged"));
        assert_eq!(fault("[[1], 2]"), ("/1".to_owned(), "ragged"));
        assert_eq!(fault("[1, [2]]"), ("/1".to_owned(), "ragged"));
        assert_eq!(fault("[{}]"), ("/0".to_owned(), "not_a_number"));
        assert_eq!(fault("[[[[[[[[[1]]]]]]]]]").1, "too_deep");
    }

    #[test]
    fn rows_are_arrays_or_objects() {
        let rows: Vec<Row> = serde_json::from_str(r#"[[1, 2], {"a": 1, "b": 2}]"#).unwrap();
        assert!(matches!(&rows[0], Row::Values(n) if n.values == [1.0, 2.0]));
        assert!(
            matches!(&rows[1], Row::Columns(c) if c.len() == 2 && c[1].1 == Given::Number(2.0))
        );
        assert!(serde_json::from_str::<Row>("3").is_err());
        assert!(serde_json::from_str::<Row>("\"x\"").is_err());
    }
}
