//! Convolutions of 3×3 with 4 instead of 9 multiplications a value.
//!
//! F(2×2, 3×3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), after
//! Winograd: tiles of 4×4 values and the kernel are transformed, multiplied as 16 products of
//! matrices, and transformed back to tiles of 2×2. All factors are halves and ones, so that results
//! differ from the plain sum by little more than its own rounding.

use crate::{
    geometry::Windows,
    product::{Forward, Rows, each, is_parallel, panels, transpose},
    simd,
};

// The arrays are written out: what `array::from_fn` calls is not always inlined, and then not
// compiled for the processor's vectors.

/// Values that are transformed at a time.
const LANES: usize = 16;
/// Tiles in a batch below which transforming the kernel costs more than it saves.
const FEW: usize = 256;

type Lane = [f32; LANES];

/// A convolution of a batch of padded images.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Winograd {
    windows: Windows,
    filters: usize,
}

impl Winograd {
    /// Prepares a convolution into `filters` channels, if this is the way to compute it.
    pub(crate) fn new(windows: Windows, filters: usize) -> Option<Self> {
        let [height, width] = windows.output();
        let plain = windows.stride == [1, 1] && windows.dilation == [1, 1];
        let even = height % 2 == 0 && width % 2 == 0;
        let lanes = windows.channels.is_multiple_of(LANES) && filters.is_multiple_of(LANES);
        let many = windows.batch * height * width / 4 >= FEW;
        let suits = windows.size == [3, 3] && plain && even && lanes && many;
        suits.then_some(Self { windows, filters })
    }

    /// Prepares the way back: the gradient of the images is a convolution of the result's.
    pub(crate) fn back(windows: &Windows, filters: usize) -> Option<Self> {
        let left = |(before, after): (usize, usize)| {
            Some((2_usize.checked_sub(before)?, 2_usize.checked_sub(after)?))
        };
        let [rows, columns] = windows.pads;
        let back = Windows {
            input: windows.output(),
            channels: filters,
            pads: [left(rows)?, left(columns)?],
            ..*windows
        };
        Self::new(back, windows.channels)
    }

    /// Turns a kernel for the way back: upside down, left to right, and filters for channels.
    pub(crate) fn turned(&self, w: &[f32]) -> Vec<f32> {
        let matrix = (self.windows.channels * self.filters).max(1);
        let mut turned = vec![0.0; w.len()];
        let items = turned
            .chunks_exact_mut(matrix)
            .zip(w.chunks_exact(matrix).rev());
        each(
            is_parallel(w.len()),
            items.collect(),
            |(to, from): (&mut [f32], &[f32])| {
                transpose(from, self.filters, self.windows.channels, to);
            },
        );
        turned
    }

    /// Images with their padding.
    pub(crate) fn pad(&self, images: &[f32]) -> Vec<f32> {
        self.windows.with_padding(images)
    }

