//! The most used formulas in one pass over the processor's memory.
//!
//! Each value goes through the very same operations as in [`super::formulas`], so that both give
//! the same bits; a dozen passes become one.

use burn::tensor::Tensor;
use nereid_core::spec::Optimizer as Spec;
use nereid_kernels::{Adam, Momentum, RmsProp};

use super::formulas::Step;
use crate::network::change;

/// Changes a weight and its running averages; returns `false` if tensor operations have to.
#[expect(
    clippy::cast_possible_truncation,
    reason = "weights are 32-bit floats, and so are the numbers that they are combined with"
)]
pub(super) fn update(
    spec: &Spec,
    slots: &mut [Tensor<1>],
    weight: &mut Tensor<1>,
    g: &Tensor<1>,
    step: Step,
) -> bool {
    match (spec, slots) {
        (
            Spec::Sgd {
                momentum, nesterov, ..
            },
            slots @ ([] | [_]),
        ) => {
            let numbers = Momentum {
                rate: step.rate as f32,
                momentum: step.momentum.unwrap_or(*momentum) as f32,
                nesterov: *nesterov,
            };
            match slots {
                [velocity] => change([weight, velocity], g, |[w, v], g| {
                    nereid_kernels::sgd(numbers, w, g, Some(v));
                }),
                _ => change([weight], g, |[w], g| {
                    nereid_kernels::sgd(numbers, w, g, None);
                }),
            }
        }
        (
            Spec::Adam {
                beta_1,
                beta_2,
                epsilon,
                ..
            }
            | Spec::Adamw {
                beta_1,
                beta_2,
                epsilon,
                ..
            },
            [mean, square],
        ) => {
            let beta_1 = step.momentum.unwrap_or(*beta_1);
            let correction = (1.0 - beta_2.powi(step.t)).sqrt() / (1.0 - beta_1.powi(step.t));
            let numbers = Adam {
                rate: (step.rate * correction) as f32,
                beta_1: beta_1 as f32,
                rest_1: (1.0 - beta_1) as f32,
                beta_2: *beta_2 as f32,
                rest_2: (1.0 - beta_2) as f32,
                epsilon: *epsilon as f32,
            };
            change([weight, mean, square], g, |[w, m, v], g| {
                nereid_kernels::adam(numbers, w, g, [m, v]);
            })
        }
        (
            Spec::Rmsprop {
                rho,
                momentum,
                epsilon,
                centered: false,
                ..
            },
            [square, rest @ ..],
        ) => {
            let numbers = RmsProp {
                rate: step.rate as f32,
                rho: *rho as f32,
                rest: (1.0 - rho) as f32,
                momentum: step.momentum.unwrap_or(*momentum) as f32,
                epsilon: *epsilon as f32,
            };
            match rest {
                [] => change([weight, square], g, |[w, v], g| {
                    nereid_kernels::rmsprop(numbers, w, g, v, None);
                }),
                [velocity] => change([weight, square, velocity], g, |[w, v, u], g| {
                    nereid_kernels::rmsprop(numbers, w, g, v, Some(u));
                }),
                _ => false,
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use serde_json::json;

    use super::{super::formulas, *};
    use crate::network::{flat, host};

    fn values(n: usize, salt: usize) -> Vec<f32> {
        let value = |i: usize| u16::try_from((i * 7919 + salt * 104_729) % 10_007).unwrap();
        (0..n)
            .map(|i| f32::from(value(i)) / 3_000.0 - 1.6)
            .collect()
    }

    #[test]
    fn one_pass_gives_the_bits_of_tensor_operations() {
        let device = Device::flex();
        for spec in [
            json!({"type": "sgd"}),
            json!({"type": "sgd", "momentum": 0.9}),
            json!({"type": "sgd", "momentum": 0.9, "nesterov": true}),
            json!({"type": "adam"}),
            json!({"type": "adamw"}),
            json!({"type": "rmsprop"}),
            json!({"type": "rmsprop", "momentum": 0.5}),
        ] {
            let spec: Spec = serde_json::from_value(spec).unwrap();
            for n in [1, 17, 200_003] {
                let zeros = |_| flat(vec![0.0; n], &device);
                let count = formulas::slots(&spec).len();
                let mut ours = (
                    flat(values(n, 1), &device),
                    (0..count).map(zeros).collect::<Vec<_>>(),
                );
                let mut theirs = ours.clone();
                for t in 1..4_u8 {
                    let step = Step {
                        rate: 0.003,
                        momentum: None,
                        t: i32::from(t),
                        nadam: 1.0,
                    };
                    let g = flat(values(n, usize::from(t)), &device);
                    // Somebody else's copy must not change.
                    let before = ours.0.clone();
                    assert!(update(&spec, &mut ours.1, &mut ours.0, &g, step));
                    assert_eq!(host(before).unwrap(), host(theirs.0.clone()).unwrap());
                    theirs.0 = formulas::by_tensors(&spec, &mut theirs.1, theirs.0, g, step);
                    let bits = |(w, slots): &(Tensor<1>, Vec<Tensor<1>>)| {
                        let all = std::iter::once(w).chain(slots);
                        all.flat_map(|t| host(t.clone()).unwrap())
                            .map(f32::to_bits)
                            .collect::<Vec<_>>()
                    };
                    assert!(bits(&ours) == bits(&theirs), "{spec:?} {n} {t}");
                }
            }
        }
    }
}
