//! Figures of Keras 3.15, and formulas.

use serde_json::{Value, json};

use super::*;

fn loss(spec: Value, logits: bool, outputs: &[[f32; 2]], targets: &BatchTargets) -> f32 {
    let objective = Objective {
        loss: serde_json::from_value(spec).unwrap(),
        ending: Ending::Whole,
        logits,
        weights: Some(vec![1.0, 3.0]),
    };
    let single =
        matches!(targets, BatchTargets::Value(_)) || objective.loss.kind() == LossKind::Binary;
    let width = if single { 1 } else { 2 };
    let values: Vec<f32> = outputs.iter().flat_map(|r| &r[..width]).copied().collect();
    let data = TensorData::new(values, [outputs.len(), width]);
    let outputs = Tensor::from_data(data, &Device::flex());
    objective.loss(outputs, targets, true).into_scalar::<f32>()
}

#[test]
fn losses_are_keras_own() {
    let classes = BatchTargets::Class(vec![0, 1]);
    let numbers = BatchTargets::Value(vec![1.0, 0.0]);
    let probabilities = [[0.8, 0.2], [0.4, 0.6]];
    let logs = probabilities.map(|row| row.map(f32::ln));
    // Class 1 weighs 3, and the mean is over samples.
    let sparse = -(0.8_f32.ln() + 3.0 * 0.6_f32.ln()) / 2.0;
    let smooth = -((0.9 * 0.8_f32.ln() + 0.1 * 0.2_f32.ln())
        + 3.0 * (0.9 * 0.6_f32.ln() + 0.1 * 0.4_f32.ln()))
        / 2.0;
    let binary = -(0.2_f32.ln() + 3.0 * 0.4_f32.ln()) / 2.0;
    let logit = |p: f32| [(p / (1.0 - p)).ln(), 0.0];
    let smoothed = json!({"type": "categorical_crossentropy", "label_smoothing": 0.2});
    let kind = |name: &str| json!({ "type": name });
    for (spec, logits, outputs, targets, expected) in [
        (
            kind("sparse_categorical_crossentropy"),
            false,
            probabilities,
            &classes,
            sparse,
        ),
        (
            kind("sparse_categorical_crossentropy"),
            true,
            logs,
            &classes,
            sparse,
        ),
        (smoothed, true, logs, &classes, smooth),
        (
            kind("binary_crossentropy"),
            false,
            probabilities,
            &classes,
            binary,
        ),
        (
            kind("binary_crossentropy"),
            true,
            [logit(0.8), logit(0.4)],
            &classes,
            binary,
        ),
        (
            kind("mse"),
            false,
            [[3.0, 0.0], [-0.5, 0.0]],
            &numbers,
            2.125,
        ),
        (
            kind("mae"),
            false,
            [[3.0, 0.0], [-0.5, 0.0]],
            &numbers,
            1.25,
        ),
        (
            kind("huber"),
            false,
            [[3.0, 0.0], [-0.5, 0.0]],
            &numbers,
            0.8125,
        ),
    ] {
        let got = loss(spec.clone(), logits, &outputs, targets);
        assert!(
            (got - expected).abs() < 1e-5,
            "{spec}: {got} is not {expected}"
        );
    }
}

#[test]
fn logits_far_out_give_finite_losses() {
    let classes = BatchTargets::Class(vec![0]);
    for name in ["binary_crossentropy", "sparse_categorical_crossentropy"] {
        let got = loss(json!({ "type": name }), true, &[[200.0, 500.0]], &classes);
        assert!(got.is_finite() && got > 100.0, "{name}: {got}");
    }
}

