//! Tasks beyond one class or number.

use nereid_core::{
    datasets::TargetSchema,
    spec::Normalization,
    tensors::{Batch, TensorValues},
    validation::Violations,
};
use nereid_engine::engine;
use serde_json::{Value, json};

use crate::{
    data::{files, npy},
    digits::digits,
    support::{Numbers, Recorder, csv, input, spec, train},
};

fn autoencoder(loss: &str, last: &str) -> Value {
    json!({
        "task": "autoencoding",
        "network": {"layers": [
            {"type": "Flatten"},
            {"type": "Dense", "units": 24, "activation": "relu"},
            {"type": "Dense", "units": 64, "activation": last},
            {"type": "Reshape", "target_shape": [8, 8, 1]}
        ]},
        "loss": {"type": loss},
        "optimizer": {"type": "adam", "learning_rate": {
            "type": "one_cycle", "max_lr": 0.01}},
        "metrics": ["mae", "r2"],
        "fit": {"epochs": 12, "batch_size": 32, "test_split": 0.2, "seed": 3, "use_ema": true}
    })
}

/// Takes what is compared from a loaded model: samples in raw units and their anomaly scores.
fn reconstruct(folder: &std::path::Path, values: Vec<f32>) -> (Vec<f32>, Vec<f32>) {
    let rows = values.len() / 64;
    let predictor = engine().loader.load(folder).unwrap();
    let outputs = predictor.predict(&Batch { rows, values }).unwrap();
    let names: Vec<_> = outputs.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["reconstruction", "anomaly_score"]);
    assert_eq!(outputs[0].shape, [rows, 8, 8, 1]);
    assert_eq!(outputs[1].shape, [rows]);
    for (tensor, spec) in outputs.iter().zip(&predictor.signature().outputs) {
        assert_eq!(tensor.name, spec.name);
        assert_eq!(tensor.shape.len(), spec.shape.len());
    }
    let mut floats = outputs.into_iter().map(|t| match t.values {
        TensorValues::Fp32(values) => values,
        other => panic!("{other:?}"),
    });
    (floats.next().unwrap(), floats.next().unwrap())
}

#[test]
fn an_autoencoder_finds_digits_again_and_nothing_else() {
    let data = digits();
    for (loss, last, raw) in [
        ("mse", "linear", true),
        ("binary_crossentropy", "sigmoid", false),
    ] {
        let mut description = autoencoder(loss, last);
        // Raw units are the file's, whatever the network sees.
        if raw {
            description["fit"]["normalization"] = json!("standard");
        }
        let folder = tempfile::tempdir().unwrap();
        let spec = spec(description);
        let model = train(&spec, &data, None, folder.path(), &mut Recorder::default()).unwrap();
        println!("{loss}: {:?}", model.metrics);
        assert!(model.metrics["test_r2"] > 0.8, "{:?}", model.metrics);
        assert!(model.signature.classes.is_none());
        let min_max = model.signature.preprocessing.normalization == Normalization::MinMax;
        assert_eq!(min_max, !raw);

        let zero = "0,0,5,13,9,1,0,0,0,0,13,15,10,15,5,0,0,3,15,2,0,11,8,0,0,4,12,0,0,8,8,0,\
                    0,5,8,0,0,9,8,0,0,4,11,0,1,12,7,0,0,2,14,5,10,12,0,0,0,0,6,13,10,0,0,0";
        let zero: Vec<f32> = zero.split(',').map(|v| v.parse().unwrap()).collect();
        let noise: Vec<f32> = (0..64_u16).map(|i| f32::from(i * 37 % 17)).collect();
        let both = [zero.clone(), noise].concat();
        let (found, scores) = reconstruct(folder.path(), both);
        let error: f32 = zero.iter().zip(&found).map(|(a, b)| (a - b).abs()).sum();
        assert!(
            error / 64.0 < 2.0,
            "of 0 to 16, {} is missed by",
            error / 64.0
        );
        assert!(scores[1] > 4.0 * scores[0], "{scores:?}");
    }
}

