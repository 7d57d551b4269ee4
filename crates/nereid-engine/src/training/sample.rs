//! Samples that a model takes along: to check loads against, to judge what optimisation did to
//! it, and to calibrate that by.

use nereid_core::{engine::EngineError, spec::network::Plan};

use super::split::{Part, Splits};
use crate::{
    artifact::Evaluation,
    data::{Samples, Targets},
};

/// Held-out rows that later loads are checked against.
const GOLDEN_ROWS: usize = 64;
/// Most held-out rows that optimised models are judged by.
const EVALUATION_ROWS: usize = 4_096;
/// Most bytes of their features.
const EVALUATION_BYTES: usize = 12 << 20;
/// Most training rows that weights are calibrated by.
const CALIBRATION_ROWS: usize = 512;
/// Most bytes of their features.
const CALIBRATION_BYTES: usize = 4 << 20;

/// Takes raw rows to check later loads against: test data, else validation, else training.
pub(super) fn golden(splits: &Splits, plan: &Plan) -> Result<(usize, Vec<f32>), EngineError> {
    let part = splits.test.as_ref().or(splits.validation.as_ref());
    let part = part.unwrap_or(&splits.train);
    let samples: &Samples = splits.samples(part);
    // Huge samples are not worth more than a few rows.
    let size: usize = plan.input.iter().product();
    let rows = GOLDEN_ROWS.min((4 << 20) / size.max(1)).max(1);
    let mut values = Vec::new();
    let taken: Vec<u32> = part.rows.iter().take(rows).collect();
    samples.reader().read(&taken, &mut values)?;
    Ok((taken.len(), values))
}

/// Takes raw rows with their targets to judge by, of validation, else test, else training data,
/// and training rows to calibrate by.
pub(super) fn evaluation(splits: &Splits, plan: &Plan) -> Result<Evaluation, EngineError> {
    let size = plan.input.iter().product::<usize>().max(1);
    let most = |rows: usize, bytes: usize| rows.min(bytes / (4 * size)).max(1);
    let part = splits.validation.as_ref().or(splits.test.as_ref());
    let part = part.unwrap_or(&splits.train);
    let samples = splits.samples(part);
    let taken = spread(part, samples, most(EVALUATION_ROWS, EVALUATION_BYTES));
    let mut inputs = Vec::new();
    samples.reader().read(&taken, &mut inputs)?;
    let train = splits.samples(&splits.train);
    let chosen = spread(
        &splits.train,
        train,
        most(CALIBRATION_ROWS, CALIBRATION_BYTES),
    );
    let mut calibration = Vec::new();
    train.reader().read(&chosen, &mut calibration)?;
    Ok(Evaluation {
        rows: taken.len(),
        inputs,
        targets: targets(samples, &taken),
        calibration,
    })
}

/// Rows at equal distances, since data may be in order of its classes; of data that is read but
/// once the first ones.
fn spread(part: &Part, samples: &Samples, most: usize) -> Vec<u32> {
    let step = if samples.is_streamed() {
        1
    } else {
        part.rows.len().div_ceil(most).max(1)
    };
    part.rows.iter().step_by(step).take(most).collect()
}

#[expect(clippy::cast_precision_loss, reason = "at most 10,000 classes")]
fn targets(samples: &Samples, rows: &[u32]) -> Option<Vec<f32>> {
    let rows = rows.iter().map(|&r| r as usize);
    Some(match &samples.targets {
        Targets::Class(classes) => rows.map(|r| classes[r] as f32).collect(),
        Targets::Value(values) => rows.map(|r| values[r]).collect(),
        Targets::Many { values, width } => rows
            .flat_map(|r| &values[r * width..(r + 1) * width])
            .copied()
            .collect(),
        Targets::Input => return None,
    })
}
