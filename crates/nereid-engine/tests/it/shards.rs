//! Files of several objects, which the engine gets as a tar of them.

use nereid_core::{
    datasets::Inspection,
    engine::{DataError, EngineError},
};
use serde_json::{Value, json};

use crate::support::{file, gzip, inspect};

/// A name and what is in the file.
type Named = (String, Vec<u8>);

/// A tar of objects, as the storage hands it over: without blocks at its end.
fn objects(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    let mut bytes = builder.into_inner().unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes
}

fn read(mut source: Value, files: &[(&str, &[u8])]) -> Result<Inspection, EngineError> {
    source["files"] = json!({"data": "s3://test/data/"});
    inspect(source, &file(&objects(files)))
}

fn fault(source: Value, files: &[(&str, &[u8])]) -> DataError {
    match read(source, files) {
        Err(EngineError::InvalidData(e)) => e,
        other => panic!("{other:?}"),
    }
}

/// The bundled digits as tars of a few images each, the first compressed, and as images.
fn digits() -> (Vec<Named>, Vec<Vec<u8>>) {
    const TAR: &[u8] = include_bytes!("../data/digits.tar.gz");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(TAR));
    let mut images: Vec<Named> = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        let path = path.trim_start_matches("./").trim_start_matches("digits/");
        images.push((path.to_owned(), bytes));
    }
    let shards = images.chunks(50).map(|part| {
        let files: Vec<_> = part
            .iter()
            .map(|(n, b)| (n.as_str(), b.as_slice()))
            .collect();
        // With its end, and what GNU tar fills its last record up with.
        let mut bytes = objects(&files);
        bytes.resize(bytes.len().next_multiple_of(10_240) + 10_240, 0);
        bytes
    });
    let shards = shards.collect();
    (images, shards)
}

#[test]
fn images_are_the_same_in_a_folder_and_in_shards() {
    let (images, shards) = digits();
    let borrowed: Vec<_> = images
        .iter()
        .map(|(n, b)| (n.as_str(), b.as_slice()))
        .collect();
    let expected = inspect(json!({"format": "images"}), &file(&objects(&borrowed))).unwrap();
    assert_eq!(expected.statistics.rows, 120);
    let source = json!({"format": "images"});
    assert_eq!(read(source.clone(), &borrowed).unwrap(), expected);
    let compressed = gzip(&shards[0]);
    let shards = [
        ("a-0.tar.gz", compressed.as_slice()),
        ("a-1.tar", &shards[1]),
        ("a-2.TAR", &shards[2]),
    ];
    assert_eq!(read(source, &shards).unwrap(), expected);
}

#[test]
fn the_outermost_folder_below_a_prefix_is_the_class() {
    let (images, _) = digits();
    let image = |i: usize| images[i].1.as_slice();
    let source = json!({"format": "images"});
    let files = [
        ("cat/2019/x.png", image(0)),
        ("cat/x.jpg", image(1)),
        ("cat/x.png", image(2)),
        ("dog/1.png", image(3)),
    ];
    let found = read(source.clone(), &files).unwrap();
    assert_eq!(found.schema.classes().unwrap(), ["cat", "dog"]);
    assert_eq!(found.statistics.class_counts, Some(vec![3, 1]));
    let e = fault(
        source.clone(),
        &[
            ("a/1.png", image(0)),
            ("a/2.png", b"none"),
            ("b/1.png", image(1)),
        ],
    );
    assert_eq!((e.code, e.row), ("bad_image", Some(2)), "{e}");
    assert!(e.detail.contains("a/2"), "{e}");
    // Two shards may use the same keys; what is wrong with one is said of that one.
    let one = objects(&[("1.png", image(0)), ("1.cls", b"x")]);
    let found = read(source.clone(), &[("s0.tar", &one), ("s1.tar", &one)]).unwrap();
    assert_eq!(found.statistics.class_counts, Some(vec![2]));
    let broken = objects(&[("2.png", &image(0)[..40]), ("2.cls", b"x")]);
    let e = fault(
        source,
        &[("s0.tar", &one), ("s1.tar", &broken), ("s2.tar", &one)],
    );
    assert_eq!((e.code, e.row), ("bad_image", Some(2)), "{e}");
    assert!(e.detail.starts_with("s1.tar: "), "{e}");
}

#[test]
fn tables_are_read_one_after_the_other() {
    let source = json!({"format": "csv", "label_column": "y"});
    let whole = inspect(
        source.clone(),
        &file(b"a,b,y\n1,2,x\n3,4,z\n5,6,x\n7,8,z\n"),
    )
    .unwrap();
    let second = gzip(b"y,b,a\nz,4,3\nx,6,5\n");
    let shards: [(&str, &[u8]); 3] = [
        ("0.csv", b"a,b,y\n1,2,x"),
        ("1.csv.gz", &second),
        ("2.csv", b"a,b,y\n7,8,z\n"),
    ];
    assert_eq!(read(source.clone(), &shards).unwrap(), whole);

    let lines = json!({"format": "jsonl", "label_column": "y"});
    let whole = inspect(
        lines.clone(),
        &file(b"{\"a\":1,\"y\":\"p\"}\n{\"a\":2,\"y\":\"q\"}\n"),
    )
    .unwrap();
    let shards: [(&str, &[u8]); 2] = [
        ("0.jsonl", b"{\"a\":1,\"y\":\"p\"}"),
        ("1.jsonl", b"{\"a\":2,\"y\":\"q\"}"),
    ];
    assert_eq!(read(lines, &shards).unwrap(), whole);

    let cars = include_bytes!("../data/cars.parquet");
    let parquet = json!({"format": "parquet", "label_column": "Origin"});
    let one = inspect(parquet.clone(), &file(cars)).unwrap();
    let twice = read(parquet, &[("0.parquet", cars), ("1.parquet", cars)]).unwrap();
    assert_eq!(twice.statistics.rows, 2 * one.statistics.rows);
    assert_eq!(twice.schema.features.len(), one.schema.features.len());

    let e = fault(
        source.clone(),
        &[("0.csv", b"a,y\n1,x\n"), ("1.csv", b"a,y\n2,x\n3\n")],
    );
    assert_eq!((e.code, e.row), ("ragged_row", Some(3)), "{e}");
    assert!(e.detail.starts_with("1.csv: "), "{e}");
    let e = fault(
        source.clone(),
        &[("0.csv", b"a,y\n1,x\n"), ("1.csv", b"b,y\n2,x\n")],
    );
    assert_eq!(e.code, "missing_column", "{e}");
    let e = fault(
        source,
        &[("0.csv", b"a,y\n1,x\n"), ("1.csv", b"a,b,y\n2,2,x\n")],
    );
    assert_eq!(e.code, "unexpected_column", "{e}");
}

#[test]
fn other_formats_take_one_object() {
    let e = read(json!({"format": "npy"}), &[("0.npy", b"x")]).unwrap_err();
    assert!(matches!(e, EngineError::InvalidInput(_)), "{e}");
    let e = fault(json!({"format": "images"}), &[]);
    assert_eq!(e.code, "empty");
}
