//! Products of matrices whose left side may be scattered over memory.
//!
//! A row of the left matrix is a set of contiguous runs, each at a fixed distance from the row's
//! start: a row of a plain matrix is one run, a window on an image one run for each of its rows.
//! So a convolution needs no copy of its windows. Tiles of the result stay in registers, as in
//! Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).

mod backward;
mod forward;

use rayon::prelude::*;

pub(crate) use backward::{Inputs, Kernel};
pub(crate) use forward::{Forward, pack, panels};

use crate::simd;

/// Multiplications below which one thread is quicker than several.
const PARALLEL: usize = 1 << 20;

/// Rows of a left matrix.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// Start of each row in a block.
    pub(crate) starts: &'a [usize],
    /// Distances of the runs from a start.
    pub(crate) runs: &'a [usize],
    /// Length of each run.
    pub(crate) run: usize,
}

impl Rows<'_> {
    /// Values of a row.
    pub(crate) fn depth(&self) -> usize {
        self.runs.len() * self.run
    }
}

/// Tells whether so many multiplications are worth several threads.
pub(crate) fn is_parallel(multiplications: usize) -> bool {
    multiplications >= PARALLEL && rayon::current_num_threads() > 1
}

/// Tells whether so many values are worth several threads to move.
pub(crate) fn is_large(values: usize) -> bool {
    values > 1 << 17 && rayon::current_num_threads() > 1
}

/// Calls `f` for each element, on several threads if that is worth it.
pub(crate) fn each<T: Send>(parallel: bool, items: Vec<T>, f: impl Fn(T) + Send + Sync) {
    if parallel {
        items.into_par_iter().for_each(f);
    } else {
        items.into_iter().for_each(f);
    }
}

/// A dense layer: rows of `inputs` values times a matrix of `inputs` × `units`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dense {
    /// Rows of the left matrix.
    pub rows: usize,
    /// Values of a row.
    pub inputs: usize,
    /// Values of a row of the result.
    pub units: usize,
}

/// Rows that are computed together: a multiple of every tile's height.
const BLOCK: usize = 96;

impl Dense {
    fn starts(&self) -> Vec<usize> {
        (0..self.block()).map(|i| i * self.inputs).collect()
    }

    fn block(&self) -> usize {
        if self.rows > 2 * BLOCK {
            BLOCK
        } else if self.rows > 24 {
            self.rows.div_ceil(24) * 12
        } else {
            self.rows
        }
    }

    fn work(&self) -> usize {
        self.rows * self.inputs * self.units
    }

    /// Returns `x · w`, plus `bias` to each row, negative values set to 0 if `relu`.
    #[must_use]
    pub fn forward(&self, x: &[f32], w: &[f32], bias: Option<&[f32]>, relu: bool) -> Vec<f32> {
        let mut y = vec![0.0; self.rows * self.units];
        let (starts, block) = (self.starts(), self.block());
        let packed = pack(w, self.inputs, self.units);
        let blocks = x.chunks(block * self.inputs);
        let items = blocks.zip(y.chunks_mut(block * self.units)).collect();
        each(
            is_parallel(self.work()),
            items,
            |(x, y): (&[f32], &mut [f32])| {
                simd::dispatch(Forward {
                    rows: Rows {
                        starts: &starts[..y.len() / self.units],
                        runs: &[0],
                        run: self.inputs,
                    },
                    x,
                    packed: &packed,
                    bias,
                    relu,
                    units: self.units,
                    y,
                });
            },
        );
        y
    }

    /// Returns the gradient of `x` from that of the result.
    #[must_use]
    pub fn input_gradient(&self, dy: &[f32], w: &[f32]) -> Vec<f32> {
        // dx = dy · wᵀ is itself a dense layer.
        let mut turned = vec![0.0; w.len()];
        transpose(w, self.inputs, self.units, &mut turned);
        let layer = Self {
            inputs: self.units,
            units: self.inputs,
            ..*self
        };
        layer.forward(dy, &turned, None, false)
    }

    /// Returns the gradient of `w` from that of the result.
    #[must_use]
    pub fn kernel_gradient(&self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let (starts, block) = (self.starts(), self.block());
        let rows = Rows {
            starts: &starts,
            runs: &[0],
            run: self.inputs,
        };
        let step = block * self.inputs;
        Kernel::gradient(rows, (x, step), dy, self.units, is_parallel(self.work()))
    }
}

/// Turns a matrix of `rows` × `columns` round, in tiles that stay in the cache.
pub(crate) fn transpose(from: &[f32], rows: usize, columns: usize, to: &mut [f32]) {
    const TILE: usize = 16;
    for r0 in (0..rows).step_by(TILE) {
        for c0 in (0..columns).step_by(TILE) {
            let r1 = (r0 + TILE).min(rows);
            for c in c0..(c0 + TILE).min(columns) {
                let to = &mut to[c * rows + r0..c * rows + r1];
                for (value, r) in to.iter_mut().zip(r0..r1) {
                    *value = from[r * columns + c];
                }
            }
        }
    }
}

/// Sums the columns of a matrix with rows of `units` values.
#[must_use]
pub fn column_sums(values: &[f32], units: usize) -> Vec<f32> {
    // Sums of fixed parts, so that no result depends on the threads.
    const ROWS: usize = 2048;
    let sum = |part: &[f32]| {
        let mut sums = vec![0.0; units];
        simd::run(
            #[inline(always)]
            || add_rows(part, &mut sums),
        );
        sums
    };
    let part = ROWS * units.max(1);
    let parts: Vec<Vec<f32>> = if values.len() > 2 * part {
        values.par_chunks(part).map(sum).collect()
    } else {
        values.chunks(part).map(sum).collect()
    };
    let mut total = vec![0.0; units];
    for part in &parts {
        add_rows(part, &mut total);
    }
    total
}

#[inline(always)]
fn add_rows(rows: &[f32], sums: &mut [f32]) {
    for row in rows.chunks_exact(sums.len()) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value;
        }
    }
}

/// Sets gradients to 0 where the result of a ReLU is.
pub fn relu_gradient(dy: &mut [f32], y: &[f32]) {
    const PART: usize = 1 << 16;
    let items = dy.chunks_mut(PART).zip(y.chunks(PART)).collect();
    each(is_large(y.len()), items, |(dy, y): (&mut [f32], &[f32])| {
        simd::run(
            #[inline(always)]
            || {
                for (d, &y) in dy.iter_mut().zip(y) {
                    *d = if y > 0.0 { *d } else { 0.0 };
                }
            },
        );
    });
}
