//! The rows of a dataset, decoded: in memory, in a file or read again whenever they are needed.

use nereid_core::{
    datasets::{DatasetSchema, TargetSchema},
    engine::EngineError,
};
use serde::{Deserialize, Serialize};

use super::{
    Check,
    labels::{ClassCodes, many::is_on},
    records::Records,
    replay::Replay,
    rows::{Label, Rows},
};

/// Values that are looked at together when all rows are.
const SCANNED_VALUES: usize = 1 << 18;

/// How a value is held; bytes stay bytes, which takes a quarter of the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Width {
    U8,
    F32,
}

impl Width {
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F32 => 4,
        }
    }

    /// Appends values as they are stored.
    pub(super) fn encode(self, values: &[f32], out: &mut Vec<u8>) {
        match self {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "read from a byte just before"
            )]
            Self::U8 => out.extend(values.iter().map(|&x| x as u8)),
            Self::F32 => out.extend(values.iter().flat_map(|x| x.to_le_bytes())),
        }
    }

    /// Appends the values that are stored in `bytes`.
    pub(super) fn decode(self, bytes: &[u8], out: &mut Vec<f32>) {
        match self {
            Self::U8 => out.extend(bytes.iter().map(|&b| f32::from(b))),
            Self::F32 => {
                let words = bytes.as_chunks::<4>().0;
                out.extend(words.iter().map(|&word| f32::from_le_bytes(word)));
            }
        }
    }
}

/// Features, row-major.
pub(super) enum Values {
    /// As [`Width`] encodes them.
    Memory(Vec<u8>),
    File(Records),
    /// Nowhere: the source is read again, from its start to its end.
    Source(Box<Replay>),
}

/// What to predict for each row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Targets {
    /// Index into the training data's classes.
    Class(Vec<u32>),
    /// A number.
    Value(Vec<f32>),
    /// Several labels (0 or 1) or numbers a row, row-major.
    Many { values: Vec<f32>, width: usize },
    /// The sample itself.
    Input,
}

/// Kind of targets, and how many a row has if that may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum TargetsKind {
    Class,
    Value,
    Many(usize),
    Input,
}

impl TargetsKind {
    /// Stored words of a row.
    pub(super) const fn words(self) -> usize {
        match self {
            Self::Class | Self::Value => 1,
            Self::Many(width) => width,
            Self::Input => 0,
        }
    }
}

impl Targets {
    pub(super) fn kind(&self) -> TargetsKind {
        match self {
            Self::Class(_) => TargetsKind::Class,
            Self::Value(_) => TargetsKind::Value,
            Self::Many { width, .. } => TargetsKind::Many(*width),
            Self::Input => TargetsKind::Input,
        }
    }

    /// Appends a row's targets as they are stored.
    pub(super) fn encode(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Self::Class(v) => out.extend(v[row].to_le_bytes()),
            Self::Value(v) => out.extend(v[row].to_le_bytes()),
            Self::Many { values, width } => {
                let values = &values[row * width..(row + 1) * width];
                out.extend(values.iter().flat_map(|x| x.to_le_bytes()));
            }
            Self::Input => {}
        }
    }

    /// Makes targets of their stored words.
    pub(super) fn decode<E>(
        kind: TargetsKind,
        words: impl Iterator<Item = Result<u32, E>>,
    ) -> Result<Self, E> {
        Ok(match kind {
            TargetsKind::Class => Self::Class(words.collect::<Result<_, _>>()?),
            TargetsKind::Input => Self::Input,
            TargetsKind::Value | TargetsKind::Many(_) => {
                let values = words.map(|word| word.map(f32::from_bits));
                let values = values.collect::<Result<_, _>>()?;
                match kind {
                    TargetsKind::Many(width) => Self::Many { values, width },
                    _ => Self::Value(values),
                }
            }
        })
    }
}

/// All rows of a dataset.
pub(crate) struct Samples {
    pub(crate) rows: usize,
    /// Values of one sample.
    pub(crate) size: usize,
    pub(crate) width: Width,
    pub(crate) targets: Targets,
    pub(super) values: Values,
    pub(super) digest: u64,
}

impl Samples {
    /// Bytes of one decoded row.
    pub(crate) fn row_bytes(&self) -> u64 {
        self.size as u64 * self.width.bytes() as u64
    }

    /// Returns a number that tells these samples from others; no protection against intent.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// Tells whether reading rows takes no input or output.
    pub(crate) fn in_memory(&self) -> bool {
        matches!(self.values, Values::Memory(_))
    }

    /// Tells whether rows can be had only in the order of the source.
    pub(crate) fn is_streamed(&self) -> bool {
        matches!(self.values, Values::Source(_))
    }

