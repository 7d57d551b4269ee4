//! What a client declares about a dataset's bytes.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use utoipa::ToSchema;

use super::{FileUris, columns::ColumnSpec};
use crate::{
    limits,
    validation::{Violations, escape},
};

/// File format; each also gzip-compressed, which is detected from the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DatasetFormat {
    /// Comma-separated values with a header row (RFC 4180).
    Csv,
    /// One JSON object per line; a nested array of numbers may hold a sample's features.
    Jsonl,
    /// Apache Parquet without nested columns; compressed by Snappy, gzip or Zstandard.
    Parquet,
    /// The format of MNIST (<http://yann.lecun.com/exdb/mnist/>).
    Idx,
    /// One `NumPy` array (`numpy.save`).
    Npy,
    /// Several `NumPy` arrays (`numpy.savez`), of which one or two are read.
    Npz,
    /// PNG or JPEG images: a tar of them, several tars, or a prefix of either; classes are
    /// `class/name.png`, or `name.jpg` beside `name.cls` (WebDataset).
    Images,
}

impl DatasetFormat {
    /// Tells whether rows are made of named columns.
    #[must_use]
    pub const fn is_table(self) -> bool {
        matches!(self, Self::Csv | Self::Jsonl | Self::Parquet)
    }

    /// Tells whether labels lie in a file of their own.
    #[must_use]
    pub const fn has_label_file(self) -> bool {
        matches!(self, Self::Idx | Self::Npy)
    }

    /// Tells whether a file may lie in several objects.
    #[must_use]
    pub const fn takes_many(self) -> bool {
        self.is_table() || matches!(self, Self::Images)
    }

    /// Returns the name used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
            Self::Parquet => "parquet",
            Self::Idx => "idx",
            Self::Npy => "npy",
            Self::Npz => "npz",
            Self::Images => "images",
        }
    }
}

/// What a file of a dataset holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileRole {
    /// Features; of a table also the label.
    Data,
    /// Labels in a file of their own (`idx`, `npy`).
    Labels,
}

impl FileRole {
    /// Returns the name used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Labels => "labels",
        }
    }
}

impl<'de> Deserialize<'de> for FileRole {
    /// Reads it as text, so that pointers to mistakes hold the key of a file.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        match name.as_ref() {
            "data" => Ok(Self::Data),
            "labels" => Ok(Self::Labels),
            other => Err(D::Error::unknown_variant(other, &["data", "labels"])),
        }
    }
}

/// Kind of the value to predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// One of a set of classes.
    Class,
    /// A number.
    Value,
}

/// What a client says about a dataset's bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DatasetSource {
    /// File format.
    pub format: DatasetFormat,
    /// S3 URIs of each file: `data`, and `labels` where the format needs it.
    #[schema(example = json!({"data": "s3://bucket/digits.csv.gz"}))]
    pub files: BTreeMap<FileRole, FileUris>,
    /// Column of a table that holds the label; without one the dataset has no target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub label_column: Option<String>,
    /// Columns of a table that hold several labels (0 and 1, or true and false) or several numbers
    /// to predict, in the order of the network's outputs; instead of `label_column`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 1000, example = json!(["rain", "wind"]))]
    pub label_columns: Vec<String>,
    /// Shape of one sample, channels last, if it is not the one found in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 4, example = json!([8, 8, 1]))]
    pub shape: Option<Vec<usize>>,
    /// Whether the label is a class or a number, or several are labels (`class`) or numbers
    /// (`value`); found from the values unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetKind>,
    /// Kinds of a table's columns by name; found from the values unless given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(example = json!({"age": {"kind": "number"}, "id": {"kind": "ignore"}}))]
    pub columns: BTreeMap<String, ColumnSpec>,
    /// Names of the arrays in an `npz`; `x_train` and `y_train`, `x` and `y`, … unless given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(example = json!({"data": "x_train", "labels": "y_train"}))]
    pub arrays: BTreeMap<FileRole, String>,
}

impl DatasetSource {
    /// Tells whether a file lies in several objects, or may do so.
    #[must_use]
    pub fn is_many(&self, role: FileRole) -> bool {
        self.files.get(&role).is_some_and(FileUris::is_many)
    }

    /// Returns the columns that hold the label or labels.
    pub fn labels(&self) -> impl Iterator<Item = &String> {
        self.label_column.iter().chain(&self.label_columns)
    }

    /// Tells whether a column holds the label, or one of several.
    #[must_use]
    pub fn is_label(&self, column: &str) -> bool {
        self.labels().any(|label| label == column)
    }

