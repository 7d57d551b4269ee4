//! Area under the ROC curve as Keras' `AUC` has it: 200 thresholds, joined by lines.
//!
//! Only counts between thresholds are kept, so that the metric of millions of samples takes a few
//! kilobytes, and adding is exact.

/// Thresholds: just below 0, 1/199, 2/199, … and just above 1.
const THRESHOLDS: usize = 200;

/// Counts of a curve: for samples of the class, then for others.
const COUNTS: usize = 2 * THRESHOLDS;

/// Counts that so many curves take.
pub(super) const fn size(curves: usize) -> usize {
    curves * COUNTS
}

/// Counts a sample in a curve, given with the number of curves.
pub(super) fn add(counts: &mut Vec<u64>, (curve, curves): (usize, usize), p: f32, positive: bool) {
    counts.resize(size(curves), 0);
    let class = if positive { 0 } else { THRESHOLDS };
    counts[curve * COUNTS + class + passed(p)] += 1;
}

/// Thresholds, less one, that a probability is above; the one below 0 always is.
fn passed(p: f32) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "kept within the thresholds"
    )]
    let above = (p * (THRESHOLDS - 1) as f32)
        .ceil()
        .clamp(1.0, (THRESHOLDS - 1) as f32) as usize;
    above - 1
}

/// Unweighted mean of the areas; a curve that lacks a class has none and counts as 0, as in Keras.
#[expect(clippy::cast_precision_loss, reason = "at most 1,000 curves")]
pub(super) fn mean(counts: &[u64], curves: usize) -> f64 {
    if counts.len() != size(curves) || curves == 0 {
        return 0.0;
    }
    counts.chunks_exact(COUNTS).map(area).sum::<f64>() / curves as f64
}

#[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]
fn area(counts: &[u64]) -> f64 {
    let (positives, negatives) = counts.split_at(THRESHOLDS);
    let share = |n: u64, of: &[u64]| n as f64 / (of.iter().sum::<u64>().max(1)) as f64;
    // From the highest threshold, which nothing passes, down to the lowest.
    let (mut hits, mut alarms, mut area) = (0, 0, 0.0);
    for (&positive, &negative) in positives.iter().zip(negatives).rev() {
        let before = share(hits, positives);
        hits += positive;
        alarms += negative;
        area += share(negative, negatives) * f64::midpoint(before, share(hits, positives));
    }
    debug_assert_eq!(alarms, negatives.iter().sum::<u64>());
    area
}
