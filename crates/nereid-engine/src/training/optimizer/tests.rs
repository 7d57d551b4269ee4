//! Figures of Keras 3.15: its optimisers, run on the same weights and gradients.

use burn::tensor::Device;
use serde_json::{Value, json};

use super::*;
use crate::network::{flat, host};

const GRADIENTS: [[f32; 3]; 4] = [
    [0.5, -0.25, 0.0],
    [-0.25, 1.0, 2.0],
    [0.125, 0.5, -1.0],
    [3.0, -0.01, 0.02],
];

/// Runs four steps from the same weights; returns them after each, and the optimiser.
fn four_steps(spec: &Value, fit: &Value) -> (Vec<Vec<f32>>, Optimizer) {
    let spec: Spec = serde_json::from_value(spec.clone()).unwrap();
    let fit: FitOptions = serde_json::from_value(fit.clone()).unwrap();
    let device = Device::flex();
    let mut weights = [flat(vec![1.0, -2.0, 0.5], &device)];
    let weight = Weight {
        name: "dense/kernel",
        value: weights[0].clone(),
        factor: 1.0,
    };
    let mut optimizer = Optimizer::new(&spec, &fit, &[weight]);
    let horizon = nereid_core::spec::schedule::Horizon {
        steps_per_epoch: 4,
        epochs: 1,
    };
    let steps = GRADIENTS.map(|g| {
        let gradient = flat(g.to_vec(), &device);
        let rate = Rate {
            rate: spec.learning_rate().at(0, horizon),
            momentum: None,
        };
        optimizer.apply(&mut weights, vec![Some(gradient)], rate);
        host(weights[0].clone()).unwrap()
    });
    (steps.to_vec(), optimizer)
}

#[track_caller]
fn close(got: &[f32], expected: &[f32], what: &Value) {
    for (a, b) in got.iter().zip(expected) {
        let error = (a - b).abs();
        assert!(
            error < 3e-7 + b.abs() * 1e-5,
            "{what}: {got:?} is not {expected:?}"
        );
    }
}

#[test]
fn formulas_are_those_of_keras() {
    let none = json!({});
    for (spec, fit, [second, last]) in [
        (
            json!({"type": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": true,
                   "weight_decay": 0.1}),
            &none,
            [
                [0.893_05, -2.082_925, 0.110_050_02],
                [0.241_022_83, -2.292_769_7, 0.066_980_064],
            ],
        ),
        (
            json!({"type": "adam", "learning_rate": 0.01, "amsgrad": true}),
            &none,
            [
                [0.987_336_8, -1.995_595_2, 0.492_558_72],
                [0.977_701_84, -2.007_693_8, 0.488_348_4],
            ],
        ),
        (
            json!({"type": "adamw", "learning_rate": 0.01, "weight_decay": 0.1}),
            &none,
            [
                [0.985_347_8, -1.991_607_2, 0.491_559_24],
                [0.973_746_54, -1.999_720_3, 0.486_367_67],
            ],
        ),
        (
            json!({"type": "rmsprop", "learning_rate": 0.01, "momentum": 0.5, "centered": true}),
            &none,
            [
                [0.964_847_9, -1.981_683_6, 0.466_666_67],
                [0.918_786_7, -2.015_690_8, 0.463_625_55],
            ],
        ),
        (
            json!({"type": "adagrad", "learning_rate": 0.01}),
            &none,
            [
                [0.995_440_96, -2.003_073, 0.490_122_7],
                [0.983_760_24, -2.007_196, 0.494_462_22],
            ],
        ),
        (
            json!({"type": "adadelta", "learning_rate": 1.0}),
            &none,
            [
                [0.999_498_67, -2.000_529, 0.498_585_8],
                [0.996_836_2, -2.001_737_4, 0.499_478_28],
            ],
        ),
        (
            json!({"type": "adamax", "learning_rate": 0.01}),
            &none,
            [
                [0.987_892_6, -1.994_079, 0.494_736_85],
                [0.982_463_3, -2.001_613_4, 0.492_181_33],
            ],
        ),
        (
            json!({"type": "nadam", "learning_rate": 0.01}),
            &none,
            [
                [0.993_298_05, -1.999_109_3, 0.489_783_32],
                [0.979_425_25, -2.005_291_5, 0.493_340_8],
            ],
        ),
        (
            json!({"type": "ftrl", "learning_rate": 0.01, "l1_regularization_strength": 0.01,
                   "l2_regularization_strength": 0.1, "beta": 0.2,
                   "l2_shrinkage_regularization_strength": 0.05}),
            &none,
            [
                [0.341_870_67, -0.287_161_05, -0.009_752_83],
                [0.330_740_5, -0.290_269_52, -0.005_763_327],
            ],
        ),
        (
            json!({"type": "ftrl", "learning_rate": 0.1}),
            &none,
            [
                [0.419_887_1, -0.461_801_38, -0.098_772_965],
                [0.303_079_9, -0.503_030_3, -0.055_377_793],
            ],
        ),
        (
            json!({"type": "lamb", "learning_rate": 0.01}),
            &none,
            [
                [0.977_554_5, -1.996_914_4, 0.482_555_45],
                [0.950_873_3, -2.030_920_5, 0.470_729_14],
            ],
        ),
        (
            json!({"type": "lion", "learning_rate": 0.01, "weight_decay": 0.1}),
            &none,
            [
                [0.998_011, -1.996_012, 0.489_000_53],
                [0.976_026, -2.012_012, 0.488_013_03],
            ],
        ),
        (
            json!({"type": "sgd", "learning_rate": 0.1}),
            &json!({"gradient_accumulation_steps": 2}),
            [[0.987_5, -2.037_5, 0.4], [0.831_25, -2.062, 0.449]],
        ),
        (
            json!({"type": "adam", "learning_rate": 0.01}),
            &json!({"gradient_accumulation_steps": 2, "global_clipnorm": 0.5}),
            [
                [0.990_000_6, -2.009_999_8, 0.490_000_13],
                [0.981_796_3, -2.019_075_2, 0.485_872_92],
            ],
        ),
        (
            json!({"type": "sgd", "learning_rate": 1.0}),
            &json!({"global_clipnorm": 0.3}),
            [
                [0.765_005_2, -1.999_169_2, 0.233_333_32],
                [0.431_680_1, -2.131_502_6, 0.498_000_06],
            ],
        ),
        (
            json!({"type": "sgd", "learning_rate": 1.0}),
            &json!({"clipvalue": 0.3}),
            [[0.95, -2.05, 0.2], [0.525, -2.34, 0.48]],
        ),
        (
            json!({"type": "sgd", "learning_rate": 0.1}),
            &json!({"use_ema": true, "ema_momentum": 0.5, "ema_overwrite_frequency": 2}),
            [[0.962_5, -2.025, 0.4], [0.803_125, -2.062, 0.474]],
        ),
        (
            json!({"type": "sgd", "learning_rate": 0.1}),
            &json!({"use_ema": true, "ema_momentum": 0.5, "ema_overwrite_frequency": 2,
                    "gradient_accumulation_steps": 2}),
            [[0.987_5, -2.037_5, 0.4], [0.909_375, -2.049_75, 0.424_5]],
        ),
    ] {
        let (steps, _) = four_steps(&spec, fit);
        close(&steps[1], &second, &spec);
        close(&steps[3], &last, &spec);
    }
}

