//! Training from a version: what is taken over, frozen and adapted.

use std::{collections::BTreeMap, fs, path::Path};

use nereid_core::{
    engine::{DataInput, EngineError},
    jobs::Directive,
    models::TrainedModel,
    spec::TrainSpec,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    digits::digits,
    resume::{assert_tuning_resumes_exactly, description, pictures},
    support::{Recorder, spec, tensors, train, tune, weights},
};

type Weights = BTreeMap<String, Vec<f32>>;

fn network(units: usize) -> Value {
    json!({"layers": [
        {"type": "Conv2D", "filters": 8, "kernel_size": 3, "padding": "same", "activation": "relu",
         "name": "conv"},
        {"type": "BatchNormalization", "name": "norm"},
        {"type": "MaxPooling2D"},
        {"type": "Flatten"},
        {"type": "Dense", "units": 32, "activation": "relu", "name": "hidden"},
        {"type": "Dense", "units": units, "name": "head"},
    ]})
}

/// A spec of which parts are changed.
fn job(changes: Value) -> TrainSpec {
    let mut job = json!({
        "network": network(10),
        "loss": {"type": "sparse_categorical_crossentropy"},
        "optimizer": {"type": "adam", "learning_rate": 0.003},
        "metrics": ["accuracy"],
        "fit": {"epochs": 6, "batch_size": 32, "validation_split": 0.2, "seed": 7},
    });
    for (key, value) in changes.as_object().unwrap() {
        match (key.as_str(), value) {
            ("fit", Value::Object(fit)) => {
                job["fit"].as_object_mut().unwrap().extend(fit.clone());
            }
            _ => job[key] = value.clone(),
        }
    }
    spec(job)
}

/// A job that starts from the version.
fn tuning(mut changes: Value) -> TrainSpec {
    if changes.get("initialize_from").is_none() {
        changes["initialize_from"] = json!({"model": "base", "version": 1});
    }
    job(changes)
}

/// A trained version.
struct Version {
    folder: TempDir,
    model: TrainedModel,
}

impl Version {
    fn new(spec: &TrainSpec, data: &DataInput) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = train(spec, data, None, folder.path(), &mut Recorder::default()).unwrap();
        Self { folder, model }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn weights(&self) -> Weights {
        weights(self.path())
    }

    fn tune(&self, spec: &TrainSpec, data: &DataInput) -> Result<Self, EngineError> {
        self.tune_with(spec, data, &mut Recorder::default())
    }

    fn tune_with(
        &self,
        spec: &TrainSpec,
        data: &DataInput,
        monitor: &mut Recorder,
    ) -> Result<Self, EngineError> {
        let folder = tempfile::tempdir().unwrap();
        let model = tune(spec, data, Some(self.path()), None, folder.path(), monitor)?;
        Ok(Self { folder, model })
    }

    /// A folder of what is needed to go on from a snapshot: the weights are not.
    fn without_weights(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let name = "model.json";
        fs::copy(self.path().join(name), folder.path().join(name)).unwrap();
        folder
    }
}

fn changed(before: &Weights, after: &Weights) -> Vec<String> {
    assert_eq!(before.len(), after.len());
    let changed = before.iter().filter(|(name, v)| after[*name] != **v);
    changed.map(|(name, _)| name.clone()).collect()
}

#[test]
fn a_tuned_model_starts_where_its_base_ended() {
    let data = digits();
    let base = Version::new(&job(json!({})), &data);
    let slowly = json!({"type": "adam", "learning_rate": 1e-6});
    let mut monitor = Recorder::default();
    // Moving statistics would move on.
    let fit = json!({"epochs": 1, "trainable": {"norm": false}});
    let spec = tuning(json!({"optimizer": slowly, "fit": fit}));
    let tuned = base.tune_with(&spec, &data, &mut monitor).unwrap();
    let loss = |v: &Version| v.model.metrics["val_loss"];
    println!("{} {}", loss(&base), loss(&tuned));
    assert!(base.model.metrics["val_accuracy"] > 0.9);
    assert!((loss(&tuned) - loss(&base)).abs() < 0.05 * loss(&base));
    assert!(tuned.model.signature.preprocessing == base.model.signature.preprocessing);
    let told = |l: &String| l.contains("base@1: 4 layers are taken over, 0 start anew");
    assert!(monitor.lines.iter().any(told), "{:?}", monitor.lines);

    let anew = Version::new(
        &job(json!({"optimizer": slowly, "fit": {"epochs": 1}})),
        &data,
    );
    assert!(loss(&anew) > 3.0 * loss(&base));
}

