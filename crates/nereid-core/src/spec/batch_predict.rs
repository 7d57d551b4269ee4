//! The spec of a batch prediction: rows in S3, a model version, predictions in S3.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::DatasetRef;
use crate::{
    Name,
    datasets::{DatasetFormat, DatasetSource, FileRole, FileUris, columns::ColumnSpec},
    limits,
    models::{Alias, check_one_of},
    validation::{ObjectReader, Violations, escape},
    words::words,
};

/// Rows that the model is given at a time unless the spec says otherwise.
const BATCH_SIZE: u32 = 256;
/// Rows of one file unless the spec says otherwise.
const ROWS_PER_PART: u32 = 10_000;

words! {
    /// How predictions are written.
    OutputFormat {
        /// One JSON object per line.
        Jsonl = "jsonl",
        /// Comma-separated values with a header row (RFC 4180).
        Csv = "csv",
    }
}

words! {
    /// What of the input stands beside each prediction.
    JoinSource {
        /// Nothing but the row's number and the `id_columns`.
        None = "none",
        /// The whole input row.
        Input = "input",
    }
}

words! {
    /// What becomes of a row that does not fit the model.
    OnError {
        /// It ends the job.
        Fail = "fail",
        /// It is passed over and noted with its number and the reason.
        Skip = "skip",
    }
}

/// The rows to predict: a dataset, or files declared as those of a dataset are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchInput {
    /// A dataset (`name`, `name@version`), whose label is passed over; instead of all else here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "digits@1")]
    pub dataset: Option<DatasetRef>,
    /// S3 URI of an object or of a prefix that ends in `/`, or the URIs of several objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<FileUris>,
    /// File format; each also gzip-compressed, which is detected from the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<DatasetFormat>,
    /// Shape of one sample, channels last; that of the model unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 4, example = json!([8, 8, 1]))]
    pub shape: Option<Vec<usize>>,
    /// Column of a table that holds the label, which is passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub label_column: Option<String>,
    /// Columns of a table that hold several labels, which are passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 1000)]
    pub label_columns: Vec<String>,
    /// Columns of a table that are no features: `{"kind": "ignore"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(example = json!({"name": {"kind": "ignore"}}))]
    pub columns: BTreeMap<String, ColumnSpec>,
    /// Name of the array in an `npz`: `{"data": "x"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(example = json!({"data": "x"}))]
    pub arrays: BTreeMap<FileRole, String>,
}

impl BatchInput {
    /// Returns the declaration of the files, if it is not a dataset that has one.
    #[must_use]
    pub fn source(&self) -> Option<DatasetSource> {
        Some(DatasetSource {
            format: self.format?,
            files: BTreeMap::from([(FileRole::Data, self.uri.clone()?)]),
            label_column: self.label_column.clone(),
            label_columns: self.label_columns.clone(),
            shape: self.shape.clone(),
            target: None,
            columns: self.columns.clone(),
            arrays: self.arrays.clone(),
        })
    }

    fn check(&self, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        if self.dataset.is_some() {
            let declares = Self {
                dataset: self.dataset.clone(),
                ..Self::default()
            } != *self;
            v.check(!declares, pointer, "conflict", || {
                "a dataset is declared already; name it alone, or name files by uri and format"
                    .to_owned()
            });
            return;
        }
        if self.uri.is_none() {
            v.push(at("uri"), "missing", "\"uri\" or \"dataset\" is required");
        }
        if self.format.is_none() && self.uri.is_some() {
            let detail = "\"format\" is required beside \"uri\": csv, jsonl, parquet, idx, npy, npz or images";
            v.push(at("format"), "missing", detail);
        }
        let Some(source) = self.source() else { return };
        let mut found = Violations::default();
        source.check("", &mut found);
        for violation in found.into_vec() {
            // Here the one file has no role to be named by.
            let place = violation.pointer.replacen("/files/data", "/uri", 1);
            v.push(
                format!("{pointer}{place}"),
                &violation.code,
                violation.detail,
            );
        }
    }
}

