//! How rows are held out, and classes balanced.

use nereid_core::spec::TrainSpec;
use serde_json::json;

use crate::{
    resume::{assert_resumes_exactly, description},
    support::{Numbers, Recorder, csv, input, spec, train},
};

/// Of 300 rows every 30th is of class "rare", else "usual"; the feature tells them apart roughly.
fn imbalanced() -> nereid_core::engine::DataInput {
    let mut numbers = Numbers(5);
    let mut text = "x,y,label\n".to_owned();
    for row in 0..300 {
        let rare = row % 30 == 0;
        let x = numbers.next() + if rare { 0.5 } else { 0.0 };
        let label = if rare { "rare" } else { "usual" };
        text += &format!("{x:.4},{:.4},{label}\n", numbers.next());
    }
    input(json!({"format": "csv", "label_column": "label"}), csv(text))
}

#[test]
fn balanced_classes_are_trained_on_equally_often() {
    let mut description = description();
    description["network"]["layers"] = json!([{"type": "Dense", "units": 2}]);
    description["loss"] = json!({"type": "sparse_categorical_crossentropy"});
    description["optimizer"] = json!({"type": "adam", "learning_rate": 0.05});
    description["metrics"] = json!(["recall", "confusion_matrix"]);
    description["fit"] = json!({"epochs": 12, "batch_size": 16, "validation_split": 0.1,
        "test_split": 0.2, "seed": 4, "split": {"by": "stratified"}});
    let data = imbalanced();
    let run = |description: &serde_json::Value| {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::default();
        let spec = spec(description.clone());
        let model = train(&spec, &data, None, folder.path(), &mut recorder).unwrap();
        (model, recorder)
    };
    let (plain, _) = run(&description);
    let counts = &plain.reports["confusion_matrix"]["counts"];
    let total =
        |class: usize| counts[class][0].as_u64().unwrap() + counts[class][1].as_u64().unwrap();
    assert_eq!((total(0), total(1)), (2, 58), "a fifth of each class");
    for (kind, steps) in [("oversample", 406_u64.div_ceil(16)), ("undersample", 1)] {
        description["fit"]["class_balance"] = json!(kind);
        let (balanced, recorder) = run(&description);
        assert_eq!(
            recorder.progress.last().unwrap().steps,
            12 * steps,
            "{kind}"
        );
        if kind == "oversample" {
            let (with, without) = (
                &balanced.metrics["test_recall"],
                &plain.metrics["test_recall"],
            );
            assert!(with > without, "{kind}: {with} {without}");
        }
        assert_resumes_exactly(&spec(description.clone()), &data);
    }
}

#[test]
fn the_column_of_a_split_is_read_and_never_learnt_from() {
    let mut numbers = Numbers(6);
    let mut text = "part,x,patient,label\n".to_owned();
    for row in 0..120 {
        let part = ["train", "train", "validation", "test"][row % 4];
        text += &format!("{part},{:.3},p{},{}\n", numbers.next(), row % 9, row % 2);
    }
    let source = |ignored: serde_json::Value| json!({"format": "csv", "label_column": "label", "columns": ignored});
    let ignored = json!({"part": {"kind": "ignore"}, "patient": {"kind": "ignore"}});
    let data = input(source(ignored), csv(text.clone()));
    let described = |split: serde_json::Value, share: f64| {
        spec(json!({
            "network": {"layers": [{"type": "Dense", "units": 2}]},
            "loss": {"type": "sparse_categorical_crossentropy"},
            "fit": {"split": split, "validation_split": share, "test_split": share}
        }))
    };
    let run = |spec: &TrainSpec| {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::default();
        let result = train(spec, &data, None, folder.path(), &mut recorder);
        result.map(|model| (model, recorder.lines[0].clone()))
    };
    let (model, line) = run(&described(json!({"by": "given", "column": "part"}), 0.0)).unwrap();
    assert!(
        line.starts_with("60 training, 30 validation and 30 test samples"),
        "{line}"
    );
    assert_eq!(model.signature.columns.unwrap(), ["x"]);
    let (_, line) = run(&described(json!({"by": "group", "column": "patient"}), 0.1)).unwrap();
    // Each patient has 13 or 14 rows.
    let held_out = |line: &str| line.contains(" 13 validation") || line.contains(" 14 validation");
    assert!(held_out(&line), "{line}");
    let error = run(&described(json!({"by": "time", "column": "nowhere"}), 0.1)).unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
    let error = run(&described(json!({"by": "group", "column": "x"}), 0.1)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("/fit/split/column: \"x\" is a feature"),
        "{error}"
    );
}