#[test]
fn an_autoencoder_needs_no_label_but_the_shape_of_its_input() {
    let mut text = "a,b\n".to_owned();
    for i in 0..40 {
        text += &format!("{},{}\n", i % 7, i % 5);
    }
    let data = input(json!({"format": "csv"}), csv(text));
    assert!(data.schema.target.is_none());
    let network = |units: u32| json!({"layers": [{"type": "Dense", "units": units}]});
    let fitting = json!({
        "task": "autoencoding", "network": network(2), "loss": {"type": "cosine_similarity"},
        "fit": {"epochs": 1}, "metrics": ["mse"]
    });
    let folder = tempfile::tempdir().unwrap();
    let monitor = &mut Recorder::default();
    train(&spec(fitting.clone()), &data, None, folder.path(), monitor).unwrap();
    for (field, value, code, pointer) in [
        ("network", network(3), "shape_mismatch", "/network/layers/0"),
        (
            "loss",
            json!({"type": "sparse_categorical_crossentropy"}),
            "target_mismatch",
            "/loss",
        ),
        (
            "metrics",
            json!(["accuracy"]),
            "target_mismatch",
            "/metrics/0",
        ),
        ("task", json!("regression"), "no_target", "/dataset"),
        (
            "fit",
            json!({"class_weight": "balanced"}),
            "conflict",
            "/fit/class_weight",
        ),
    ] {
        let mut wrong = fitting.clone();
        wrong[field] = value;
        let violations = spec(wrong).plan(&data.schema, 40, "").unwrap_err();
        let found = violations.into_vec();
        let named = |v: &nereid_core::validation::Violation| v.code == code && v.pointer == pointer;
        assert!(found.iter().any(named), "{field}: {found:?}");
    }
}

#[test]
fn mistakes_in_an_optimiser_have_their_places() {
    let read = |optimizer: Value, fit: Value, callbacks: Value| {
        let mut violations = Violations::default();
        let spec = json!({
            "model": "m", "dataset": "d", "network": {"layers": [{"type": "Flatten"}]},
            "loss": {"type": "mse"}, "optimizer": optimizer, "fit": fit, "callbacks": callbacks
        });
        nereid_core::spec::TrainSpec::read(spec, "", &mut violations);
        violations.into_vec()
    };
    let sgd = |rate: Value| json!({"type": "sgd", "learning_rate": rate});
    let cosine = json!({"type": "cosine_decay", "initial_learning_rate": 0.1});
    for (optimizer, fit, callbacks, pointer) in [
        (
            sgd(json!("fast")),
            json!({}),
            json!([]),
            "/optimizer/learning_rate",
        ),
        (
            sgd(json!({"type": "cosine_decay", "initial_learning_rate": 0.1, "decay": 3})),
            json!({}),
            json!([]),
            "/optimizer/learning_rate/decay",
        ),
        (
            sgd(
                json!({"type": "exponential_decay", "initial_learning_rate": 1, "decay_rate": 0.9}),
            ),
            json!({}),
            json!([]),
            "/optimizer/learning_rate/decay_steps",
        ),
        (
            sgd(
                json!({"type": "piecewise_constant_decay", "boundaries": [5, 2], "values": [1, 2, 3]}),
            ),
            json!({}),
            json!([]),
            "/optimizer/learning_rate/boundaries",
        ),
        (
            json!({"type": "adagrad", "learning_rate":
                   {"type": "one_cycle", "max_lr": 0.1, "cycle_momentum": true}}),
            json!({}),
            json!([]),
            "/optimizer/learning_rate/cycle_momentum",
        ),
        (
            sgd(cosine),
            json!({}),
            json!([{"type": "reduce_lr_on_plateau"}]),
            "/callbacks/0",
        ),
        (
            json!({"type": "lion", "beta_1": 2}),
            json!({}),
            json!([]),
            "/optimizer/beta_1",
        ),
        (
            sgd(json!(0.1)),
            json!({"clipnorm": 1.0, "global_clipnorm": 1.0}),
            json!([]),
            "/fit/global_clipnorm",
        ),
        (
            sgd(json!(0.1)),
            json!({"ema_momentum": 0.9}),
            json!([]),
            "/fit/ema_momentum",
        ),
        (
            sgd(json!(0.1)),
            json!({"gradient_accumulation_steps": 0}),
            json!([]),
            "/fit/gradient_accumulation_steps",
        ),
    ] {
        let shown = optimizer.to_string();
        let found = read(optimizer, fit, callbacks);
        let pointers: Vec<_> = found.iter().map(|v| v.pointer.as_str()).collect();
        assert_eq!(pointers, [pointer], "{shown}: {found:?}");
    }
    let plain = read(
        sgd(json!({"type": "one_cycle", "max_lr": 0.1})),
        json!({}),
        json!([]),
    );
    assert!(plain.is_empty(), "no momentum, none to cycle: {plain:?}");
}