/// Where the predictions go, and what stands beside them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchOutput {
    /// S3 prefix, below which nothing may be yet.
    #[schema(example = "s3://bucket/predictions/2026-01-31/")]
    pub uri: String,
    /// How predictions are written.
    #[serde(default = "jsonl")]
    #[schema(default = "jsonl")]
    pub format: OutputFormat,
    /// What of the input stands beside each prediction.
    #[serde(default = "nothing")]
    #[schema(default = "none")]
    pub join_source: JoinSource,
    /// Columns of the input that stand beside each prediction; those that are no features of the
    /// model need not be declared otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64, example = json!(["customer_id"]))]
    pub id_columns: Vec<String>,
}

const fn jsonl() -> OutputFormat {
    OutputFormat::Jsonl
}
const fn nothing() -> JoinSource {
    JoinSource::None
}

impl BatchOutput {
    /// Records what does not go with the format of the input.
    pub fn check_format(&self, format: DatasetFormat, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        let word = format.as_str();
        let joins = self.join_source == JoinSource::Input;
        v.check(
            !joins || format.is_table(),
            &at("join_source"),
            "conflict",
            || format!("rows of format {word} have no columns that could stand beside predictions"),
        );
        let unknown = joins && self.format == OutputFormat::Csv && format == DatasetFormat::Jsonl;
        v.check(!unknown, &at("join_source"), "conflict", || {
            "each object of jsonl may have other fields, which no header of csv can name; write jsonl, or name id_columns".to_owned()
        });
        v.check(
            self.id_columns.is_empty() || format.is_table(),
            &at("id_columns"),
            "conflict",
            || format!("rows of format {word} have no columns"),
        );
    }

    fn check(&self, pointer: &str, v: &mut Violations) {
        let at = format!("{pointer}/id_columns");
        let (n, max) = (self.id_columns.len(), limits::MAX_ID_COLUMNS);
        v.check(n <= max, &at, "too_many", || {
            format!("{n} columns are more than the {max} allowed")
        });
        for (i, name) in self.id_columns.iter().enumerate() {
            let at = format!("{at}/{i}");
            v.check(!name.is_empty(), &at, "empty", || {
                "a column has a name".to_owned()
            });
            v.check(
                !self.id_columns[..i].contains(name),
                &at,
                "duplicate",
                || format!("{:?} is named twice", escape(name)),
            );
        }
    }
}

/// What to predict, by what, and where to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchPredictSpec {
    /// Name of the model.
    pub model: Name,
    /// Version of the model; the newest at submission unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2_147_483_647_i64)]
    pub version: Option<u32>,
    /// Alias that names the version in its number's place; submission writes the number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<Alias>,
    /// The rows.
    pub input: BatchInput,
    /// Where the predictions go.
    pub output: BatchOutput,
    /// Rows that the model is given at a time.
    #[serde(default = "batch_size")]
    #[schema(minimum = 1, maximum = 4096, default = 256)]
    pub batch_size: u32,
    /// Rows of one file of predictions; what was finished before a crash is not done again.
    #[serde(default = "rows_per_part")]
    #[schema(minimum = 1, maximum = 1_000_000, default = 10_000)]
    pub rows_per_part: u32,
    /// What becomes of a row that does not fit the model.
    #[serde(default = "fail")]
    #[schema(default = "fail")]
    pub on_error: OnError,
    /// Most rows that are passed over before the job fails; any number unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_errors: Option<u64>,
}

const fn batch_size() -> u32 {
    BATCH_SIZE
}
const fn rows_per_part() -> u32 {
    ROWS_PER_PART
}
const fn fail() -> OnError {
    OnError::Fail
}

impl BatchPredictSpec {
    /// Reads a spec, recording every mistake that shows without model and storage.
    pub fn read(value: Value, pointer: &str, violations: &mut Violations) -> Option<Self> {
        let mut r = ObjectReader::new(value, pointer, violations)?;
        let model: Option<Name> = r.required("model");
        let version: Option<u32> = r.optional("version");
        let alias: Option<Alias> = r.optional("alias");
        let input: Option<BatchInput> = r.required("input");
        let output: Option<BatchOutput> = r.required("output");
        let batch_size = r.optional("batch_size").unwrap_or(BATCH_SIZE);
        let rows_per_part = r.optional("rows_per_part").unwrap_or(ROWS_PER_PART);
        let on_error = r.optional("on_error").unwrap_or(OnError::Fail);
        let max_errors = r.optional("max_errors");
        r.finish();
        let spec = Self {
            model: model?,
            version,
            alias,
            input: input?,
            output: output?,
            batch_size,
            rows_per_part,
            on_error,
            max_errors,
        };
        spec.check(pointer, violations);
        Some(spec)
    }

