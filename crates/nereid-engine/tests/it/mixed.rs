//! Tables of mixed columns: detected and declared kinds, training on them, and serving.

use nereid_core::{
    datasets::{
        DatasetSchema,
        columns::ColumnEncoding,
        encoding::{Cell, TableEncoder},
    },
    engine::{DataError, EngineError, Goal},
    tensors::{Batch, DataType, TensorValues},
};
use nereid_engine::engine;
use serde_json::{Value, json};

use crate::{
    formats::CARS,
    support::{Numbers, Recorder, csv, file, input, inspect, spec, train},
};

fn schema(columns: Value, text: &str) -> DatasetSchema {
    let source = json!({"format": "csv", "label_column": "y", "columns": columns});
    inspect(source, &csv(text)).unwrap().schema
}

fn fault(columns: Value, text: &str) -> DataError {
    let source = json!({"format": "csv", "label_column": "y", "columns": columns});
    match inspect(source, &csv(text)) {
        Err(EngineError::InvalidData(e)) => e,
        other => panic!("{text:?}: {other:?}"),
    }
}

fn kinds(schema: &DatasetSchema) -> Vec<&'static str> {
    schema.features.iter().map(|c| c.encoding.kind()).collect()
}

#[test]
fn kinds_are_detected_from_the_values() {
    let mut text = "n,gap,flag,when,word,note,id,key,y\n".to_owned();
    for i in 0..100 {
        let gap = if i % 9 == 0 {
            "NA".to_owned()
        } else {
            i.to_string()
        };
        let (flag, word) = (i % 2 == 0, ["red", "green", "2"][i % 3]);
        text += &format!(
            "{}.5,{gap},{flag},2024-01-{:02},{word},the {i} quick brown foxes,{},k{i},{}\n",
            i * 7 % 50,
            i % 28 + 1,
            i + 1000,
            i % 2
        );
    }
    let found = schema(json!({}), &text);
    assert_eq!(
        kinds(&found),
        [
            "number",
            "number",
            "boolean",
            "timestamp",
            "category",
            "text",
            "number",
            "category"
        ]
    );
    let noted: Vec<bool> = found.features.iter().map(|c| c.note.is_some()).collect();
    assert_eq!(
        noted,
        [false, false, false, false, false, false, true, true]
    );
    assert_eq!(found.features[1].missing, 12);
    let ColumnEncoding::Category { categories, .. } = &found.features[4].encoding else {
        panic!("no category")
    };
    assert_eq!(categories, &["2", "green", "red"]);

    // A table of numbers stays what it always was.
    let plain = schema(json!({}), "a,b,y\n1,2,x\n3,4,z\n");
    assert_eq!((plain.features.len(), plain.shape), (0, vec![2]));
}

#[test]
fn declared_kinds_win() {
    let columns = json!({
        "class": {"kind": "category", "encoding": "index"},
        "words": {"kind": "text", "encoding": "tokens", "vocabulary": 5, "length": 4},
        "id": {"kind": "ignore"},
        "top": {"kind": "category", "max_categories": 1, "unknown": "bucket"},
        "age": {"kind": "number", "impute": -1.0}
    });
    let text = "class,words,id,top,age,y\n3,\"a b, a\",7,u,4,0\n1,b c a,8,u,,1\n2,c,9,v,2,1\n";
    let found = schema(columns.clone(), text);
    assert_eq!(found.columns.unwrap(), ["class", "words", "top", "age"]);
    // An index, four tokens, one category and one for unknown ones, a number and its flag.
    assert_eq!(found.shape, [1 + 4 + 2 + 2]);
    let encodings: Vec<Value> = found
        .features
        .iter()
        .map(|c| serde_json::to_value(&c.encoding).unwrap())
        .collect();
    assert_eq!(encodings[0]["categories"], json!(["1", "2", "3"]));
    // As often: the later by name comes first, as in Keras; three words fit beside 0 and 1.
    assert_eq!(encodings[1]["vocabulary"], json!(["a", "c", "b"]));
    assert_eq!(encodings[2]["categories"], json!(["u"]));
    assert_eq!(encodings[3]["impute"], json!(-1.0));

    let e = fault(json!({"class": {"kind": "number"}}), "class,y\n1,0\nx,1\n");
    assert_eq!(
        (e.code, e.row, e.column.as_deref()),
        ("not_a_number", Some(2), Some("class"))
    );
    let e = fault(
        json!({"class": {"kind": "timestamp"}}),
        "class,y\n2024-01-01,0\n2024-13-01,1\n",
    );
    assert_eq!((e.code, e.row), ("wrong_kind", Some(2)));
    let e = fault(json!({"classes": {"kind": "number"}}), "class,y\n1,0\n");
    assert_eq!(e.code, "missing_column");
    let e = fault(json!({"class": {"kind": "ignore"}}), "class,y\n1,0\n");
    assert_eq!(e.code, "no_features");
}

