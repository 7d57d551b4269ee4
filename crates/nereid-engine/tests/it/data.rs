//! What inspection finds in good data, and says of bad data.

use std::collections::HashMap;

use nereid_core::{
    datasets::{FileRole, TargetSchema},
    engine::{DataError, EngineError},
};
use serde_json::{Value, json};

use crate::support::{Memory, Recorder, csv, gzip, input, inspect, spec};

fn idx(code: u8, dims: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, code, u8::try_from(dims.len()).unwrap()];
    for d in dims {
        bytes.extend(d.to_be_bytes());
    }
    bytes.extend(data);
    bytes
}

pub fn npy(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header =
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

pub fn files(data: Vec<u8>, labels: Vec<u8>) -> Memory {
    Memory(HashMap::from([
        (FileRole::Data, data),
        (FileRole::Labels, labels),
    ]))
}

fn fault(description: Value, files: &Memory) -> DataError {
    match inspect(description.clone(), files) {
        Err(EngineError::InvalidData(e)) => e,
        other => panic!("{description}: {other:?}"),
    }
}

#[test]
fn bad_csv_is_refused_with_its_place() {
    let table = json!({"format": "csv", "label_column": "y"});
    // A word among many numbers is a slip; a column of words is a category.
    let slip = "a,b,y\n".to_owned() + &"1,2,x\n".repeat(11) + "3,five,x\n";
    let whole = gzip(("a,b,y\n".to_owned() + &"1,2,x\n3,4,z\n".repeat(500)).as_bytes());
    for (code, row, column, text) in [
        ("not_a_number", Some(1), Some("a"), "a,b,y\ninf,2,x\n"),
        ("not_a_number", Some(12), Some("b"), &slip),
        ("out_of_range", Some(1), Some("a"), "a,b,y\n1e300,2,x\n"),
        ("missing_value", Some(1), Some("y"), "a,b,y\n1,2,\n"),
        ("ragged_row", Some(2), None, "a,b,y\n1,2,x\n1,2\n"),
        ("missing_column", None, None, "a,b,z\n1,2,x\n"),
        ("duplicate_column", None, None, "a,a,y\n1,2,x\n"),
        ("bad_header", None, None, "a,,y\n1,2,x\n"),
        ("empty", None, None, "a,b,y\n"),
        ("empty", None, None, ""),
        ("no_features", None, None, "y\nx\n"),
    ] {
        let e = fault(table.clone(), &csv(text));
        assert_eq!(
            (e.code, e.row, e.column.as_deref()),
            (code, row, column),
            "{text:?}: {e}"
        );
    }
    let e = fault(table.clone(), &csv(&whole[..whole.len() - 20]));
    assert_eq!(e.code, "truncated", "{e}");
    let e = fault(table.clone(), &csv(b"a,b,y\n\xff,1,x\n".as_slice()));
    assert_eq!((e.code, e.row), ("invalid_utf8", Some(1)));
    let listed = fault(table.clone(), &csv("a,b,z\n1,2,x\n")).detail;
    assert!(listed.contains("a, b, z"), "{listed}");

    let with = |field: &str, value: Value| {
        let mut table = table.clone();
        table[field] = value;
        table
    };
    let e = fault(with("shape", json!([3])), &csv("a,b,y\n1,2,x\n"));
    assert_eq!(e.code, "shape_mismatch");
    let e = fault(
        with("target", json!("class")),
        &csv("a,b,y\n1,2,1\n1,2,1.5\n"),
    );
    assert_eq!((e.code, e.row), ("not_an_integer", Some(2)));
    let e = fault(
        with("target", json!("value")),
        &csv("a,b,y\n1,2,1\n1,2,x\n"),
    );
    assert_eq!(
        (e.code, e.row, e.column.as_deref()),
        ("not_a_number", Some(2), Some("y"))
    );
}

#[test]
fn bad_binary_files_are_refused() {
    let images = idx(8, &[2, 2, 2], &[0; 8]);
    let labels = idx(8, &[2], &[0, 1]);
    let good = npy("<f4", "False", "(2, 1)", &[0; 8]);
    let nan = [0.0_f32, f32::NAN].map(f32::to_le_bytes).concat();
    for (code, format, data, labels) in [
        (
            "truncated",
            "idx",
            idx(8, &[2, 2, 2], &[0; 7]),
            labels.clone(),
        ),
        (
            "trailing_bytes",
            "idx",
            idx(8, &[2, 2, 2], &[0; 9]),
            labels.clone(),
        ),
        (
            "bad_header",
            "idx",
            idx(7, &[2, 2, 2], &[0; 8]),
            labels.clone(),
        ),
        ("bad_header", "idx", b"GIF89a..".to_vec(), labels.clone()),
        ("truncated", "idx", vec![], labels.clone()),
        ("row_mismatch", "idx", images.clone(), idx(8, &[3], &[0; 3])),
        (
            "bad_header",
            "idx",
            images.clone(),
            idx(8, &[2, 2, 2], &[0; 8]),
        ),
        (
            "trailing_bytes",
            "idx",
            images.clone(),
            idx(8, &[2], &[0; 3]),
        ),
        (
            "too_large",
            "idx",
            idx(8, &[2, u32::MAX, u32::MAX], &[]),
            labels.clone(),
        ),
        (
            "not_a_number",
            "npy",
            npy("<f4", "False", "(2, 1)", &nan),
            good.clone(),
        ),
        (
            "unsupported_dtype",
            "npy",
            npy("|O", "False", "(2, 1)", &[0; 8]),
            good.clone(),
        ),
        (
            "bad_header",
            "npy",
            b"\x93NUMPY\x01\x00\x02\x00{}".to_vec(),
            good.clone(),
        ),
        (
            "truncated",
            "npy",
            npy("<f4", "True", "(2, 3)", &[0; 8]),
            good.clone(),
        ),
        (
            "empty",
            "npy",
            npy("<f4", "False", "(0, 3)", &[]),
            good.clone(),
        ),
    ] {
        let e = fault(json!({"format": format}), &files(data, labels));
        assert_eq!(e.code, code, "{e}");
    }
    let broken = Memory::default();
    let result = inspect(json!({"format": "idx"}), &broken);
    assert!(
        matches!(result, Err(EngineError::Io { .. })),
        "a missing file is no bad data"
    );
}

#[test]
fn inspection_describes_a_table() {
    let text = "\u{feff}a,y,b\n1,10,0.1\n3,2,0.1\n";
    let found = inspect(
        json!({"format": "csv", "label_column": "y"}),
        &csv(gzip(text.as_bytes())),
    );
    let found = found.unwrap();
    assert_eq!(found.schema.columns.as_deref().unwrap(), ["a", "b"]);
    // Numbers are ordered by value, not as text.
    assert_eq!(found.schema.classes().unwrap(), ["2", "10"]);
    assert_eq!(found.statistics.rows, 2);
    assert_eq!(found.statistics.mean[0].to_bits(), 2.0_f64.to_bits());
    assert_eq!(found.statistics.std[0].to_bits(), 1.0_f64.to_bits());
    assert_eq!(found.statistics.class_counts, Some(vec![1, 1]));
    assert_eq!(found.preview[0].features, [1.0, 0.1]);
    assert_eq!(found.preview[0].target, Some(json!("10")));
}

#[test]
fn labels_become_classes_or_numbers() {
    let kind = |labels: &[String]| {
        let text = labels
            .iter()
            .fold("a,y\n".to_owned(), |t, y| t + "1," + y + "\n");
        let found = inspect(json!({"format": "csv", "label_column": "y"}), &csv(text)).unwrap();
        match found.schema.target.unwrap() {
            TargetSchema::Class { classes, .. } => Some(classes.len()),
            _ => None,
        }
    };
    let numbers = |n: u32, step: u32| -> Vec<String> {
        (0..1000).map(|i| (i % n * step).to_string()).collect()
    };
    assert_eq!(kind(&numbers(20, 3)), Some(20), "few");
    assert_eq!(kind(&numbers(40, 1)), Some(40), "many without gaps");
    assert_eq!(kind(&numbers(40, 3)), None, "many with gaps");
    assert_eq!(kind(&numbers(100, 1)), None, "too few rows of each");
    assert_eq!(kind(&["1.5".into(), "2".into()]), None);
    assert_eq!(kind(&["b".into(), "a".into(), "1".into()]), Some(3));
}

#[test]
fn numpy_arrays_are_read_in_either_order() {
    // The same 2×3 array, row by row and column by column, and big-endian.
    let row_major: Vec<u8> = [1_i16, 2, 3, 4, 5, 6]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let column_major: Vec<u8> = [1_i16, 4, 2, 5, 3, 6]
        .iter()
        .flat_map(|v| v.to_be_bytes())
        .collect();
    let labels = npy(
        "<i8",
        "False",
        "(2,)",
        &[1_i64, 0].map(i64::to_le_bytes).concat(),
    );
    let previews = [
        npy("<i2", "False", "(2, 3)", &row_major),
        npy(">i2", "True", "(2, 3)", &column_major),
    ]
    .map(|data| {
        inspect(json!({"format": "npy"}), &files(data, labels.clone()))
            .unwrap()
            .preview
    });
    assert_eq!(previews[0], previews[1]);
    assert_eq!(previews[0][1].features, [4.0, 5.0, 6.0]);
    assert_eq!(previews[0][0].target, Some(json!("1")));
}

#[test]
fn other_data_must_have_the_training_datas_columns_and_classes() {
    let table = json!({"format": "csv", "label_column": "y"});
    let training = input(table.clone(), csv("a,b,y\n1,2,x\n3,4,z\n2,3,x\n4,5,z\n"));
    let spec = spec(json!({
        "network": {"layers": [{"type": "Dense", "units": 2}]},
        "loss": {"type": "sparse_categorical_crossentropy"},
        "metrics": ["accuracy"]
    }));
    for (code, text) in [
        (None, "y,b,a\nz,4,3\nx,2,1\n"),
        (Some("label_out_of_range"), "a,b,y\n1,2,x\n1,2,w\n"),
        (Some("missing_column"), "a,c,y\n1,2,x\n1,2,z\n"),
        (Some("unexpected_column"), "a,b,c,y\n1,2,3,x\n1,2,3,z\n"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let task = nereid_core::engine::TrainTask {
            spec: &spec,
            train: training.clone(),
            validation: None,
            test: Some(input(table.clone(), csv(text))),
            device: nereid_core::workers::DeviceKind::Cpu,
            base: None,
            resume: None,
            resources: &nereid_core::engine::DataResources::default(),
            scratch: folder.path(),
            output: folder.path(),
        };
        let result = nereid_engine::engine()
            .trainer
            .train(&task, &mut Recorder::default());
        let got = match result {
            Ok(_) => None,
            Err(EngineError::InvalidData(e)) => Some(e.code),
            Err(e) => panic!("{e}"),
        };
        assert_eq!(got, code, "{text:?}");
    }
}
