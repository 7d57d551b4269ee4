//! Records of JSON Lines: an object per line, of scalars or with one nested array of numbers.

use std::{
    collections::HashMap,
    fmt,
    io::{BufRead, BufReader, Read},
};

use nereid_core::{
    datasets::{DatasetSource, encoding::Cell},
    engine::EngineError,
    limits,
    spec::shapes,
};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::{
    bytes::{Place, Source},
    elements::{check_sample, to_f32},
    rows::{Label, Layout},
    tables::{Records, clip, count_row, ignored, label_value, set_label},
};

/// Fields of an object in their order.
pub(super) struct Fields(pub(super) Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// Reads objects line by line.
pub(super) struct Lines {
    reader: BufReader<Box<dyn Read + Send>>,
    place: Place,
    line: Vec<u8>,
    rows: u64,
    /// The first object, which is looked at before it is read.
    first: Option<Vec<(String, Value)>>,
}

impl Lines {
    pub(super) fn new(source: Source) -> Self {
        Self {
            reader: BufReader::new(source.reader),
            place: source.place,
            line: Vec::new(),
            rows: 0,
            first: None,
        }
    }

    /// Returns the column that holds each sample's features as a nested array, if there is one.
    pub(super) fn find_array(
        &mut self,
        source: &DatasetSource,
    ) -> Result<Option<(String, Vec<usize>)>, EngineError> {
        self.first = self.next()?;
        let Some(fields) = &self.first else {
            return Ok(None);
        };
        let feature =
            |(name, _): &&(String, Value)| !source.is_label(name) && !ignored(source, name);
        let features: Vec<_> = fields.iter().filter(feature).collect();
        let Some((name, value)) = features.iter().find(|(_, v)| v.is_array()) else {
            return Ok(None);
        };
        if let Some((other, _)) = features.iter().find(|(n, _)| n != name) {
            let detail = format!(
                "an array holds all features of a sample, but {:?} stands beside it; declare one of them as ignore",
                clip(other)
            );
            return Err(self
                .place
                .fault_at("unexpected_column", Some(0), Some(name), detail));
        }
        if let Some(declared) = source.columns.keys().find(|c| !ignored(source, c)) {
            let detail = "it is declared, but samples that are arrays have no columns";
            let column = Some(declared.as_str());
            return Err(self
                .place
                .fault_at("unexpected_column", Some(0), column, detail));
        }
        let mut shape = Vec::new();
        let mut level = value;
        while let Value::Array(items) = level {
            shape.push(items.len());
            match items.first() {
                Some(first) => level = first,
                None => break,
            }
        }
        check_sample(&self.place, &shape)?;
        Ok(Some((name.clone(), shape)))
    }

    /// Returns the next object; `None` after the last.
    fn next(&mut self) -> Result<Option<Vec<(String, Value)>>, EngineError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        if !self.advance()? {
            return Ok(None);
        }
        let Fields(fields) = serde_json::from_slice(self.text()).map_err(|e| self.no_json(&e))?;
        count_row(&self.place, &mut self.rows)?;
        Ok(Some(fields))
    }

    /// Reads the next line that is not empty; `false` after the last.
    pub(super) fn advance(&mut self) -> Result<bool, EngineError> {
        loop {
            self.line.clear();
            self.place.mark();
            let limit = limits::MAX_JSON_LINE_BYTES;
            let n = (&mut self.reader)
                .take(limit as u64 + 1)
                .read_until(b'\n', &mut self.line)
                .map_err(|e| self.place.io(e))?;
            if n == 0 {
                return Ok(false);
            }
            if n > limit {
                let detail = format!("the line is longer than the {limit} bytes allowed");
                let row = Some(self.rows);
                return Err(self.place.fault_at("too_large", row, None, detail));
            }
            if !self.text().is_empty() {
                return Ok(true);
            }
        }
    }

    /// Returns the line read last, without what surrounds its value.
    pub(super) fn text(&self) -> &[u8] {
        let text = self.line.trim_ascii();
        text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
    }

    pub(super) fn no_json(&self, error: &serde_json::Error) -> EngineError {
        let detail = format!("the line is no JSON object: {error}");
        self.place
            .fault_at("bad_json", Some(self.rows), None, detail)
    }
}

/// Reads the objects as records of a table.
pub(super) struct JsonRecords {
    lines: Lines,
    columns: Vec<String>,
    index: HashMap<String, usize>,
    /// Values of the last object by column.
    values: Vec<Value>,
}

impl JsonRecords {
    pub(super) fn new(lines: Lines) -> Self {
        Self {
            lines,
            columns: Vec::new(),
            index: HashMap::new(),
            values: Vec::new(),
        }
    }
}

impl Records for JsonRecords {
    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn advance(&mut self) -> Result<bool, EngineError> {
        let Some(fields) = self.lines.next()? else {
            return Ok(false);
        };
        let row = Some(self.lines.rows - 1);
        self.values.fill(Value::Null);
        let mut set = vec![false; self.values.len()];
        for (name, value) in fields {
            let place = &self.lines.place;
            if name.is_empty() {
                return Err(place.fault_at("bad_header", row, None, "a field has no name"));
            }
            let at = *self.index.entry(name).or_insert_with_key(|name| {
                self.columns.push(name.clone());
                self.values.push(Value::Null);
                set.push(false);
                self.columns.len() - 1
            });
            if self.columns.len() > limits::MAX_FEATURES {
                let detail = format!("more than {} columns", limits::MAX_FEATURES);
                return Err(place.fault_at("too_large", row, None, detail));
            }
            if std::mem::replace(&mut set[at], true) {
                let name = Some(self.columns[at].as_str());
                let detail = "the object names it twice";
                return Err(place.fault_at("duplicate_column", row, name, detail));
            }
            self.values[at] = value;
        }
        Ok(true)
    }

