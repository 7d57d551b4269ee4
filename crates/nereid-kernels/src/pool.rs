//! Maximum and mean of windows on channels-last images. Padding never counts.

use rayon::prelude::*;

use crate::{geometry::Windows, simd};

/// Values in a batch from which several threads are worth it.
const PARALLEL: usize = 1 << 16;

/// Returns the maximum of each window; it is NaN where any value in the window is.
#[must_use]
pub fn maximum(windows: &Windows, x: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; windows.batch * windows.positions() * windows.channels];
    images(
        windows,
        x,
        &mut y,
        #[inline(always)]
        |x, y| {
            for (window, y) in Taps::all(windows).zip(y.chunks_exact_mut(windows.channels)) {
                y.fill(f32::NEG_INFINITY);
                for at in window {
                    for (y, &x) in y.iter_mut().zip(&x[at..at + windows.channels]) {
                        *y = if x > *y || x.is_nan() { x } else { *y };
                    }
                }
            }
        },
    );
    y
}

/// Returns the gradient of the images: the first maximum of each window takes it all.
#[must_use]
pub fn maximum_gradient(windows: &Windows, x: &[f32], y: &[f32], dy: &[f32]) -> Vec<f32> {
    let channels = windows.channels;
    let mut dx = vec![0.0; windows.batch * windows.image()];
    let result = (windows.positions() * channels).max(1);
    let image = |(((dx, x), y), dy): Image<'_>| {
        simd::run(
            #[inline(always)]
            || {
                let mut left = vec![0.0_f32; channels];
                let results = y.chunks_exact(channels).zip(dy.chunks_exact(channels));
                for (window, (y, dy)) in Taps::all(windows).zip(results) {
                    left.copy_from_slice(dy);
                    for at in window {
                        let (x, dx) = (&x[at..at + channels], &mut dx[at..at + channels]);
                        give(dx, x, y, &mut left);
                    }
                }
            },
        );
    };
    let size = windows.image().max(1);
    if is_large(windows) {
        dx.par_chunks_exact_mut(size)
            .zip(x.par_chunks_exact(size))
            .zip(y.par_chunks_exact(result))
            .zip(dy.par_chunks_exact(result))
            .for_each(image);
    } else {
        dx.chunks_exact_mut(size)
            .zip(x.chunks_exact(size))
            .zip(y.chunks_exact(result))
            .zip(dy.chunks_exact(result))
            .for_each(image);
    }
    dx
}

/// An image's gradient, the image, its maxima and their gradient.
type Image<'a> = (((&'a mut [f32], &'a [f32]), &'a [f32]), &'a [f32]);

/// Gives what is left of gradients to where `x` is the maximum.
#[inline(always)]
fn give(dx: &mut [f32], x: &[f32], y: &[f32], left: &mut [f32]) {
    // Arrays of their own, which nothing else can change meanwhile, become registers.
    const N: usize = 16;
    let (dx, dx_rest) = dx.as_chunks_mut::<N>();
    let (left, left_rest) = left.as_chunks_mut::<N>();
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<N>(), y.as_chunks::<N>());
    for (((dx, x), y), left) in dx.iter_mut().zip(x).zip(y).zip(left) {
        let (mut to, mut from) = (*dx, *left);
        for i in 0..N {
            give_one(&mut to[i], x[i], y[i], &mut from[i]);
        }
        (*dx, *left) = (to, from);
    }
    for (((dx, &x), &y), left) in dx_rest.iter_mut().zip(x_rest).zip(y_rest).zip(left_rest) {
        give_one(dx, x, y, left);
    }
}

#[inline(always)]
#[expect(
    clippy::float_cmp,
    reason = "the maximum is one of the values, bit for bit"
)]
fn give_one(dx: &mut f32, x: f32, y: f32, left: &mut f32) {
    let hit = x == y;
    *dx += if hit { *left } else { 0.0 };
    *left = if hit { 0.0 } else { *left };
}

/// Returns the mean of each window.
#[must_use]
pub fn average(windows: &Windows, x: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; windows.batch * windows.positions() * windows.channels];
    images(
        windows,
        x,
        &mut y,
        #[inline(always)]
        |x, y| {
            for (window, y) in Taps::all(windows).zip(y.chunks_exact_mut(windows.channels)) {
                let share = window.share();
                for at in window {
                    for (y, &x) in y.iter_mut().zip(&x[at..at + windows.channels]) {
                        *y += x;
                    }
                }
                for y in y.iter_mut() {
                    *y *= share;
                }
            }
        },
    );
    y
}

