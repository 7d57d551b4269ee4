//! Left rows times a matrix that all of them share.

use macerator::{Simd, WithSimd};

use super::Rows;
use crate::simd::{self, Lanes, lanes, load, splat, store};

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
    for (p, panel) in packed.chunks_exact_mut(depth * columns).enumerate() {
        let from = p * columns;
        let n = columns.min(units - from);
        for (row, to) in panel.chunks_exact_mut(columns).enumerate() {
            let at = row * units + from;
            to[..n].copy_from_slice(&matrix[at..at + n]);
        }
    }
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
        // As many sums as registers hold: 32 of them with AVX-512, else 16 are sure.
        match (lanes::<S>() >= 16, self.units <= lanes::<S>()) {
            (true, true) => self.run::<S, 12, 1>(),
            (true, false) => self.run::<S, 12, 2>(),
            (false, true) => self.run::<S, 6, 1>(),
            (false, false) => self.run::<S, 6, 2>(),
        }
    }
}

impl Forward<'_> {
    #[inline(always)]
    fn run<S: Simd, const M: usize, const V: usize>(self) {
        let columns = V * lanes::<S>();
        let depth = self.rows.depth();
        let panels = self.packed.chunks_exact((depth * columns).max(1));
        for (p, panel) in panels.enumerate() {
            let from = p * columns;
            let n = columns.min(self.units - from);
            let mut start = [splat::<S>(0.0); V];
            if let Some(bias) = self.bias {
                let mut values = [0.0_f32; 64];
                values[..n].copy_from_slice(&bias[from..from + n]);
                for (v, start) in start.iter_mut().enumerate() {
                    *start = load::<S>(&values[v * lanes::<S>()..][..lanes::<S>()]);
                }
            }
            for (t, starts) in self.rows.starts.chunks(M).enumerate() {
                let mut sums = [start; M];
                for (s, panel) in panel.chunks_exact(self.rows.run * columns).enumerate() {
                    let offset = self.rows.runs[s];
                    let a: [&[f32]; M] = std::array::from_fn(|i| {
                        let at = starts[i.min(starts.len() - 1)] + offset;
                        &self.x[at..at + self.rows.run]
                    });
                    multiply::<S, M, V>(&mut sums, a, panel);
                }
                if self.relu {
                    for sum in sums.iter_mut().flatten() {
                        *sum = sum.max(splat::<S>(0.0));
                    }
                }
                for (i, sums) in sums.iter().enumerate().take(starts.len()) {
                    let at = (t * M + i) * self.units + from;
                    put::<S, V>(sums, &mut self.y[at..at + n]);
                }
            }
        }
    }
}

/// Adds to a tile of sums: a run of each of `M` rows times a panel.
#[inline(always)]
pub(super) fn multiply<S: Simd, const M: usize, const V: usize>(
    sums: &mut [[Lanes<S>; V]; M],
    a: [&[f32]; M],
    panel: &[f32],
) {
    let columns = V * lanes::<S>();
    let run = a[0].len();
    let a: [&[f32]; M] = std::array::from_fn(|i| &a[i][..run]);
    let mut tile = *sums;
    for (k, b) in (0..run).zip(panel.chunks_exact(columns)) {
        let b: [Lanes<S>; V] =
            std::array::from_fn(|v| load::<S>(&b[v * lanes::<S>()..][..lanes::<S>()]));
        for i in 0..M {
            let x = splat::<S>(a[i][k]);
            for v in 0..V {
                tile[i][v] = x.mul_add(b[v], tile[i][v]);
            }
        }
    }
    *sums = tile;
}

/// Writes a row of a tile; `to` may be shorter than the tile is wide.
#[inline(always)]
fn put<S: Simd, const V: usize>(sums: &[Lanes<S>; V], to: &mut [f32]) {
    let lanes = lanes::<S>();
    if to.len() == V * lanes {
        for (to, sum) in to.chunks_exact_mut(lanes).zip(sums) {
            store::<S>(to, *sum);
        }
        return;
    }
    let mut values = [0.0_f32; 64];
    for (v, sum) in sums.iter().enumerate() {
        store::<S>(&mut values[v * lanes..][..lanes], *sum);
    }
    to.copy_from_slice(&values[..to.len()]);
}
