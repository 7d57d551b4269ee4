//! Batch size and learning rate that Nereid finds itself.

use std::fs;

use nereid_core::jobs::Directive;
use serde_json::{Value, json};

use crate::{
    digits::digits,
    resume::{description, pictures},
    support::{Recorder, spec, train},
};

fn automatic() -> Value {
    let mut description = description();
    description["optimizer"] = json!({"type": "adamw", "learning_rate": "auto"});
    description["fit"]["batch_size"] = json!("auto");
    description
}

#[test]
fn what_was_found_is_as_if_it_had_been_given_and_outlives_a_stop() {
    let data = pictures();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| fs::read(folder.path().join(name)).unwrap();
    let mut first = Recorder::directed(|asked| match asked {
        0..180 => Directive::Continue,
        _ => Directive::Suspend,
    });
    let stopped = train(&spec(automatic()), &data, None, folder.path(), &mut first);
    assert!(stopped.is_err());
    let found: Vec<_> = first
        .lines
        .iter()
        .filter(|l| l.contains("found: "))
        .collect();
    assert_eq!(found.len(), 2, "{:?}", first.lines);
    let state = &first.snapshots.last().unwrap().path;

    let mut second = Recorder::default();
    let resumed = train(
        &spec(automatic()),
        &data,
        Some(state),
        folder.path(),
        &mut second,
    );
    let resumed = resumed.unwrap();
    assert!(
        !second.lines.iter().any(|l| l.contains("found: ")),
        "nothing is chosen anew"
    );
    let weights = file("weights.safetensors");
    let chosen = &resumed.reports["chosen"];
    assert!(
        found[0].ends_with(&format!(": {}", chosen["batch_size"])),
        "{found:?} {chosen}"
    );

    let mut given = automatic();
    given["fit"]["batch_size"] = chosen["batch_size"].clone();
    given["optimizer"]["learning_rate"] = chosen["learning_rate"].clone();
    let mut third = Recorder::default();
    train(&spec(given), &data, None, folder.path(), &mut third).unwrap();
    assert!(file("weights.safetensors") == weights);
}

#[test]
fn digits_are_learnt_at_the_rate_found() {
    for kind in ["adam", "sgd"] {
        let spec = spec(json!({
            "network": {"layers": [
                {"type": "Flatten"},
                {"type": "Dense", "units": 64, "activation": "relu"},
                {"type": "Dense", "units": 10}
            ]},
            "loss": {"type": "sparse_categorical_crossentropy"},
            "optimizer": {"type": kind, "learning_rate": "auto"},
            "metrics": ["accuracy"],
            "fit": {"epochs": 12, "batch_size": "auto", "test_split": 0.2, "seed": 7}
        }));
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::default();
        let model = train(&spec, &digits(), None, folder.path(), &mut recorder).unwrap();
        println!("{kind}: {} {:?}", model.reports["chosen"], model.metrics);
        assert!(model.metrics["test_accuracy"] >= 0.9, "{:?}", model.metrics);
    }
}
