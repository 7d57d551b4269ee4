//! Layer normalisation over the last axis (Ba et al., 2016).

use crate::{functions::sum, product::each, simd};

/// Rows that are summed up together; a fixed number, so that no result depends on the threads.
const ROWS: usize = 128;
/// Values from which several threads are worth it.
const PARALLEL: usize = 1 << 15;

/// What [`layer_norm`] finds.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNormalised {
    /// The result, of the same shape.
    pub y: Vec<f32>,
    /// Mean of each row, and one by its standard deviation.
    pub statistics: Vec<[f32; 2]>,
}

/// Rows, their results and their statistics.
type Block<'a> = ((&'a [f32], &'a mut [f32]), &'a mut [[f32; 2]]);

/// Normalises each row of `gamma.len()` values to mean 0 and variance 1, then scales and shifts it.
#[must_use]
pub fn layer_norm(x: &[f32], gamma: &[f32], beta: &[f32], epsilon: f32) -> LayerNormalised {
    let width = gamma.len().max(1);
    let mut y = vec![0.0; x.len()];
    let mut statistics = vec![[0.0; 2]; x.len() / width];
    let parts = x.chunks(ROWS * width).zip(y.chunks_mut(ROWS * width));
    let items = parts.zip(statistics.chunks_mut(ROWS)).collect();
    each(
        is_large(x.len()),
        items,
        |((x, y), statistics): Block<'_>| {
            simd::run(
                #[inline(always)]
                || {
                    let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width));
                    for ((x, y), statistics) in rows.zip(statistics.iter_mut()) {
                        let mean = sum(x, x, |x, _| x) / count(width);
                        let square = |x: f32, _| (x - mean) * (x - mean);
                        let variance = sum(x, x, square) / count(width);
                        let root = 1.0 / (variance + epsilon).sqrt();
                        *statistics = [mean, root];
                        for ((y, &x), (&g, &b)) in y.iter_mut().zip(x).zip(gamma.iter().zip(beta)) {
                            *y = (x - mean) * root * g + b;
                        }
                    }
                },
            );
        },
    );
    LayerNormalised { y, statistics }
}

/// Returns the gradients of rows, scales and shifts, from the result's.
#[must_use]
pub fn layer_norm_gradients(
    x: &[f32],
    dy: &[f32],
    gamma: &[f32],
    statistics: &[[f32; 2]],
) -> [Vec<f32>; 3] {
    let width = gamma.len().max(1);
    let mut dx = vec![0.0; x.len()];
    let mut sums = vec![0.0; statistics.len().div_ceil(ROWS) * 2 * width];
    let parts = (x.chunks(ROWS * width))
        .zip(dy.chunks(ROWS * width))
        .zip(dx.chunks_mut(ROWS * width))
        .zip(
            statistics
                .chunks(ROWS)
                .zip(sums.chunks_exact_mut(2 * width)),
        )
        .map(|(((x, dy), dx), (statistics, sums))| Part {
            x,
            dy,
            dx,
            statistics,
            sums,
        })
        .collect();
    each(is_large(x.len()), parts, |mut part: Part<'_>| {
        simd::run(
            #[inline(always)]
            || part.gradients(gamma),
        );
    });
    let (mut scales, mut shifts) = (vec![0.0; width], vec![0.0; width]);
    for sums in sums.chunks_exact(2 * width) {
        let totals = scales.iter_mut().chain(&mut shifts);
        totals.zip(sums).for_each(|(total, sum)| *total += sum);
    }
    [dx, scales, shifts]
}

/// Some rows, and the sums of their gradients.
struct Part<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
    statistics: &'a [[f32; 2]],
    sums: &'a mut [f32],
}

impl Part<'_> {
    #[inline(always)]
    fn gradients(&mut self, gamma: &[f32]) {
        let width = gamma.len();
        let (scales, shifts) = self.sums.split_at_mut(width);
        let rows = self.x.chunks_exact(width).zip(self.dy.chunks_exact(width));
        let rows = rows.zip(self.dx.chunks_exact_mut(width));
        for (((x, dy), dx), &[mean, root]) in rows.zip(self.statistics) {
            for (((d, g), &dy), (scale, (shift, &x))) in (dx.iter_mut().zip(gamma).zip(dy))
                .zip(scales.iter_mut().zip(shifts.iter_mut().zip(x)))
            {
                *scale += dy * (x - mean) * root;
                *shift += dy;
                *d = dy * g;
            }
            // dx = (g - Σg/n - x̂ Σ(g x̂)/n) / σ, with g = γ dy and x̂ = (x - μ)/σ.
            let even = sum(dx, x, |g, _| g) / count(width);
            let slope = sum(dx, x, |g, x| g * (x - mean)) * root * root / count(width);
            for (d, &x) in dx.iter_mut().zip(x) {
                *d = (*d - even - (x - mean) * slope) * root;
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "rows are short")]
fn count(width: usize) -> f32 {
    width as f32
}

fn is_large(values: usize) -> bool {
    values >= PARALLEL && rayon::current_num_threads() > 1
}
