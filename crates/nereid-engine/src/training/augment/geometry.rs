//! Flips, and affine views: each pixel of the result shows a place of the image or beyond it.

use std::f64::consts::TAU;

use nereid_core::spec::augmentation::{FillMode, Interpolation};

use super::{Size, real, single};

/// Where each pixel of the result looks: `x' = a x + b y + c`, `y' = d x + e y + f`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct View {
    column: [f64; 3],
    row: [f64; 3],
}

/// What is seen between pixels and beyond the edges.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Filling {
    mode: FillMode,
    value: f32,
    interpolation: Interpolation,
}

impl Filling {
    pub(super) fn new(mode: FillMode, value: f64, interpolation: Option<Interpolation>) -> Self {
        Self {
            mode,
            value: single(value),
            interpolation: interpolation.unwrap_or(Interpolation::Nearest),
        }
    }

    /// Finds the pixel that stands for place `i` of `n`; none for the fill value.
    fn place(self, i: i64, n: usize) -> Option<usize> {
        if let Ok(inside) = usize::try_from(i)
            && inside < n
        {
            return Some(inside);
        }
        let length = i64::try_from(n).unwrap_or(i64::MAX).max(1);
        let found = match self.mode {
            FillMode::Constant => return None,
            FillMode::Nearest => i.clamp(0, length - 1),
            FillMode::Wrap => i.rem_euclid(length),
            FillMode::Reflect => {
                let i = i.rem_euclid(2 * length);
                i.min(2 * length - 1 - i)
            }
        };
        usize::try_from(found).ok()
    }
}

impl View {
    /// Moves the image down and to the right.
    pub(super) fn shifted(down: f64, right: f64) -> Self {
        Self {
            column: [1.0, 0.0, -right],
            row: [0.0, 1.0, -down],
        }
    }

    /// Turns the image counterclockwise around its centre, by whole turns.
    pub(super) fn turned(size: Size, turns: f64) -> Self {
        let (sin, cos) = (turns * TAU).sin_cos();
        let (x, y) = centre(size);
        Self {
            column: [cos, -sin, x - cos * x + sin * y],
            row: [sin, cos, y - sin * x - cos * y],
        }
    }

    /// Shows more (above 1) or less of the image around its centre.
    pub(super) fn zoomed(size: Size, height: f64, width: f64) -> Self {
        let (x, y) = centre(size);
        Self {
            column: [width, 0.0, x * (1.0 - width)],
            row: [0.0, height, y * (1.0 - height)],
        }
    }

    fn at(&self, x: f64, y: f64) -> [f64; 2] {
        [self.column, self.row].map(|[a, b, c]| snapped(a * x + b * y + c))
    }
}

fn centre(size: Size) -> (f64, f64) {
    let half = |n: usize| (real(n) - 1.0) / 2.0;
    (half(size.width), half(size.height))
}

/// Takes a rounding error off, by which a quarter turn would blur the image.
fn snapped(x: f64) -> f64 {
    let whole = x.round();
    if (x - whole).abs() < 1e-9 { whole } else { x }
}

/// Replaces an image by a view of it.
pub(super) fn look(sample: &mut [f32], size: Size, view: View, filling: Filling) {
    let seen = sample.to_vec();
    let channels = size.channels;
    let pixels = sample.chunks_exact_mut(channels.max(1));
    let places = (0..size.height).flat_map(|y| (0..size.width).map(move |x| (x, y)));
    for (pixel, (x, y)) in pixels.zip(places) {
        let [x, y] = view.at(real(x), real(y));
        match filling.interpolation {
            Interpolation::Nearest => copy(&seen, size, [x.round(), y.round()], filling, pixel),
            Interpolation::Bilinear if x.fract() == 0.0 && y.fract() == 0.0 => {
                copy(&seen, size, [x, y], filling, pixel);
            }
            Interpolation::Bilinear => blend(&seen, size, [x, y], filling, pixel),
        }
    }
}

/// Shows the pixel at a whole place.
fn copy(seen: &[f32], size: Size, [x, y]: [f64; 2], filling: Filling, pixel: &mut [f32]) {
    match place(size, [x, y], filling) {
        Some(at) => pixel.copy_from_slice(&seen[at..at + size.channels]),
        None => pixel.fill(filling.value),
    }
}

/// Shows the mean of the four pixels around, weighted by how near they are.
fn blend(seen: &[f32], size: Size, [x, y]: [f64; 2], filling: Filling, pixel: &mut [f32]) {
    let (left, top) = (x.floor(), y.floor());
    let (right, below) = (single(x - left), single(y - top));
    let corners = [
        ([left, top], (1.0 - right) * (1.0 - below)),
        ([left + 1.0, top], right * (1.0 - below)),
        ([left, top + 1.0], (1.0 - right) * below),
        ([left + 1.0, top + 1.0], right * below),
    ];
    pixel.fill(0.0);
    for (corner, weight) in corners {
        let found = place(size, corner, filling);
        for (channel, value) in pixel.iter_mut().enumerate() {
            *value += weight * found.map_or(filling.value, |at| seen[at + channel]);
        }
    }
}

/// Finds the first value of the pixel at a whole place.
#[expect(
    clippy::cast_possible_truncation,
    reason = "whole, and a few times the image's size at most"
)]
fn place(size: Size, [x, y]: [f64; 2], filling: Filling) -> Option<usize> {
    let column = filling.place(x as i64, size.width)?;
    let row = filling.place(y as i64, size.height)?;
    Some((row * size.width + column) * size.channels)
}

/// Exchanges left and right.
pub(super) fn mirror_columns(sample: &mut [f32], size: Size) {
    for row in sample.chunks_exact_mut((size.width * size.channels).max(1)) {
        for x in 0..size.width / 2 {
            let other = size.width - 1 - x;
            for channel in 0..size.channels {
                row.swap(x * size.channels + channel, other * size.channels + channel);
            }
        }
    }
}

/// Exchanges top and bottom.
pub(super) fn mirror_rows(sample: &mut [f32], size: Size) {
    let width = size.width * size.channels;
    for y in 0..size.height / 2 {
        let (upper, lower) = sample.split_at_mut((size.height - 1 - y) * width);
        upper[y * width..(y + 1) * width].swap_with_slice(&mut lower[..width]);
    }
}
