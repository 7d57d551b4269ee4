//! Gradients of both sides of a product.

use macerator::{Simd, WithSimd};

use super::{Rows, each, forward::multiply, panels};
use crate::simd::{self, Lanes, lanes, load, splat, store};

/// Left rows that are gone through together, so that they stay in the nearest cache.
const PART: usize = 96;

/// Gradient of the right matrix: the left rows, turned round, times the result's gradient.
pub(crate) struct Kernel<'a> {
    rows: Rows<'a>,
    x: &'a [f32],
    /// Distance from block to block in `x`.
    step: usize,
    /// Gradient of the result, rows filled up to whole panels.
    dy: &'a [f32],
    units: usize,
    tiles: &'a [Tile],
    dw: &'a mut [f32],
}

/// Rows of the right matrix that are computed together.
#[derive(Debug, Clone, Copy)]
struct Tile {
    /// Distance of their first value from the start of a left row.
    offset: usize,
    rows: usize,
}

impl<'a> Kernel<'a> {
    /// Computes the gradient; `x` comes with the distance between blocks.
    ///
    /// Each value is a sum over the blocks in their order, whatever the threads.
    pub(crate) fn gradient(
        rows: Rows<'a>,
        (x, step): (&'a [f32], usize),
        dy: &[f32],
        units: usize,
        parallel: bool,
    ) -> Vec<f32> {
        let depth = rows.depth();
        let mut dw = vec![0.0; depth * units];
        let filled = fill(dy, units);
        let dy = filled.as_deref().unwrap_or(dy);
        let tiles = tiles(rows);
        let parts = if parallel {
            4 * rayon::current_num_threads()
        } else {
            1
        };
        let mut items = Vec::new();
        let mut rest = dw.as_mut_slice();
        for tiles in tiles.chunks(tiles.len().div_ceil(parts).max(1)) {
            let n = tiles.iter().map(|t| t.rows).sum::<usize>() * units;
            let (dw, after) = rest.split_at_mut(n);
            rest = after;
            items.push(Kernel {
                rows,
                x,
                step,
                dy,
                units,
                tiles,
                dw,
            });
        }
        each(parallel, items, simd::dispatch);
        dw
    }
}

/// Fills rows up to whole panels, if they are not.
fn fill(dy: &[f32], units: usize) -> Option<Vec<f32>> {
    let (panels, columns) = panels(units);
    let width = panels * columns;
    if width == units {
        return None;
    }
    let mut filled = vec![0.0; dy.len() / units.max(1) * width];
    for (to, from) in filled.chunks_exact_mut(width).zip(dy.chunks_exact(units)) {
        to[..units].copy_from_slice(from);
    }
    Some(filled)
}

fn tiles(rows: Rows<'_>) -> Vec<Tile> {
    let mut tiles = Vec::new();
    for &run in rows.runs {
        let mut at = 0;
        while at < rows.run {
            let left = rows.run - at;
            let n = [12, 6, 4, 3, 1].into_iter().find(|n| *n <= left);
            let n = n.unwrap_or(left);
            tiles.push(Tile {
                offset: run + at,
                rows: n,
            });
            at += n;
        }
    }
    tiles
}

impl WithSimd for Kernel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self) {
        if self.units <= lanes::<S>() {
            self.run::<S, 1>();
        } else {
            self.run::<S, 2>();
        }
    }
}