/// 240 samples of four numbers with the targets that `of` makes of them.
fn samples(of: impl Fn(&[f32]) -> Vec<f32>) -> Vec<(Vec<f32>, Vec<f32>)> {
    let mut numbers = Numbers(9);
    let mut sample = || {
        #[allow(clippy::cast_possible_truncation, reason = "from 0 to 1")]
        let row: Vec<f32> = (0..4).map(|_| numbers.next() as f32).collect();
        let targets = of(&row);
        (row, targets)
    };
    (0..240).map(|_| sample()).collect()
}

/// The samples as arrays.
fn arrays(of: impl Fn(&[f32]) -> Vec<f32>) -> nereid_core::engine::DataInput {
    let (mut x, mut y, mut width) = (Vec::new(), Vec::new(), 0);
    for (row, targets) in samples(of) {
        width = targets.len();
        x.extend(row.iter().flat_map(|v| v.to_le_bytes()));
        y.extend(targets.iter().flat_map(|v| v.to_le_bytes()));
    }
    let features = npy("<f4", "False", "(240, 4)", &x);
    let targets = npy("<f4", "False", &format!("(240, {width})"), &y);
    input(json!({"format": "npy"}), files(features, targets))
}

/// The samples as a table whose labels stand between the features, in another order.
fn table(of: impl Fn(&[f32]) -> Vec<f32>) -> String {
    let mut text = "p,a,r,b,c,q,d\n".to_owned();
    for (x, y) in samples(of) {
        let (p, q, r) = (y[0], y[1], y[2]);
        text += &format!("{p},{},{r},{},{},{q},{}\n", x[0], x[1], x[2], x[3]);
    }
    text
}

fn several(loss: &str, activation: &str, metrics: Value) -> Value {
    json!({
        "network": {"layers": [
            {"type": "Dense", "units": 24, "activation": "relu"},
            {"type": "Dense", "units": 3, "activation": activation}
        ]},
        "loss": {"type": loss},
        "optimizer": {"type": "adam", "learning_rate": {
            "type": "cosine_decay", "initial_learning_rate": 0.03, "warmup_epochs": 2}},
        "metrics": metrics,
        "fit": {"epochs": 40, "batch_size": 16, "test_split": 0.25, "seed": 1}
    })
}

#[test]
fn several_labels_a_sample_are_learnt_and_served() {
    let on = |yes: bool| f32::from(u8::from(yes));
    let data = arrays(|x| vec![on(x[0] > 0.5), on(x[1] + x[2] > 1.0), on(x[3] < 0.3)]);
    assert_eq!(data.schema.labels().unwrap(), ["0", "1", "2"]);
    let metrics = json!(["accuracy", "auc", {"type": "f1", "average": "micro"}, "hamming_loss"]);
    let description = several("binary_crossentropy", "sigmoid", metrics);
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(description.clone());
    let model = train(&spec, &data, None, folder.path(), &mut Recorder::default()).unwrap();
    println!("{:?}", model.metrics);
    assert!(model.metrics["test_f1_micro"] > 0.9, "{:?}", model.metrics);
    assert!(model.metrics["test_auc"] > 0.97, "{:?}", model.metrics);
    let total = model.metrics["test_accuracy"] + model.metrics["test_hamming_loss"];
    assert!((total - 1.0).abs() < 1e-12);

    let predictor = engine().loader.load(folder.path()).unwrap();
    assert_eq!(predictor.signature().classes.as_ref().unwrap().len(), 3);
    let values = vec![0.9, 0.1, 0.2, 0.9, 0.1, 0.9, 0.8, 0.05];
    let outputs = predictor.predict(&Batch { rows: 2, values }).unwrap();
    let shapes: Vec<_> = outputs
        .iter()
        .map(|t| (t.name.as_str(), &t.shape))
        .collect();
    assert_eq!(
        shapes,
        [("probabilities", &vec![2, 3]), ("labels", &vec![2, 3])]
    );
    let expected = TensorValues::Int64(vec![1, 0, 0, 0, 1, 1]);
    assert_eq!(outputs[1].values, expected);

    let mut wrong = description;
    wrong["loss"] = json!({"type": "categorical_crossentropy"});
    let violations = crate::support::spec(wrong)
        .plan(&data.schema, 240, "")
        .unwrap_err();
    assert_eq!(violations.into_vec()[0].pointer, "/loss");
}