#[test]
fn averages_follow_the_weights_as_in_keras() {
    let spec = json!({"type": "sgd", "learning_rate": 0.1});
    let fit = json!({"use_ema": true, "ema_momentum": 0.9});
    let (steps, optimizer) = four_steps(&spec, &fit);
    close(&steps[3], &[0.662_5, -2.124, 0.398], &spec);
    let averages = host(optimizer.averages().unwrap()[0].clone()).unwrap();
    close(&averages, &[0.924_4, -2.011_5, 0.464_6], &spec);
}

#[test]
fn weights_have_learning_rates_of_their_own() {
    let fit: FitOptions = serde_json::from_value(json!({
        "learning_rate_multipliers": {"conv*": 0.5, "*/bias": 0.1, "head": 0}
    }))
    .unwrap();
    let spec: Spec = serde_json::from_value(json!({"type": "sgd"})).unwrap();
    for (name, expected) in [
        ("dense/kernel", 0.0),
        ("conv2d/kernel", 0.5),
        ("conv2d/bias", 0.95),
        ("head/bias", 1.0),
    ] {
        let mut weights = [flat(vec![1.0], &Device::flex())];
        let weight = Weight {
            name,
            value: weights[0].clone(),
            factor: fit.learning_rate_multiplier(name),
        };
        let mut optimizer = Optimizer::new(&spec, &fit, &[weight]);
        let rate = Rate {
            rate: 1.0,
            momentum: None,
        };
        let gradient = weights[0].ones_like();
        optimizer.apply(&mut weights, vec![Some(gradient)], rate);
        let got = host(weights[0].clone()).unwrap()[0];
        assert!((got - expected).abs() < 1e-6, "{name} is {got}");
    }
}

#[test]
fn weight_decay_spares_what_it_should() {
    let decayed = |spec: Value, fit: Value, name: &str| {
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let fit: FitOptions = serde_json::from_value(fit).unwrap();
        let mut weights = [flat(vec![1.0], &Device::flex())];
        let weight = Weight {
            name,
            value: weights[0].clone(),
            factor: 1.0,
        };
        let mut optimizer = Optimizer::new(&spec, &fit, &[weight]);
        let rate = Rate {
            rate: 0.1,
            momentum: None,
        };
        let none = weights[0].zeros_like();
        optimizer.apply(&mut weights, vec![Some(none)], rate);
        host(weights[0].clone()).unwrap()[0] < 1.0
    };
    let (adamw, sgd) = (
        json!({"type": "adamw", "weight_decay": 0.5}),
        json!({"type": "sgd", "weight_decay": 0.5}),
    );
    let (all, own) = (
        json!({"exclude_from_weight_decay": []}),
        json!({"exclude_from_weight_decay": ["conv*"]}),
    );
    for (spec, fit, [kernel, bias, gamma, conv]) in [
        (&adamw, json!({}), [true, true, true, true]),
        (&sgd, json!({}), [true, false, false, true]),
        (&sgd, all, [true, true, true, true]),
        (&adamw, own, [true, true, true, false]),
    ] {
        for (name, expected) in [
            ("dense/kernel", kernel),
            ("dense/bias", bias),
            ("batch_normalization/gamma", gamma),
            ("conv2d_1/kernel", conv),
        ] {
            let got = decayed(spec.clone(), fit.clone(), name);
            assert_eq!(got, expected, "{name} with {spec} and {fit}");
        }
    }
}