fn classifier(layers: Value) -> nereid_core::spec::TrainSpec {
    spec(json!({
        "network": {"layers": layers},
        "loss": {"type": "sparse_categorical_crossentropy"},
        "optimizer": {"type": "adam", "learning_rate": 0.01},
        "metrics": ["accuracy"],
        "fit": {"epochs": 25, "batch_size": 16, "test_split": 0.25}
    }))
}

#[test]
fn a_mixed_table_trains_deploys_and_answers() {
    let data = input(
        json!({"format": "parquet", "label_column": "Origin"}),
        file(CARS[2].1),
    );
    let spec = classifier(json!([
        {"type": "Dense", "units": 32, "activation": "relu"},
        {"type": "Dense", "units": 3, "activation": "softmax"}
    ]));
    let (folder, serving) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut recorder = Recorder::default();
    let model = train(&spec, &data, None, folder.path(), &mut recorder).unwrap();
    // 254 of the 406 cars are American: always saying so is right for 63 in 100.
    assert!(model.metrics["test_accuracy"] > 0.75, "{:?}", model.metrics);
    println!("cars: test accuracy {:.3}", model.metrics["test_accuracy"]);

    let inputs: Vec<_> = model
        .signature
        .inputs
        .iter()
        .map(|t| (t.name.as_str(), t.datatype, t.shape.clone()))
        .collect();
    assert_eq!(inputs[0], ("Name", DataType::Bytes, vec![-1, 1]));
    assert_eq!(inputs[1], ("Miles_per_Gallon", DataType::Fp32, vec![-1, 1]));
    assert_eq!(model.signature.sample_shape(), [78]);

    let goal = Goal::default();
    let optimizer = engine().optimizer;
    optimizer
        .optimise(folder.path(), serving.path(), goal, &mut recorder)
        .unwrap();
    let predictor = engine().loader.load(serving.path()).unwrap();
    let encoder = TableEncoder::new(&predictor.signature().preprocessing.columns);
    let cars = [
        [
            Cell::Text("ford torino"),
            Cell::Number(14.0),
            Cell::Number(8.0),
            Cell::Number(400.0),
            Cell::Number(190.0),
            Cell::Number(4600.0),
            Cell::Number(11.0),
            Cell::Text("1973-01-01"),
        ],
        // Nobody knows this one, and much of it is missing.
        [
            Cell::Text("a car of tomorrow"),
            Cell::Missing,
            Cell::Text("4"),
            Cell::Number(90.0),
            Cell::Missing,
            Cell::Number(2000.0),
            Cell::Number(18.0),
            Cell::Missing,
        ],
    ];
    let mut values = Vec::new();
    for car in cars {
        for (i, cell) in car.into_iter().enumerate() {
            encoder.encode(i, cell, &mut values).unwrap();
        }
    }
    let outputs = predictor.predict(&Batch { rows: 2, values }).unwrap();
    let TensorValues::Int64(classes) = &outputs[1].values else {
        panic!("{outputs:?}")
    };
    assert_eq!(
        data.schema.classes().unwrap()[usize::try_from(classes[0]).unwrap()],
        "USA"
    );
    let TensorValues::Fp32(probabilities) = &outputs[0].values else {
        panic!("{outputs:?}")
    };
    assert!(
        probabilities.iter().all(|p| p.is_finite()),
        "{probabilities:?}"
    );
}

#[test]
fn each_format_trains_the_same_model() {
    let spec = spec(json!({
        "network": {"layers": [{"type": "Dense", "units": 3, "activation": "softmax"}]},
        "loss": {"type": "sparse_categorical_crossentropy"},
        "fit": {"epochs": 1, "test_split": 0.2}
    }));
    let weights = CARS.map(|(format, bytes)| {
        let data = input(
            json!({"format": format, "label_column": "Origin"}),
            file(bytes),
        );
        let folder = tempfile::tempdir().unwrap();
        train(&spec, &data, None, folder.path(), &mut Recorder::default()).unwrap();
        std::fs::read(folder.path().join("weights.safetensors")).unwrap()
    });
    assert!(weights[0] == weights[1] && weights[1] == weights[2]);
}

