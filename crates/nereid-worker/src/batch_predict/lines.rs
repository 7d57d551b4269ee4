//! Predictions as lines of files: JSON Lines and CSV.

use std::io::{self, Write};

use nereid_core::{
    Violation,
    endpoints::Prediction,
    models::Signature,
    rows::InputRow,
    spec::batch_predict::{BatchOutput, JoinSource, OutputFormat},
};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

/// Makes the lines of one job's predictions.
pub(super) struct Lines {
    format: OutputFormat,
    joins: bool,
    ids: Vec<String>,
    /// Columns of the input that stand in each line of a CSV.
    columns: Vec<String>,
    classes: Vec<String>,
}

/// A line of predictions.
#[derive(Serialize)]
struct Line<'a> {
    row: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Columns<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Joined<'a>>,
    prediction: &'a Prediction,
}

/// A row that was passed over.
#[derive(Serialize)]
struct Rejection<'a> {
    row: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Columns<'a>>,
    errors: &'a [Violation],
}

/// Chosen columns of a row.
struct Columns<'a> {
    names: &'a [String],
    row: &'a InputRow,
}

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.names.len()))?;
        for name in self.names {
            map.serialize_entry(name, self.row.get(name).unwrap_or(&Value::Null))?;
        }
        map.end()
    }
}

/// All columns of a row, or its values if they have no names.
struct Joined<'a>(&'a InputRow);

impl Serialize for Joined<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            InputRow::Columns(columns) => {
                serializer.collect_map(columns.iter().map(|(name, value)| (name, value)))
            }
            InputRow::Values(numbers) => serializer.collect_seq(&numbers.values),
        }
    }
}

impl Lines {
    /// Prepares for a job whose input has this header, if it has one.
    ///
    /// # Errors
    /// A column that is not there or that would stand twice in a header.
    pub(super) fn new(
        output: &BatchOutput,
        signature: &Signature,
        header: Option<&[String]>,
    ) -> Result<Self, String> {
        let joins = output.join_source == JoinSource::Input;
        if let Some(header) = header
            && let Some(name) = output.id_columns.iter().find(|id| !header.contains(id))
        {
            return Err(format!("the id column {name:?} is not there"));
        }
        let mut columns = output.id_columns.clone();
        if joins {
            let more = header.unwrap_or_default().iter();
            columns.extend(more.filter(|c| !output.id_columns.contains(c)).cloned());
        }
        if output.format == OutputFormat::Csv
            && let Some(name) = columns.iter().find(|c| c.starts_with(PREFIX))
        {
            return Err(format!(
                "column {name:?} begins as those of predictions do ({PREFIX}), which would be confused; write jsonl"
            ));
        }
        Ok(Self {
            format: output.format,
            joins,
            ids: output.id_columns.clone(),
            columns,
            classes: signature.classes.clone().unwrap_or_default(),
        })
    }

    /// Tells whether a column of the input stands beside predictions.
    pub(super) fn keeps(&self, column: &str) -> bool {
        self.joins || self.ids.iter().any(|id| id == column)
    }

    fn id<'a>(&'a self, row: &'a InputRow) -> Option<Columns<'a>> {
        let names = &self.ids[..];
        (!names.is_empty()).then_some(Columns { names, row })
    }

    /// Writes one prediction; `first` in its file, a CSV's begins with the header.
    pub(super) fn write(
        &self,
        out: &mut impl Write,
        first: bool,
        row: u64,
        input: &InputRow,
        prediction: &Prediction,
    ) -> io::Result<()> {
        if self.format == OutputFormat::Csv {
            return self.write_csv(out, first, row, input, prediction);
        }
        let line = Line {
            row,
            id: self.id(input),
            input: self.joins.then_some(Joined(input)),
            prediction,
        };
        write_json(out, &line)
    }

    /// Writes why a row was passed over.
    pub(super) fn reject(
        &self,
        out: &mut impl Write,
        row: u64,
        input: Option<&InputRow>,
        errors: &[Violation],
    ) -> io::Result<()> {
        let id = input.and_then(|input| self.id(input));
        write_json(out, &Rejection { row, id, errors })
    }

    fn write_csv(
        &self,
        out: &mut impl Write,
        first: bool,
        row: u64,
        input: &InputRow,
        prediction: &Prediction,
    ) -> io::Result<()> {
        let cells = cells(prediction, &self.classes);
        if first {
            write!(out, "{PREFIX}row")?;
            for name in &self.columns {
                out.write_all(b",")?;
                write_cell(out, name)?;
            }
            for (name, _) in &cells {
                out.write_all(b",")?;
                write_cell(out, &format!("{PREFIX}{name}"))?;
            }
            out.write_all(b"\n")?;
        }
        write!(out, "{row}")?;
        for name in &self.columns {
            out.write_all(b",")?;
            match input.get(name) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) => write_cell(out, text)?,
                Some(other) => write_cell(out, &other.to_string())?,
            }
        }
        for (_, value) in &cells {
            out.write_all(b",")?;
            write_cell(out, value)?;
        }
        out.write_all(b"\n")
    }
}

/// Begins the names of a CSV's columns that are not the input's.
const PREFIX: &str = "prediction_";