    /// Convolves padded images; negative values become 0 if `relu`.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        w: &[f32],
        bias: Option<&[f32]>,
        relu: bool,
    ) -> Vec<f32> {
        let (image, result) = (
            self.windows.padded_image(),
            self.windows.positions() * self.filters,
        );
        let mut y = vec![0.0; self.windows.batch * result];
        let work =
            self.windows.batch * self.windows.positions() * self.windows.channels * self.filters;
        let parallel = is_parallel(work);
        let kernel = self.kernel(w, parallel);
        let none = vec![0.0; self.filters];
        let end = End {
            bias: bias.unwrap_or(&none),
            relu,
        };
        // Images do not see each other: how many make a part changes no result.
        let parts = if parallel {
            2 * rayon::current_num_threads()
        } else {
            1
        };
        let images = self.windows.batch.div_ceil(parts).max(1);
        let items = x.chunks(images * image).zip(y.chunks_mut(images * result));
        each(parallel, items.collect(), |(x, y): (&[f32], &mut [f32])| {
            self.part(x, &kernel, end, y);
        });
        y
    }

    /// Transforms a kernel of (3, 3, in, out) into 16 matrices, packed as products take them.
    fn kernel(&self, w: &[f32], parallel: bool) -> Vec<Vec<f32>> {
        let (depth, units) = (self.windows.channels, self.filters);
        let (count, columns) = panels(units);
        let mut packed = vec![vec![0.0; count * depth * columns]; 16];
        let mut matrices: Vec<_> = packed
            .iter_mut()
            .map(|m| m.chunks_exact_mut(depth * columns))
            .collect();
        let items =
            (0..count).map(|p| (p, matrices.iter_mut().filter_map(Iterator::next).collect()));
        let items: Vec<(usize, Vec<&mut [f32]>)> = items.collect();
        each(parallel, items, |(p, mut panel)| {
            let from = p * columns;
            let n = columns.min(units - from);
            simd::run(
                #[inline(always)]
                || {
                    for (c, at) in
                        (0..depth).flat_map(|c| (0..n).step_by(LANES).map(move |at| (c, at)))
                    {
                        let (step, g) = (depth * units, &w[c * units + from + at..]);
                        let row = |i: usize| lane(&g[i * step..]);
                        // G g, then (G g) Gᵀ.
                        let down = [
                            spread([row(0), row(3), row(6)]),
                            spread([row(1), row(4), row(7)]),
                            spread([row(2), row(5), row(8)]),
                        ];
                        for i in 0..4 {
                            let across = spread(down.map(|column| column[i]));
                            for (j, value) in across.iter().enumerate() {
                                let to = c * columns + at;
                                panel[4 * i + j][to..to + LANES].copy_from_slice(value);
                            }
                        }
                    }
                },
            );
        });
        packed
    }

    /// Convolves some images.
    fn part(&self, x: &[f32], kernel: &[Vec<f32>], end: End<'_>, y: &mut [f32]) {
        let (channels, filters) = (self.windows.channels, self.filters);
        let [height, width] = self.windows.output();
        let tiles = x.len() / self.windows.padded_image().max(1) * (height / 2) * (width / 2);
        // What belongs to some tiles stays in the second cache.
        let some = (8_192 / (channels + filters)).clamp(24, 96) / 12 * 12;
        let starts: Vec<usize> = (0..some).map(|t| t * channels).collect();
        let mut v = vec![0.0; 16 * some * channels];
        let mut m = vec![0.0; 16 * some * filters];
        for first in (0..tiles).step_by(some) {
            let n = some.min(tiles - first);
            simd::run(
                #[inline(always)]
                || {
                    for t in 0..n {
                        self.take(x, first + t, &mut v[t * channels..], some * channels);
                    }
                },
            );
            for (k, packed) in kernel.iter().enumerate() {
                simd::dispatch(Forward {
                    rows: Rows {
                        starts: &starts[..n],
                        runs: &[0],
                        run: channels,
                    },
                    x: &v[k * some * channels..],
                    packed,
                    bias: None,
                    relu: false,
                    units: filters,
                    y: &mut m[k * some * filters..][..n * filters],
                });
            }
            simd::run(
                #[inline(always)]
                || {
                    for t in 0..n {
                        self.give(&m[t * filters..], some * filters, end, first + t, y);
                    }
                },
            );
        }
    }

    /// Row and column of a tile's first value in all images, of `height` × `width` each.
    #[inline(always)]
    fn place(&self, tile: usize, [height, width]: [usize; 2]) -> usize {
        let [rows, columns] = self.windows.output().map(|n| n / 2);
        let (image, tile) = (tile / (rows * columns), tile % (rows * columns));
        (image * height + 2 * (tile / columns)) * width + 2 * (tile % columns)
    }

    /// Transforms a tile: `Bᵀ d B`, its 16 values `apart` from each other.
    #[inline(always)]
    fn take(&self, x: &[f32], tile: usize, to: &mut [f32], apart: usize) {
        let (channels, [height, width]) = (self.windows.channels, self.windows.padded());
        let x = &x[self.place(tile, [height, width]) * channels..];
        for c in (0..channels).step_by(LANES) {
            let (step, x) = (width * channels, &x[c..]);
            let down = [
                differences(column(x, step)),
                differences(column(&x[channels..], step)),
                differences(column(&x[2 * channels..], step)),
                differences(column(&x[3 * channels..], step)),
            ];
            for i in 0..4 {
                let across = differences(down.map(|column| column[i]));
                for (j, value) in across.iter().enumerate() {
                    let at = (4 * i + j) * apart + c;
                    to[at..at + LANES].copy_from_slice(value);
                }
            }
        }
    }

    /// Transforms a tile's products back: `Aᵀ m A`, with what comes after it.
    #[inline(always)]
    fn give(&self, m: &[f32], apart: usize, end: End<'_>, tile: usize, y: &mut [f32]) {
        let (filters, [height, width]) = (self.filters, self.windows.output());
        let y = &mut y[self.place(tile, [height, width]) * filters..];
        for f in (0..filters).step_by(LANES) {
            let (step, m) = (4 * apart, &m[f..]);
            let down = [
                sums(column(m, step)),
                sums(column(&m[apart..], step)),
                sums(column(&m[2 * apart..], step)),
                sums(column(&m[3 * apart..], step)),
            ];
            let bias = lane(&end.bias[f..]);
            for i in 0..2 {
                let across = sums(down.map(|column| column[i]));
                for (j, mut value) in across.into_iter().enumerate() {
                    for (value, bias) in value.iter_mut().zip(bias) {
                        let sum = *value + bias;
                        *value = if end.relu && sum < 0.0 { 0.0 } else { sum };
                    }
                    let at = (i * width + j) * filters + f;
                    y[at..at + LANES].copy_from_slice(&value);
                }
            }
        }
    }
}

/// What is done to results.
#[derive(Clone, Copy)]
struct End<'a> {
    bias: &'a [f32],
    relu: bool,
}

#[inline(always)]
fn lane(from: &[f32]) -> Lane {
    std::array::from_fn(|i| from[..LANES][i])
}

/// Reads four rows, a step apart.
#[inline(always)]
fn column(from: &[f32], step: usize) -> [Lane; 4] {
    [
        lane(from),
        lane(&from[step..]),
        lane(&from[2 * step..]),
        lane(&from[3 * step..]),
    ]
}

#[inline(always)]
fn pair(a: Lane, b: Lane, f: impl Fn(f32, f32) -> f32) -> Lane {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// A column of the kernel's transform `G`.
#[inline(always)]
fn spread([a, b, c]: [Lane; 3]) -> [Lane; 4] {
    let outer = pair(a, c, |a, c| (a + c) * 0.5);
    let plus = pair(outer, b, |o, b| o + b * 0.5);
    let minus = pair(outer, b, |o, b| o - b * 0.5);
    [a, plus, minus, c]
}

/// A column of the tile's transform `Bᵀ`.
#[inline(always)]
fn differences([a, b, c, d]: [Lane; 4]) -> [Lane; 4] {
    let less = |a, b| pair(a, b, |a, b| a - b);
    [less(a, c), pair(b, c, |b, c| b + c), less(c, b), less(b, d)]
}

/// A column of the result's transform `Aᵀ`.
#[inline(always)]
fn sums([a, b, c, d]: [Lane; 4]) -> [Lane; 2] {
    let (plus, minus) = (pair(b, c, |b, c| b + c), pair(b, c, |b, c| b - c));
    [pair(a, plus, |a, p| a + p), pair(minus, d, |m, d| m - d)]
}
