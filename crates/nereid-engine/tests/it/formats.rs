//! Files as other programs write them (see `tests/data/make.py`): NPZ, JSON Lines, Parquet.

use std::collections::HashMap;

use nereid_core::{
    datasets::{FileRole, Inspection, TargetSchema, columns::ColumnEncoding},
    engine::{DataError, EngineError},
};
use serde_json::{Value, json};

use crate::support::{Memory, csv, file, gzip, inspect};

pub const CARS: [(&str, &[u8]); 3] = [
    ("csv", include_bytes!("../data/cars.csv")),
    ("jsonl", include_bytes!("../data/cars.jsonl")),
    ("parquet", include_bytes!("../data/cars.parquet")),
];
const TYPES: &[u8] = include_bytes!("../data/types.parquet");
const DELTA: [&[u8]; 2] = [
    include_bytes!("../data/delta-v1.parquet"),
    include_bytes!("../data/delta-v2.parquet"),
];
const NESTED: &[u8] = include_bytes!("../data/nested.parquet");
const DIGITS: &[u8] = include_bytes!("../data/digits.npz");

fn fault(description: Value, files: &Memory) -> DataError {
    match inspect(description.clone(), files) {
        Err(EngineError::InvalidData(e)) => e,
        other => panic!("{description}: {other:?}"),
    }
}

fn cars(format: &str, bytes: &[u8]) -> Inspection {
    inspect(
        json!({"format": format, "label_column": "Origin"}),
        &file(bytes),
    )
    .unwrap()
}

#[test]
fn a_table_is_the_same_in_each_format() {
    let [csv, jsonl, parquet] = CARS.map(|(format, bytes)| cars(format, bytes));
    assert_eq!(csv.schema, jsonl.schema);
    assert_eq!(csv.schema, parquet.schema);
    assert_eq!(csv.statistics, jsonl.statistics);
    let features = |found: &Inspection| -> Vec<_> {
        found
            .preview
            .iter()
            .map(|row| row.features.clone())
            .collect()
    };
    assert_eq!(features(&csv), features(&jsonl));
    assert_eq!(features(&csv), features(&parquet));
    assert_eq!(
        csv.statistics.columns[1].numbers,
        parquet.statistics.columns[1].numbers
    );

    let kinds: Vec<_> = csv
        .schema
        .features
        .iter()
        .map(|c| (c.name.as_str(), c.encoding.kind(), c.missing))
        .collect();
    assert_eq!(
        kinds,
        [
            ("Name", "category", 0),
            ("Miles_per_Gallon", "number", 8),
            ("Cylinders", "number", 0),
            ("Displacement", "number", 0),
            ("Horsepower", "number", 6),
            ("Weight_in_lbs", "number", 0),
            ("Acceleration", "number", 0),
            ("Year", "timestamp", 0),
        ]
    );
    assert_eq!(csv.schema.classes().unwrap(), ["Europe", "Japan", "USA"]);
    assert_eq!(csv.statistics.class_counts, Some(vec![73, 79, 254]));
    let note = csv.schema.features[0].note.as_deref().unwrap();
    assert!(note.contains("identifier"), "{note}");
    // 64 buckets of the name, five numbers with two flags, six parts of a date.
    assert_eq!(csv.schema.shape, [64 + 6 + 2 + 6]);
    let gzipped = gzip(CARS[2].1);
    assert_eq!(cars("parquet", &gzipped).schema, csv.schema);
}

#[test]
fn parquets_types_become_numbers_words_and_times() {
    let source = json!({"format": "parquet", "label_column": "label"});
    let found = inspect(source, &file(TYPES)).unwrap();
    let kinds: Vec<_> = found
        .schema
        .features
        .iter()
        .map(|c| (c.name.as_str(), c.encoding.kind(), c.missing))
        .collect();
    assert_eq!(
        kinds,
        [
            ("flag", "boolean", 1),
            ("small", "number", 0),
            ("large", "number", 0),
            ("half", "number", 0),
            ("price", "number", 2),
            ("day", "timestamp", 2),
            ("time", "timestamp", 0),
            ("word", "category", 1),
        ]
    );
    let ColumnEncoding::Category { categories, .. } = &found.schema.features[7].encoding else {
        panic!("no category")
    };
    assert_eq!(categories, &["a", "b", "ü"]);
    assert_eq!(
        found.preview[0].cells,
        [
            json!(true),
            json!(1.0),
            json!(9_223_372_036_854_775_808.0),
            json!(0.5),
            json!(1.25),
            json!("2000-03-01"),
            json!("2000-03-01T12:00:00"),
            json!("a"),
        ]
    );
    assert_eq!(found.preview[2].cells[5], json!("1969-12-31"));
    assert_eq!(found.preview[1].cells[4], Value::Null);
}

