//! Where windows lie on images.

use rayon::prelude::*;

/// Windows over the height and width of channels-last images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Images in the batch.
    pub batch: usize,
    /// Height and width of the images.
    pub input: [usize; 2],
    /// Channels of the images.
    pub channels: usize,
    /// Height and width of a window.
    pub size: [usize; 2],
    /// Steps from window to window.
    pub stride: [usize; 2],
    /// Steps inside a window.
    pub dilation: [usize; 2],
    /// Rows and columns added before and after the image.
    pub pads: [(usize, usize); 2],
}

impl Windows {
    /// Height and width of the output; 0 where no window fits.
    #[must_use]
    pub fn output(&self) -> [usize; 2] {
        [0, 1].map(|axis| {
            let extent = (self.size[axis] - 1) * self.dilation[axis] + 1;
            match self.padded()[axis].checked_sub(extent) {
                Some(free) => free / self.stride[axis] + 1,
                None => 0,
            }
        })
    }

    /// Height and width of the images with their padding.
    #[must_use]
    pub fn padded(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.input[axis] + self.pads[axis].0 + self.pads[axis].1)
    }

    /// Tells whether images are used as they are.
    pub(crate) fn is_unpadded(&self) -> bool {
        self.pads == [(0, 0); 2]
    }

    /// Values of one image.
    pub(crate) fn image(&self) -> usize {
        self.input[0] * self.input[1] * self.channels
    }

    /// Values of one padded image.
    pub(crate) fn padded_image(&self) -> usize {
        let [height, width] = self.padded();
        height * width * self.channels
    }

    /// Positions of windows on one image.
    pub(crate) fn positions(&self) -> usize {
        let [height, width] = self.output();
        height * width
    }

    /// Offset of the first value of each window in a padded image.
    pub(crate) fn starts(&self) -> impl Iterator<Item = usize> {
        let ([height, width], [_, columns]) = (self.output(), self.padded());
        let ([down, right], channels) = (self.stride, self.channels);
        (0..height)
            .flat_map(move |y| (0..width).map(move |x| (y * down * columns + x * right) * channels))
    }

    /// Offsets from the start of a window to its contiguous runs, and the length of each.
    pub(crate) fn runs(&self) -> (Vec<usize>, usize) {
        let (columns, channels) = (self.padded()[1], self.channels);
        let row = |y: usize| y * self.dilation[0] * columns * channels;
        if self.dilation[1] == 1 {
            let runs = (0..self.size[0]).map(row).collect();
            return (runs, self.size[1] * channels);
        }
        let column = |x: usize| x * self.dilation[1] * channels;
        let runs = (0..self.size[0])
            .flat_map(|y| (0..self.size[1]).map(move |x| row(y) + column(x)))
            .collect();
        (runs, channels)
    }

    /// Puts zeros around images.
    #[must_use]
    pub fn with_padding(&self, images: &[f32]) -> Vec<f32> {
        let mut padded = vec![0.0; self.batch * self.padded_image()];
        padded
            .par_chunks_exact_mut(self.padded_image().max(1))
            .zip(images.par_chunks_exact(self.image().max(1)))
            .for_each(|(to, from)| self.pad(from, to));
        padded
    }

    /// Returns what [`Self::with_padding`] put zeros around.
    #[must_use]
    pub fn without_padding(&self, padded: &[f32]) -> Vec<f32> {
        let mut images = vec![0.0; self.batch * self.image()];
        images
            .par_chunks_exact_mut(self.image().max(1))
            .zip(padded.par_chunks_exact(self.padded_image().max(1)))
            .for_each(|(to, from)| self.unpad(from, to));
        images
    }

    /// Copies one image between its padding.
    fn pad(&self, image: &[f32], padded: &mut [f32]) {
        let row = self.input[1] * self.channels;
        for (y, from) in image.chunks_exact(row).enumerate() {
            let at = self.inside(y);
            padded[at..at + row].copy_from_slice(from);
        }
    }

    /// Copies one image out of its padding.
    pub(crate) fn unpad(&self, padded: &[f32], image: &mut [f32]) {
        let row = self.input[1] * self.channels;
        for (y, to) in image.chunks_exact_mut(row).enumerate() {
            let at = self.inside(y);
            to.copy_from_slice(&padded[at..at + row]);
        }
    }

    /// Offset of a row of the image inside its padding.
    fn inside(&self, y: usize) -> usize {
        ((y + self.pads[0].0) * self.padded()[1] + self.pads[1].0) * self.channels
    }
}