#[test]
fn a_text_of_tokens_trains_an_embedding() {
    // Which of two words comes in a sentence decides; their order and the others do not.
    let mut numbers = Numbers(3);
    let mut text = "text,y\n".to_owned();
    for _ in 0..400 {
        let good = numbers.next() < 0.5;
        let mut words: Vec<&str> = (0..6)
            .map(|_| ["the", "film", "was", "quite", "long", "and"][numbers.below(6)])
            .collect();
        words[numbers.below(6)] = if good { "GREAT!" } else { "awful," };
        text += &format!(
            "{:?},{}\n",
            words.join(" "),
            if good { "good" } else { "bad" }
        );
    }
    let columns = json!({"text": {"kind": "text", "encoding": "tokens", "length": 8}});
    let source = json!({"format": "csv", "label_column": "y", "columns": columns});
    let data = input(source, csv(text));
    let spec = classifier(json!([
        {"type": "Embedding", "input_dim": 10, "output_dim": 4},
        {"type": "Flatten"},
        {"type": "Dense", "units": 2, "activation": "softmax"}
    ]));
    let folder = tempfile::tempdir().unwrap();
    let model = train(&spec, &data, None, folder.path(), &mut Recorder::default()).unwrap();
    assert!(model.metrics["test_accuracy"] > 0.95, "{:?}", model.metrics);
}

#[test]
fn validation_data_is_encoded_like_the_training_data() {
    let table = json!({"format": "csv", "label_column": "y"});
    let training = input(table.clone(), csv("n,w,y\n1,u,0\n2,v,1\n,u,0\n4,v,1\n"));
    let spec = spec(json!({
        "network": {"layers": [{"type": "Dense", "units": 2, "activation": "softmax"}]},
        "loss": {"type": "sparse_categorical_crossentropy"}
    }));
    let scaled = |normalization: &str| {
        let mut with = spec.clone();
        with.fit.normalization = serde_json::from_value(json!(normalization)).unwrap();
        with
    };
    // A column that has no value at all is no reason to fail, whatever scales it.
    let hollow = input(table.clone(), csv("n,w,y\n,u,0\n,v,1\nNA,u,0\nnan,v,1\n"));
    for normalization in ["standard", "min_max", "none"] {
        let folder = tempfile::tempdir().unwrap();
        let spec = scaled(normalization);
        let recorder = &mut Recorder::default();
        let model = train(&spec, &hollow, None, folder.path(), recorder).unwrap();
        assert!(model.metrics["loss"].is_finite());
    }
    for (code, text) in [
        // Another order, and a category that training data lacks.
        (None, "y,w,n\n0,new,3\n1,v,\n"),
        (Some("not_a_number"), "n,w,y\nlots,u,0\n"),
        (Some("missing_column"), "n,y\n1,0\n"),
        (Some("unexpected_column"), "n,w,z,y\n1,u,2,0\n"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let source = crate::support::source(table.clone(), &csv(text));
        let task = nereid_core::engine::TrainTask {
            spec: &spec,
            train: training.clone(),
            validation: None,
            test: Some(nereid_core::engine::DataInput {
                source,
                schema: training.schema.clone(),
                files: std::sync::Arc::new(csv(text)),
                digest: None,
            }),
            device: nereid_core::workers::DeviceKind::Cpu,
            base: None,
            resume: None,
            resources: &nereid_core::engine::DataResources::default(),
            scratch: folder.path(),
            output: folder.path(),
        };
        let result = engine().trainer.train(&task, &mut Recorder::default());
        let got = match result {
            Ok(_) => None,
            Err(EngineError::InvalidData(e)) => Some(e.code),
            Err(e) => panic!("{e}"),
        };
        assert_eq!(got, code, "{text:?}");
    }
}

#[test]
fn old_signatures_and_schemas_still_read() {
    let old = json!({"shape": [2], "dtype": "FP32", "columns": ["a", "b"]});
    let schema: DatasetSchema = serde_json::from_value(old.clone()).unwrap();
    assert_eq!(serde_json::to_value(&schema).unwrap(), old);
    let old = json!({"normalization": "standard", "offset": [0.0], "scale": [1.0]});
    let read: nereid_core::models::Preprocessing = serde_json::from_value(old.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), old);
}
