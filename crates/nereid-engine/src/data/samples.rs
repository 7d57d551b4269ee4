//! A dataset decoded into memory for training: compact features and encoded targets.

use nereid_core::{
    datasets::{DatasetSchema, TargetSchema},
    engine::{DataInput, EngineError},
    spec::shapes,
};

use super::{
    Check,
    labels::{ClassCodes, many::is_on},
    rows::{Label, Rows},
};

/// Values read between two checks whether to go on.
const CHECKED_VALUES: usize = 1 << 18;

/// Features, row-major; bytes stay bytes, which takes a quarter of the memory.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    U8(Vec<u8>),
    F32(Vec<f32>),
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

/// All rows of a dataset.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Samples {
    pub(crate) rows: usize,
    /// Values of one sample.
    pub(crate) size: usize,
    pub(crate) values: Values,
    pub(crate) targets: Targets,
}

impl Samples {
    /// Appends the raw features of a row to `out`.
    pub(crate) fn extend(&self, row: usize, out: &mut Vec<f32>) {
        let range = row * self.size..(row + 1) * self.size;
        match &self.values {
            Values::U8(v) => out.extend(v[range].iter().map(|&b| f32::from(b))),
            Values::F32(v) => out.extend_from_slice(&v[range]),
        }
    }

    /// Returns a number that tells these samples from others; no protection against intent.
    pub(crate) fn digest(&self) -> u64 {
        let mut digest = Digest(self.rows as u64);
        match &self.values {
            Values::U8(v) => digest.bytes(v),
            Values::F32(v) => digest.words(v.iter().map(|x| x.to_bits())),
        }
        match &self.targets {
            Targets::Class(v) => digest.words(v.iter().copied()),
            Targets::Value(v) => digest.words(v.iter().map(|x| x.to_bits())),
            Targets::Many { values, .. } => digest.words(values.iter().map(|x| x.to_bits())),
            Targets::Input => {}
        }
        digest.0
    }
}

/// A multiplicative hash: gigabytes a second, and the same in every build.
struct Digest(u64);

impl Digest {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks::<8>();
        for chunk in chunks {
            self.add(u64::from_le_bytes(*chunk));
        }
        self.words(rest.iter().map(|&b| u32::from(b)));
    }

    fn words(&mut self, words: impl Iterator<Item = u32>) {
        words.for_each(|word| self.add(u64::from(word)));
    }
}

/// Reads a dataset whose target and columns are those of `schema`, the training data's.
///
/// Without a target in it, samples are their own: labels are not looked at.
pub(crate) fn load(
    input: &DataInput,
    schema: &DatasetSchema,
    check: &mut Check<'_>,
) -> Result<Samples, EngineError> {
    let mut rows = Rows::open(&input.source, &*input.files, Some(schema), check)?;
    let layout = rows.layout();
    if layout.shape != schema.shape {
        let (got, expected) = (shapes::show(&layout.shape), shapes::show(&schema.shape));
        return Err(EngineError::InvalidInput(format!(
            "samples have shape {got}, the training data's {expected}"
        )));
    }
    if rows.target().is_none() && schema.target.is_some() {
        let detail = "the dataset has no label to compare with".to_owned();
        return Err(EngineError::InvalidInput(detail));
    }
    let size: usize = layout.shape.iter().product();
    let mut values = if matches!(layout.dtype, "UINT8" | "BOOL") {
        Values::U8(Vec::new())
    } else {
        Values::F32(Vec::new())
    };
    let mut targets = Encoder::new(schema);
    let (mut row, mut label) = (Vec::new(), Label::default());
    let (mut count, mut unchecked) = (0, 0);
    while rows.next(&mut row, &mut label)? {
        unchecked += size;
        if unchecked >= CHECKED_VALUES {
            check()?;
            unchecked = 0;
        }
        match &mut values {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "read from a byte just before"
            )]
            Values::U8(v) => v.extend(row.iter().map(|&x| x as u8)),
            Values::F32(v) => v.extend_from_slice(&row),
        }
        targets.push(&label, count, &rows)?;
        count += 1;
    }
    if count == 0 {
        return Err(rows
            .label_place()
            .fault("empty", "it has a header but no rows"));
    }
    Ok(Samples {
        rows: usize::try_from(count).unwrap_or(usize::MAX),
        size,
        values,
        targets: targets.targets,
    })
}

/// Turns labels into the training data's class indices or numbers.
struct Encoder {
    codes: Option<ClassCodes>,
    /// Whether several are labels and not numbers.
    labels: bool,
    targets: Targets,
}

impl Encoder {
    fn new(schema: &DatasetSchema) -> Self {
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

    fn push(&mut self, label: &Label, row: u64, rows: &Rows) -> Result<(), EngineError> {
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
                let other = given.iter().find(|&&x| is_on(x).is_none());
                if let Some(other) = other.filter(|_| self.labels) {
                    let detail =
                        format!("{other} is neither 0 nor 1, as each of several labels is");
                    return Err(fault("not_a_label", detail));
                }
                values.extend_from_slice(given);
            }
            Targets::Input => {}
        }
        Ok(())
    }
}
