//! From the rows of files to those of a prediction request.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value;

use super::{Given, Numbers, Row, numbers::Fault};
use crate::{
    datasets::{DatasetFormat, DatasetSource, columns::ColumnSpec, encoding::Cell},
    models::Signature,
};

/// Columns named in an error message before it is cut.
const SHOWN_COLUMNS: usize = 20;

/// A row as it lies in a file.
#[derive(Debug, Clone, PartialEq)]
pub enum InputRow {
    /// Values by the names of their columns, in the file's order.
    Columns(Vec<(String, Value)>),
    /// Values alone: of an array, an image or a JSON array.
    Values(Numbers),
}

impl InputRow {
    /// Returns the value of a column.
    #[must_use]
    pub fn get(&self, column: &str) -> Option<&Value> {
        let Self::Columns(columns) = self else {
            return None;
        };
        let found = columns.iter().find(|(name, _)| name == column);
        found.map(|(_, value)| value)
    }
}

/// What of a file's rows a model is given.
#[derive(Debug, Clone)]
pub struct RowReading {
    /// The model's columns, if they have names.
    features: Option<Vec<String>>,
    /// Those among them that a row may lack.
    optional: HashSet<String>,
    /// Whether columns are of mixed kind, so that any may be text.
    mixed: bool,
    /// Columns that are passed over.
    passed_over: HashSet<String>,
    /// Whether a table's columns have an order that means something.
    ordered: bool,
    /// Whether the index that pandas stores is to be expected.
    pandas: bool,
}

impl RowReading {
    /// Prepares for files of `source`, of which `ids` are kept for other ends than prediction.
    #[must_use]
    pub fn new(signature: &Signature, source: &DatasetSource, ids: &[String]) -> Self {
        let mixed = &signature.preprocessing.columns;
        let features = if mixed.is_empty() {
            signature.columns.clone()
        } else {
            Some(mixed.iter().map(|c| c.name.clone()).collect())
        };
        let ignored = source.columns.iter();
        let ignored = ignored.filter(|(_, spec)| **spec == ColumnSpec::Ignore {});
        let ignored = ignored.map(|(name, _)| name);
        let is_feature = |name: &&String| features.as_ref().is_some_and(|f| f.contains(name));
        let passed_over = ignored.chain(source.labels()).chain(ids);
        Self {
            passed_over: passed_over
                .filter(|name| !is_feature(name))
                .cloned()
                .collect(),
            optional: mixed
                .iter()
                .filter(|c| c.missing > 0)
                .map(|c| c.name.clone())
                .collect(),
            mixed: !mixed.is_empty(),
            ordered: source.format != DatasetFormat::Jsonl,
            pandas: source.format == DatasetFormat::Parquet,
            features,
        }
    }

    fn is_passed_over(&self, column: &str) -> bool {
        self.passed_over.contains(column)
            || (self.pandas && column.starts_with("__index_level_") && column.ends_with("__"))
    }

    /// Checks a header, which is the same for all rows.
    ///
    /// # Errors
    /// A column that the model needs or does not know.
    pub fn check_header(&self, header: &[String]) -> Result<(), String> {
        let Some(features) = &self.features else {
            return Ok(());
        };
        let there: HashSet<&String> = header.iter().collect();
        let absent = |name: &&String| !there.contains(name) && !self.optional.contains(*name);
        if let Some(name) = features.iter().find(absent) {
            let shown: Vec<&str> = header
                .iter()
                .take(SHOWN_COLUMNS)
                .map(String::as_str)
                .collect();
            let more = if header.len() > shown.len() {
                ", …"
            } else {
                ""
            };
            return Err(format!(
                "the model's column {name:?} is not there; columns are {}{more}",
                shown.join(", ")
            ));
        }
        let known: HashSet<&String> = features.iter().collect();
        let unknown = |name: &&String| !known.contains(name) && !self.is_passed_over(name);
        match header.iter().find(unknown) {
            None => Ok(()),
            Some(name) => Err(format!(
                "column {name:?} is none of the model's; name it in id_columns or as label_column, or declare it as {{\"kind\": \"ignore\"}} in columns"
            )),
        }
    }

    /// Returns the row as a client would send it.
    #[must_use]
    pub fn row(&self, row: &InputRow) -> Row {
        let columns = match row {
            InputRow::Values(numbers) => return Row::Values(numbers.clone()),
            InputRow::Columns(columns) => columns,
        };
        let mut kept = columns
            .iter()
            .filter(|(name, _)| !self.is_passed_over(name));
        if let (Some((name, value @ Value::Array(_))), None) = (kept.next(), kept.next())
            && !self.names(name)
        {
            return Row::Values(Numbers::deserialize(value).unwrap_or_default());
        }
        let kept = columns
            .iter()
            .filter(|(name, _)| !self.is_passed_over(name));
        if self.features.is_none() && self.ordered {
            return Row::Values(flat(kept));
        }
        let given = kept.map(|(name, value)| (name.clone(), self.given(value)));
        Row::Columns(given.collect())
    }