/// Returns the gradient of the images: each value in a window takes an equal share.
#[must_use]
pub fn average_gradient(windows: &Windows, dy: &[f32]) -> Vec<f32> {
    let mut dx = vec![0.0; windows.batch * windows.image()];
    let size = windows.image();
    gradients(
        windows,
        dy,
        &mut dx,
        size,
        #[inline(always)]
        |dy, dx| {
            for (window, dy) in Taps::all(windows).zip(dy.chunks_exact(windows.channels)) {
                let share = window.share();
                for at in window {
                    for (dx, &dy) in dx[at..at + windows.channels].iter_mut().zip(dy) {
                        *dx += dy * share;
                    }
                }
            }
        },
    );
    dx
}

/// Runs `f` for each image and its result.
fn images(windows: &Windows, x: &[f32], y: &mut [f32], f: impl Fn(&[f32], &mut [f32]) + Sync) {
    let result = windows.positions() * windows.channels;
    split(is_large(windows), (x, windows.image()), (y, result), f);
}

/// Runs `f` for each image's result and the image's gradient.
fn gradients(
    windows: &Windows,
    dy: &[f32],
    dx: &mut [f32],
    size: usize,
    f: impl Fn(&[f32], &mut [f32]) + Sync,
) {
    let result = windows.positions() * windows.channels;
    split(is_large(windows), (dy, result), (dx, size), f);
}

fn split(
    parallel: bool,
    (from, read): (&[f32], usize),
    (to, written): (&mut [f32], usize),
    f: impl Fn(&[f32], &mut [f32]) + Sync,
) {
    let run = |(from, to): (&[f32], &mut [f32])| {
        simd::run(
            #[inline(always)]
            || f(from, to),
        );
    };
    let (read, written) = (read.max(1), written.max(1));
    if parallel {
        from.par_chunks_exact(read)
            .zip(to.par_chunks_exact_mut(written))
            .for_each(run);
    } else {
        from.chunks_exact(read)
            .zip(to.chunks_exact_mut(written))
            .for_each(run);
    }
}

fn is_large(windows: &Windows) -> bool {
    windows.batch * windows.image() >= PARALLEL && rayon::current_num_threads() > 1
}

/// Offsets of the values in a window that are inside the image, first channel each.
#[derive(Clone)]
struct Taps<'a> {
    windows: &'a Windows,
    rows: [usize; 2],
    columns: [usize; 2],
    next: [usize; 2],
}

impl<'a> Taps<'a> {
    /// All windows on one image, in the order of their results.
    #[inline(always)]
    fn all(windows: &'a Windows) -> impl Iterator<Item = Self> + 'a {
        let [height, width] = windows.output();
        (0..height).flat_map(move |y| {
            let rows = inside(windows, 0, y);
            (0..width).map(move |x| {
                let columns = inside(windows, 1, x);
                Self {
                    windows,
                    rows,
                    columns,
                    next: [rows[0], columns[0]],
                }
            })
        })
    }

    /// One by the number of values.
    #[inline(always)]
    #[expect(clippy::cast_precision_loss, reason = "windows are small")]
    fn share(&self) -> f32 {
        let n = |[from, to]: [usize; 2]| to.saturating_sub(from);
        1.0 / (n(self.rows) * n(self.columns)).max(1) as f32
    }
}

impl Iterator for Taps<'_> {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let [y, x] = self.next;
        if y >= self.rows[1] || self.columns[0] >= self.columns[1] {
            return None;
        }
        self.next = if x + 1 < self.columns[1] {
            [y, x + 1]
        } else {
            [y + 1, self.columns[0]]
        };
        Some((y * self.windows.input[1] + x) * self.windows.channels)
    }
}

/// Part of a window along an axis that is inside the image; windows are not dilated.
#[inline(always)]
fn inside(windows: &Windows, axis: usize, position: usize) -> [usize; 2] {
    let (from, before) = (position * windows.stride[axis], windows.pads[axis].0);
    let end = (from + windows.size[axis]).saturating_sub(before);
    [from.saturating_sub(before), end.min(windows.input[axis])]
}
