//! `MixUp` and `CutMix`: samples of a batch mixed with each other, and the loss of that.

use burn::tensor::{Tensor, TensorData};
use nereid_core::spec::Augmentation;
use rand::rngs::StdRng;
use rand_distr::{Beta, Distribution};

use super::{Area, Size, parameter, single};
use crate::{
    random,
    training::{batches::BatchTargets, objective::Objective},
};

/// How the samples of a batch were mixed.
///
/// Losses are linear in the targets of classes, so that the loss of mixed targets is the mean of
/// both losses; targets themselves stay what they were.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::training) struct Mixing {
    /// The other sample in each.
    order: Vec<usize>,
    /// Share of its own.
    weights: Vec<f32>,
}

/// Mixes the samples of a batch in place.
pub(super) fn mix(
    operation: &Augmentation,
    size: Size,
    values: &mut [f32],
    rng: &mut StdRng,
) -> Option<Mixing> {
    let before = values.to_vec();
    let mut order: Vec<usize> = (0..before.len() / size.values()).collect();
    random::shuffle(rng, &mut order);
    let samples = values.chunks_exact_mut(size.values());
    let others = order.iter().map(|&i| &before[i * size.values()..]);
    let weights = match operation {
        Augmentation::MixUp { alpha } => {
            let weight = beta(*alpha, rng);
            samples.zip(others).for_each(|(sample, other)| {
                for (value, other) in sample.iter_mut().zip(other) {
                    *value = weight * *value + (1.0 - weight) * other;
                }
            });
            vec![weight; order.len()]
        }
        Augmentation::CutMix { factor } => {
            let alpha = parameter(*factor, rng);
            let mut paste = |(sample, other): (&mut [f32], &[f32])| {
                let share = (1.0 - f64::from(beta(alpha, rng))).sqrt();
                let area = Area::draw(size, [share, share], rng);
                area.each(size, |at| sample[at] = other[at]);
                single(1.0 - area.share(size))
            };
            samples.zip(others).map(&mut paste).collect()
        }
        _ => return None,
    };
    Some(Mixing { order, weights })
}

/// Draws from the beta distribution with both parameters `alpha`.
fn beta(alpha: f64, rng: &mut StdRng) -> f32 {
    // Tiny parameters, of which the limit is a coin, may end in 0 / 0.
    let drawn = Beta::new(alpha, alpha).map_or(1.0, |beta| beta.sample(rng));
    if drawn.is_finite() {
        single(drawn)
    } else {
        1.0
    }
}

impl Mixing {
    /// Mixes targets that are numbers, one or several a sample.
    pub(in crate::training) fn blend(&self, values: &mut [f32]) {
        let before = values.to_vec();
        let width = (before.len() / self.order.len().max(1)).max(1);
        let rows = values.chunks_exact_mut(width).zip(&self.order);
        for ((row, &other), weight) in rows.zip(&self.weights) {
            let other = &before[other * width..][..width];
            for (value, other) in row.iter_mut().zip(other) {
                *value = weight * *value + (1.0 - weight) * other;
            }
        }
    }

    /// Returns the targets with the larger share in each sample, against which metrics count.
    pub(in crate::training) fn dominant(&self, targets: &BatchTargets) -> BatchTargets {
        let pairs = self.order.iter().zip(&self.weights).enumerate();
        let order = pairs.map(|(own, (&other, &weight))| if weight < 0.5 { other } else { own });
        targets.pick(order)
    }

