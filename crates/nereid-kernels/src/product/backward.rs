//! Gradients of both sides of a product.

use macerator::{Simd, WithSimd};

use super::{Rows, each, forward::multiply};
use crate::simd::{self, Lanes, lanes, load, splat, tiled, values};

/// Left rows that are gone through together, so that they stay in the nearest cache.
const PART: usize = 96;

/// Gradient of the right matrix: the left rows, turned round, times the result's gradient.
pub(crate) struct Kernel<'a> {
    rows: Rows<'a>,
    x: &'a [f32],
    /// Distance from block to block in `x`.
    step: usize,
    /// Gradient of the result.
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
        let tiles = tiles(rows);
        // Each part goes through all of the result's gradient.
        let parts = if parallel {
            2 * rayon::current_num_threads()
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
        let narrow = self.units <= lanes::<S>();
        tiled!(self.run::<S> if narrow);
    }
}

impl Kernel<'_> {
    #[inline(always)]
    fn run<S: Simd, const M: usize, const V: usize, const W: usize>(mut self) {
        let mut panels = vec![[0.0; W]; self.units.div_ceil(W) * PART];
        let mut packed = [0.0; PART * 12];
        let block = self.rows.starts.len() * self.units;
        for (b, dy) in self.dy.chunks(block.max(1)).enumerate() {
            let x = &self.x[b * self.step..];
            let parts = self.rows.starts.chunks(PART);
            for (starts, dy) in parts.zip(dy.chunks(PART * self.units)) {
                let starts = &starts[..dy.len() / self.units];
                cut(dy, self.units, &mut panels);
                self.part::<S, V, W>(x, starts, &panels, &mut packed);
            }
        }
    }

    #[inline(always)]
    fn part<S: Simd, const V: usize, const W: usize>(
        &mut self,
        x: &[f32],
        starts: &[usize],
        panels: &[[f32; W]],
        packed: &mut [f32; PART * 12],
    ) {
        let mut row = 0;
        for tile in self.tiles {
            let x = &x[tile.offset..];
            match tile.rows {
                12 => self.tile::<S, 12, V, W>(x, starts, panels, row, packed),
                6 => self.tile::<S, 6, V, W>(x, starts, panels, row, packed),
                4 => self.tile::<S, 4, V, W>(x, starts, panels, row, packed),
                3 => self.tile::<S, 3, V, W>(x, starts, panels, row, packed),
                _ => self.tile::<S, 1, V, W>(x, starts, panels, row, packed),
            }
            row += tile.rows;
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const M: usize, const V: usize, const W: usize>(
        &mut self,
        x: &[f32],
        starts: &[usize],
        panels: &[[f32; W]],
        row: usize,
        packed: &mut [f32; PART * 12],
    ) {
        let packed = &mut packed.as_chunks_mut::<M>().0[..starts.len()];
        for (to, &start) in packed.iter_mut().zip(starts) {
            to.copy_from_slice(&x[start..start + M]);
        }
        for (p, panel) in panels.chunks_exact(PART).enumerate() {
            let sums = outer::<S, M, V, W>(packed, panel);
            let from = p * W;
            let n = W.min(self.units - from);
            for (i, sums) in sums.iter().enumerate() {
                let at = (row + i) * self.units + from;
                add(&values::<S, V, W>(*sums), &mut self.dw[at..at + n]);
            }
        }
    }
}

/// Sums the products of each row's `M` values with its panel's row.
#[inline(always)]
fn outer<S: Simd, const M: usize, const V: usize, const W: usize>(
    rows: &[[f32; M]],
    panel: &[[f32; W]],
) -> [[Lanes<S>; V]; M] {
    let mut sums = [[splat::<S>(0.0); V]; M];
    for (a, b) in rows.iter().zip(panel) {
        let b = load::<S, V, W>(b);
        for i in 0..M {
            let a = splat::<S>(a[i]);
            for v in 0..V {
                sums[i][v] = a.mul_add(b[v], sums[i][v]);
            }
        }
    }
    sums
}

/// Cuts rows into panels, each of [`PART`] rows that follow on each other.
#[inline(always)]
fn cut<const W: usize>(dy: &[f32], units: usize, panels: &mut [[f32; W]]) {
    for (p, panel) in panels.chunks_exact_mut(PART).enumerate() {
        let from = p * W;
        let n = W.min(units - from);
        for (to, dy) in panel.iter_mut().zip(dy.chunks_exact(units)) {
            to[..n].copy_from_slice(&dy[from..from + n]);
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
        let narrow = self.rows.run <= lanes::<S>();
        tiled!(self.run::<S> if narrow);
    }
}

impl Inputs<'_> {
    #[inline(always)]
    fn run<S: Simd, const M: usize, const V: usize, const W: usize>(self) {
        let (units, run) = (self.units, self.rows.run);
        let tiles = self.rows.starts.chunks(M);
        for (starts, dy) in tiles.zip(self.dy.chunks(M * units)) {
            let last = starts.len() - 1;
            let a: [&[f32]; M] = std::array::from_fn(|i| &dy[i.min(last) * units..][..units]);
            for (packed, &offset) in self.packed.iter().zip(self.rows.runs) {
                let panels = packed.as_chunks::<W>().0.chunks_exact(units);
                for (p, panel) in panels.enumerate() {
                    let from = p * W;
                    let n = W.min(run - from);
                    let zeros = [[splat::<S>(0.0); V]; M];
                    let sums = multiply::<S, M, V, W>(zeros, a, panel);
                    for (sums, start) in sums.iter().zip(starts) {
                        let at = start + offset + from;
                        add(&values::<S, V, W>(*sums), &mut self.dx[at..at + n]);
                    }
                }
            }
        }
    }
}

/// Adds a row of a tile; `to` may be shorter than the tile is wide.
#[inline(always)]
fn add<const W: usize>(row: &[f32; W], to: &mut [f32]) {
    match to.as_mut_array::<W>() {
        Some(to) => to.iter_mut().zip(row).for_each(|(to, value)| *to += value),
        None => to.iter_mut().zip(row).for_each(|(to, value)| *to += value),
    }
}