/// Names and values of a prediction's columns.
fn cells(prediction: &Prediction, classes: &[String]) -> Vec<(String, String)> {
    let mut cells = Vec::new();
    let mut cell = |name: &str, value: String| cells.push((name.to_owned(), value));
    if let Some(label) = &prediction.label {
        cell("label", label.clone());
    }
    if let Some(labels) = &prediction.labels {
        cell("labels", serde_json::json!(labels).to_string());
    }
    if let Some(value) = prediction.value {
        cell("value", value.to_string());
    }
    if let Some(score) = prediction.anomaly_score {
        cell("anomaly_score", score.to_string());
    }
    for (i, p) in prediction.probabilities.iter().flatten().enumerate() {
        let name = classes.get(i).map_or_else(|| i.to_string(), Clone::clone);
        cell(&format!("probability_{name}"), p.to_string());
    }
    for (i, value) in prediction.values.iter().flatten().enumerate() {
        cell(&format!("value_{i}"), value.to_string());
    }
    for (i, value) in prediction.reconstruction.iter().flatten().enumerate() {
        cell(&format!("reconstruction_{i}"), value.to_string());
    }
    cells
}

/// Writes a cell as RFC 4180 has it.
fn write_cell(out: &mut impl Write, text: &str) -> io::Result<()> {
    let plain = !text.contains([',', '"', '\n', '\r']) && text.trim() == text;
    if plain {
        return out.write_all(text.as_bytes());
    }
    write!(out, "\"{}\"", text.replace('"', "\"\""))
}

fn write_json(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn signature() -> Signature {
        serde_json::from_value(json!({
            "inputs": [], "outputs": [], "classes": ["cat", "dog, \"big\""],
            "preprocessing": {"normalization": "none", "offset": [0.0], "scale": [1.0]},
        }))
        .unwrap()
    }

    fn prediction() -> Prediction {
        Prediction {
            label: Some("cat".to_owned()),
            probabilities: Some(vec![0.75, 0.25]),
            ..Prediction::default()
        }
    }

    fn row() -> InputRow {
        let cells = [("id", json!("7")), ("note", json!("a, b"))];
        InputRow::Columns(cells.map(|(n, v)| (n.to_owned(), v)).into())
    }

    fn lines(output: &Value) -> Lines {
        let mut output = output.clone();
        output["uri"] = json!("s3://b/k/");
        let output = serde_json::from_value(output).unwrap();
        let header = ["id".to_owned(), "note".to_owned()];
        Lines::new(&output, &signature(), Some(&header)).unwrap()
    }

    fn written(output: &Value) -> String {
        let (lines, mut out) = (lines(output), Vec::new());
        for (number, first) in [(1, true), (3, false)] {
            let written = lines.write(&mut out, first, number, &row(), &prediction());
            written.unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_lines_hold_the_prediction_as_an_endpoint_answers_it() {
        let text = written(&json!({"id_columns": ["id"], "join_source": "input"}));
        let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let expected = json!({
            "row": 1, "id": {"id": "7"}, "input": {"id": "7", "note": "a, b"},
            "prediction": {"label": "cat", "probabilities": [0.75, 0.25]},
        });
        assert_eq!(line, expected);
        let bare = written(&json!({}));
        let line: Value = serde_json::from_str(bare.lines().nth(1).unwrap()).unwrap();
        assert_eq!(line.as_object().unwrap().len(), 2);
        assert_eq!(line["row"], 3);
    }

    #[test]
    fn a_csv_quotes_what_would_break_it_and_names_its_columns_once() {
        let text = written(&json!({"format": "csv", "join_source": "input"}));
        let expected = "prediction_row,id,note,prediction_label,prediction_probability_cat,\"prediction_probability_dog, \"\"big\"\"\"\n\
                        1,7,\"a, b\",cat,0.75,0.25\n\
                        3,7,\"a, b\",cat,0.75,0.25\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_rejected_row_is_told_with_its_reasons() {
        let mut out = Vec::new();
        let errors = [Violation {
            pointer: "/a".to_owned(),
            code: "missing".to_owned(),
            detail: "x".to_owned(),
        }];
        let lines = lines(&json!({"id_columns": ["id"]}));
        lines.reject(&mut out, 9, Some(&row()), &errors).unwrap();
        let line: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(line["row"], 9);
        assert_eq!(line["id"]["id"], "7");
        assert_eq!(line["errors"][0]["pointer"], "/a");
    }

    #[test]
    fn columns_that_are_not_there_or_would_be_confused_are_refused() {
        let refused = |ids: &[&str], format: &str, header: &[&str]| {
            let output = json!({"uri": "s3://b/k/", "format": format, "id_columns": ids});
            let output = serde_json::from_value(output).unwrap();
            let header: Vec<String> = header.iter().map(|&c| c.to_owned()).collect();
            Lines::new(&output, &signature(), Some(&header)).is_err()
        };
        assert!(refused(&["id"], "jsonl", &["a"]));
        assert!(refused(&["prediction_row"], "csv", &["prediction_row"]));
        assert!(!refused(&["prediction_row"], "jsonl", &["prediction_row"]));
    }
}