    /// Returns a reader for rows in any order, or in ascending order if they are streamed.
    pub(crate) fn reader(&self) -> Reader<'_> {
        self.reader_of(Box::new(|_| false))
    }

    /// Returns a reader that, of streamed rows, holds back those that `wanted` names until they
    /// are asked for.
    pub(crate) fn reader_of<'a>(&'a self, wanted: Wanted<'a>) -> Reader<'a> {
        Reader {
            samples: self,
            bytes: Vec::new(),
            wanted,
            stream: None,
        }
    }

    /// Shows rows, of which streamed ones must ascend, to `each`.
    pub(crate) fn scan(
        &self,
        mut rows: impl Iterator<Item = u32>,
        check: &mut Check<'_>,
        mut each: impl FnMut(u32, &[f32]) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let at_once = (SCANNED_VALUES / self.size.max(1)).max(1);
        let (mut reader, mut values) = (self.reader(), Vec::new());
        let mut some = Vec::with_capacity(at_once);
        let mut seen = false;
        loop {
            some.clear();
            some.extend(rows.by_ref().take(at_once));
            if some.is_empty() {
                return Ok(());
            }
            if seen {
                check()?;
            }
            seen = true;
            values.clear();
            reader.read(&some, &mut values)?;
            for (&row, values) in some.iter().zip(values.chunks_exact(self.size)) {
                each(row, values)?;
            }
        }
    }
}

/// Tells of a row whether it will be asked for.
pub(crate) type Wanted<'a> = Box<dyn Fn(u32) -> bool + Send + Sync + 'a>;

/// Reads rows; each thread has its own.
pub(crate) struct Reader<'a> {
    samples: &'a Samples,
    bytes: Vec<u8>,
    wanted: Wanted<'a>,
    stream: Option<super::replay::Stream>,
}

impl Reader<'_> {
    /// Appends the raw features of rows to `out`.
    pub(crate) fn read(&mut self, rows: &[u32], out: &mut Vec<f32>) -> Result<(), EngineError> {
        let width = self.samples.width;
        match &self.samples.values {
            Values::Memory(values) => {
                let bytes = self.samples.size * width.bytes();
                for &row in rows {
                    let at = row as usize * bytes;
                    width.decode(&values[at..at + bytes], out);
                }
                Ok(())
            }
            Values::File(records) => {
                let failed = |source| EngineError::Io {
                    context: "reading decoded data".to_owned(),
                    source,
                };
                for run in neighbours(rows, records.at_once()) {
                    records
                        .read(run[0], run.len(), &mut self.bytes)
                        .map_err(failed)?;
                    width.decode(&self.bytes, out);
                }
                Ok(())
            }
            Values::Source(replay) => {
                for &row in rows {
                    replay.read(row, &mut self.stream, &self.wanted, &mut self.bytes)?;
                    width.decode(&self.bytes, out);
                }
                Ok(())
            }
        }
    }
}

/// Cuts rows into runs, of at most `most`, that lie side by side.
fn neighbours(rows: &[u32], most: usize) -> impl Iterator<Item = &[u32]> {
    rows.chunk_by(|a, b| a.checked_add(1) == Some(*b))
        .flat_map(move |run| run.chunks(most))
}

/// Turns labels into the training data's class indices or numbers.
pub(super) struct Encoder {
    codes: Option<ClassCodes>,
    /// Whether several are labels and not numbers.
    labels: bool,
    pub(super) targets: Targets,
}

impl Encoder {
    pub(super) fn new(schema: &DatasetSchema) -> Self {
        let many = |names: &[String]| Targets::Many {
            values: Vec::new(),
            width: names.len(),
        };
        let targets = match &schema.target {
            Some(TargetSchema::Class { .. }) => Targets::Class(Vec::new()),
            Some(TargetSchema::Value { .. }) => Targets::Value(Vec::new()),
            Some(TargetSchema::Labels { labels, .. }) => many(labels),
            Some(TargetSchema::Values { values, .. }) => many(values),
            None => Targets::Input,
        };
        Self {
            codes: schema.classes().map(ClassCodes::new),
            labels: schema.labels().is_some(),
            targets,
        }
    }

    pub(super) fn push(&mut self, label: &Label, row: u64, rows: &Rows) -> Result<(), EngineError> {
        let fault = |code, detail: String| {
            let column = rows.target();
            rows.label_place()
                .fault_at(code, Some(row), column.as_deref(), detail)
        };
        match &mut self.targets {
            Targets::Class(targets) => {
                let code = self.codes.as_ref().and_then(|codes| codes.get(label));
                let unknown = || {
                    let name: String = label.name().chars().take(80).collect();
                    fault(
                        "label_out_of_range",
                        format!("{name:?} is no class of the training data"),
                    )
                };
                targets.push(code.ok_or_else(unknown)?);
            }
            Targets::Value(targets) => {
                #[expect(clippy::cast_possible_truncation, reason = "what overflows is refused")]
                let value = label.number().map(|n| n as f32).filter(|n| n.is_finite());
                let invalid = || {
                    fault(
                        "not_a_number",
                        format!("{:?} is not a number", label.name()),
                    )
                };
                targets.push(value.ok_or_else(invalid)?);
            }
            Targets::Many { values, width } => {
                let given = label.values();
                if given.len() != *width {
                    let n = given.len().max(1);
                    let detail = format!("{n} labels, but the training data has {width} a row");
                    return Err(fault("row_mismatch", detail));
                }
                let other = given.iter().position(|&x| is_on(x).is_none());
                if let Some(i) = other.filter(|_| self.labels) {
                    let detail = format!(
                        "{} is neither 0 nor 1, as each of several labels is",
                        given[i]
                    );
                    let (place, column) = (rows.label_place(), rows.label_column(i));
                    return Err(place.fault_at("not_a_label", Some(row), column, detail));
                }
                values.extend_from_slice(given);
            }
            Targets::Input => {}
        }
        Ok(())
    }
}
