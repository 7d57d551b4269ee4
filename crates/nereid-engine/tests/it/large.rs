//! Training on 5 GB in less than 500 MB: measured, not part of the usual tests.
//!
//! `cargo test -p nereid-core -p nereid-engine --test it -- --ignored --nocapture five_gigabytes`
//! needs 11 GB below `TMPDIR`, which are given back.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use nereid_core::{
    datasets::FileRole,
    engine::{DataFiles, DataInput, DataResources},
};
use serde_json::{Value, json};

use crate::support::{Memory, Numbers, Recorder, input, spec, train};

/// Pictures of 32×32 pixels in three colours.
const PIXELS: usize = 32 * 32 * 3;
const PICTURES: usize = 5_000_000_000 / PIXELS + 1;
const CLASSES: usize = 10;
/// Pictures of a class before they repeat but for their first pixels.
const VARIANTS: usize = 64;
const MOST_MEGABYTES: u64 = 500;

/// Files in a folder.
struct Folder(PathBuf);

impl DataFiles for Folder {
    fn open(&self, role: FileRole) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(self.0.join(role.as_str()))?))
    }
}

fn header(shape: &str) -> Vec<u8> {
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes
}

fn random_byte(numbers: &mut Numbers, from: u8, to: u8) -> u8 {
    from + u8::try_from(numbers.below(usize::from(to - from))).unwrap()
}

/// Writes so many pictures, whose classes show in the brightness of a few pixels.
fn write(pictures: usize, data: &mut dyn Write, labels: &mut dyn Write) -> io::Result<()> {
    let mut numbers = Numbers(5);
    let variants: Vec<Vec<u8>> = (0..CLASSES * VARIANTS)
        .map(|v| {
            let mut noise: Vec<u8> = (0..PIXELS)
                .map(|_| random_byte(&mut numbers, 0, 200))
                .collect();
            let class = v % CLASSES;
            for pixel in noise.iter_mut().skip(class * 90 + 100).take(80) {
                *pixel = random_byte(&mut numbers, 150, 255);
            }
            noise
        })
        .collect();
    data.write_all(&header(&format!("({pictures}, 32, 32, 3)")))?;
    labels.write_all(&header(&format!("({pictures},)")))?;
    for i in 0..pictures {
        // In the first rows each class occurs.
        let v = if i < CLASSES {
            i
        } else {
            numbers.below(variants.len())
        };
        data.write_all(&(i as u64).to_le_bytes())?;
        data.write_all(&variants[v][8..])?;
        labels.write_all(&[u8::try_from(v % CLASSES).unwrap()])?;
    }
    Ok(())
}

/// A data set of 5 GB in a folder.
fn pictures(folder: &Path) -> DataInput {
    let source = json!({"format": "npy", "target": "class"});
    // The description is that of its beginning, so that the test does not last longer.
    let (mut data, mut labels) = (Vec::new(), Vec::new());
    write(1_000, &mut data, &mut labels).unwrap();
    let small = [(FileRole::Data, data), (FileRole::Labels, labels)];
    let mut whole = input(source, Memory(small.into()));
    let file = |role: FileRole| {
        let file = File::create(folder.join(role.as_str())).unwrap();
        BufWriter::with_capacity(1 << 20, file)
    };
    let (mut data, mut labels) = (file(FileRole::Data), file(FileRole::Labels));
    write(PICTURES, &mut data, &mut labels).unwrap();
    data.flush().unwrap();
    labels.flush().unwrap();
    whole.files = Arc::new(Folder(folder.to_owned()));
    whole.digest = Some("5eb1e5".to_owned());
    whole
}

/// Most memory that this process has held so far, in megabytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kibibytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kibibytes.parse::<u64>().unwrap() * 1024 / 1_000_000
}

fn description(shuffle_buffer: Option<u32>) -> Value {
    let mut description = json!({
        "network": {"layers": [
            {"type": "Flatten"},
            {"type": "Dense", "units": 10, "activation": "softmax"}
        ]},
        "loss": {"type": "sparse_categorical_crossentropy"},
        "metrics": ["accuracy"],
        "fit": {"epochs": 1, "batch_size": 256, "validation_split": 0.05, "seed": 1}
    });
    if let Some(rows) = shuffle_buffer {
        description["fit"]["shuffle_buffer"] = json!(rows);
    }
    description
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "trains for minutes and needs 11 GB of disk, to measure"]
fn five_gigabytes_are_trained_on_in_less_than_500_megabytes() {
    let folder = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let data = pictures(folder.path());
    let bytes = fs::metadata(folder.path().join("data")).unwrap().len();
    println!(
        "{bytes} bytes made in {:.0?}; peak {} MB",
        started.elapsed(),
        peak()
    );
    assert!(bytes >= 5_000_000_000);
    let cache = folder.path().join("cache");
    let kept = DataResources {
        cache_folder: Some(cache.clone()),
        ..DataResources::default()
    };
    let nothing_kept = DataResources {
        cache_limit: 1 << 30,
        ..DataResources::default()
    };
    let mut weights = Vec::new();
    for (name, shuffle_buffer, resources) in [
        ("decoded, held on disk", None, &kept),
        ("found on disk", None, &kept),
        ("a window, on disk", Some(20_000), &kept),
        ("a window, streamed", Some(20_000), &nothing_kept),
    ] {
        let output = tempfile::tempdir().unwrap();
        let mut recorder = Recorder {
            resources: resources.clone(),
            quiet: true,
            ..Recorder::default()
        };
        let spec = spec(description(shuffle_buffer));
        let started = Instant::now();
        let model = train(&spec, &data, None, output.path(), &mut recorder).unwrap();
        let seconds = started.elapsed();
        let last = recorder.points.last().unwrap();
        let speed = last.values["samples_per_second"];
        let waited = recorder
            .lines
            .iter()
            .find(|l| l.contains("waited for data"));
        println!(
            "{name}: {seconds:.0?} in all, {speed:.0} samples/s in training, {:?}",
            model.metrics
        );
        println!("  {}; peak {} MB", waited.unwrap(), peak());
        weights.push(fs::read(output.path().join("weights.safetensors")).unwrap());
        assert!(model.metrics["val_accuracy"] > 0.9, "{:?}", model.metrics);
    }
    assert!(weights[0] == weights[1] && weights[2] == weights[3]);
    assert!(weights[0] != weights[2]);
    let cached = fs::read_dir(&cache).unwrap().map(|e| e.unwrap().metadata());
    let cached: u64 = cached.map(|m| m.unwrap().len()).sum();
    assert!(cached > bytes, "{cached} bytes are cached");
    let peak = peak();
    assert!(peak < MOST_MEGABYTES, "{peak} MB");
}
