//! Training in mixed precision: as good as in single precision, and never silently wrong.

use nereid_core::{engine::EngineError, events::MetricPoint, models::TrainedModel};
use serde_json::{Value, json};

use crate::{
    digits::digits,
    support::{Recorder, spec, train},
};

struct Run {
    result: Result<TrainedModel, EngineError>,
    recorder: Recorder,
    weights: Vec<u8>,
}

fn run(description: Value) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::default();
    let spec = spec(description);
    let result = train(&spec, &digits(), None, folder.path(), &mut recorder);
    let weights = std::fs::read(folder.path().join("weights.safetensors")).unwrap_or_default();
    Run {
        result,
        recorder,
        weights,
    }
}

fn network(fit: Value) -> Value {
    let mut description = json!({
        "network": {"layers": [
            {"type": "Conv2D", "filters": 8, "kernel_size": 3, "name": "low"},
            {"type": "BatchNormalization"},
            {"type": "Activation", "activation": "relu"},
            {"type": "Flatten"},
            {"type": "Dense", "units": 32, "activation": "relu", "name": "high"},
            {"type": "Dense", "units": 10, "activation": "softmax", "name": "last"}
        ]},
        "loss": {"type": "sparse_categorical_crossentropy"},
        "metrics": ["accuracy"],
        "fit": {"epochs": 3, "test_split": 0.3, "seed": 2, "report_every_steps": 1}
    });
    let options = description["fit"].as_object_mut().unwrap();
    options.extend(fit.as_object().unwrap().clone());
    description
}

fn series(points: &[MetricPoint], name: &str) -> Vec<f64> {
    points
        .iter()
        .filter_map(|p| p.values.get(name).copied())
        .collect()
}

#[test]
fn half_precision_learns_what_single_does() {
    let single = run(network(json!({})));
    let half = run(network(json!({"dtype_policy": "mixed_float16"})));
    assert!(single.weights != half.weights, "another precision was used");
    let of = |run: &Run, name: &str| run.result.as_ref().unwrap().metrics[name];
    for name in ["accuracy", "test_accuracy"] {
        let (single, half) = (of(&single, name), of(&half, name));
        println!("{name}: {single:.4} in single, {half:.4} in half precision");
        assert!(half > 0.9 && (half - single).abs() < 0.02);
    }
    let lines = &half.recorder.lines;
    assert!(
        lines.iter().any(|l| l.contains("slower")),
        "on a processor it is: {lines:?}"
    );
    let scales = series(&half.recorder.points, "loss_scale");
    assert_eq!(scales.first(), Some(&32_768.0));
    assert!(series(&single.recorder.points, "loss_scale").is_empty());
    // Gradients are those of the loss, not of the scaled one.
    let norms = |run: &Run| series(&run.recorder.points, "gradient_norm")[0];
    assert!((norms(&half) / norms(&single) - 1.0).abs() < 0.02);
}

#[test]
fn auto_is_single_precision_where_half_gains_nothing() {
    let single = run(network(json!({})));
    let auto = run(network(json!({"dtype_policy": "auto"})));
    assert!(!auto.weights.is_empty() && single.weights == auto.weights);
    let lines = &auto.recorder.lines;
    assert!(lines.iter().any(|l| l.contains("computing in 32 bits")));
}

#[test]
fn steps_that_overflow_are_skipped_and_the_scale_follows() {
    let scale = json!({"initial_scale": 1 << 30, "dynamic_growth_steps": 4});
    let fit = json!({"dtype_policy": "mixed_float16", "loss_scale": scale, "epochs": 6});
    let mut description = network(fit);
    description["rules"] = json!(["exploding_tensor"]);
    let run = run(description);
    let metrics = run.result.unwrap().metrics;
    assert!(metrics["test_accuracy"] > 0.9, "{metrics:?}");
    let points = &run.recorder.points;
    let (scales, skipped) = (
        series(points, "loss_scale"),
        series(points, "skipped_steps"),
    );
    assert_eq!((scales[0], skipped[0]), (f64::from(1 << 29), 1.0));
    let exactly = |a: f64, b: f64| a.to_bits() == b.to_bits();
    let mut steps = scales.windows(2).zip(skipped.windows(2));
    assert!(steps.all(|(scale, skipped)| {
        let [halved, same, doubled] = [0.5, 1.0, 2.0].map(|f| exactly(scale[0] * f, scale[1]));
        if skipped[1] > skipped[0] {
            halved && exactly(skipped[1], skipped[0] + 1.0)
        } else {
            same || doubled
        }
    }));
    assert!(scales.windows(2).any(|s| s[1] > s[0]), "{scales:?}");
    // A step that was skipped is no illness.
    assert!(run.recorder.rules.is_empty(), "{:?}", run.recorder.rules);
    let norms = points
        .iter()
        .filter(|p| p.values.contains_key("gradient_norm"));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count"
    )]
    let count = skipped[skipped.len() - 1] as usize;
    assert_eq!(norms.count(), points.len() - count);
}

#[test]
fn a_training_that_diverges_in_half_precision_names_the_layer() {
    let mut description = network(json!({"dtype_policy": "mixed_float16", "epochs": 60}));
    description["network"]["layers"] = json!([
        {"type": "Flatten"},
        {"type": "Dense", "units": 32, "name": "low"},
        {"type": "Dense", "units": 32, "name": "high"},
        {"type": "Dense", "units": 10, "name": "last"}
    ]);
    description["loss"] = json!({"type": "categorical_crossentropy"});
    description["optimizer"] = json!({"type": "sgd", "learning_rate": 100.0});
    let error = run(description).result.unwrap_err();
    assert!(matches!(error, EngineError::Diverged { .. }), "{error}");
    let told = error.to_string();
    let layers = ["low", "high", "last"];
    assert!(layers.iter().any(|layer| told.contains(layer)), "{told}");
    println!("{told}");
}