impl Kernel<'_> {
    #[inline(always)]
    fn run<S: Simd, const V: usize>(mut self) {
        let columns = V * lanes::<S>();
        let width = self.units.div_ceil(columns) * columns;
        let block = self.rows.starts.len() * width;
        for (b, dy) in self.dy.chunks(block.max(1)).enumerate() {
            let x = &self.x[b * self.step..];
            let parts = self.rows.starts.chunks(PART).zip(dy.chunks(PART * width));
            for (starts, dy) in parts {
                self.part::<S, V>(x, starts, dy, width);
            }
        }
    }

    #[inline(always)]
    fn part<S: Simd, const V: usize>(
        &mut self,
        x: &[f32],
        starts: &[usize],
        dy: &[f32],
        width: usize,
    ) {
        let mut row = 0;
        for tile in self.tiles {
            let rows = (&x[tile.offset..], starts);
            for from in (0..self.units).step_by(V * lanes::<S>()) {
                let at = (row, from);
                match tile.rows {
                    12 => self.tile::<S, 12, V>(rows, dy, width, at),
                    6 => self.tile::<S, 6, V>(rows, dy, width, at),
                    4 => self.tile::<S, 4, V>(rows, dy, width, at),
                    3 => self.tile::<S, 3, V>(rows, dy, width, at),
                    _ => self.tile::<S, 1, V>(rows, dy, width, at),
                }
            }
            row += tile.rows;
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const M: usize, const V: usize>(
        &mut self,
        (x, starts): (&[f32], &[usize]),
        dy: &[f32],
        width: usize,
        (row, from): (usize, usize),
    ) {
        let lanes = lanes::<S>();
        let mut sums = [[splat::<S>(0.0); V]; M];
        for (dy, &start) in dy.chunks_exact(width).zip(starts) {
            let (a, dy) = (&x[start..start + M], &dy[from..from + V * lanes]);
            let b: [Lanes<S>; V] = std::array::from_fn(|v| load::<S>(&dy[v * lanes..][..lanes]));
            for i in 0..M {
                let a = splat::<S>(a[i]);
                for v in 0..V {
                    sums[i][v] = a.mul_add(b[v], sums[i][v]);
                }
            }
        }
        let n = (V * lanes).min(self.units - from);
        for (i, sums) in sums.iter().enumerate() {
            let at = (row + i) * self.units + from;
            add::<S, V>(sums, &mut self.dw[at..at + n]);
        }
    }
}

/// Gradient of scattered left rows: the result's gradient times the right matrix turned round,
/// each row of it added to where the left row came from.
pub(crate) struct Inputs<'a> {
    pub(crate) rows: Rows<'a>,
    /// Gradient of the result, rows of `units` values.
    pub(crate) dy: &'a [f32],
    pub(crate) units: usize,
    /// For each run, the right matrix's rows turned round and packed.
    pub(crate) packed: &'a [Vec<f32>],
    pub(crate) dx: &'a mut [f32],
}

impl WithSimd for Inputs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self) {
        match (lanes::<S>() >= 16, self.rows.run <= lanes::<S>()) {
            (true, true) => self.run::<S, 12, 1>(),
            (true, false) => self.run::<S, 12, 2>(),
            (false, true) => self.run::<S, 6, 1>(),
            (false, false) => self.run::<S, 6, 2>(),
        }
    }
}

impl Inputs<'_> {
    #[inline(always)]
    fn run<S: Simd, const M: usize, const V: usize>(self) {
        let columns = V * lanes::<S>();
        let (units, run) = (self.units, self.rows.run);
        let tiles = self.rows.starts.chunks(M);
        for (starts, dy) in tiles.zip(self.dy.chunks(M * units)) {
            let last = starts.len() - 1;
            let a: [&[f32]; M] = std::array::from_fn(|i| &dy[i.min(last) * units..][..units]);
            for (packed, &offset) in self.packed.iter().zip(self.rows.runs) {
                for (p, panel) in packed.chunks_exact(units * columns).enumerate() {
                    let from = p * columns;
                    let n = columns.min(run - from);
                    let mut sums = [[splat::<S>(0.0); V]; M];
                    multiply::<S, M, V>(&mut sums, a, panel);
                    for (sums, start) in sums.iter().zip(starts) {
                        let at = start + offset + from;
                        add::<S, V>(sums, &mut self.dx[at..at + n]);
                    }
                }
            }
        }
    }
}

/// Adds a row of a tile; `to` may be shorter than the tile is wide.
#[inline(always)]
fn add<S: Simd, const V: usize>(sums: &[Lanes<S>; V], to: &mut [f32]) {
    let lanes = lanes::<S>();
    if to.len() == V * lanes {
        for (to, sum) in to.chunks_exact_mut(lanes).zip(sums) {
            let new = load::<S>(to) + *sum;
            store::<S>(to, new);
        }
        return;
    }
    let mut values = [0.0_f32; 64];
    for (v, sum) in sums.iter().enumerate() {
        store::<S>(&mut values[v * lanes..][..lanes], *sum);
    }
    for (to, value) in to.iter_mut().zip(values) {
        *to += value;
    }
}
