//! Augmentation changes what is trained on, and nothing else.

use nereid_core::{engine::EngineError, models::TrainedModel};
use serde_json::{Value, json};

use crate::{
    digits::digits,
    resume::{description, pictures},
    support::{Recorder, spec, train},
};

fn trained(description: Value) -> Result<TrainedModel, EngineError> {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::default();
    train(
        &spec(description),
        &pictures(),
        None,
        folder.path(),
        &mut recorder,
    )
}

#[test]
fn only_training_samples_are_changed() {
    let mut still = description();
    // Steps too small to change a weight, so that losses tell of the samples alone.
    still["optimizer"] = json!({"type": "sgd", "learning_rate": 1e-12});
    still["network"]["layers"] = json!([{"type": "Flatten"}, {"type": "Dense", "units": 3}]);
    still["loss"] = json!({"type": "sparse_categorical_crossentropy"});
    still["callbacks"] = json!([]);
    still["fit"]["epochs"] = json!(1);
    still["fit"]["test_split"] = json!(0.2);
    let mut plain = still.clone();
    plain["fit"]["augmentation"] = json!([]);
    for (changed, kind) in [
        (
            json!([{"type": "RandomRotation", "factor": 0.5}]),
            "rotated",
        ),
        (json!([{"type": "RandomErasing"}]), "erased"),
        (json!([{"type": "MixUp", "alpha": 1}]), "mixed"),
        (json!([{"type": "CutMix"}]), "cut and mixed"),
    ] {
        still["fit"]["augmentation"] = changed;
        let (with, without) = (
            trained(still.clone()).unwrap(),
            trained(plain.clone()).unwrap(),
        );
        let [with, without] = [with.metrics, without.metrics];
        assert!((with["loss"] - without["loss"]).abs() > 1e-4, "{kind}");
        for key in ["val_loss", "val_accuracy", "test_loss", "test_accuracy"] {
            assert!((with[key] - without[key]).abs() < 1e-6, "{kind}: {key}");
        }
    }
}

#[test]
fn what_does_not_fit_the_samples_is_refused() {
    let mut wrong = description();
    wrong["fit"]["augmentation"] = json!([{"type": "GaussianNoise", "stddev": 0.1}]);
    let error = trained(wrong).unwrap_err().to_string();
    assert!(
        error.contains("/fit/augmentation/0/type: GaussianNoise is for tables"),
        "{error}"
    );
}

#[test]
fn digits_are_learnt_from_changed_ones() {
    let spec = spec(json!({
        "network": {"layers": [
            {"type": "Conv2D", "filters": 16, "kernel_size": 3, "padding": "same", "activation": "relu"},
            {"type": "MaxPooling2D"},
            {"type": "Flatten"},
            {"type": "Dense", "units": 64, "activation": "relu"},
            {"type": "Dense", "units": 10}
        ]},
        "loss": {"type": "sparse_categorical_crossentropy"},
        "optimizer": {"type": "adam", "learning_rate": 0.003},
        "metrics": ["accuracy"],
        "fit": {"epochs": 20, "test_split": 0.2, "seed": 7, "augmentation": [
            {"type": "RandomRotation", "factor": 0.03, "fill_mode": "constant"},
            {"type": "RandomTranslation", "height_factor": 0.1, "width_factor": 0.1, "fill_mode": "constant"},
            {"type": "RandomContrast", "factor": 0.2, "value_range": [0, 16]},
            {"type": "MixUp"}
        ]}
    }));
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::default();
    let model = train(&spec, &digits(), None, folder.path(), &mut recorder).unwrap();
    assert!(
        model.metrics["test_accuracy"] >= 0.96,
        "{:?}",
        model.metrics
    );
}
