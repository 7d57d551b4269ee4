//! Scales raw features: found from the training split, applied alike in training and serving.

use nereid_core::{
    datasets::{
        FileRole,
        columns::{ColumnEncoding, ColumnSchema, table_width},
    },
    engine::{DataError, EngineError},
    models::Preprocessing,
    spec::{Normalization, network::Plan},
};

use crate::data::{Check, Column, Samples, Statistics, Width};

/// Finds the numbers for `wanted` over the given rows, in one pass.
///
/// Of `columns` of mixed kind only numbers and times are scaled, and what is missing of them
/// becomes the mean.
pub(crate) fn fit(
    wanted: Normalization,
    plan: &Plan,
    columns: &[ColumnSchema],
    samples: &Samples,
    rows: impl Iterator<Item = u32> + Clone,
    check: &mut Check<'_>,
) -> Result<Preprocessing, EngineError> {
    let normalization = match wanted {
        Normalization::Auto if embeds(plan).is_some() => Normalization::None,
        Normalization::Auto if plan.input.len() == 1 => Normalization::Standard,
        Normalization::Auto => Normalization::MinMax,
        given => given,
    };
    let table = plan.input.len() == 1;
    let of_bytes = !table && samples.width == Width::U8;
    let measured = match normalization {
        Normalization::Standard => Some(Statistics::columns_of(&plan.input)),
        // Channels of an image share one scale, which keeps their proportions.
        Normalization::MinMax if !of_bytes => Some(if table { plan.input[0] } else { 1 }),
        _ => None,
    };
    let mut found = measured
        .map(|n| statistics(n, samples, rows.clone(), check))
        .transpose()?;
    let (mut offset, mut scale) = match (normalization, &found) {
        (Normalization::Standard, Some(found)) => standard(found),
        (Normalization::MinMax, Some(found)) => min_max(found),
        (Normalization::MinMax, None) => (vec![0.0], vec![255.0]),
        _ => (vec![0.0], vec![1.0]),
    };
    let width = table_width(columns);
    if !columns.is_empty() && found.as_ref().is_none_or(|found| found.len() != width) {
        found = Some(statistics(width, samples, rows, check)?);
    }
    if offset.len() > 1 {
        let mut at = 0;
        for column in columns.iter().map(|c| &c.encoding) {
            // Categories, words and flags are on a scale already, or are indices.
            offset[at + column.scaled()..at + column.width()].fill(0.0);
            scale[at + column.scaled()..at + column.width()].fill(1.0);
            at += column.width();
        }
    }
    Ok(Preprocessing {
        normalization,
        offset,
        scale,
        impute: impute(columns, &found.unwrap_or_default()),
        columns: columns.to_vec(),
    })
}

/// What stands for missing values of each input: as declared, or the mean of the rows.
#[expect(
    clippy::cast_possible_truncation,
    reason = "features are 32-bit floats"
)]
fn impute(columns: &[ColumnSchema], found: &[Column]) -> Vec<f32> {
    if columns.is_empty() {
        return Vec::new();
    }
    let mut values: Vec<f32> = found.iter().map(|c| c.mean as f32).collect();
    let mut at = 0;
    for column in columns.iter().map(|c| &c.encoding) {
        if let ColumnEncoding::Number {
            impute: Some(n), ..
        } = column
        {
            values[at] = *n as f32;
        }
        at += column.width();
    }
    values
}

/// Returns the vocabulary of a network that looks its input up.
pub(crate) fn embeds(plan: &Plan) -> Option<usize> {
    plan.vocabulary()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "features are 32-bit floats"
)]
fn standard(columns: &[Column]) -> (Vec<f32>, Vec<f32>) {
    let offset = columns.iter().map(|c| c.mean as f32).collect();
    // A constant column would be divided by 0.
    let scale = columns.iter().map(|c| nonzero(c.std as f32)).collect();
    (offset, scale)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "features are 32-bit floats"
)]
fn min_max(columns: &[Column]) -> (Vec<f32>, Vec<f32>) {
    // A column without any value has no least one.
    let least = |c: &Column| if c.min.is_finite() { c.min } else { 0.0 };
    let offset = columns.iter().map(|c| least(c) as f32).collect();
    let scale = columns
        .iter()
        .map(|c| nonzero((c.max - c.min) as f32))
        .collect();
    (offset, scale)
}

