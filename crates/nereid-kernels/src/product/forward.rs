//! Left rows times a matrix that all of them share.

use macerator::{Simd, WithSimd};

use super::{Rows, each, is_large};
use crate::simd::{self, Lanes, lanes, load, splat, tiled, values};

/// Registers in a panel's row.
fn registers(units: usize, width: usize) -> usize {
    if units <= width { 1 } else { 2 }
}

/// Number of panels that `units` columns are cut into, and the columns of each.
pub(crate) fn panels(units: usize) -> (usize, usize) {
    let width = simd::width();
    let columns = registers(units, width) * width;
    (units.div_ceil(columns), columns)
}

/// Cuts a matrix of `depth` rows into panels of columns, the last one filled up with zeros.
pub(crate) fn pack(matrix: &[f32], depth: usize, units: usize) -> Vec<f32> {
    let (panels, columns) = panels(units);
    let mut packed = vec![0.0; panels * depth * columns];
    let items: Vec<_> = packed
        .chunks_exact_mut((depth * columns).max(1))
        .enumerate()
        .collect();
    each(is_large(matrix.len()), items, |(p, panel)| {
        let from = p * columns;
        let n = columns.min(units - from);
        for (row, to) in panel.chunks_exact_mut(columns).enumerate() {
            let at = row * units + from;
            to[..n].copy_from_slice(&matrix[at..at + n]);
        }
    });
    packed
}

/// Computes one block of rows of the result.
pub(crate) struct Forward<'a> {
    pub(crate) rows: Rows<'a>,
    pub(crate) x: &'a [f32],
    /// The right matrix, from [`pack`].
    pub(crate) packed: &'a [f32],
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) relu: bool,
    pub(crate) units: usize,
    pub(crate) y: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self) {
        let narrow = self.units <= lanes::<S>();
        tiled!(self.run::<S> if narrow);
    }
}

impl Forward<'_> {
    #[inline(always)]
    fn run<S: Simd, const M: usize, const V: usize, const W: usize>(self) {
        let depth = self.rows.depth();
        let panels = self.packed.as_chunks::<W>().0.chunks_exact(depth.max(1));
        for (p, panel) in panels.enumerate() {
            let from = p * W;
            let n = W.min(self.units - from);
            let mut start = [0.0_f32; W];
            if let Some(bias) = self.bias {
                start[..n].copy_from_slice(&bias[from..from + n]);
            }
            let start = load::<S, V, W>(&start);
            for (t, starts) in self.rows.starts.chunks(M).enumerate() {
                let mut sums = [start; M];
                for (s, panel) in panel.chunks_exact(self.rows.run).enumerate() {
                    let offset = self.rows.runs[s];
                    let a: [&[f32]; M] = std::array::from_fn(|i| {
                        let at = starts[i.min(starts.len() - 1)] + offset;
                        &self.x[at..at + self.rows.run]
                    });
                    sums = multiply::<S, M, V, W>(sums, a, panel);
                }
                if self.relu {
                    for sum in sums.iter_mut().flatten() {
                        *sum = sum.max(splat::<S>(0.0));
                    }
                }
                for (i, sums) in sums.iter().enumerate().take(starts.len()) {
                    let at = (t * M + i) * self.units + from;
                    put(&values::<S, V, W>(*sums), &mut self.y[at..at + n]);
                }
            }
        }
    }
}

/// Adds to a tile of sums: a run of each of `M` rows times a panel.
#[inline(always)]
pub(super) fn multiply<S: Simd, const M: usize, const V: usize, const W: usize>(
    mut sums: [[Lanes<S>; V]; M],
    a: [&[f32]; M],
    panel: &[[f32; W]],
) -> [[Lanes<S>; V]; M] {
    let run = panel.len();
    let a: [&[f32]; M] = std::array::from_fn(|i| &a[i][..run]);
    for (k, b) in panel.iter().enumerate() {
        let b = load::<S, V, W>(b);
        for i in 0..M {
            let x = splat::<S>(a[i][k]);
            for v in 0..V {
                sums[i][v] = x.mul_add(b[v], sums[i][v]);
            }
        }
    }
    sums
}

/// Writes a row of a tile; `to` may be shorter than the tile is wide.
#[inline(always)]
fn put<const W: usize>(row: &[f32; W], to: &mut [f32]) {
    match to.as_mut_array::<W>() {
        Some(to) => *to = *row,
        None => to.copy_from_slice(&row[..to.len()]),
    }
}