    /// Records every mistake that shows without reading the files.
    pub fn check(&self, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        if !self.files.contains_key(&FileRole::Data) {
            v.push(at("files/data"), "missing", "\"data\" is required");
        }
        let format = self.format.as_str();
        if !self.format.has_label_file() && self.files.contains_key(&FileRole::Labels) {
            let mut detail = format!("format {format} has its labels in the data file");
            if self.format.is_table() {
                detail.push_str("; name their column in label_column");
            }
            v.push(at("files/labels"), "conflict", detail);
        }
        for (role, uris) in &self.files {
            uris.check(self.format, &at(&format!("files/{}", role.as_str())), v);
        }
        self.check_columns(pointer, v);
        self.check_arrays(pointer, v);
        if let Some(shape) = &self.shape {
            v.check(
                (1..=limits::MAX_RANK).contains(&shape.len()),
                &at("shape"),
                "out_of_range",
                || {
                    format!(
                        "{} dimensions are not between 1 and {}",
                        shape.len(),
                        limits::MAX_RANK
                    )
                },
            );
            let size = crate::spec::shapes::size(shape);
            let max = limits::MAX_FEATURES as u64;
            v.check(
                (1..=max).contains(&size),
                &at("shape"),
                "out_of_range",
                || format!("{shape:?} holds {size} values, not between 1 and {max}"),
            );
        }
    }

    fn check_columns(&self, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        let table = self.format.is_table();
        let only = || "only for tables: formats csv, jsonl and parquet".to_owned();
        let named = table || self.label_column.is_none();
        v.check(named, &at("label_column"), "conflict", only);
        let bare = table || self.columns.is_empty();
        v.check(bare, &at("columns"), "conflict", only);
        if let Some(column) = &self.label_column {
            check_name(column, &at("label_column"), v);
        }
        self.check_label_columns(&at("label_columns"), v);
        let (n, max) = (self.columns.len(), limits::MAX_DECLARED_COLUMNS);
        v.check(n <= max, &at("columns"), "too_many", || {
            format!("{n} columns are more than the {max} allowed")
        });
        for (name, column) in &self.columns {
            let here = at(&format!("columns/{}", escape(name)));
            check_name(name, &here, v);
            column.check(&here, v);
            v.check(!self.is_label(name), &here, "conflict", || {
                "this is the label; its kind is declared by target".to_owned()
            });
        }
    }

    fn check_label_columns(&self, pointer: &str, v: &mut Violations) {
        let columns = &self.label_columns;
        if columns.is_empty() {
            return;
        }
        v.check(self.format.is_table(), pointer, "conflict", || {
            "only for tables: formats csv, jsonl and parquet".to_owned()
        });
        v.check(self.label_column.is_none(), pointer, "conflict", || {
            "name the labels in label_column or in label_columns, not in both".to_owned()
        });
        let (n, max) = (columns.len(), limits::MAX_LABEL_COLUMNS);
        v.check((2..=max).contains(&n), pointer, "out_of_range", || {
            format!("{n} columns are not between 2 and {max}; name a single one in label_column")
        });
        let mut seen = BTreeSet::new();
        for (i, column) in columns.iter().enumerate().take(max) {
            let here = format!("{pointer}/{i}");
            check_name(column, &here, v);
            v.check(seen.insert(column), &here, "duplicate", || {
                format!("{column:?} is named twice")
            });
        }
    }

    fn check_arrays(&self, pointer: &str, v: &mut Violations) {
        let at = format!("{pointer}/arrays");
        let fits = self.format == DatasetFormat::Npz || self.arrays.is_empty();
        v.check(fits, &at, "conflict", || "only for format npz".to_owned());
        for (role, name) in &self.arrays {
            check_name(name, &format!("{at}/{}", role.as_str()), v);
        }
        let alone = self.arrays.contains_key(&FileRole::Labels)
            && !self.arrays.contains_key(&FileRole::Data);
        v.check(!alone, &format!("{at}/data"), "missing", || {
            "name the data array too".to_owned()
        });
    }
}

fn check_name(name: &str, pointer: &str, v: &mut Violations) {
    v.check((1..=256).contains(&name.len()), pointer, "too_long", || {
        format!("{} bytes are not between 1 and 256", name.len())
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn columns_of_labels_are_checked() {
        let mistakes = |change: Value| {
            let mut source = json!({"format": "csv", "files": {"data": "s3://b/k"}});
            source
                .as_object_mut()
                .unwrap()
                .extend(change.as_object().unwrap().clone());
            let source: DatasetSource = serde_json::from_value(source).unwrap();
            let mut v = Violations::default();
            source.check("", &mut v);
            let found = v.into_vec().into_iter().map(|v| (v.pointer, v.code));
            found.collect::<Vec<_>>()
        };
        let at = |pointer: &str, code: &str| vec![(pointer.to_owned(), code.to_owned())];
        assert!(mistakes(json!({"label_columns": ["a", "b"]})).is_empty());
        for (change, pointer, code) in [
            (
                json!({"label_columns": ["a"]}),
                "/label_columns",
                "out_of_range",
            ),
            (
                json!({"label_columns": ["a", "a"]}),
                "/label_columns/1",
                "duplicate",
            ),
            (
                json!({"label_columns": ["a", ""]}),
                "/label_columns/1",
                "too_long",
            ),
            (
                json!({"label_columns": ["a", "b"], "label_column": "c"}),
                "/label_columns",
                "conflict",
            ),
            (
                json!({"label_columns": ["a", "b"], "format": "idx"}),
                "/label_columns",
                "conflict",
            ),
            (
                json!({"label_columns": ["a", "b"], "columns": {"b": {"kind": "number"}}}),
                "/columns/b",
                "conflict",
            ),
        ] {
            assert_eq!(mistakes(change), at(pointer, code));
        }
    }
}