#[test]
fn frozen_layers_are_equal_to_the_last_bit() {
    let data = digits();
    let base = Version::new(&job(json!({"fit": {"epochs": 2}})), &data);
    // All that could touch a weight besides its gradient.
    let strong = json!({
        "optimizer": {"type": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
        "fit": {"epochs": 2, "global_clipnorm": 1.0, "use_ema": true, "trainable": {"*": false, "head": true}},
    });
    let tuned = base.tune(&tuning(strong.clone()), &data).unwrap();
    let (before, after) = (base.weights(), tuned.weights());
    assert_eq!(changed(&before, &after), ["head/bias", "head/kernel"]);

    // In the middle, gradients go through a frozen layer, and its statistics stay.
    let mut middle = strong;
    middle["fit"]["trainable"] = json!({"norm": false, "hidden": false});
    let tuned = base.tune(&tuning(middle), &data).unwrap();
    let found = changed(&before, &tuned.weights());
    assert_eq!(
        found,
        ["conv/bias", "conv/kernel", "head/bias", "head/kernel"]
    );
}

#[test]
fn a_head_of_another_size_starts_anew_if_it_may() {
    let data = digits();
    let base = Version::new(&job(json!({"fit": {"epochs": 1}})), &data);
    let mut narrow = network(10);
    narrow["layers"][4]["units"] = json!(16);
    let strict = tuning(json!({ "network": narrow.clone() }));
    let Err(EngineError::InvalidInput(detail)) = base.tune(&strict, &data).map(drop) else {
        panic!("the shapes differ")
    };
    for part in ["\"hidden\"", "(128, 16)", "(128, 32)", "base@1"] {
        assert!(detail.contains(part), "{detail}");
    }
    let from = json!({"model": "base", "version": 1, "mismatched": "skip"});
    let changes = json!({"network": narrow, "initialize_from": from, "fit": {
        "epochs": 1, "trainable": {"conv": false, "norm": false}}});
    let tuned = base.tune(&tuning(changes), &data).unwrap();
    let (before, after) = (base.weights(), tuned.weights());
    for (name, values) in &after {
        let kept = name.starts_with("conv/") || name.starts_with("norm/");
        assert_eq!(before[name] == *values, kept, "{name}");
    }
}

/// Entries of `base + scale · a · b`.
fn product(base: &[f32], a: &[f32], b: &[f32], rank: usize, scale: f32) -> Vec<f32> {
    let columns = b.len() / rank;
    let entry = |(i, w): (usize, &f32)| {
        let (row, column) = (i / columns, i % columns);
        let terms = (0..rank).map(|k| a[row * rank + k] * b[k * columns + column]);
        w + scale * terms.sum::<f32>()
    };
    base.iter().enumerate().map(entry).collect()
}

#[test]
fn merged_weights_are_those_of_the_base_and_the_product() {
    let data = digits();
    let base = Version::new(&job(json!({"fit": {"epochs": 1}})), &data);
    let lora = json!({"rank": 2, "alpha": 3.0, "layers": ["hidden", "head"]});
    let spec = tuning(json!({
        "optimizer": {"type": "adam", "learning_rate": 0.01},
        "fit": {"epochs": 2, "lora": lora},
    }));
    let mut monitor = Recorder::default();
    let tuned = base.tune_with(&spec, &data, &mut monitor).unwrap();
    let (before, after) = (base.weights(), tuned.weights());
    assert_eq!(changed(&before, &after), ["head/kernel", "hidden/kernel"]);
    assert!(tuned.model.metrics["val_accuracy"] > base.model.metrics["val_accuracy"]);

    // Suspended when all is trained, within the last evaluation, it saves what it merges.
    let last = monitor.asked - 1;
    let mut monitor = Recorder::directed(move |asked| match asked {
        n if n < last => Directive::Continue,
        _ => Directive::Suspend,
    });
    let suspended = base.tune_with(&spec, &data, &mut monitor).map(drop);
    assert!(
        matches!(suspended, Err(EngineError::Stopped)),
        "{suspended:?}"
    );
    let last = monitor.snapshots.last().unwrap();
    let state = tensors(&last.path);
    // After the ten weights of the layers come both matrices of each adapted kernel.
    let adapted = [("hidden/kernel", 6, [10, 11]), ("head/kernel", 8, [12, 13])];
    for (name, at, [a, b]) in adapted {
        let part = |i: usize| &state[&format!("weights/{i}")];
        assert_eq!(part(at), &before[name], "the base stays as it is");
        let expected = product(part(at), part(a), part(b), 2, 1.5);
        for (expected, found) in expected.iter().zip(&after[name]) {
            assert!((expected - found).abs() < 1e-5, "{name}");
        }
    }
    let (lean, folder) = (base.without_weights(), tempfile::tempdir().unwrap());
    let (lean, from) = (Some(lean.path()), Some(last.path.as_path()));
    let mut monitor = Recorder::default();
    tune(&spec, &data, lean, from, folder.path(), &mut monitor).unwrap();
    assert!(weights(folder.path()) == after);
}

#[test]
fn embeddings_and_attention_are_adapted() {
    let mut text = (0..6).map(|i| format!("w{i},")).collect::<String>() + "label\n";
    for row in 0..120 {
        let words = (0..6).map(|i| format!("{},", (row * 7 + i * row) % 11));
        text += &(words.collect::<String>() + &format!("{}\n", row % 3));
    }
    let source = json!({"format": "csv", "label_column": "label"});
    let data = crate::support::input(source, crate::support::csv(text));
    let network = json!({"layers": [
        {"type": "Embedding", "input_dim": 11, "output_dim": 8, "name": "words"},
        {"type": "MultiHeadAttention", "num_heads": 2, "key_dim": 4, "name": "attention"},
        {"type": "LayerNormalization", "name": "norm"},
        {"type": "GlobalAveragePooling1D"},
        {"type": "Dense", "units": 3, "name": "head"},
    ]});
    let base = Version::new(
        &job(json!({"network": network, "fit": {"epochs": 1}})),
        &data,
    );
    let lora = json!({"rank": 3, "layers": ["words", "attention"]});
    let fit = json!({"epochs": 3, "lora": lora, "trainable": {"head": true}});
    let tuned = base
        .tune(&tuning(json!({"network": network, "fit": fit})), &data)
        .unwrap();
    let found = changed(&base.weights(), &tuned.weights());
    let expected = [
        "attention/attention_output/kernel",
        "attention/key/kernel",
        "attention/query/kernel",
        "attention/value/kernel",
        "head/bias",
        "head/kernel",
        "words/embeddings",
    ];
    assert_eq!(found, expected);
}

#[test]
fn scaling_comes_from_the_version_or_the_data() {
    let data = pictures();
    let mut description = description();
    description["fit"]["normalization"] = json!("standard");
    let base = Version::new(&spec(description.clone()), &data);
    // Another seed, so that other rows are trained on.
    description["fit"]["seed"] = json!(12);
    description["fit"]["normalization"] = json!("auto");
    for (preprocessing, same) in [("version", true), ("data", false)] {
        let mut description = description.clone();
        let from = json!({"model": "base", "version": 1, "preprocessing": preprocessing});
        description["initialize_from"] = from;
        let tuned = base.tune(&spec(description), &data).unwrap();
        let alike = tuned.model.signature.preprocessing == base.model.signature.preprocessing;
        assert_eq!(alike, same, "{preprocessing}");
    }
}

#[test]
fn a_tuning_goes_on_exactly_without_the_weights_of_its_base() {
    let data = pictures();
    let mut description = description();
    let layers = description["network"]["layers"].as_array_mut().unwrap();
    layers.pop();
    layers.push(json!({"type": "Dense", "units": 8, "name": "hidden"}));
    layers.push(json!({"type": "Dense", "units": 3, "activation": "softmax", "name": "head"}));
    let base = Version::new(&spec(description.clone()), &data);
    let lean = base.without_weights();
    description["initialize_from"] = json!({"model": "base", "version": 1});
    description["fit"]["use_ema"] = json!(true);
    let mut frozen = description.clone();
    frozen["fit"]["trainable"] = json!({"*": false, "hidden": true, "layer_norm*": true});
    description["fit"]["lora"] = json!({"rank": 2, "layers": ["hidden"]});
    description["fit"]["trainable"] = json!({"head": true});
    for description in [frozen, description] {
        let base = Some([base.path(), lean.path()]);
        assert_tuning_resumes_exactly(&spec(description), &data, base);
    }
}

#[test]
fn outputs_that_stood_for_other_classes_are_told_of() {
    let table = |classes: [&str; 3]| {
        let rows = (0..60).map(|i| format!("{},{},{}\n", i % 3, i % 5, classes[i % 3]));
        let text = "a,b,label\n".to_owned() + &rows.collect::<String>();
        let source = json!({"format": "csv", "label_column": "label"});
        crate::support::input(source, crate::support::csv(text))
    };
    let network = json!({"layers": [{"type": "Dense", "units": 3, "name": "head"}]});
    let changes = json!({"network": network, "fit": {"epochs": 1}});
    let cats = ["cat", "dog", "emu"];
    let base = Version::new(&job(changes.clone()), &table(cats));
    for (classes, told) in [(cats, false), (["ant", "bee", "fly"], true)] {
        let mut monitor = Recorder::default();
        let spec = tuning(changes.clone());
        base.tune_with(&spec, &table(classes), &mut monitor)
            .unwrap();
        let tells = monitor.lines.iter().any(|l| l.contains("other classes"));
        assert_eq!(tells, told, "{:?}", monitor.lines);
    }
}