    fn check(&self, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        check_one_of(self.version, self.alias.as_ref(), false, pointer, v);
        self.input.check(&at("input"), v);
        self.output.check(&at("output"), v);
        if let Some(format) = self.input.format {
            self.output.check_format(format, &at("output"), v);
        }
        let most = u32::try_from(limits::MAX_PREDICT_ROWS).unwrap_or(u32::MAX);
        v.check_range(&at("batch_size"), self.batch_size, 1, most);
        v.check_range(
            &at("rows_per_part"),
            self.rows_per_part,
            1,
            limits::MAX_ROWS_PER_PART,
        );
        let pointless = self.max_errors.is_some() && self.on_error == OnError::Fail;
        v.check(!pointless, &at("max_errors"), "conflict", || {
            "the first row that does not fit ends the job; to pass over some, set on_error to skip"
                .to_owned()
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mistakes(change: impl FnOnce(&mut Value)) -> Vec<(String, String)> {
        let mut spec = json!({
            "model": "digits",
            "input": {"uri": "s3://data/new/", "format": "csv"},
            "output": {"uri": "s3://data/out/"},
        });
        change(&mut spec);
        let mut v = Violations::default();
        BatchPredictSpec::read(spec, "/spec", &mut v);
        let pairs = v.into_vec().into_iter().map(|v| (v.pointer, v.code));
        pairs.collect()
    }

    fn only(pointer: &str, code: &str) -> Vec<(String, String)> {
        vec![(pointer.to_owned(), code.to_owned())]
    }

    #[test]
    fn a_spec_names_files_or_a_dataset() {
        assert!(mistakes(|_| {}).is_empty());
        assert!(mistakes(|s| s["input"] = json!({"dataset": "digits@2"})).is_empty());
        let both = mistakes(|s| s["input"]["dataset"] = json!("digits"));
        assert_eq!(both, only("/spec/input", "conflict"));
        let neither = mistakes(|s| s["input"] = json!({}));
        assert_eq!(neither, only("/spec/input/uri", "missing"));
        let unformatted = mistakes(|s| s["input"] = json!({"uri": "s3://data/x.csv"}));
        assert_eq!(unformatted, only("/spec/input/format", "missing"));
        let prefix = mistakes(|s| s["input"]["format"] = json!("npy"));
        assert_eq!(prefix, only("/spec/input/uri", "conflict"));
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let found = mistakes(|s| {
            s["version"] = json!(0);
            s["batch_size"] = json!(0);
            s["rows_per_part"] = json!(2_000_000);
            s["max_errors"] = json!(3);
            s["output"]["id_columns"] = json!(["a", "a", ""]);
            s["colour"] = json!(1);
        });
        let places: Vec<_> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
        let expected = [
            "/spec/colour",
            "/spec/version",
            "/spec/output/id_columns/1",
            "/spec/output/id_columns/2",
            "/spec/batch_size",
            "/spec/rows_per_part",
            "/spec/max_errors",
        ];
        assert_eq!(places, expected);
    }

    #[test]
    fn what_no_header_can_name_is_not_joined() {
        let join = |input: &str, output: &str| {
            mistakes(|s| {
                s["input"] = json!({"uri": "s3://data/new", "format": input});
                s["output"]["format"] = json!(output);
                s["output"]["join_source"] = json!("input");
            })
        };
        for (input, output) in [("csv", "csv"), ("parquet", "csv"), ("jsonl", "jsonl")] {
            assert!(join(input, output).is_empty(), "{input} to {output}");
        }
        let conflict = only("/spec/output/join_source", "conflict");
        assert_eq!(join("jsonl", "csv"), conflict);
        assert_eq!(join("images", "jsonl"), conflict);
    }
}
