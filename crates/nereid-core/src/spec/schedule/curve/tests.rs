//! Figures of Keras 3.15 and `PyTorch` 2.12, printed by the classes of the same names.

use serde_json::{Value, json};

use super::*;
use crate::{spec::LearningRate, validation::Violations};

const STEPS: [u64; 8] = [0, 1, 3, 7, 10, 15, 25, 40];

fn schedule(value: Value) -> Schedule {
    let mut violations = Violations::default();
    let read = LearningRate::read(value, "", &mut violations);
    if let Some(rate) = &read {
        rate.check("", &mut violations);
    }
    match violations.into_result(read).unwrap() {
        Some(LearningRate::Scheduled(schedule)) => schedule,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn close(got: f64, expected: f64, what: &str) {
    // Theirs are computed in single precision.
    let error = (got - expected).abs();
    assert!(
        error < 2e-7 + expected * 2e-6,
        "{what}: {got} is not {expected}"
    );
}

#[test]
fn schedules_are_those_of_keras() {
    let horizon = Horizon {
        steps_per_epoch: 5,
        epochs: 8,
    };
    for (given, expected) in [
        (
            json!({"type": "cosine_decay", "initial_learning_rate": 0.1, "decay_steps": 20,
                   "alpha": 0.1}),
            [
                0.1,
                0.099_445_976,
                0.095_095_29,
                0.075_429_574,
                0.055,
                0.023_180_196,
                0.01,
                0.01,
            ],
        ),
        (
            json!({"type": "cosine_decay", "initial_learning_rate": 0.01, "decay_epochs": 4,
                   "warmup_target": 0.1, "warmup_epochs": 1}),
            [
                0.01,
                0.028,
                0.064,
                0.097_552_83,
                0.085_355_34,
                0.05,
                0.0,
                0.0,
            ],
        ),
        (
            json!({"type": "cosine_decay_restarts", "initial_learning_rate": 0.1,
                   "first_decay_steps": 5, "m_mul": 0.5, "alpha": 0.05}),
            [
                0.1,
                0.090_928_31,
                0.037_821_684,
                0.047_964_152,
                0.028_75,
                0.028_75,
                0.016_875,
                0.016_423_035,
            ],
        ),
        (
            json!({"type": "cosine_decay_restarts", "initial_learning_rate": 0.1,
                   "first_decay_steps": 6, "t_mul": 1.0, "m_mul": 0.9}),
            [
                0.1,
                0.093_301_274,
                0.05,
                0.083_971_14,
                0.022_5,
                0.040_5,
                0.061_214_965,
                0.013_286_032,
            ],
        ),
        (
            json!({"type": "exponential_decay", "initial_learning_rate": 0.1, "decay_steps": 8,
                   "decay_rate": 0.5}),
            [
                0.1,
                0.091_700_405,
                0.077_110_544,
                0.054_525_387,
                0.042_044_822,
                0.027_262_693,
                0.011_462_55,
                0.003_125,
            ],
        ),
        (
            json!({"type": "exponential_decay", "initial_learning_rate": 0.1, "decay_steps": 8,
                   "decay_rate": 0.5, "staircase": true}),
            [0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.012_5, 0.003_125],
        ),
        (
            json!({"type": "inverse_time_decay", "initial_learning_rate": 0.1, "decay_steps": 8,
                   "decay_rate": 0.5}),
            [
                0.1,
                0.094_117_65,
                0.084_210_53,
                0.069_565_22,
                0.061_538_46,
                0.051_612_902,
                0.039_024_39,
                0.028_571_429,
            ],
        ),
        (
            json!({"type": "polynomial_decay", "initial_learning_rate": 0.1, "decay_epochs": 4,
                   "end_learning_rate": 0.01, "power": 2.0}),
            [
                0.1, 0.091_225, 0.075_025, 0.048_025, 0.032_5, 0.015_625, 0.01, 0.01,
            ],
        ),
        (
            json!({"type": "polynomial_decay", "initial_learning_rate": 0.1, "decay_steps": 10,
                   "end_learning_rate": 0.01, "cycle": true}),
            [0.1, 0.091, 0.073, 0.037, 0.01, 0.032_5, 0.025, 0.01],
        ),
        (
            json!({"type": "piecewise_constant_decay", "boundaries": [3, 10],
                   "values": [0.1, 0.05, 0.01]}),
            [0.1, 0.1, 0.1, 0.05, 0.05, 0.01, 0.01, 0.01],
        ),
        (
            // As MultiStepLR: the new value begins with the epoch.
            json!({"type": "piecewise_constant_decay", "epoch_boundaries": [2, 5],
                   "values": [0.1, 0.05, 0.01]}),
            [0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.01, 0.01],
        ),
        (
            json!({"type": "constant", "learning_rate": 0.1, "warmup_steps": 10}),
            [0.0, 0.01, 0.03, 0.07, 0.1, 0.1, 0.1, 0.1],
        ),
        (
            // The rest of the training, from step 10 to 40, along a line.
            json!({"type": "polynomial_decay", "initial_learning_rate": 0.3,
                   "end_learning_rate": 0.0, "warmup_epochs": 2}),
            [0.0, 0.03, 0.09, 0.21, 0.3, 0.25, 0.15, 0.0],
        ),
    ] {
        let schedule = schedule(given.clone());
        for (step, expected) in STEPS.into_iter().zip(expected) {
            close(
                schedule.at(step, horizon),
                expected,
                &format!("{given} at {step}"),
            );
        }
    }
}

#[test]
fn one_cycle_is_that_of_pytorch() {
    let horizon = Horizon {
        steps_per_epoch: 10,
        epochs: 2,
    };
    let steps = [0, 1, 4, 5, 6, 10, 15, 19];
    for (given, rates, momenta) in [
        (
            json!({"type": "one_cycle", "max_lr": 0.1}),
            [
                0.004,
                0.013_167_184,
                0.090_832_816,
                0.1,
                0.098_746_4,
                0.071_694_3,
                0.018_825_835,
                4e-7,
            ],
            [
                0.95,
                0.940_450_85,
                0.859_549_15,
                0.85,
                0.851_253_6,
                0.878_305_8,
                0.931_174_49,
                0.95,
            ],
        ),
        (
            json!({"type": "one_cycle", "max_lr": 0.1, "three_phase": true,
                   "anneal_strategy": "linear", "pct_start": 0.4}),
            [
                0.004,
                0.017_714_286,
                0.058_857_143,
                0.072_571_429,
                0.086_285_714,
                0.058_857_143,
                0.003_200_08,
                4e-7,
            ],
            [
                0.95,
                0.935_714_286,
                0.892_857_143,
                0.878_571_429,
                0.864_285_714,
                0.892_857_143,
                0.95,
                0.95,
            ],
        ),
    ] {
        let schedule = schedule(given.clone());
        for (i, step) in steps.into_iter().enumerate() {
            let what = format!("{given} at {step}");
            close(schedule.at(step, horizon), rates[i], &what);
            let momentum = schedule.momentum_at(step, horizon).unwrap();
            close(momentum, momenta[i], &what);
        }
    }
}
