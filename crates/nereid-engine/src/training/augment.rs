//! Augmentation: random changes of training samples, with the semantics of Keras' layers.
//!
//! What happens to a sample follows from seed, epoch and its position in the epoch alone, so that
//! any thread may do it, in any order, and a resumed training sees the same samples again.

mod colour;
mod geometry;
mod mixing;

use nereid_core::spec::{
    Augmentation, FitOptions,
    augmentation::{Factor, FlipMode},
};
use rand::{RngExt, rngs::StdRng};
use rand_distr::{Distribution, StandardNormal};

use self::geometry::{Filling, View};
use crate::random::{self, Purpose};

pub(super) use self::mixing::Mixing;

/// Size of an image; (height, width, channels) in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    height: usize,
    width: usize,
    channels: usize,
}

/// Changes training samples.
#[derive(Debug, Clone)]
pub(super) struct Augmenter {
    seed: u64,
    size: Size,
    operations: Vec<Augmentation>,
}

/// Where in the training samples are used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    /// Epoch, from 0.
    pub(super) epoch: u32,
    /// Place of the first of them within the epoch.
    pub(super) first: u64,
}

impl Augmenter {
    /// Returns what `fit` asks for samples of shape `shape`, if it asks for anything.
    pub(super) fn new(fit: &FitOptions, shape: &[usize]) -> Option<Self> {
        if fit.augmentation.is_empty() {
            return None;
        }
        // The spec's check lets nothing that changes images near other shapes.
        let [height, width, channels] = match *shape {
            [h, w, c] => [h, w, c],
            _ => [1, 1, shape.iter().product()],
        };
        Some(Self {
            seed: fit.seed,
            size: Size {
                height,
                width,
                channels,
            },
            operations: fit.augmentation.clone(),
        })
    }

    /// Changes raw values, sample by sample.
    pub(super) fn before_scaling(&self, at: Position, values: &mut [f32]) {
        self.each(at, 0, values, |operation, sample, rng| {
            image(operation, self.size, sample, rng);
        });
    }

    /// Changes scaled values, sample by sample.
    pub(super) fn after_scaling(&self, at: Position, values: &mut [f32]) {
        let noisy = |o: &Augmentation| matches!(o, Augmentation::GaussianNoise { .. });
        if !self.operations.iter().any(noisy) {
            return;
        }
        self.each(at, 1, values, |operation, sample, rng| {
            if let Augmentation::GaussianNoise { stddev } = operation {
                noise(*stddev, sample, rng);
            }
        });
    }

    /// Mixes the scaled samples of a batch; tells how, for their targets.
    pub(super) fn mix(&self, at: Position, values: &mut [f32]) -> Option<Mixing> {
        let operation = self.operations.iter().find(|o| o.mixes())?;
        let position = [u64::from(at.epoch), at.first];
        let mut rng = random::generator(self.seed, Purpose::Mixing, position);
        mixing::mix(operation, self.size, values, &mut rng)
    }

    fn each(
        &self,
        at: Position,
        phase: u64,
        values: &mut [f32],
        change: impl Fn(&Augmentation, &mut [f32], &mut StdRng),
    ) {
        let size = self.size.values();
        for (i, sample) in (0_u64..).zip(values.chunks_exact_mut(size)) {
            let place = (at.first + i) * 2 + phase;
            let position = [u64::from(at.epoch), place];
            let mut rng = random::generator(self.seed, Purpose::Augmentation, position);
            for operation in &self.operations {
                change(operation, sample, &mut rng);
            }
        }
    }
}

impl Size {
    fn values(self) -> usize {
        (self.height * self.width * self.channels).max(1)
    }
}

/// Changes an image; what is not for images leaves it as it is.
fn image(operation: &Augmentation, size: Size, sample: &mut [f32], rng: &mut StdRng) {
    match operation {
        Augmentation::RandomFlip { mode } => flip(*mode, size, sample, rng),
        Augmentation::RandomBrightness {
            factor,
            value_range,
        } => {
            let share = draw(factor.around_zero(), rng);
            colour::brighten(sample, share, *value_range);
        }
        Augmentation::RandomContrast {
            factor,
            value_range,
        } => {
            let stretch = 1.0 + draw(factor.around_zero(), rng);
            colour::stretch(sample, size.channels, stretch, *value_range);
        }
        Augmentation::RandomErasing {
            factor,
            scale,
            fill_value,
            value_range,
        } => {
            let parameters = (factor.from_zero(), scale.from_zero());
            erase(parameters, *fill_value, *value_range, size, sample, rng);
        }
        other => {
            if let Some((view, filling)) = view(other, size, rng) {
                geometry::look(sample, size, view, filling);
            }
        }
    }
}

