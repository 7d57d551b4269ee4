//! What is watched of a training, and rules that tell of an ill one.

use nereid_core::{engine::EngineError, models::TrainedModel, spec::rules::RuleAction};
use serde_json::{Value, json};

use crate::{
    digits::digits,
    resume::{assert_resumes_exactly, description, pictures},
    support::{Numbers, Recorder, csv, input, spec, train},
};

fn run(description: Value) -> (Result<TrainedModel, EngineError>, Recorder) {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::default();
    let result = train(
        &spec(description),
        &digits(),
        None,
        folder.path(),
        &mut recorder,
    );
    (result, recorder)
}

/// A network for the digits with two hidden layers.
fn hidden(units: usize, activation: &str) -> Value {
    json!({
        "network": {"layers": [
            {"type": "Flatten"},
            {"type": "Dense", "units": units, "activation": activation, "name": "low"},
            {"type": "Dense", "units": units, "activation": activation, "name": "high"},
            {"type": "Dense", "units": 10, "name": "last"}
        ]},
        "loss": {"type": "sparse_categorical_crossentropy"},
        "fit": {"epochs": 4, "validation_split": 0.3, "seed": 2}
    })
}

fn warnings(recorder: &Recorder) -> Vec<&String> {
    recorder
        .lines
        .iter()
        .filter(|l| l.starts_with("rule "))
        .collect()
}

#[test]
fn points_tell_what_was_watched() {
    let mut description = hidden(32, "relu");
    description["fit"]["report_every_steps"] = json!(10);
    let (result, recorder) = run(description);
    result.unwrap();
    let steps: Vec<u64> = recorder.points.iter().map(|p| p.step).collect();
    assert_eq!(steps[..5], [10, 20, 30, 40, 50]);
    for point in &recorder.points {
        let value = |name: &str| point.values[name];
        assert!(value("gradient_norm") > 1e-3 && value("gradient_norm") < 100.0);
        assert!(value("samples_per_second") > 1.0);
        assert!((0.0..=1.0).contains(&value("data_wait")));
        assert!(value("memory_bytes") > 1e6);
        assert!(value("memory_peak_bytes") >= value("memory_bytes") * 0.5);
        assert!((value("learning_rate") - 0.001).abs() < 1e-12);
    }
}

#[test]
fn a_training_that_diverges_names_the_layer() {
    let mut description = hidden(32, "linear");
    description["loss"] = json!({"type": "categorical_crossentropy"});
    description["optimizer"] = json!({"type": "sgd", "learning_rate": 100.0});
    description["fit"]["epochs"] = json!(60);
    let (result, _) = run(description);
    let error = result.unwrap_err();
    assert!(matches!(error, EngineError::Diverged { .. }), "{error}");
    let told = error.to_string();
    let layers = ["low", "high", "last"];
    assert!(layers.iter().any(|layer| told.contains(layer)), "{told}");
    println!("{told}");
}

#[test]
fn a_healthy_training_breaks_no_rule() {
    let mut healthy = hidden(32, "relu");
    healthy["rules"] = json!([
        "loss_not_decreasing", "vanishing_gradient", "exploding_tensor", "dead_relu",
        {"type": "overfit", "patience": 2}
    ]);
    let (result, recorder) = run(healthy);
    result.unwrap();
    assert!(warnings(&recorder).is_empty(), "{:?}", warnings(&recorder));
}

#[test]
fn each_rule_tells_of_its_illness_once() {
    let still = json!({"type": "sgd", "learning_rate": 1e-9});
    let mut stalled = hidden(32, "relu");
    stalled["optimizer"] = still.clone();
    let mut deep = hidden(8, "sigmoid");
    deep["optimizer"] = still;
    let sigmoid = json!({"type": "Dense", "units": 8, "activation": "sigmoid"});
    let mut layers = vec![json!({"type": "Flatten"})];
    layers.extend(vec![sigmoid; 16]);
    layers.push(json!({"type": "Dense", "units": 10}));
    deep["network"]["layers"] = json!(layers);
    let mut exploding = hidden(32, "linear");
    exploding["optimizer"] = json!({"type": "sgd", "learning_rate": 3.0, "momentum": 0.9});
    exploding["fit"]["clipnorm"] = json!(1e3);
    let mut dying = hidden(32, "relu");
    dying["optimizer"] = json!({"type": "adam", "learning_rate": 1.0});
    let mut memorised = hidden(256, "relu");
    memorised["optimizer"] = json!({"type": "adam", "learning_rate": 0.01});
    memorised["fit"] = json!({"epochs": 30, "validation_split": 0.9, "seed": 2});
    let hidden = &["low", "high"][..];
    let all = &["low", "high", "last"][..];
    for (mut ill, rule, told, layer) in [
        (
            stalled,
            json!({"type": "loss_not_decreasing", "patience": 2}),
            "mean loss",
            None,
        ),
        (
            deep,
            json!("vanishing_gradient"),
            "kernel",
            Some(&["dense"][..]),
        ),
        (
            exploding,
            json!({"type": "exploding_tensor", "threshold": 100}),
            "holds",
            Some(all),
        ),
        (dying, json!("dead_relu"), "units of layer", Some(hidden)),
        (
            memorised,
            json!({"type": "overfit", "patience": 2}),
            "exceeds loss",
            None,
        ),
    ] {
        ill["rules"] = json!([rule]);
        let (result, recorder) = run(ill.clone());
        println!("{rule}: {:?}", result.map(|_| ()));
        let seen = warnings(&recorder);
        assert_eq!(seen.len(), 1, "{rule}: {seen:?}");
        let name = rule.as_str().or(rule["type"].as_str()).unwrap();
        assert!(seen[0].contains(name) && seen[0].contains(told), "{seen:?}");
        let [report] = &recorder.rules[..] else {
            panic!("{rule}: {:?}", recorder.rules)
        };
        assert_eq!((report.rule.as_str(), &report.message), (name, seen[0]));
        assert_eq!(report.layer.is_some(), layer.is_some(), "{report:?}");
        assert!(
            layer.is_none_or(|names: &[&str]| names.contains(&report.layer.as_deref().unwrap())),
            "{report:?}"
        );
        // A stalled loss and vanishing gradients are below their limits or, stalled, not below.
        let value = report.value.unwrap_or(f64::INFINITY);
        let below = name == "vanishing_gradient";
        assert_eq!(value < report.limit, below, "{report:?}");
        assert!(report.step > 0 && report.action == RuleAction::Warn);
    }
}

