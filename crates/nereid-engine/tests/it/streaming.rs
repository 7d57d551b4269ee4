//! Data beyond memory, on disk or streamed, gives the very bytes that data in memory gives.

use std::{
    fs,
    io::{self, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use nereid_core::{
    datasets::FileRole,
    engine::{DataFiles, DataInput, DataResources, EngineError},
    jobs::Directive,
    spec::TrainSpec,
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    resume::{description, pictures},
    support::{Recorder, spec, train},
};

/// What a training leaves that must not depend on where its data was held.
const FILES: [&str; 4] = [
    "weights.safetensors",
    "golden.safetensors",
    "history.json",
    "model.json",
];

fn in_memory() -> DataResources {
    DataResources::default()
}

/// No memory for data: all is read from a file.
fn on_disk(loader_threads: usize) -> DataResources {
    DataResources {
        memory: 0,
        loader_threads,
        ..in_memory()
    }
}

/// Memory for a window, and no disk: all is read from the source in each epoch.
fn streamed() -> DataResources {
    DataResources {
        memory: 12 << 10,
        cache_limit: 8 << 10,
        ..in_memory()
    }
}

fn windowed(rows: u32) -> TrainSpec {
    let mut description = description();
    description["fit"]["shuffle_buffer"] = json!(rows);
    spec(description)
}

fn kept(folder: &Path) -> Vec<Vec<u8>> {
    let read = |name| fs::read(folder.join(name)).unwrap();
    FILES.map(read).into()
}

fn run(spec: &TrainSpec, data: &DataInput, resources: DataResources) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder {
        resources,
        ..Recorder::default()
    };
    train(spec, data, None, folder.path(), &mut recorder).unwrap();
    let left = fs::read_dir(recorder.scratch.0.path()).unwrap();
    let rows =
        left.filter(|e| e.as_ref().unwrap().path().extension() != Some("safetensors".as_ref()));
    assert_eq!(rows.count(), 0, "decoded data is not left behind");
    kept(folder.path())
}

/// Files that count how often they are opened.
struct Counted(Arc<dyn DataFiles>, Arc<AtomicUsize>);

impl DataFiles for Counted {
    fn open(&self, role: FileRole) -> io::Result<Box<dyn Read + Send>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.open(role)
    }
}

fn counted() -> (DataInput, Arc<AtomicUsize>) {
    let mut data = pictures();
    let opened = Arc::new(AtomicUsize::new(0));
    data.files = Arc::new(Counted(data.files, Arc::clone(&opened)));
    (data, opened)
}

#[test]
fn neither_disk_nor_threads_change_a_byte() {
    let (spec, data) = (spec(description()), pictures());
    let expected = run(&spec, &data, in_memory());
    for threads in [0, 1, 3] {
        assert!(run(&spec, &data, on_disk(threads)) == expected, "{threads}");
    }
}

#[test]
fn augmentation_and_balance_do_not_depend_on_threads() {
    let mut description = description();
    description["fit"]["augmentation"] = json!([
        {"type": "RandomFlip", "mode": "horizontal"},
        {"type": "RandomTranslation", "height_factor": 0.2, "width_factor": 0.2}
    ]);
    description["fit"]["class_weight"] = json!(null);
    description["fit"]["class_balance"] = json!("oversample");
    let (spec, data) = (spec(description), pictures());
    let threads = |loader_threads| DataResources {
        loader_threads,
        ..in_memory()
    };
    let expected = run(&spec, &data, threads(0));
    for n in [1, 3] {
        assert!(run(&spec, &data, threads(n)) == expected, "{n}");
        assert!(run(&spec, &data, on_disk(n)) == expected, "{n}");
    }
}

#[test]
fn a_window_gives_the_same_bytes_wherever_the_data_is() {
    let (data, opened) = counted();
    let spec = windowed(40);
    let expected = run(&spec, &data, in_memory());
    assert!(run(&spec, &data, on_disk(2)) == expected);
    opened.store(0, Ordering::Relaxed);
    assert!(run(&spec, &data, streamed()) == expected);
    let opened = opened.load(Ordering::Relaxed);
    assert!(
        opened > 10,
        "read {opened} times, for each epoch and each validation"
    );
    assert!(run(&windowed(41), &data, in_memory()) != expected);
}

#[test]
fn a_streamed_training_cut_anywhere_ends_with_the_same_bytes() {
    let (spec, data) = (windowed(40), pictures());
    let expected = run(&spec, &data, in_memory());
    // Between the first steps and beyond the first epoch, which has eight of them.
    for cut in 4..16 {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Recorder::directed(move |asked| {
            if asked < 10 + cut {
                Directive::Continue
            } else {
                Directive::Suspend
            }
        });
        first.resources = streamed();
        let result = train(&spec, &data, None, folder.path(), &mut first);
        assert!(matches!(result, Err(EngineError::Stopped)), "{result:?}");
        let state = first.snapshots.last().unwrap().path.clone();
        let mut second = Recorder {
            resources: streamed(),
            quiet: true,
            ..Recorder::default()
        };
        train(&spec, &data, Some(&state), folder.path(), &mut second).unwrap();
        assert!(kept(folder.path()) == expected, "cut at {cut}");
    }
}