fn statistics(
    columns: usize,
    samples: &Samples,
    rows: impl Iterator<Item = u32>,
    check: &mut Check<'_>,
) -> Result<Vec<Column>, EngineError> {
    let mut statistics = Statistics::new(columns);
    samples.scan(rows, check, |_, row| {
        statistics.push_row(row.iter().copied());
        Ok(())
    })?;
    Ok(statistics.columns())
}

fn nonzero(scale: f32) -> f32 {
    if scale.is_normal() { scale } else { 1.0 }
}

/// Checks offsets and scales read from a file.
pub(crate) fn check(p: &Preprocessing, shape: &[usize]) -> Result<(), EngineError> {
    let last = shape.last().copied().unwrap_or(1);
    let fits = |v: &[f32]| v.len() == 1 || v.len() == last;
    let imputed = p.impute.is_empty() || (shape.len() == 1 && p.impute.len() == last);
    let valid = fits(&p.offset)
        && fits(&p.scale)
        && imputed
        && p.impute.iter().all(|v| v.is_finite())
        && p.offset.iter().all(|v| v.is_finite())
        && p.scale.iter().all(|v| v.is_finite() && *v != 0.0);
    if valid {
        return Ok(());
    }
    let detail = format!(
        "preprocessing needs 1 or {last} finite offsets, scales and imputed values, no scale 0"
    );
    Err(EngineError::InvalidInput(detail))
}

/// Puts the imputed values where a NaN stands for a missing one.
pub(crate) fn fill_missing(p: &Preprocessing, values: &mut [f32]) {
    if p.impute.is_empty() {
        return;
    }
    for row in values.chunks_mut(p.impute.len()) {
        for (v, imputed) in row.iter_mut().zip(&p.impute) {
            if v.is_nan() {
                *v = *imputed;
            }
        }
    }
}

/// Imputes and scales encoded features in place: `(x - offset) / scale`, repeated along the last
/// axis.
pub(crate) fn apply(p: &Preprocessing, values: &mut [f32]) {
    fill_missing(p, values);
    each(p, values, |x, offset, scale| (x - offset) / scale);
}

/// Undoes [`apply`].
pub(crate) fn invert(p: &Preprocessing, values: &mut [f32]) {
    each(p, values, |x, offset, scale| x * scale + offset);
}

fn each(p: &Preprocessing, values: &mut [f32], change: impl Fn(f32, f32, f32) -> f32) {
    if let ([offset], [scale]) = (p.offset.as_slice(), p.scale.as_slice()) {
        for v in values.iter_mut() {
            *v = change(*v, *offset, *scale);
        }
        return;
    }
    let n = p.offset.len().max(p.scale.len());
    let at = |v: &[f32], i: usize| if v.len() == 1 { v[0] } else { v[i] };
    for row in values.chunks_mut(n) {
        for (i, v) in row.iter_mut().enumerate() {
            *v = change(*v, at(&p.offset, i), at(&p.scale, i));
        }
    }
}

/// Finds the first value that is no index into a vocabulary; the framework would panic on it.
pub(crate) fn find_bad_index(values: &[f32], vocabulary: usize) -> Option<(usize, f32)> {
    #[expect(clippy::cast_precision_loss, reason = "at most 2^20 entries")]
    let end = vocabulary as f32;
    let bad = |v: f32| !(v >= 0.0 && v < end && v.fract() == 0.0);
    let at = values.iter().position(|&v| bad(v))?;
    Some((at, values[at]))
}

/// Checks that a dataset holds nothing but indices into the vocabulary.
pub(crate) fn check_indices(
    samples: &Samples,
    vocabulary: usize,
    check: &mut Check<'_>,
) -> Result<(), EngineError> {
    let rows = 0..u32::try_from(samples.rows).unwrap_or(u32::MAX);
    samples.scan(rows, check, |r, row| {
        let Some((column, value)) = find_bad_index(row, vocabulary) else {
            return Ok(());
        };
        Err(EngineError::InvalidData(DataError {
            file: FileRole::Data,
            code: "index_out_of_range",
            row: Some(u64::from(r) + 1),
            column: Some(column.to_string()),
            detail: format!(
                "{value} is no whole number from 0 to {}, which the Embedding looks up",
                vocabulary - 1
            ),
        }))
    })
}