#[test]
fn several_numbers_a_sample_are_learnt_and_served() {
    let data = arrays(|x| vec![x[0] * 2.0 - x[1], x[2] * x[3], 5.0 - x[1]]);
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(several("log_cosh", "linear", json!(["r2", "mse", "mape"])));
    let model = train(&spec, &data, None, folder.path(), &mut Recorder::default()).unwrap();
    println!("{:?}", model.metrics);
    assert!(model.metrics["test_r2"] > 0.95, "{:?}", model.metrics);
    let predictor = engine().loader.load(folder.path()).unwrap();
    let values = vec![0.9, 0.1, 0.5, 0.5];
    let outputs = predictor.predict(&Batch { rows: 1, values }).unwrap();
    let TensorValues::Fp32(found) = &outputs[0].values else {
        panic!("{outputs:?}");
    };
    assert_eq!((outputs.len(), &outputs[0].shape), (1, &vec![1, 3]));
    for (found, expected) in found.iter().zip([1.7, 0.25, 4.9]) {
        assert!((found - expected).abs() < 0.15, "{found} is not {expected}");
    }
}

#[test]
fn columns_of_labels_are_what_an_array_of_them_is() {
    let on = |yes: bool| f32::from(u8::from(yes));
    let labels = |x: &[f32]| vec![on(x[0] > 0.5), on(x[1] + x[2] > 1.0), on(x[3] < 0.3)];
    let values = |x: &[f32]| vec![x[0] * 2.0 - x[1], x[2] * x[3], 5.0 - x[1]];
    let source = json!({"format": "csv", "label_columns": ["p", "q", "r"]});
    let mut description = several("binary_crossentropy", "sigmoid", json!(["accuracy"]));
    for (task, text, array) in [
        ("labels", table(labels), arrays(labels)),
        ("values", table(values), arrays(values)),
    ] {
        if task == "values" {
            description = several("mse", "linear", json!(["r2"]));
        }
        let spec = spec(description.clone());
        let lines: String = text
            .lines()
            .skip(1)
            .map(|line| {
                let v: Vec<_> = line.split(',').collect();
                // Booleans where there may be some, and rows of features as an array.
                let flag = |v: &str| match (task, v) {
                    ("labels", "0") => "false".to_owned(),
                    ("labels", _) => "true".to_owned(),
                    _ => v.to_owned(),
                };
                let (p, q, r) = (flag(v[0]), flag(v[5]), flag(v[2]));
                format!(
                    "{{\"q\":{q},\"x\":[{},{},{},{}],\"p\":{p},\"r\":{r}}}\n",
                    v[1], v[3], v[4], v[6]
                )
            })
            .collect();
        let mut jsonl = source.clone();
        jsonl["format"] = json!("jsonl");
        let weights = |data: &nereid_core::engine::DataInput| {
            let folder = tempfile::tempdir().unwrap();
            train(&spec, data, None, folder.path(), &mut Recorder::default()).unwrap();
            std::fs::read(folder.path().join("weights.safetensors")).unwrap()
        };
        let (table, lines) = (input(source.clone(), csv(text)), input(jsonl, csv(lines)));
        let names = match table.schema.target.as_ref().unwrap() {
            TargetSchema::Labels { labels, .. } if task == "labels" => labels,
            TargetSchema::Values { values, .. } if task == "values" => values,
            other => panic!("{other:?}"),
        };
        assert_eq!(*names, ["p", "q", "r"]);
        assert_eq!(
            table.schema.columns.as_ref().unwrap(),
            &["a", "b", "c", "d"]
        );
        assert_eq!(lines.schema.target, table.schema.target);
        let expected = weights(&array);
        assert!(
            weights(&table) == expected,
            "{task}: other weights from a table"
        );
        assert!(
            weights(&lines) == expected,
            "{task}: other weights from lines"
        );
    }
}

#[test]
fn mistakes_in_columns_of_labels_are_named() {
    let fault = |target: Value, text: &str| {
        let source = json!({"format": "csv", "label_columns": ["p", "q"], "target": target});
        match crate::support::inspect(source, &csv(text)) {
            Err(nereid_core::engine::EngineError::InvalidData(e)) => e,
            other => panic!("{other:?}"),
        }
    };
    for (text, target, code, row, column) in [
        ("a,p\n1,2\n", Value::Null, "missing_column", None, None),
        (
            "a,p,q\n1,1,0\n1,,0\n",
            Value::Null,
            "missing_value",
            Some(2),
            Some("p"),
        ),
        (
            "a,p,q\n1,1,cat\n",
            Value::Null,
            "not_a_number",
            Some(1),
            Some("q"),
        ),
        (
            "a,p,q\n1,1,0\n1,0,2\n",
            json!("class"),
            "not_a_label",
            Some(2),
            Some("q"),
        ),
        ("p,q\n1,1\n", Value::Null, "no_features", None, None),
    ] {
        let e = fault(target, text);
        assert_eq!(
            (e.code, e.row, e.column.as_deref()),
            (code, row, column),
            "{e}"
        );
    }
}