/// Draws the view of an image that a change of its geometry shows.
fn view(operation: &Augmentation, size: Size, rng: &mut StdRng) -> Option<(View, Filling)> {
    Some(match operation {
        Augmentation::RandomCrop {
            padding,
            fill_mode,
            fill_value,
            ..
        } => {
            let [vertical, horizontal] = padding.get();
            let mut shift = |n: usize| offset(rng.random_range(0..=2 * n), n);
            let (down, right) = (shift(vertical), shift(horizontal));
            let filling = Filling::new(*fill_mode, *fill_value, None);
            (View::shifted(down, right), filling)
        }
        Augmentation::RandomRotation {
            factor,
            fill_mode,
            interpolation,
            fill_value,
        } => {
            let turns = draw(factor.around_zero(), rng);
            let filling = Filling::new(*fill_mode, *fill_value, Some(*interpolation));
            (View::turned(size, turns), filling)
        }
        Augmentation::RandomTranslation {
            height_factor,
            width_factor,
            fill_mode,
            interpolation,
            fill_value,
        } => {
            let down = draw(height_factor.around_zero(), rng) * real(size.height);
            let right = draw(width_factor.around_zero(), rng) * real(size.width);
            let filling = Filling::new(*fill_mode, *fill_value, Some(*interpolation));
            (View::shifted(down, right), filling)
        }
        Augmentation::RandomZoom {
            height_factor,
            width_factor,
            fill_mode,
            interpolation,
            fill_value,
        } => {
            let height = 1.0 + draw(height_factor.around_zero(), rng);
            let width = width_factor.map(|f| 1.0 + draw(f.around_zero(), rng));
            let filling = Filling::new(*fill_mode, *fill_value, Some(*interpolation));
            let view = View::zoomed(size, height, width.unwrap_or(height));
            (view, filling)
        }
        _ => return None,
    })
}

fn flip(mode: FlipMode, size: Size, sample: &mut [f32], rng: &mut StdRng) {
    if mode != FlipMode::Vertical && rng.random() {
        geometry::mirror_columns(sample, size);
    }
    if mode != FlipMode::Horizontal && rng.random() {
        geometry::mirror_rows(sample, size);
    }
}

fn erase(
    (probability, scale): ([f64; 2], [f64; 2]),
    fill: Option<f64>,
    value_range: [f64; 2],
    size: Size,
    sample: &mut [f32],
    rng: &mut StdRng,
) {
    let area = Area::draw(size, [(); 2].map(|()| draw(scale, rng).sqrt()), rng);
    let probability = draw(probability, rng);
    if rng.random::<f64>() >= probability {
        return;
    }
    let [low, high] = value_range;
    area.each(size, |at| {
        let value = fill.unwrap_or_else(|| normal(rng) * high);
        sample[at] = single(value.clamp(low, high));
    });
}

/// A rectangle of an image, in pixels and parts of them.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Area {
    rows: [f64; 2],
    columns: [f64; 2],
}

impl Area {
    /// Places a rectangle with the given shares of width and height, as Keras does.
    fn draw(size: Size, [width, height]: [f64; 2], rng: &mut StdRng) -> Self {
        let mut place = |share: f64, whole: usize| {
            let (part, whole) = (share * real(whole), real(whole));
            let start = rng.random::<f64>() * (whole - part);
            [start, start + part]
        };
        Self {
            columns: place(width, size.width),
            rows: place(height, size.height),
        }
    }

    /// Share of the image.
    fn share(&self, size: Size) -> f64 {
        let length = |[start, end]: [f64; 2]| end - start;
        length(self.rows) * length(self.columns) / (real(size.height) * real(size.width)).max(1.0)
    }

    /// Calls `f` with the place of each value of the pixels that begin within it.
    fn each(&self, size: Size, mut f: impl FnMut(usize)) {
        let within = |[start, end]: [f64; 2], n: usize| {
            (0..n).filter(move |&i| {
                let at = real(i);
                start <= at && at < end
            })
        };
        for row in within(self.rows, size.height) {
            for column in within(self.columns, size.width) {
                let at = (row * size.width + column) * size.channels;
                (at..at + size.channels).for_each(&mut f);
            }
        }
    }
}

fn noise(stddev: f64, sample: &mut [f32], rng: &mut StdRng) {
    for value in sample {
        *value += single(normal(rng) * stddev);
    }
}

fn normal(rng: &mut StdRng) -> f64 {
    StandardNormal.sample(rng)
}

/// Draws uniformly between two limits.
fn draw([low, high]: [f64; 2], rng: &mut StdRng) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

/// Keras draws one number for the parameter of a distribution of many.
fn parameter(factor: Factor, rng: &mut StdRng) -> f64 {
    draw(factor.from_zero(), rng) + 1e-6
}

#[expect(clippy::cast_precision_loss, reason = "sizes of images are small")]
fn real(n: usize) -> f64 {
    n as f64
}

#[expect(clippy::cast_possible_truncation, reason = "values are 32-bit floats")]
fn single(x: f64) -> f32 {
    x as f32
}

/// How far a place among the paddings is from that of the image itself.
fn offset(place: usize, padding: usize) -> f64 {
    real(place) - real(padding)
}

#[cfg(test)]
mod tests;