    /// Tells whether the model has a column of that name.
    fn names(&self, column: &str) -> bool {
        let features = self.features.iter().flatten();
        features.into_iter().any(|name| name == column)
    }

    fn given(&self, value: &Value) -> Given {
        match value {
            Value::Null => Given::Null,
            Value::Bool(b) => Given::Boolean(*b),
            Value::Number(n) => n.as_f64().map_or(Given::Null, Given::Number),
            Value::String(text) if self.mixed => Given::Text(text.clone()),
            // Files without types hold numbers as text.
            Value::String(text) => match Cell::Text(text).settle() {
                Cell::Missing => Given::Null,
                cell => cell
                    .number()
                    .map_or_else(|| Given::Text(text.clone()), Given::Number),
            },
            Value::Array(_) => Given::Array,
            Value::Object(_) => Given::Object,
        }
    }
}

/// Takes the cells of a table as the values of a sample without names.
fn flat<'a>(cells: impl Iterator<Item = &'a (String, Value)>) -> Numbers {
    let mut numbers = Numbers::default();
    for (name, value) in cells {
        let read = match value {
            Value::Number(n) => n.as_f64(),
            Value::String(text) => Cell::Text(text).settle().number(),
            _ => None,
        };
        #[expect(clippy::cast_possible_truncation, reason = "infinity is refused")]
        let read = read.map(|n| n as f32);
        let fault = match read {
            None => Some(("not_a_number", "expected a number")),
            Some(n) if !n.is_finite() => Some((
                "not_finite",
                "the number is not finite or does not fit into FP32",
            )),
            Some(_) => None,
        };
        if let (Some((code, detail)), None) = (fault, &numbers.fault) {
            numbers.fault = Some(Fault {
                pointer: format!("/{}", crate::validation::escape(name)),
                code,
                detail: detail.to_owned(),
            });
        }
        numbers.values.push(read.unwrap_or_default());
    }
    numbers.shape = vec![numbers.values.len()];
    numbers
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn signature(extra: &Value) -> Signature {
        let mut signature = json!({
            "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 2]}],
            "outputs": [{"name": "prediction", "datatype": "FP32", "shape": [-1]}],
            "preprocessing": {"normalization": "none", "offset": [0.0], "scale": [1.0]},
        });
        let extra = extra.as_object().unwrap().clone();
        signature.as_object_mut().unwrap().extend(extra);
        serde_json::from_value(signature).unwrap()
    }

    fn source(format: &str) -> DatasetSource {
        serde_json::from_value(json!({
            "format": format, "files": {"data": "s3://b/k"}, "label_column": "y",
            "columns": {"note": {"kind": "ignore"}},
        }))
        .unwrap()
    }

    fn columns(values: &[(&str, Value)]) -> InputRow {
        let pairs = values.iter().map(|(n, v)| ((*n).to_owned(), v.clone()));
        InputRow::Columns(pairs.collect())
    }

    #[test]
    fn columns_are_found_by_name_and_text_is_read_as_numbers() {
        let reading = RowReading::new(
            &signature(&json!({"columns": ["a", "b"]})),
            &source("csv"),
            &["id".to_owned(), "b".to_owned()],
        );
        let row = columns(&[
            ("id", json!("007")),
            ("b", json!(" 2.5")),
            ("a", json!("NA")),
            ("note", json!("x")),
            ("y", json!("cat")),
        ]);
        let expected = vec![
            ("b".to_owned(), Given::Number(2.5)),
            ("a".to_owned(), Given::Null),
        ];
        assert_eq!(reading.row(&row), Row::Columns(expected));
        let header = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
            reading.check_header(&names)
        };
        assert!(header(&["y", "b", "a", "id"]).is_ok());
        assert!(header(&["b"]).unwrap_err().contains("\"a\" is not there"));
        assert!(header(&["a", "b", "c"]).unwrap_err().contains("\"c\""));
    }

    #[test]
    fn samples_without_names_come_in_order_or_as_an_array() {
        let unnamed = signature(&json!({}));
        let reading = RowReading::new(&unnamed, &source("csv"), &[]);
        let row = columns(&[("p0", json!("1")), ("y", json!("3")), ("p1", json!("2"))]);
        let Row::Values(numbers) = reading.row(&row) else {
            panic!("named")
        };
        assert_eq!((numbers.values, numbers.shape), (vec![1.0, 2.0], vec![2]));
        let Row::Values(bad) = reading.row(&columns(&[("p0", json!("x")), ("p1", json!(1))]))
        else {
            panic!("named")
        };
        assert_eq!(bad.fault.unwrap().pointer, "/p0");
        let reading = RowReading::new(&unnamed, &source("jsonl"), &[]);
        let row = columns(&[("y", json!(1)), ("image", json!([[1, 2]]))]);
        let Row::Values(numbers) = reading.row(&row) else {
            panic!("named")
        };
        assert_eq!(numbers.shape, [1, 2]);
        // Objects have no order: what is no array is refused by name.
        let row = columns(&[("p0", json!(1)), ("p1", json!(2))]);
        assert!(matches!(reading.row(&row), Row::Columns(_)));
    }
}
