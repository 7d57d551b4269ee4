//! Noise while training, drawn anew each step from the spec's seed.

use burn::tensor::{Tensor, TensorData};

use super::{Act, Mode};
use crate::random::{self, Purpose};

/// Kinds of noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Noise {
    /// Zeroes this share of values.
    Dropout(f64),
    /// Zeroes this share of channels, in all positions.
    Channels(f64),
    /// Adds normal noise of this deviation.
    Normal(f64),
}

impl Noise {
    /// Disturbs a batch when training; `index` is the layer's position in the network.
    pub(super) fn run(self, act: Act, index: usize, mode: &Mode<'_>) -> Act {
        let (Self::Dropout(size) | Self::Channels(size) | Self::Normal(size)) = self;
        let Mode::Training(pass) = mode else {
            return act;
        };
        if size == 0.0 {
            return act;
        }
        let (n, values) = (act.rows(), act.size());
        let position = [pass.step, index as u64];
        let mut rng = random::generator(pass.seed, Purpose::Dropout, position);
        match self {
            Self::Dropout(rate) => {
                let mask = random::dropout_mask(&mut rng, n * values, rate);
                act.map(|x| x.clone() * constant(mask, [n, values], &x))
            }
            Self::Normal(stddev) => {
                let noise = random::normal(&mut rng, n * values, 0.0, stddev);
                act.map(|x| x.clone() + constant(noise, [n, values], &x))
            }
            Self::Channels(rate) => {
                let c = act.channels();
                let mask = random::dropout_mask(&mut rng, n * c, rate);
                channels(act, mask)
            }
        }
    }
}

/// Multiplies each sample's channels by numbers of their own.
fn channels(act: Act, mask: Vec<f32>) -> Act {
    let (n, c, size) = (act.rows(), act.channels(), act.size());
    let (rank, shape) = (act.rank(), act.shape.clone());
    if act.is_planar() {
        let planes = act.planes();
        let mask = constant(mask, [n, c, 1, 1], &planes);
        return Act::from_planes(planes * mask, rank);
    }
    let vectors: Tensor<3> = act.flat().reshape([n, size / c, c]);
    let mask = constant(mask, [n, 1, c], &vectors);
    Act::new((vectors * mask).reshape([n, size]), shape)
}

/// Puts values beside a tensor, without gradients.
pub(super) fn constant<const D: usize, const B: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    beside: &Tensor<B>,
) -> Tensor<D> {
    let device = beside.device().without_autodiff();
    Tensor::from_data(TensorData::new(values, shape), &device)
}
