//! Describes a table: reads all cells once, then decides what each column is.

use std::collections::HashMap;

use nereid_core::{
    datasets::{
        DatasetSchema, DatasetSource, DatasetStatistics, Inspection, PreviewRow,
        columns::table_width,
        encoding::{Cell, CellFault, TableEncoder},
    },
    engine::EngineError,
    limits,
    spec::shapes,
};
use serde_json::Value;

use super::{
    super::{
        bytes::Place,
        elements::check_sample,
        labels::{Labels, Target, many::ManyLabels},
        profile::{DISTINCT_BYTES, Profile},
        rows::Label,
        statistics::Column,
        tables::{Records, count_row, ignored, label_value, missing_column, set_label, target},
    },
    describe, preview_features, preview_target,
};

/// Longest text of a cell in a preview, in characters.
const PREVIEW_CHARS: usize = 1_024;

/// What was read of a table.
struct Survey<'a> {
    source: &'a DatasetSource,
    /// By position in the records; `None` for the label and ignored columns.
    profiles: Vec<Option<Profile>>,
    /// Names of the labels, and where they are in the records.
    names: HashMap<String, usize>,
    labels_at: Vec<Option<usize>>,
    labels: Option<Labels>,
    /// Instead, if there are several.
    many: Option<ManyLabels>,
    label: Label,
    /// Features and label of the first rows.
    preview: Vec<(Vec<Value>, Label)>,
    budget: usize,
    rows: u64,
}

/// Reads a table to its end and describes it.
pub(super) fn inspect(
    source: &DatasetSource,
    mut records: Box<dyn Records>,
) -> Result<Inspection, EngineError> {
    let names: Vec<String> = source.labels().cloned().collect();
    let mut survey = Survey {
        source,
        profiles: Vec::new(),
        labels_at: vec![None; names.len()],
        labels: source.label_column.clone().map(Labels::new),
        many: (names.len() > 1).then(|| {
            let name = target(&names).unwrap_or_default();
            ManyLabels::new(name, names.clone())
        }),
        names: names.into_iter().zip(0..).collect(),
        label: Label::default(),
        preview: Vec::new(),
        budget: DISTINCT_BYTES,
        rows: 0,
    };
    survey.find_columns(records.columns());
    if source.format != nereid_core::datasets::DatasetFormat::Jsonl {
        survey.check_columns(records.as_ref())?;
    }
    while records.advance()? {
        let row = survey.rows;
        count_row(records.place(), &mut survey.rows)?;
        survey.find_columns(records.columns());
        survey.push(records.as_ref(), row)?;
    }
    let place = records.place();
    if survey.rows == 0 {
        return Err(place.fault("empty", "it has a header but no rows"));
    }
    survey.check_columns(records.as_ref())?;
    survey.finish(place)
}