#[test]
fn parquets_delta_encodings_are_read() {
    for bytes in DELTA {
        let found = inspect(json!({"format": "parquet"}), &file(bytes)).unwrap();
        assert_eq!(found.statistics.rows, 400);
        let [i, s, t] = &found.statistics.columns[..] else {
            panic!("{:?}", found.statistics)
        };
        assert_eq!(
            (i.numbers.unwrap().max, s.missing, s.distinct),
            (399.0, 57, Some(50))
        );
        assert_eq!((t.present, t.distinct), (400, Some(400)));
        assert_eq!(
            found.preview[9].cells,
            [json!(9.0), json!("prefix-9"), json!("word 9".repeat(5))]
        );
        damage("parquet", bytes);
    }
}

#[test]
fn nested_parquet_is_refused_unless_ignored() {
    let source = json!({"format": "parquet", "label_column": "label"});
    let e = fault(source.clone(), &file(NESTED));
    assert_eq!(
        (e.code, e.column.as_deref()),
        ("nested_column", Some("list"))
    );
    let mut source = source;
    source["columns"] = json!({"list": {"kind": "ignore"}});
    let found = inspect(source, &file(NESTED)).unwrap();
    assert_eq!(found.schema.columns.unwrap(), ["a"]);
}

/// Damages a file at many places; each must give an error or be read, never end the process.
fn damage(format: &str, bytes: &[u8]) {
    let source = json!({"format": format});
    let mut refused = 0;
    for at in (0..bytes.len()).step_by(bytes.len() / 150 + 1) {
        for file_bytes in [
            bytes[..at].to_vec(),
            [&bytes[..at], &[bytes[at] ^ 0xff], &bytes[at + 1..]].concat(),
            [&bytes[..at], &[0xff; 8], &bytes[at..]].concat(),
        ] {
            match inspect(source.clone(), &file(&file_bytes)) {
                Ok(_) => {}
                Err(EngineError::InvalidData(_)) => refused += 1,
                Err(e) => panic!("{format} damaged at {at}: {e}"),
            }
        }
    }
    assert!(refused > 100, "{format}: {refused}");
}

#[test]
fn damaged_parquet_is_refused() {
    damage("parquet", TYPES);
}

