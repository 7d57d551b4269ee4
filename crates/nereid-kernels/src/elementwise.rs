//! Activations, value by value.

use rayon::prelude::*;

use crate::{
    functions::{normal, sigmoid, tanh},
    simd,
};

/// Values that one thread takes at a time.
const PART: usize = 1 << 14;
/// Values from which several threads are worth it.
const PARALLEL: usize = 1 << 16;

/// A function of single values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// `max(x, 0)`.
    Relu,
    /// `x Φ(x)` (Hendrycks and Gimpel, 2016).
    Gelu,
    /// `x σ(x)`.
    Silu,
    /// `σ(x)`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
}

impl Curve {
    /// Returns the function's values.
    #[must_use]
    pub fn apply(self, x: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; x.len()];
        let part = |(y, x): (&mut [f32], &[f32])| match self {
            Self::Relu => map(y, x, |x| x.max(0.0)),
            Self::Gelu => map(y, x, |x| x * normal(x).0),
            Self::Silu => map(y, x, |x| x * sigmoid(x)),
            Self::Sigmoid => map(y, x, sigmoid),
            Self::Tanh => map(y, x, tanh),
        };
        if is_large(x.len()) {
            let parts = y.par_chunks_mut(PART).zip(x.par_chunks(PART));
            parts.for_each(part);
        } else {
            part((&mut y, x));
        }
        y
    }

    /// Tells whether [`Self::gradient`] is to be given results instead of what they are of.
    #[must_use]
    pub fn follows_from_result(self) -> bool {
        matches!(self, Self::Relu | Self::Sigmoid | Self::Tanh)
    }

    /// Multiplies gradients of the results with the derivative, at values or results `at`.
    pub fn gradient(self, dy: &mut [f32], at: &[f32]) {
        let part = |(dy, at): (&mut [f32], &[f32])| match self {
            Self::Relu => scale(dy, at, |d, y| if y > 0.0 { d } else { 0.0 }),
            Self::Gelu => scale(dy, at, |d, x| {
                let (below, density) = normal(x);
                d * (below + x * density)
            }),
            Self::Silu => scale(dy, at, |d, x| {
                let s = sigmoid(x);
                d * (s + x * s * (1.0 - s))
            }),
            Self::Sigmoid => scale(dy, at, |d, y| d * y * (1.0 - y)),
            Self::Tanh => scale(dy, at, |d, y| d * (1.0 - y * y)),
        };
        if is_large(at.len()) {
            let parts = dy.par_chunks_mut(PART).zip(at.par_chunks(PART));
            parts.for_each(part);
        } else {
            part((dy, at));
        }
    }
}

fn map(y: &mut [f32], x: &[f32], f: impl Fn(f32) -> f32) {
    simd::run(
        #[inline(always)]
        || {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = f(x);
            }
        },
    );
}

fn scale(dy: &mut [f32], at: &[f32], f: impl Fn(f32, f32) -> f32) {
    simd::run(
        #[inline(always)]
        || {
            for (dy, &at) in dy.iter_mut().zip(at) {
                *dy = f(*dy, at);
            }
        },
    );
}

fn is_large(values: usize) -> bool {
    values >= PARALLEL && rayon::current_num_threads() > 1
}
