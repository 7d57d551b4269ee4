//! Rows of a dataset whatever its format: features and, where there is one, the label.

use nereid_core::{
    datasets::{DatasetFormat, DatasetSource, FileRole},
    engine::{DataFiles, EngineError},
    spec::shapes,
};

use super::{
    Check,
    bytes::{Place, Source},
    csv::CsvRows,
    elements::{BinaryRows, check_sample},
    idx, npy,
};

/// What a file's header tells.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Shape of one sample.
    pub(crate) shape: Vec<usize>,
    /// Element type.
    pub(crate) dtype: &'static str,
    /// Names of features, of a table.
    pub(crate) columns: Option<Vec<String>>,
}

/// A label as read: text, a number or both.
#[derive(Debug, Clone, Default)]
pub(crate) struct Label {
    text: String,
    number: Option<f64>,
}

impl Label {
    /// Takes a cell's text, which may be a number.
    pub(super) fn set_text(&mut self, text: &str) {
        self.text.clear();
        self.text.push_str(text);
        self.number = text.parse().ok().filter(|n: &f64| n.is_finite());
    }

    pub(super) fn set_number(&mut self, number: f64) {
        self.text.clear();
        self.number = Some(number);
    }

    pub(super) fn number(&self) -> Option<f64> {
        self.number
    }

    /// Returns the label if it is a whole number that a float holds exactly.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be whole and small"
    )]
    pub(super) fn integer(&self) -> Option<i64> {
        self.number
            .filter(|n| n.fract() == 0.0 && n.abs() <= 9e15)
            .map(|n| n as i64)
    }

    /// Returns the label as a class name; whole numbers lose their decimal point.
    pub(super) fn name(&self) -> String {
        match (self.integer(), self.number) {
            (Some(n), _) => n.to_string(),
            (None, Some(n)) if self.text.is_empty() => n.to_string(),
            _ => self.text.clone(),
        }
    }
}

/// Reads a dataset's rows in order.
pub(crate) struct Rows {
    features: Features,
    labels: Option<BinaryRows>,
    layout: Layout,
}

enum Features {
    Csv(CsvRows),
    Binary(BinaryRows),
}

impl Rows {
    /// Opens the files and reads their headers.
    ///
    /// With `expected`, a table's columns are found by name and take that order.
    pub(crate) fn open(
        source: &DatasetSource,
        files: &dyn DataFiles,
        expected: Option<&[String]>,
        check: &mut Check<'_>,
    ) -> Result<Self, EngineError> {
        let data = Source::open(files, FileRole::Data)?;
        let place = data.place.clone();
        let (features, mut layout) = if source.format == DatasetFormat::Csv {
            let (rows, layout) = CsvRows::new(data, source.label_column.as_deref(), expected)?;
            (Features::Csv(rows), layout)
        } else {
            let (rows, layout) = open_binary(source.format, data, check)?;
            (Features::Binary(rows), layout)
        };
        let labels = match &features {
            Features::Binary(data) if source.files.contains_key(&FileRole::Labels) => {
                Some(open_labels(source.format, files, data.rows(), check)?)
            }
            _ => None,
        };
        if let Some(shape) = &source.shape {
            check_sample(&place, shape)?;
            if shapes::size(shape) != shapes::size(&layout.shape) {
                let (given, found) = (shapes::show(shape), shapes::show(&layout.shape));
                let detail = format!("shape {given} does not hold the values of {found}");
                return Err(place.fault("shape_mismatch", detail));
            }
            layout.shape.clone_from(shape);
        }
        Ok(Self {
            features,
            labels,
            layout,
        })
    }

    /// Returns shape, element type and columns.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the name of the target, if there is one.
    pub(crate) fn target(&self) -> Option<String> {
        match &self.features {
            Features::Csv(rows) => rows.label_column().map(str::to_owned),
            Features::Binary(_) => self
                .labels
                .as_ref()
                .map(|_| FileRole::Labels.as_str().to_owned()),
        }
    }

    /// Returns the file that holds the label, for error messages.
    pub(super) fn label_place(&self) -> &Place {
        match (&self.features, &self.labels) {
            (_, Some(labels)) => labels.place(),
            (Features::Csv(rows), None) => rows.place(),
            (Features::Binary(rows), None) => rows.place(),
        }
    }

    /// Reads the next row into `out` and `label`; `false` after the last.
    pub(crate) fn next(
        &mut self,
        out: &mut Vec<f32>,
        label: &mut Label,
    ) -> Result<bool, EngineError> {
        let more = match &mut self.features {
            Features::Csv(rows) => rows.next(out, label)?,
            Features::Binary(rows) => rows.features(out)?,
        };
        if let Some(labels) = &mut self.labels {
            // Both have the same number of rows, so that this also checks the labels' end.
            labels.label(label)?;
        }
        Ok(more)
    }
}

fn open_binary(
    format: DatasetFormat,
    mut source: Source,
    check: &mut Check<'_>,
) -> Result<(BinaryRows, Layout), EngineError> {
    let header = match format {
        DatasetFormat::Npy => npy::read_header(&mut source)?,
        _ => idx::read_header(&mut source)?,
    };
    BinaryRows::new(source, &header, check)
}

fn open_labels(
    format: DatasetFormat,
    files: &dyn DataFiles,
    rows: u64,
    check: &mut Check<'_>,
) -> Result<BinaryRows, EngineError> {
    let source = Source::open(files, FileRole::Labels)?;
    let place = source.place.clone();
    let (labels, layout) = open_binary(format, source, check)?;
    if layout.shape != [1] {
        let shape = shapes::show(&layout.shape);
        let detail = format!("each label has shape {shape}; one number a row is needed");
        return Err(place.fault("bad_header", detail));
    }
    if labels.rows() != rows {
        let detail = format!("{} labels for {rows} rows of data", labels.rows());
        return Err(place.fault("row_mismatch", detail));
    }
    Ok(labels)
}