fn shared(folder: &TempDir, limit: u64) -> DataResources {
    DataResources {
        cache_folder: Some(folder.path().to_owned()),
        cache_limit: limit,
        ..on_disk(1)
    }
}

fn cached(folder: &TempDir) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder.path()).unwrap();
    entries.map(|e| e.unwrap().path()).collect()
}

#[test]
fn decoded_data_is_used_again_unless_it_is_damaged() {
    let (mut data, opened) = counted();
    data.digest = Some("ab".repeat(32));
    let (spec, folder) = (spec(description()), tempfile::tempdir().unwrap());
    let expected = run(&spec, &data, in_memory());
    let once = opened.swap(0, Ordering::Relaxed);
    let again = || {
        opened.store(0, Ordering::Relaxed);
        assert!(run(&spec, &data, shared(&folder, 1 << 20)) == expected);
        opened.load(Ordering::Relaxed)
    };
    assert_eq!((again(), again()), (once, 0));
    let [file] = cached(&folder).try_into().unwrap();
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[5000] ^= 1;
    for damaged in [&flipped, &whole[..whole.len() - 1], b"NEREIDR1", b""] {
        fs::write(&file, damaged).unwrap();
        assert_eq!((again(), again()), (once, 0));
    }
    // What a process left that died as it wrote.
    fs::write(folder.path().join("1-0.partial"), vec![0; 1 << 20]).unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(again(), once);
    assert_eq!(cached(&folder), [file]);
}

#[test]
fn what_was_not_used_for_longest_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(description());
    let use_ = |digest: &str, limit| {
        let (mut data, opened) = counted();
        data.digest = Some(digest.to_owned());
        run(&spec, &data, shared(&folder, limit));
        opened.load(Ordering::Relaxed) > 0
    };
    // 150 rows of 36 floats and a target, and a header.
    let one = 4096 + 150 * 37 * 4;
    assert!(use_("aa", 2 * one) && use_("bb", 2 * one));
    assert!(!use_("aa", 2 * one), "both fit");
    assert!(use_("cc", 2 * one));
    assert!(!use_("aa", 2 * one), "it was used later than the other");
    assert!(use_("bb", 2 * one), "it made room");
    assert_eq!(cached(&folder).len(), 2);
}

#[test]
fn data_that_fits_nowhere_says_what_to_do() {
    let refused = |spec: &TrainSpec, resources| {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = Recorder {
            resources,
            ..Recorder::default()
        };
        match train(spec, &pictures(), None, folder.path(), &mut recorder) {
            Err(EngineError::InvalidInput(detail)) => detail,
            other => panic!("{other:?}"),
        }
    };
    let detail = refused(&spec(description()), streamed());
    assert!(
        detail.contains("8192 bytes") && detail.contains("fit.shuffle_buffer"),
        "{detail}"
    );
    let detail = refused(&windowed(100), streamed());
    assert!(detail.contains("worker.data_memory"), "{detail}");
}

/// Fails, or panics, in the middle of the `n`-th file that is opened.
struct Failing {
    files: Arc<dyn DataFiles>,
    opened: AtomicUsize,
    n: usize,
    panics: bool,
}

struct FailingFile(Box<dyn Read + Send>, bool);

impl DataFiles for Failing {
    fn open(&self, role: FileRole) -> io::Result<Box<dyn Read + Send>> {
        let file = self.files.open(role)?;
        if self.opened.fetch_add(1, Ordering::Relaxed) < self.n {
            return Ok(file);
        }
        Ok(Box::new(FailingFile(
            Box::new(file.take(4 << 10)),
            self.panics,
        )))
    }
}

impl Read for FailingFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 if self.1 => panic!("as it should"),
            0 => Err(io::ErrorKind::ConnectionReset.into()),
            n => Ok(n),
        }
    }
}

#[test]
fn what_fails_on_another_thread_ends_the_training() {
    for (n, panics) in [(2, false), (2, true), (3, false), (4, true), (7, false)] {
        let mut data = pictures();
        data.files = Arc::new(Failing {
            files: data.files,
            opened: AtomicUsize::new(0),
            n,
            panics,
        });
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = Recorder {
            resources: streamed(),
            quiet: true,
            ..Recorder::default()
        };
        let result = train(&windowed(40), &data, None, folder.path(), &mut recorder);
        match result {
            Err(EngineError::Internal(what)) if panics => assert!(what.contains("as it should")),
            Err(EngineError::Io { .. }) if !panics => {}
            other => panic!("{other:?}"),
        }
    }
}