/// Compares with Keras 3.15: the classes of the same names.
#[test]
fn more_losses_are_keras_own() {
    let several = |values: [f32; 6]| BatchTargets::Many {
        values: values.to_vec(),
        width: 3,
    };
    let (t, y) = (
        [0.5, -1.0, 1.0, 1.0, 0.0, 0.3_f32],
        [0.3, -0.8, 2.0, 1.5, 0.2, -0.1_f32],
    );
    let (sizes, found) = (t.map(f32::abs), y.map(f32::abs));
    let third = |v: [f32; 6]| v.map(|x| x / 3.0);
    let p = [0.7, 0.2, 0.1, 0.3, 0.3, 0.4];
    let logits = [2.0, -1.0, 0.5, 0.1, 0.2, -0.3];
    let classes = BatchTargets::Class(vec![0, 1]);
    let labels = several([1.0, 0.0, 1.0, 1.0, 1.0, 0.0]);
    for (spec, as_logits, outputs, targets, expected) in [
        (
            json!({"type": "log_cosh"}),
            false,
            y,
            several(t),
            0.115_242_17,
        ),
        (
            json!({"type": "msle"}),
            false,
            found,
            several(sizes),
            0.051_153_65,
        ),
        (
            json!({"type": "poisson"}),
            false,
            found,
            several(sizes),
            0.886_215_45,
        ),
        (
            json!({"type": "cosine_similarity"}),
            false,
            y,
            several(t),
            -0.916_342_5,
        ),
        (
            json!({"type": "kl_divergence"}),
            false,
            third(found),
            several(third(sizes)),
            -0.048_412_69,
        ),
        (
            json!({"type": "categorical_focal_crossentropy"}),
            false,
            p,
            classes.clone(),
            0.077_755_92,
        ),
        (
            json!({"type": "categorical_focal_crossentropy", "alpha": 0.5, "gamma": 1.5,
                   "label_smoothing": 0.1}),
            false,
            p,
            classes.clone(),
            0.213_608_2,
        ),
        (
            json!({"type": "categorical_focal_crossentropy"}),
            true,
            logits,
            classes.clone(),
            0.043_074_3,
        ),
        (
            json!({"type": "categorical_crossentropy", "label_smoothing": 0.1}),
            true,
            logits,
            classes,
            0.666_069_5,
        ),
        (
            json!({"type": "binary_crossentropy"}),
            false,
            [0.8, 0.3, 0.6, 0.4, 0.9, 0.2],
            labels,
            0.422_0,
        ),
    ] {
        let objective = Objective {
            loss: serde_json::from_value(spec.clone()).unwrap(),
            ending: Ending::Whole,
            logits: as_logits,
            weights: None,
        };
        let data = TensorData::new(outputs.to_vec(), [2, 3]);
        let outputs = Tensor::from_data(data, &Device::flex());
        let got = objective.loss(outputs, &targets, true).into_scalar::<f32>();
        let right = (got - expected).abs() < 2e-5;
        assert!(right, "{spec}: {got} is not {expected}");
    }
}

#[test]
fn binary_losses_smooth_and_focus_as_in_keras() {
    let classes = BatchTargets::Class(vec![1, 0]);
    for (spec, logits, outputs, expected) in [
        (
            json!({"type": "binary_focal_crossentropy"}),
            false,
            [0.8, 0.4],
            0.045_328_91,
        ),
        (
            json!({"type": "binary_focal_crossentropy", "gamma": 3.0, "alpha": 0.3,
                   "apply_class_balancing": true, "label_smoothing": 0.2}),
            false,
            [0.8, 0.4],
            0.014_561_46,
        ),
        (
            json!({"type": "binary_focal_crossentropy"}),
            true,
            [1.5, -0.5],
            0.037_138_18,
        ),
        (
            json!({"type": "binary_crossentropy", "label_smoothing": 0.2}),
            false,
            [0.8, 0.4],
            0.456_572_47,
        ),
        (
            json!({"type": "binary_crossentropy", "label_smoothing": 0.2}),
            true,
            [1.5, -0.5],
            0.437_745_1,
        ),
    ] {
        let objective = Objective {
            loss: serde_json::from_value(spec.clone()).unwrap(),
            ending: Ending::Whole,
            logits,
            weights: None,
        };
        let data = TensorData::new(outputs.to_vec(), [2, 1]);
        let outputs = Tensor::from_data(data, &Device::flex());
        let got = objective.loss(outputs, &classes, true).into_scalar::<f32>();
        let right = (got - expected).abs() < 1e-6;
        assert!(right, "{spec}: {got} is not {expected}");
    }
}