    fn cell(&self, column: usize) -> Result<Cell<'_>, EngineError> {
        Ok(match self.values.get(column).unwrap_or(&Value::Null) {
            Value::Null => Cell::Missing,
            Value::Bool(b) => Cell::Boolean(*b),
            Value::Number(n) => n.as_f64().map_or(Cell::Missing, Cell::Number),
            Value::String(text) => Cell::Text(text),
            Value::Array(_) | Value::Object(_) => {
                let row = self.lines.rows.saturating_sub(1);
                let name = self.columns.get(column).map(String::as_str);
                let detail = "a nested value cannot be a column; declare it as ignore";
                let place = &self.lines.place;
                return Err(place.fault_at("nested_column", Some(row), name, detail));
            }
        })
    }

    fn place(&self) -> &Place {
        &self.lines.place
    }
}

/// Reads samples that lie in the file as nested arrays of numbers.
pub(super) struct JsonArrays {
    lines: Lines,
    feature: String,
    labels: Vec<String>,
    ignored: Vec<String>,
    shape: Vec<usize>,
}

impl JsonArrays {
    pub(super) fn new(
        lines: Lines,
        source: &DatasetSource,
        (feature, shape): (String, Vec<usize>),
    ) -> (Self, Layout) {
        let layout = Layout {
            shape: shape.clone(),
            dtype: "FP32",
            columns: None,
        };
        let ignored = source.columns.keys().filter(|c| ignored(source, c));
        let rows = Self {
            lines,
            feature,
            labels: source.labels().cloned().collect(),
            ignored: ignored.cloned().collect(),
            shape,
        };
        (rows, layout)
    }

    pub(super) fn place(&self) -> &Place {
        &self.lines.place
    }

    pub(super) fn labels(&self) -> &[String] {
        &self.labels
    }

    pub(super) fn next(
        &mut self,
        out: &mut Vec<f32>,
        label: &mut Label,
    ) -> Result<bool, EngineError> {
        out.clear();
        let Some(fields) = self.lines.next()? else {
            return Ok(false);
        };
        let (place, row) = (&self.lines.place, self.lines.rows - 1);
        let several = self.labels.len() > 1;
        let mut labelled = vec![false; self.labels.len()];
        label.values_mut().clear();
        label
            .values_mut()
            .resize(if several { labelled.len() } else { 0 }, 0.0);
        for (name, value) in &fields {
            let fault = |code, detail: String| place.fault_at(code, Some(row), Some(name), detail);
            if *name == self.feature {
                out.clear();
                self.flatten(value, 0, row, out)?;
            } else if let Some(at) = self.labels.iter().position(|l| l == name) {
                let cell = match value {
                    Value::Null => Cell::Missing,
                    Value::Bool(b) => Cell::Boolean(*b),
                    Value::Number(n) => n.as_f64().map_or(Cell::Missing, Cell::Number),
                    Value::String(text) => Cell::Text(text),
                    _ => {
                        return Err(fault(
                            "nested_column",
                            "a label is no nested value".to_owned(),
                        ));
                    }
                };
                let read = if several {
                    label_value(cell).map(|n| label.values_mut()[at] = n)
                } else {
                    set_label(label, cell)
                };
                read.map_err(|f| fault(f.code, f.detail))?;
                labelled[at] = true;
            } else if !self.ignored.contains(name) {
                let detail = format!("the first row has no column {:?}", clip(name));
                return Err(fault("unexpected_column", detail));
            }
        }
        let mut labels = self.labels.iter().zip(&labelled);
        let unlabelled = labels.find(|(_, there)| !**there).map(|(name, _)| name);
        let absent = out.is_empty().then_some(&self.feature).or(unlabelled);
        if let Some(name) = absent {
            let detail = "it is not there";
            return Err(place.fault_at("missing_value", Some(row), Some(name), detail));
        }
        Ok(true)
    }

    /// Appends the numbers of an array that must have the shape of the first row's.
    fn flatten(
        &self,
        value: &Value,
        depth: usize,
        row: u64,
        out: &mut Vec<f32>,
    ) -> Result<(), EngineError> {
        let place = &self.lines.place;
        let fault = |code, detail| place.fault_at(code, Some(row), Some(&self.feature), detail);
        match (value, self.shape.get(depth)) {
            (Value::Array(items), Some(&n)) if items.len() == n => items
                .iter()
                .try_for_each(|item| self.flatten(item, depth + 1, row, out)),
            (Value::Number(n), None) => {
                let value = n.as_f64().unwrap_or(f64::INFINITY);
                out.push(to_f32(place, value, row, || self.feature.clone())?);
                Ok(())
            }
            (Value::Array(_), _) | (_, Some(_)) => {
                let shape = shapes::show(&self.shape);
                Err(fault(
                    "shape_mismatch",
                    format!("the array has not the shape {shape} of the first row's"),
                ))
            }
            (other, None) => {
                let shown = clip(&other.to_string());
                Err(fault("not_a_number", format!("{shown} is not a number")))
            }
        }
    }
}
