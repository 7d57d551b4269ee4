//! Images in a tar: classes by folder and by WebDataset's files, sizes, and what is refused.

use std::io::Read;

use nereid_core::engine::{DataError, EngineError};
use serde_json::{Value, json};

use crate::support::{Recorder, file, gzip, input, inspect, spec, train};

const DIGITS: &[u8] = include_bytes!("../data/digits.tar.gz");
const SHARD: &[u8] = include_bytes!("../data/shard.tar");

fn fault(source: Value, bytes: &[u8]) -> DataError {
    match inspect(source, &file(bytes)) {
        Err(EngineError::InvalidData(e)) => e,
        other => panic!("{other:?}"),
    }
}

/// A tar of files.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The PNG of the first digit.
fn png() -> Vec<u8> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(DIGITS));
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn folders_are_classes() {
    let found = inspect(json!({"format": "images"}), &file(DIGITS)).unwrap();
    assert_eq!(
        (found.schema.shape.as_slice(), found.schema.dtype.as_str()),
        (&[8, 8, 1][..], "UINT8")
    );
    assert_eq!(found.statistics.rows, 120);
    let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    assert_eq!(found.schema.classes().unwrap(), names);
    // The first digit of scikit-learn's set is a 0 whose first row reads 0 0 5 13 9 1 0 0.
    assert_eq!(found.preview[0].target, Some(json!("0")));
    assert_eq!(
        found.preview[0].features[..8],
        [0, 0, 75, 195, 135, 15, 0, 0].map(f64::from)
    );
}

#[test]
fn webdatasets_classes_lie_beside_their_images() {
    let e = fault(json!({"format": "images"}), SHARD);
    assert_eq!((e.code, e.row), ("shape_mismatch", Some(2)), "{e}");
    let found = inspect(
        json!({"format": "images", "shape": [6, 6, 3]}),
        &file(SHARD),
    )
    .unwrap();
    assert_eq!(found.schema.classes().unwrap(), ["0", "1", "2"]);
    assert_eq!(found.statistics.class_counts, Some(vec![2, 2, 2]));
    // The second image is all of one colour, up to what JPEG loses.
    let pixel = &found.preview[1].features[..3];
    for (got, expected) in pixel.iter().zip([10.0, 90.0, 200.0]) {
        assert!((got - expected).abs() <= 3.0, "{pixel:?}");
    }
    let alpha = inspect(
        json!({"format": "images", "shape": [6, 6, 4]}),
        &file(SHARD),
    )
    .unwrap();
    assert_eq!(alpha.preview[0].features[3].to_bits(), 255.0_f64.to_bits());
}

#[test]
fn what_is_no_image_is_refused() {
    let source = json!({"format": "images", "shape": [8, 8, 1]});
    let png = png();
    assert!(
        inspect(
            source.clone(),
            &file(&tar(&[("a/x.png", &png), ("a/.DS_Store", b"x")]))
        )
        .is_ok()
    );
    for (code, row, bytes) in [
        ("empty", None, tar(&[("a/readme.txt", b"x")])),
        (
            "bad_image",
            Some(2),
            tar(&[("a/x.png", &png), ("a/y.png", b"no image")]),
        ),
        (
            "bad_image",
            Some(2),
            tar(&[("a/x.png", &png), ("a/y.png", &png[..60])]),
        ),
        ("bad_image", Some(1), tar(&[("a/x.gif", &png)])),
        (
            "bad_image",
            Some(1),
            tar(&[("a/x.png", &png), ("a/x.jpg", &png)]),
        ),
        (
            "bad_image",
            Some(1),
            tar(&[("x.cls", b"1"), ("y.png", &png), ("y.cls", b"1")]),
        ),
        (
            "missing_value",
            Some(2),
            tar(&[("x.png", &png), ("x.cls", b"1"), ("y.png", &png)]),
        ),
        ("bad_tar", None, b"x".repeat(2048)),
        ("truncated", None, tar(&[("a/x.png", &png)])[..700].to_vec()),
    ] {
        let e = fault(source.clone(), &bytes);
        assert_eq!((e.code, e.row), (code, row), "{e}");
    }
    let e = fault(json!({"format": "images", "shape": [8, 8, 2]}), DIGITS);
    assert_eq!(e.code, "shape_mismatch");
}

/// A PNG that says it is `side` pixels wide and high, and is all of one grey.
fn huge_png(side: u32) -> Vec<u8> {
    let chunk = |kind: &[u8], data: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(kind);
        crc.update(data);
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        [&length[..], kind, data, &crc.sum().to_be_bytes()].concat()
    };
    let header = [
        &side.to_be_bytes()[..],
        &side.to_be_bytes(),
        &[8, 6, 0, 0, 0],
    ]
    .concat();
    let mut pixels = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    let line = vec![0; side as usize * 4 + 1];
    for _ in 0..64 {
        std::io::Write::write_all(&mut pixels, &line).unwrap();
    }
    let pixels = pixels.finish().unwrap();
    [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        chunk(b"IHDR", &header),
        chunk(b"IDAT", &pixels),
        chunk(b"IEND", b""),
    ]
    .concat()
}

#[test]
fn an_image_cannot_take_all_memory() {
    for side in [16_000, 100_000] {
        let bytes = gzip(&tar(&[("a/x.png", &huge_png(side))]));
        let e = fault(json!({"format": "images", "shape": [8, 8, 1]}), &bytes);
        assert_eq!(e.code, "bad_image", "{e}");
        assert!(e.detail.contains("limit"), "{e}");
    }
}

#[test]
fn a_network_learns_images_from_a_tar() {
    let data = input(
        json!({"format": "images", "shape": [8, 8, 1]}),
        file(DIGITS),
    );
    let spec = spec(json!({
        "network": {"layers": [
            {"type": "Flatten"},
            {"type": "Dense", "units": 32, "activation": "relu"},
            {"type": "Dense", "units": 10, "activation": "softmax"}
        ]},
        "loss": {"type": "sparse_categorical_crossentropy"},
        "optimizer": {"type": "adam", "learning_rate": 0.01},
        "metrics": ["accuracy"],
        "fit": {"epochs": 30, "batch_size": 16, "test_split": 0.2}
    }));
    let folder = tempfile::tempdir().unwrap();
    let model = train(&spec, &data, None, folder.path(), &mut Recorder::default()).unwrap();
    assert!(model.metrics["test_accuracy"] > 0.75, "{:?}", model.metrics);
    assert_eq!(model.signature.inputs[0].shape, [-1, 8, 8, 1]);
}