impl Survey<'_> {
    /// Begins to profile the columns that the records have found since last time.
    fn find_columns(&mut self, columns: &[String]) {
        for (at, name) in columns.iter().enumerate().skip(self.profiles.len()) {
            let label = self.names.get(name);
            if let Some(&label) = label {
                self.labels_at[label] = Some(at);
            }
            let skipped = label.is_some() || ignored(self.source, name);
            let declared = self.source.columns.get(name);
            // The row in which it is first seen is being read, so that it is not missing there.
            let before = self.rows.saturating_sub(1);
            self.profiles
                .push((!skipped).then(|| Profile::new(name, declared, before)));
        }
    }

    /// Demands the label and at least one feature, and that declared columns are there.
    fn check_columns(&self, records: &dyn Records) -> Result<(), EngineError> {
        let (place, known) = (records.place(), records.columns());
        let mut labels = self.source.labels().zip(&self.labels_at);
        if let Some((label, _)) = labels.find(|(_, at)| at.is_none()) {
            return Err(missing_column(place, known, label, "the label column"));
        }
        let declared = self.source.columns.keys();
        if let Some(name) = declared
            .filter(|c| !ignored(self.source, c))
            .find(|c| !known.contains(c))
        {
            return Err(missing_column(place, known, name, "the declared column"));
        }
        let features = self.profiles.iter().flatten().count();
        if features == 0 {
            return Err(place.fault("no_features", "it has no column beside the label"));
        }
        check_sample(place, &[features])
    }

    fn push(&mut self, records: &dyn Records, row: u64) -> Result<(), EngineError> {
        let previewed = self.preview.len() < limits::PREVIEW_ROWS;
        let mut cells = Vec::new();
        for (at, profile) in self.profiles.iter_mut().enumerate() {
            let Some(profile) = profile else { continue };
            let cell = records.cell(at)?;
            profile.push(row, cell, &mut self.budget);
            if previewed {
                cells.push(show(cell));
            }
        }
        self.push_labels(records, row)?;
        if previewed {
            self.preview.push((cells, self.label.clone()));
        }
        Ok(())
    }

    fn push_labels(&mut self, records: &dyn Records, row: u64) -> Result<(), EngineError> {
        self.label.values_mut().clear();
        for (name, &at) in self.source.labels().zip(&self.labels_at) {
            let cell = at.map_or(Ok(Cell::Missing), |at| records.cell(at))?;
            let read = if self.many.is_some() {
                label_value(cell).map(|n| self.label.values_mut().push(n))
            } else {
                set_label(&mut self.label, cell)
            };
            read.map_err(|f| fault(records.place(), row, Some(name), f))?;
        }
        if let Some(labels) = &mut self.labels {
            labels.push(&self.label);
        }
        if let Some(many) = &mut self.many {
            many.push(self.label.values());
        }
        Ok(())
    }

    fn finish(self, place: &Place) -> Result<Inspection, EngineError> {
        let declared = self.source.target;
        let one = self.labels.map(|labels| labels.finish(declared, place));
        let several = self.many.map(|many| many.finish(declared, place));
        let target = one.or(several).transpose()?;
        let profiles: Vec<Profile> = self.profiles.into_iter().flatten().collect();
        let features = profiles
            .iter()
            .map(|p| p.finish(place))
            .collect::<Result<Vec<_>, _>>()?;
        let plain = profiles.iter().all(Profile::is_plain);
        let encoder = TableEncoder::new(&features);
        let width = if plain {
            features.len()
        } else {
            table_width(&features)
        };
        check_sample(place, &[width])?;
        let shape = declared_shape(self.source, place, width, plain)?;
        let mut preview = Vec::new();
        for (row, (cells, label)) in (0..).zip(self.preview) {
            let mut inputs = Vec::new();
            for (i, column) in features.iter().enumerate() {
                let cell = cells.get(i).map_or(Cell::Missing, read);
                encoder
                    .encode(i, cell, &mut inputs)
                    .map_err(|f| fault(place, row, Some(&column.name), f))?;
            }
            preview.push(PreviewRow {
                features: preview_features(&inputs),
                cells: if plain { Vec::new() } else { cells },
                target: target.as_ref().map(|t| preview_target(t, &label)),
            });
        }
        let names = features.iter().map(|c| c.name.clone()).collect();
        Ok(Inspection {
            statistics: statistics(self.rows, &profiles, plain, target.as_ref()),
            schema: DatasetSchema {
                shape,
                dtype: "FP32".to_owned(),
                columns: Some(names),
                features: if plain { Vec::new() } else { features },
                target: target.map(|t| t.schema),
            },
            preview,
        })
    }
}

fn declared_shape(
    source: &DatasetSource,
    place: &Place,
    width: usize,
    plain: bool,
) -> Result<Vec<usize>, EngineError> {
    let Some(shape) = &source.shape else {
        return Ok(vec![width]);
    };
    check_sample(place, shape)?;
    if shapes::size(shape) != width as u64 || (!plain && shape.len() > 1) {
        let (given, found) = (shapes::show(shape), shapes::show(&[width]));
        let detail = if plain {
            format!("shape {given} does not hold the values of {found}")
        } else {
            format!("shape {given} is not {found}, which the columns of mixed kind become")
        };
        return Err(place.fault("shape_mismatch", detail));
    }
    Ok(shape.clone())
}

fn statistics(
    rows: u64,
    profiles: &[Profile],
    plain: bool,
    target: Option<&Target>,
) -> DatasetStatistics {
    let figures: Vec<Column> = if plain {
        profiles.iter().map(Profile::figures).collect()
    } else {
        Vec::new()
    };
    let mut statistics = describe(rows, &figures, target);
    if !plain {
        statistics.columns = profiles.iter().map(Profile::statistics).collect();
    }
    statistics
}

fn fault(place: &Place, row: u64, column: Option<&str>, fault: CellFault) -> EngineError {
    place.fault_at(fault.code, Some(row), column, fault.detail)
}

/// A cell as JSON; long text is cut.
fn show(cell: Cell<'_>) -> Value {
    match cell {
        Cell::Missing => Value::Null,
        Cell::Number(n) => serde_json::Number::from_f64(n).map_or(Value::Null, Value::Number),
        Cell::Boolean(b) => Value::Bool(b),
        Cell::Text(text) => Value::String(text.chars().take(PREVIEW_CHARS).collect()),
    }
}

fn read(value: &Value) -> Cell<'_> {
    match value {
        Value::Number(n) => n.as_f64().map_or(Cell::Missing, Cell::Number),
        Value::Bool(b) => Cell::Boolean(*b),
        Value::String(text) => Cell::Text(text),
        _ => Cell::Missing,
    }
}