    /// Returns the mean loss of a batch of mixed samples.
    pub(in crate::training) fn loss(
        &self,
        objective: &Objective,
        outputs: Tensor<2>,
        targets: &BatchTargets,
    ) -> Tensor<1> {
        let device = outputs.device().without_autodiff();
        let n = self.weights.len();
        let shares = TensorData::new(self.weights.clone(), [n, 1]);
        let shares: Tensor<2> = Tensor::from_data(shares, &device);
        let others = targets.pick(self.order.iter().copied());
        let own = objective.losses(outputs.clone(), targets, true);
        let other = objective.losses(outputs, &others, true);
        (own * shares.clone() + other * (shares.neg() + 1.0)).mean()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use nereid_core::spec::augmentation::Factor;
    use serde_json::json;

    use super::*;
    use crate::{network::Network, random::Purpose};

    const SIZE: Size = Size {
        height: 8,
        width: 8,
        channels: 1,
    };

    /// A batch of 6 images, image i full of i, mixed by seed 5.
    fn mixed(operation: &Augmentation) -> (Vec<f32>, Mixing) {
        let mut values: Vec<f32> = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
            .into_iter()
            .flat_map(|i: f32| vec![i; 64])
            .collect();
        let mut rng = random::generator(5, Purpose::Mixing, [0, 0]);
        let mixing = mix(operation, SIZE, &mut values, &mut rng).unwrap();
        (values, mixing)
    }

    #[test]
    fn mix_up_blends_samples_by_one_weight() {
        let (values, mixing) = mixed(&Augmentation::MixUp { alpha: 2.0 });
        let weight = mixing.weights[0];
        assert!(0.0 < weight && weight < 1.0 && mixing.weights == [weight; 6]);
        let mut targets = vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        mixing.blend(&mut targets);
        for (sample, expected) in values.chunks(64).zip(targets) {
            assert!(sample.iter().all(|&v| (v - expected).abs() < 1e-6));
        }
        assert_ne!(mixing.order, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn cut_mix_pastes_a_rectangle_and_weighs_by_area() {
        let (values, mixing) = mixed(&Augmentation::CutMix {
            factor: Factor::Range([1.0, 1.0]),
        });
        for (i, sample) in values.chunks(64).enumerate() {
            let (own, other) = ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0][i], mixing.order[i]);
            let pasted: Vec<usize> = (0..64)
                .filter(|&at| (sample[at] - own).abs() > 0.5)
                .collect();
            if other == i {
                assert!(pasted.is_empty());
                continue;
            }
            let [rows, columns] = [8, 1].map(|step| {
                let mut lines: Vec<_> = pasted.iter().map(|at| at / step % 8).collect();
                lines.sort_unstable();
                lines.dedup();
                lines.len()
            });
            assert_eq!(rows * columns, pasted.len(), "it is a rectangle");
            // The area is counted in parts of pixels, each side off by less than one of them.
            let share = super::super::real(pasted.len()) / 64.0;
            let told = f64::from(1.0 - mixing.weights[i]);
            assert!((share - told).abs() < 0.25, "{share} {told}");
        }
        assert!(
            mixing
                .weights
                .iter()
                .any(|w| (w - mixing.weights[0]).abs() > 0.01)
        );
    }

    #[test]
    fn the_loss_of_mixed_targets_is_that_of_keras_soft_targets() {
        let spec = crate::training::augment::tests::spec(&json!([]));
        let plan = spec.network.plan(&[4, 4, 1], "").unwrap();
        let network = Network::build(&plan, 1, &Device::flex());
        let objective = Objective::new(&spec, &network, &[], &[]);
        let log_p = [[0.7_f32, 0.2, 0.1], [0.3, 0.3, 0.4]].map(|p| p.map(f32::ln));
        let outputs = Tensor::from_data(TensorData::from(log_p), &Device::flex());
        let mixing = Mixing {
            order: vec![1, 0],
            weights: vec![0.25, 0.9],
        };
        let targets = BatchTargets::Class(vec![0, 2]);
        let loss = mixing
            .loss(&objective, outputs, &targets)
            .into_scalar::<f32>();
        let first = -(0.25 * 0.7_f32.ln() + 0.75 * 0.1_f32.ln());
        let second = -(0.9 * 0.4_f32.ln() + 0.1 * 0.3_f32.ln());
        assert!((loss - f32::midpoint(first, second)).abs() < 1e-6);
        let counted = mixing.dominant(&targets);
        assert_eq!(counted, BatchTargets::Class(vec![2, 2]));
    }
}
