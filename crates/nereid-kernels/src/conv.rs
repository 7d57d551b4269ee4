//! Convolution of channels-last images.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::{
    geometry::Windows,
    product::{Forward, Inputs, Kernel, Rows, each, is_large, is_parallel, pack, transpose},
    simd,
    winograd::Winograd,
};

/// Rows that a block should have at least, so that tiles are filled.
const BLOCK_ROWS: usize = 96;

/// A convolution of a batch of images with a kernel of (height, width, in, out).
#[derive(Debug, Clone)]
pub struct Conv {
    windows: Windows,
    filters: usize,
    starts: Vec<usize>,
    runs: Vec<usize>,
    run: usize,
    /// Images in a block.
    block: usize,
}

/// A batch of images with their padding, as [`Conv`] reads it.
pub type Padded<'a> = Cow<'a, [f32]>;

impl Conv {
    /// Prepares a convolution into `filters` channels.
    #[must_use]
    pub fn new(windows: Windows, filters: usize) -> Self {
        let (runs, run) = windows.runs();
        let positions = windows.positions().max(1);
        let block = BLOCK_ROWS
            .div_ceil(positions)
            .clamp(1, windows.batch.max(1));
        let one: Vec<usize> = windows.starts().collect();
        let image = windows.padded_image();
        let starts = (0..block).flat_map(|i| one.iter().map(move |s| i * image + s));
        Self {
            starts: starts.collect(),
            windows,
            filters,
            runs,
            run,
            block,
        }
    }

    fn rows(&self, images: usize) -> Rows<'_> {
        Rows {
            starts: &self.starts[..images * self.windows.positions()],
            runs: &self.runs,
            run: self.run,
        }
    }

    fn depth(&self) -> usize {
        self.runs.len() * self.run
    }

    fn is_parallel(&self) -> bool {
        let rows = self.windows.batch * self.windows.positions();
        is_parallel(rows * self.depth() * self.filters)
    }

    /// Adds the padding to images, if there is any.
    #[must_use]
    pub fn pad<'a>(&self, images: &'a [f32]) -> Padded<'a> {
        let windows = &self.windows;
        if windows.is_unpadded() {
            return Cow::Borrowed(images);
        }
        Cow::Owned(windows.with_padding(images))
    }

    /// Convolves padded images; negative values become 0 if `relu`.
    #[must_use]
    pub fn forward(&self, x: &[f32], w: &[f32], bias: Option<&[f32]>, relu: bool) -> Vec<f32> {
        if let Some(winograd) = Winograd::new(self.windows, self.filters) {
            return winograd.forward(x, w, bias, relu);
        }
        let image = self.windows.padded_image();
        let result = self.windows.positions() * self.filters;
        let mut y = vec![0.0; self.windows.batch * result];
        let packed = pack(w, self.depth(), self.filters);
        let blocks = x.chunks((self.block * image).max(1));
        let items = blocks.zip(y.chunks_mut((self.block * result).max(1)));
        each(
            self.is_parallel(),
            items.collect(),
            |(x, y): (&[f32], &mut [f32])| {
                simd::dispatch(Forward {
                    rows: self.rows(x.len() / image),
                    x,
                    packed: &packed,
                    bias,
                    relu,
                    units: self.filters,
                    y,
                });
            },
        );
        y
    }

    /// Returns the gradient of the kernel from padded images and the result's gradient.
    #[must_use]
    pub fn kernel_gradient(&self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let step = self.block * self.windows.padded_image();
        let rows = self.rows(self.block);
        Kernel::gradient(rows, (x, step), dy, self.filters, self.is_parallel())
    }

    /// Returns the gradient of the images, without their padding, from the result's.
    #[must_use]
    pub fn input_gradient(&self, dy: &[f32], w: &[f32]) -> Vec<f32> {
        let windows = &self.windows;
        if let Some(back) = Winograd::back(windows, self.filters) {
            return back.forward(&back.pad(dy), &back.turned(w), None, false);
        }
        let (image, padded) = (windows.image(), windows.padded_image());
        let result = windows.positions() * self.filters;
        let mut dx = vec![0.0; windows.batch * image];
        let packed = self.turned(w);
        let blocks = dy.chunks((self.block * result).max(1));
        let items = blocks.zip(dx.chunks_mut((self.block * image).max(1)));
        each(
            self.is_parallel(),
            items.collect(),
            |(dy, dx): (&[f32], &mut [f32])| {
                let images = dx.len() / image;
                let run = |dx: &mut [f32]| {
                    simd::dispatch(Inputs {
                        rows: self.rows(images),
                        dy,
                        units: self.filters,
                        packed: &packed,
                        dx,
                    });
                };
                if windows.is_unpadded() {
                    return run(dx);
                }
                let mut whole = vec![0.0; images * padded];
                run(&mut whole);
                for (from, to) in whole.chunks_exact(padded).zip(dx.chunks_exact_mut(image)) {
                    windows.unpad(from, to);
                }
            },
        );
        dx
    }

    /// Packs the rows of each run, turned round.
    fn turned(&self, w: &[f32]) -> Vec<Vec<f32>> {
        let turn = |rows: &[f32]| {
            let mut turned = vec![0.0; rows.len()];
            transpose(rows, self.run, self.filters, &mut turned);
            pack(&turned, self.filters, self.run)
        };
        let size = (self.run * self.filters).max(1);
        if is_large(w.len()) {
            w.par_chunks_exact(size).map(turn).collect()
        } else {
            w.chunks_exact(size).map(turn).collect()
        }
    }
}