#[test]
fn a_rule_ends_training_with_its_model_and_resumes_exactly() {
    let mut ill = description();
    ill["optimizer"] = json!({"type": "sgd", "learning_rate": 1e-9});
    ill["rules"] = json!([
        {"type": "loss_not_decreasing", "num_steps": 6, "patience": 2, "action": "stop"},
        {"type": "overfit", "patience": 1, "ratio_threshold": 1000}
    ]);
    let lines = assert_resumes_exactly(&spec(ill), &pictures());
    let end = lines.iter().find(|l| l.contains("ends early")).unwrap();
    assert!(
        end.contains("rule loss_not_decreasing: the mean loss of 6 steps"),
        "{end}"
    );
}

#[test]
fn rules_are_checked_against_the_spec() {
    let mut wrong = hidden(4, "relu");
    wrong["fit"]["validation_split"] = json!(0);
    wrong["rules"] = json!(["overfit"]);
    let (result, _) = run(wrong);
    let told = result.unwrap_err().to_string();
    assert!(
        told.contains("/rules/0: overfit needs validation data"),
        "{told}"
    );
}

#[test]
fn gradients_that_are_not_finite_end_training_at_once() {
    let mut numbers = Numbers(9);
    let mut text = "x,label\n".to_owned();
    for _ in 0..64 {
        text += &format!("{},{}\n", numbers.next() * 1e30, numbers.next() * 1e18);
    }
    let data = input(json!({"format": "csv", "label_column": "label"}), csv(text));
    let description = json!({
        "network": {"layers": [{"type": "Dense", "units": 1, "name": "only"}]},
        "loss": {"type": "mse"}, "fit": {"epochs": 3, "normalization": "none"}
    });
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::default();
    let error = train(
        &spec(description),
        &data,
        None,
        folder.path(),
        &mut recorder,
    )
    .unwrap_err();
    assert!(error.to_string().contains("diverged at step 0"), "{error}");
}

#[test]
#[ignore = "measures for half a minute"]
fn what_watching_costs_a_small_network() {
    let mut numbers = Numbers(9);
    let mut text = (0..30).map(|i| format!("x{i},")).collect::<String>() + "label\n";
    for row in 0..16_384 {
        for _ in 0..30 {
            text += &format!("{:.3},", numbers.next());
        }
        text += &format!("{}\n", row % 2);
    }
    let data = input(json!({"format": "csv", "label_column": "label"}), csv(text));
    let speed = |every: u32| {
        let description = json!({
            "network": {"layers": [
                {"type": "Dense", "units": 64, "activation": "relu"},
                {"type": "Dense", "units": 32, "activation": "relu"},
                {"type": "Dense", "units": 2}
            ]},
            "loss": {"type": "sparse_categorical_crossentropy"},
            "fit": {"epochs": 3, "batch_size": 32, "report_every_steps": every}
        });
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::directed(|_| nereid_core::jobs::Directive::Continue);
        train(
            &spec(description),
            &data,
            None,
            folder.path(),
            &mut recorder,
        )
        .unwrap();
        let ends = recorder.points.iter().filter(|p| p.epoch.fract() == 0.0);
        let speeds = ends.map(|p| p.values["samples_per_second"]);
        speeds.fold(0.0, f64::max)
    };
    for _ in 0..4 {
        let [never, some, each] = [1_000_000, 26, 1].map(speed);
        println!("samples/s: {never:.0} unwatched, {some:.0} each 26 steps, {each:.0} each step");
    }
}
