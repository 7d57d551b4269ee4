//! Reads all of a dataset once and describes it.

use nereid_core::{
    datasets::{
        DatasetSchema, DatasetSource, DatasetStatistics, Inspection, PreviewRow, TargetSchema,
        ValueStatistics,
    },
    engine::{DataFiles, EngineError, Inspector},
    limits,
};
use serde_json::Value;

use super::{
    labels::{Labels, Target, many::ManyLabels},
    rows::{Label, Rows},
    statistics::{Column, Statistics},
    tables::{self, Table},
};
use crate::guard;

mod table;

/// Values of one row in a preview before it is cut.
const PREVIEW_VALUES: usize = 1_024;

/// The [`Inspector`] of this engine.
pub(crate) struct DatasetInspector;

impl Inspector for DatasetInspector {
    fn inspect(
        &self,
        source: &DatasetSource,
        files: &dyn DataFiles,
    ) -> Result<Inspection, EngineError> {
        guard::panics("reading the data", || inspect(source, files))
    }

    fn framework_version(&self) -> String {
        crate::framework_version().to_owned()
    }
}

fn inspect(source: &DatasetSource, files: &dyn DataFiles) -> Result<Inspection, EngineError> {
    let check = &mut || Ok(());
    if !source.format.is_table() {
        return inspect_rows(source, Rows::open(source, files, None, check)?);
    }
    match tables::open(source, files, check)? {
        Table::Records(records) => table::inspect(source, records),
        arrays @ Table::Arrays(..) => inspect_rows(source, Rows::of_table(arrays, source, None)?),
    }
}

fn inspect_rows(source: &DatasetSource, mut rows: Rows) -> Result<Inspection, EngineError> {
    let layout = rows.layout().clone();
    let mut statistics = Statistics::new(Statistics::columns_of(&layout.shape));
    let name = rows.target();
    let mut many = rows.several().map(|names| {
        let name = name.clone().unwrap_or_default();
        ManyLabels::new(name, names)
    });
    let mut labels = name.filter(|_| many.is_none()).map(Labels::new);
    let (mut features, mut label) = (Vec::new(), Label::default());
    let mut preview = Vec::new();
    let mut count = 0;
    while rows.next(&mut features, &mut label)? {
        count += 1;
        statistics.push_row(features.iter().copied());
        if let Some(labels) = &mut labels {
            labels.push(&label);
        }
        if let Some(many) = &mut many {
            many.push(label.values());
        }
        if preview.len() < limits::PREVIEW_ROWS {
            preview.push((preview_features(&features), label.clone()));
        }
    }
    let place = rows.label_place();
    if count == 0 {
        return Err(place.fault("empty", "it has a header but no rows"));
    }
    let one = labels.map(|labels| labels.finish(source.target, place));
    let several = many.map(|many| many.finish(source.target, place));
    let target = one.or(several).transpose()?;
    let preview = preview
        .into_iter()
        .map(|(features, label)| PreviewRow {
            features,
            cells: Vec::new(),
            target: target.as_ref().map(|t| preview_target(t, &label)),
        })
        .collect();
    Ok(Inspection {
        statistics: describe(count, &statistics.columns(), target.as_ref()),
        schema: DatasetSchema {
            shape: layout.shape,
            dtype: layout.dtype.to_owned(),
            columns: layout.columns,
            features: Vec::new(),
            target: target.map(|t| t.schema),
        },
        preview,
    })
}

fn describe(rows: u64, columns: &[Column], target: Option<&Target>) -> DatasetStatistics {
    let value = |c: Column| ValueStatistics {
        mean: c.mean,
        std: c.std,
        min: c.min,
        max: c.max,
    };
    DatasetStatistics {
        rows,
        mean: columns.iter().map(|c| c.mean).collect(),
        std: columns.iter().map(|c| c.std).collect(),
        min: columns.iter().map(|c| c.min).collect(),
        max: columns.iter().map(|c| c.max).collect(),
        columns: Vec::new(),
        class_counts: target.and_then(|t| t.class_counts.clone()),
        target: target.and_then(|t| t.statistics).map(value),
    }
}

fn preview_features(features: &[f32]) -> Vec<f64> {
    let shown = features.iter().take(PREVIEW_VALUES);
    shown
        .map(|&v| if v.is_nan() { 0.0 } else { shortest(v) })
        .collect()
}

fn preview_target(target: &Target, label: &Label) -> Value {
    match target.schema {
        TargetSchema::Class { .. } => Value::from(label.name()),
        TargetSchema::Value { .. } => label.number().map_or(Value::Null, Value::from),
        TargetSchema::Labels { .. } | TargetSchema::Values { .. } => {
            Value::from(preview_features(label.values()))
        }
    }
}

/// Widens without the digits that binary fractions would add: 0.1 stays 0.1.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