#[test]
fn damaged_archives_are_refused() {
    let source = json!({"format": "npz"});
    let whole = inspect(source.clone(), &file(DIGITS)).unwrap();
    let mut refused = 0;
    for at in (0..DIGITS.len()).step_by(61) {
        let flipped = [&DIGITS[..at], &[DIGITS[at] ^ 0x55], &DIGITS[at + 1..]].concat();
        match inspect(source.clone(), &file(&flipped)) {
            // Names and times of the arrays that are not read do not matter.
            Ok(found) => assert_eq!(found, whole, "flipped at {at}"),
            Err(EngineError::InvalidData(_)) => refused += 1,
            Err(e) => panic!("flipped at {at}: {e}"),
        }
        assert!(
            inspect(source.clone(), &file(&DIGITS[..at])).is_err(),
            "cut at {at}"
        );
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn npz_arrays_are_found_by_convention_or_name() {
    let rows = |source: Value| inspect(source, &file(DIGITS)).unwrap();
    let train = rows(json!({"format": "npz"}));
    assert_eq!(
        (train.statistics.rows, train.schema.dtype.as_str()),
        (200, "UINT8")
    );
    assert_eq!(train.schema.shape, [8, 8, 1]);
    assert_eq!(train.schema.classes().unwrap().len(), 10);
    let arrays = json!({"data": "x_test", "labels": "y_test"});
    assert_eq!(
        rows(json!({"format": "npz", "arrays": arrays}))
            .statistics
            .rows,
        100
    );
    let alone = rows(json!({"format": "npz", "arrays": {"data": "x_test"}}));
    assert_eq!(alone.schema.target, None);
    let mixed = json!({"data": "x_test", "labels": "y_train"});
    let e = fault(json!({"format": "npz", "arrays": mixed}), &file(DIGITS));
    assert_eq!(e.code, "row_mismatch");
    assert!(e.detail.starts_with("y_train"), "{e}");
    let e = fault(
        json!({"format": "npz", "arrays": {"data": "x_tset"}}),
        &file(DIGITS),
    );
    assert_eq!(e.code, "missing_array");
    assert!(e.detail.contains("x_test"), "{e}");
}

#[test]
fn json_lines_may_hold_arrays() {
    let source = json!({"format": "jsonl", "label_column": "y"});
    let text =
        "{\"x\": [[1, 2], [3, 4.5]], \"y\": \"a\"}\n\n{\"y\": \"b\", \"x\": [[5, 6], [7, 8]]}\n";
    let found = inspect(source.clone(), &csv(text)).unwrap();
    assert_eq!(found.schema.shape, [2, 2]);
    assert_eq!(found.preview[1].features, [5.0, 6.0, 7.0, 8.0]);
    assert!(matches!(
        found.schema.target,
        Some(TargetSchema::Class { .. })
    ));
    for (code, row, text) in [
        ("bad_json", Some(2), "{\"x\": 1, \"y\": 1}\n{\"x\": 1"),
        ("bad_json", Some(1), "[1, 2]\n"),
        (
            "duplicate_column",
            Some(1),
            "{\"x\": 1, \"x\": 2, \"y\": 1}",
        ),
        ("nested_column", Some(1), "{\"x\": {\"a\": 1}, \"y\": 1}"),
        ("missing_value", Some(2), "{\"x\": 1, \"y\": 1}\n{\"x\": 1}"),
        ("missing_value", Some(1), "{\"x\": 1}\n"),
        (
            "shape_mismatch",
            Some(2),
            "{\"x\": [1, 2], \"y\": 1}\n{\"x\": [1], \"y\": 1}",
        ),
        (
            "shape_mismatch",
            Some(1),
            "{\"x\": [[1, 2], [3]], \"y\": 1}",
        ),
        ("not_a_number", Some(1), "{\"x\": [1, null], \"y\": 1}"),
        (
            "unexpected_column",
            Some(1),
            "{\"x\": [1, 2], \"z\": 3, \"y\": 1}",
        ),
        ("empty", None, "\n"),
        (
            "too_large",
            None,
            &("{\"x\": ".to_owned() + &"[".repeat(9) + &"]".repeat(9) + "}"),
        ),
    ] {
        let e = fault(source.clone(), &csv(text));
        assert_eq!((e.code, e.row), (code, row), "{text:?}: {e}");
    }
    let declared = json!({"format": "jsonl", "columns": {"x": {"kind": "text"}}});
    let e = fault(declared, &csv("{\"x\": [1, 2]}"));
    assert_eq!(
        (e.code, e.column.as_deref()),
        ("unexpected_column", Some("x"))
    );
    let deep = "{\"x\": ".to_owned() + &"[".repeat(100_000);
    assert_eq!(fault(source, &csv(deep)).code, "bad_json");
}

#[test]
fn columns_that_come_late_were_missing_before() {
    let text =
        "{\"a\": 1, \"y\": 0}\n{\"a\": 2, \"b\": \"u\", \"y\": 1}\n{\"y\": 1, \"b\": \"v\"}\n";
    let found = inspect(json!({"format": "jsonl", "label_column": "y"}), &csv(text)).unwrap();
    let missing: Vec<_> = found.schema.features.iter().map(|c| c.missing).collect();
    assert_eq!(missing, [1, 1]);
    assert_eq!(found.statistics.columns[1].frequent.len(), 2);
}

#[test]
fn archives_that_are_none_are_refused() {
    for (format, bytes) in [
        ("npz", &b"PK\x05\x06 no zip"[..]),
        ("parquet", b"PAR1 no file PAR1"),
    ] {
        let code = fault(json!({"format": format}), &file(bytes)).code;
        assert!(
            ["bad_zip", "corrupt_parquet"].contains(&code),
            "{format}: {code}"
        );
    }
    let missing = Memory(HashMap::from([(FileRole::Labels, vec![])]));
    assert!(matches!(
        inspect(json!({"format": "npz"}), &missing),
        Err(EngineError::Io { .. })
    ));
}
