//! Rows of a dataset whatever its format: features and, where there is one, the label.

use nereid_core::{
    datasets::{DatasetFormat, DatasetSchema, DatasetSource, FileRole},
    engine::{DataFiles, EngineError},
    limits,
    spec::shapes,
};

use super::{
    Check,
    bytes::{Place, Source},
    elements::{BinaryRows, check_sample},
    idx,
    images::{ImageFiles, ImageRows},
    jsonl::JsonArrays,
    npy, npz, shards,
    spool::Spool,
    tables::{self, Table, TableRows},
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
    /// Where a sample has several.
    values: Vec<f32>,
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

    /// Returns the labels of a sample that has several.
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    /// Returns where the labels of a sample that has several go.
    pub(super) fn values_mut(&mut self) -> &mut Vec<f32> {
        &mut self.values
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
    labels: Option<(BinaryRows, usize)>,
    layout: Layout,
}

enum Features {
    Table(TableRows),
    Arrays(Box<JsonArrays>),
    Binary(BinaryRows),
    Images(Box<ImageRows>),
}

impl Rows {
    /// Opens the files and reads their headers.
    ///
    /// With `schema`, the training data's, a table's columns are found by name, take that order
    /// and are encoded as there; without one, a table has to hold nothing but numbers.
    pub(crate) fn open(
        source: &DatasetSource,
        files: &dyn DataFiles,
        schema: Option<&DatasetSchema>,
        check: &mut Check<'_>,
    ) -> Result<Self, EngineError> {
        if source.format.is_table() {
            let table = tables::open(source, files, check)?;
            return Self::of_table(table, source, schema);
        }
        if source.format == DatasetFormat::Images {
            let (rows, layout) = ImageRows::new(ImageFiles::open(files, source)?, source)?;
            return Self::new(Features::Images(Box::new(rows)), None, layout, source);
        }
        shards::demand_one(source)?;
        let data = Source::open(files, FileRole::Data)?;
        let (data, labels) = match source.format {
            DatasetFormat::Npz => npz::open(&Spool::fill(data, check)?, source)?,
            _ if source.files.contains_key(&FileRole::Labels) => {
                (data, Some(Source::open(files, FileRole::Labels)?))
            }
            _ => (data, None),
        };
        let (rows, layout) = open_binary(source.format, data, check)?;
        let labels = labels
            .map(|labels| open_labels(source.format, labels, rows.rows(), check))
            .transpose()?;
        Self::new(Features::Binary(rows), labels, layout, source)
    }

    /// Reads a table that is open already.
    pub(super) fn of_table(
        table: Table,
        source: &DatasetSource,
        schema: Option<&DatasetSchema>,
    ) -> Result<Self, EngineError> {
        let (features, layout) = match table {
            Table::Arrays(rows, layout) => (Features::Arrays(rows), layout),
            Table::Records(records) => {
                let (rows, layout) = TableRows::new(records, source, schema)?;
                (Features::Table(rows), layout)
            }
        };
        Self::new(features, None, layout, source)
    }

    fn new(
        features: Features,
        labels: Option<(BinaryRows, usize)>,
        mut layout: Layout,
        source: &DatasetSource,
    ) -> Result<Self, EngineError> {
        if let Some(shape) = &source.shape {
            let place = features.place();
            check_sample(place, shape)?;
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
            Features::Table(rows) => tables::target(rows.labels()),
            Features::Arrays(rows) => tables::target(rows.labels()),
            Features::Images(rows) => rows.target().map(str::to_owned),
            Features::Binary(_) => self
                .labels
                .as_ref()
                .map(|_| FileRole::Labels.as_str().to_owned()),
        }
    }

    /// Returns the names of the labels or numbers of each sample, if it has several.
    pub(crate) fn several(&self) -> Option<Vec<String>> {
        let names = match &self.features {
            Features::Table(rows) => rows.labels().to_vec(),
            Features::Arrays(rows) => rows.labels().to_vec(),
            _ => {
                let width = self.labels.as_ref().map_or(0, |(_, width)| *width);
                (0..width).map(|i| i.to_string()).collect()
            }
        };
        (names.len() > 1).then_some(names)
    }

    /// Returns the column that holds one of several labels, of a table.
    pub(super) fn label_column(&self, label: usize) -> Option<&str> {
        let names = match &self.features {
            Features::Table(rows) => rows.labels(),
            Features::Arrays(rows) => rows.labels(),
            _ => return None,
        };
        names.get(label).map(String::as_str)
    }

    /// Returns the file that holds the label, for error messages.
    pub(super) fn label_place(&self) -> &Place {
        match &self.labels {
            Some((labels, _)) => labels.place(),
            None => self.features.place(),
        }
    }

    /// Reads the next row into `out` and `label`; `false` after the last.
    ///
    /// In a table of mixed columns, NaN stands for a missing number.
    pub(crate) fn next(
        &mut self,
        out: &mut Vec<f32>,
        label: &mut Label,
    ) -> Result<bool, EngineError> {
        let more = match &mut self.features {
            Features::Table(rows) => rows.next(out, label)?,
            Features::Arrays(rows) => rows.next(out, label)?,
            Features::Images(rows) => rows.next(out, label)?,
            Features::Binary(rows) => rows.features(out)?,
        };
        // Both have the same number of rows, so that this also checks the labels' end.
        match &mut self.labels {
            None => {}
            Some((labels, 1)) => {
                labels.label(label)?;
            }
            Some((labels, _)) => {
                labels.features(&mut label.values)?;
            }
        }
        Ok(more)
    }
}

impl Features {
    fn place(&self) -> &Place {
        match self {
            Self::Table(rows) => rows.place(),
            Self::Arrays(rows) => rows.place(),
            Self::Images(rows) => rows.place(),
            Self::Binary(rows) => rows.place(),
        }
    }
}

fn open_binary(
    format: DatasetFormat,
    mut source: Source,
    check: &mut Check<'_>,
) -> Result<(BinaryRows, Layout), EngineError> {
    let header = match format {
        DatasetFormat::Npy | DatasetFormat::Npz => npy::read_header(&mut source)?,
        _ => idx::read_header(&mut source)?,
    };
    BinaryRows::new(source, &header, check)
}

fn open_labels(
    format: DatasetFormat,
    source: Source,
    rows: u64,
    check: &mut Check<'_>,
) -> Result<(BinaryRows, usize), EngineError> {
    let place = source.place.clone();
    let (labels, layout) = open_binary(format, source, check)?;
    let max = limits::MAX_TARGETS;
    let width = match layout.shape.as_slice() {
        [width] if (1..=max).contains(width) => *width,
        _ => {
            let shape = shapes::show(&layout.shape);
            let detail = format!(
                "each label has shape {shape}; one number a row is needed, or a list of up to {max}"
            );
            return Err(place.fault("bad_header", detail));
        }
    };
    if labels.rows() != rows {
        let detail = format!("{} labels for {rows} rows of data", labels.rows());
        return Err(place.fault("row_mismatch", detail));
    }
    Ok((labels, width))
}
