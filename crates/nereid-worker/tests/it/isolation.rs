//! Training in a child process: what it reports, how it dies, and that it never stays behind.
//!
//! The child is this test binary, asked to run the one test that is a training process.

mod fake;

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nereid_core::{
    datasets::FileRole,
    engine::{
        DataFiles, DataInput, DataResources, EngineError, Monitor, Snapshot, TrainTask, Trainer,
    },
    events::{LogLevel, MetricPoint, RuleReport},
    jobs::{Directive, JobPhase, JobSpec, NewJob, Progress, TerminationReason},
    models::TrainedModel,
    workers::DeviceKind,
};
use nereid_worker::{ProcessConfig, ProcessTrainer, serve};
use serde_json::json;
use tempfile::TempDir;

#[test]
#[ignore = "is the process that the tests of this file start"]
fn training_process() {
    serve(&fake::Fake);
}

#[test]
#[ignore = "is a worker that the tests of this file start and kill"]
fn worker_process() {
    let mut folder = String::new();
    if io::stdin().is_terminal() || io::stdin().read_line(&mut folder).unwrap() == 0 {
        return;
    }
    let mut lab = Lab::new();
    lab.scratch = PathBuf::from(folder.trim());
    lab.config.lease = Duration::from_secs(1);
    let _ = lab.train("obey", &mut Told::new(Directive::Continue));
}

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `done`.
#[expect(clippy::disallowed_methods, reason = "there is no event to await")]
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A trainer, and what it is given.
struct Lab {
    config: ProcessConfig,
    files: Arc<dyn DataFiles>,
    folder: TempDir,
    scratch: PathBuf,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            config: ProcessConfig {
                program: std::env::current_exe().unwrap(),
                name: "training".into(),
                arguments: fake::arguments("isolation::training_process"),
                environment: vec![("GIVEN".into(), "yes".into())],
                lease: Duration::from_secs(10),
                suspend_grace: Duration::from_secs(2),
                memory_limit: None,
            },
            files: Arc::new(Bytes(b"a,label\n1,x\n".to_vec())),
            scratch: folder.path().to_owned(),
            folder,
        }
    }

    /// Trains in another process; `script` says what the fake does there.
    fn train(&self, script: &str, monitor: &mut Told) -> Result<TrainedModel, EngineError> {
        let job = json!({
            "kind": "train",
            "spec": {
                "model": script, "dataset": "digits@1",
                "network": {"layers": [{"type": "Dense", "units": 2}]},
                "loss": {"type": "sparse_categorical_crossentropy"},
                "optimizer": {"type": "adam", "learning_rate": 0.1},
                "fit": {"seed": 42},
            }
        });
        let JobSpec::Train(spec) = NewJob::read(job).unwrap().spec else {
            panic!("no training")
        };
        let input = || DataInput {
            source: serde_json::from_value(json!({
                "format": "csv", "files": {"data": "s3://b/k"}, "label_column": "label",
            }))
            .unwrap(),
            schema: serde_json::from_value(json!({"shape": [1], "dtype": "INT64"})).unwrap(),
            files: Arc::clone(&self.files),
            digest: None,
        };
        let task = TrainTask {
            spec: &spec,
            train: input(),
            validation: Some(input()),
            test: None,
            device: DeviceKind::Cpu,
            base: Some(Path::new("/start/from/this")),
            resume: Some(Path::new("/resume/from/this")),
            resources: &DataResources::default(),
            scratch: &self.scratch,
            output: self.folder.path(),
        };
        ProcessTrainer::new(self.config.clone()).train(&task, monitor)
    }

    fn fail(&self, script: &str) -> EngineError {
        let mut monitor = Told::new(Directive::Continue);
        self.train(script, &mut monitor).unwrap_err()
    }

    /// The child, which writes its number down.
    fn child(&self) -> Option<u32> {
        pid_in(&self.scratch)
    }
}

fn pid_in(scratch: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(scratch.join("pid")).ok()?;
    text.parse().ok()
}

/// Tells whether a process is there; one that only waits to be buried is not.
fn is_alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|s| !s.contains("State:\tZ"))
}

struct Bytes(Vec<u8>);

impl DataFiles for Bytes {
    fn open(&self, role: FileRole) -> io::Result<Box<dyn Read + Send>> {
        match role {
            FileRole::Data => Ok(Box::new(io::Cursor::new(self.0.clone()))),
            FileRole::Labels => Err(io::Error::new(io::ErrorKind::NotFound, "no labels here")),
        }
    }
}

/// Keeps what it is told, and says what it was made to say once the training is under way.
struct Told {
    directive: Directive,
    phases: Vec<JobPhase>,
    progress: Vec<Progress>,
    points: Vec<MetricPoint>,
    rules: Vec<RuleReport>,
    lines: Vec<(LogLevel, String)>,
    snapshots: Vec<(u64, Vec<u8>)>,
}

impl Told {
    fn new(directive: Directive) -> Self {
        Self {
            directive,
            phases: vec![],
            progress: vec![],
            points: vec![],
            rules: vec![],
            lines: vec![],
            snapshots: vec![],
        }
    }
}

impl Monitor for Told {
    fn phase(&mut self, phase: JobPhase) {
        self.phases.push(phase);
    }
    fn progress(&mut self, progress: Progress) {
        self.progress.push(progress);
    }
    fn metrics(&mut self, point: MetricPoint) {
        self.points.push(point);
    }
    fn rule(&mut self, report: RuleReport) {
        self.rules.push(report);
    }
    fn log(&mut self, level: LogLevel, message: String) {
        self.lines.push((level, message));
    }
    fn checkpoint(&mut self, snapshot: Snapshot) {
        let bytes = std::fs::read(&snapshot.path).unwrap();
        self.snapshots.push((snapshot.step, bytes));
    }
    fn directive(&mut self) -> Directive {
        if self.phases.is_empty() {
            return Directive::Continue;
        }
        self.directive
    }
}

#[test]
fn another_process_reports_just_what_a_thread_would() {
    let lab = Lab::new();
    let mut told = Told::new(Directive::Continue);
    let model = lab.train("report", &mut told).unwrap();
    assert_eq!(told.phases, [JobPhase::Training]);
    assert_eq!(told.progress.len(), 1000);
    assert!(
        told.progress
            .iter()
            .zip(1..)
            .all(|(p, step)| p.step == step)
    );
    assert!(told.points[0].values["odd"].is_nan());
    assert_eq!(
        told.points[0].values["third"].to_bits(),
        (1.0_f64 / 3.0).to_bits()
    );
    assert_eq!(told.rules, [fake::rule()]);
    assert_eq!(told.lines, [(LogLevel::Warn, "a line".to_owned())]);
    assert_eq!(told.snapshots, [(7, b"snapshot".to_vec())]);
    assert!(model.metrics["odd"].is_nan());
    assert_eq!(model.reports["resume"], "/resume/from/this");
    assert_eq!(model.reports["base"], "/start/from/this");
    assert_eq!(model.reports["learning_rate"], json!(0.1));
    // Nothing but what it was given: neither credentials nor anything else.
    assert_eq!(model.reports["environment"], json!(["GIVEN"]));
    if cfg!(target_os = "linux") {
        assert_eq!(model.reports["oom_score_adj"], "1000");
    }
    eventually("the child to be gone", || !is_alive(lab.child().unwrap()));
}

#[test]
fn whatever_kills_a_training_kills_no_worker() {
    use TerminationReason::{Crashed, Internal, OutOfMemory};
    let lab = Lab::new();
    for (script, reason, text) in [
        ("abort", Crashed, "SIGABRT"),
        ("abort", Crashed, "the last words"),
        ("segv", Crashed, "SIGSEGV"),
        ("exit", Crashed, "exit status: 7"),
        ("huge", OutOfMemory, "could not get the memory"),
        ("panic", Internal, "at the disco"),
    ] {
        let error = lab.fail(script);
        assert_eq!(error.reason(), reason, "{script}: {error}");
        assert!(error.to_string().contains(text), "{script}: {error}");
        assert!(!is_alive(lab.child().unwrap()), "{script}");
    }
    // Whether the kernel or somebody else did it, the kernel's own count tells, if it has one.
    let killed = lab.fail("kill");
    assert!(matches!(killed.reason(), Crashed | OutOfMemory), "{killed}");
    let mut told = Told::new(Directive::Continue);
    assert!(lab.train("report", &mut told).is_ok());
}

#[test]
#[cfg(target_os = "linux")]
fn a_training_that_eats_more_memory_than_it_may_is_ended() {
    let mut lab = Lab::new();
    lab.config.memory_limit = Some(256 << 20);
    let error = lab.fail("eat");
    assert_eq!(error.reason(), TerminationReason::OutOfMemory, "{error}");
    assert!(error.to_string().contains("256 MiB"), "{error}");
    assert!(!is_alive(lab.child().unwrap()));
}

#[test]
fn mistakes_in_the_data_keep_row_and_column() {
    let error = Lab::new().fail("bad-data");
    let EngineError::InvalidData(data) = &error else {
        panic!("{error:?}")
    };
    assert_eq!((data.code, data.row), ("not_a_number", Some(3)));
    assert_eq!(
        error.to_string(),
        r#"data file, row 3, column "a": "x" is no number"#
    );
}

#[test]
fn data_arrive_whole_through_streams_that_do_not_mix() {
    let mut lab = Lab::new();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    lab.files = Arc::new(Bytes(bytes.clone()));
    let model = lab
        .train("read", &mut Told::new(Directive::Continue))
        .unwrap();
    assert_eq!(model.reports["train"], model.reports["validation"]);
    assert_eq!(model.reports["train"], fake::digest(&bytes));
    assert_eq!(model.reports["labels"], "NotFound: no labels here");
}

/// Fails after its first megabyte, and counts what is read of it.
#[derive(Clone, Default)]
struct Cut(Arc<AtomicU64>);

impl DataFiles for Cut {
    fn open(&self, _: FileRole) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.clone()))
    }
}

impl Read for Cut {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = buffer.len().min(1000);
        if self.0.fetch_add(n as u64, Ordering::Relaxed) >= 1 << 20 {
            return Err(io::Error::other("503 from the storage"));
        }
        buffer[..n].fill(b'1');
        Ok(n)
    }
}

#[test]
fn storage_that_fails_in_the_middle_is_no_end_of_file() {
    let mut lab = Lab::new();
    lab.files = Arc::new(Cut::default());
    let error = lab.fail("read");
    assert_eq!(error.reason(), TerminationReason::Unavailable, "{error}");
    assert_eq!(error.to_string(), "reading: 503 from the storage");
}

/// Never ends, and counts what is read of it.
#[derive(Clone, Default)]
struct Endless(Arc<AtomicU64>);

impl DataFiles for Endless {
    fn open(&self, _: FileRole) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.clone()))
    }
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        Ok(buffer.len())
    }
}

#[test]
fn what_is_not_wanted_yet_is_not_read() {
    let mut lab = Lab::new();
    let endless = Endless::default();
    lab.files = Arc::new(endless.clone());
    // Reads one byte, and then waits for a directive that comes after a while.
    let told = lab.train("sip", &mut Told::new(Directive::Stop));
    assert!(matches!(told, Err(EngineError::Stopped)), "{told:?}");
    let read = endless.0.load(Ordering::Relaxed);
    assert!((1..4 << 20).contains(&read), "{read}");
}

#[test]
fn directives_arrive_and_who_does_not_heed_a_stop_is_killed() {
    let lab = Lab::new();
    let mut told = Told::new(Directive::Suspend);
    let suspended = lab.train("obey", &mut told);
    assert!(
        matches!(suspended, Err(EngineError::Stopped)),
        "{suspended:?}"
    );
    assert_eq!(told.snapshots, [(7, b"snapshot".to_vec())]);
    assert!(lab.train("obey", &mut Told::new(Directive::Finish)).is_ok());

    let started = Instant::now();
    let stopped = lab.train("deaf", &mut Told::new(Directive::Stop));
    assert!(matches!(stopped, Err(EngineError::Stopped)), "{stopped:?}");
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "{:?}",
        started.elapsed()
    );
    assert!(!is_alive(lab.child().unwrap()));
}

/// A worker of this file with a training under way; killed when dropped.
struct Worker {
    process: Child,
    training: u32,
    _folder: TempDir,
}

impl Worker {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(fake::arguments("isolation::worker_process"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = process.stdin.take().unwrap();
        writeln!(stdin, "{}", folder.path().display()).unwrap();
        eventually("a training", || pid_in(folder.path()).is_some());
        Self {
            training: pid_in(folder.path()).unwrap(),
            process,
            _folder: folder,
        }
    }

    fn signal(&self, signal: &str) {
        fake::signal(self.process.id(), signal);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn no_training_outlives_its_worker() {
    let killed = Worker::start();
    assert!(is_alive(killed.training));
    killed.signal("KILL");
    eventually("the orphan's end", || !is_alive(killed.training));

    // Stopped itself, it cannot notice before the kernel wakes it, as it does with orphans.
    let both = Worker::start();
    fake::signal(both.training, "STOP");
    both.signal("KILL");
    eventually("the stopped orphan's end", || !is_alive(both.training));

    let silent = Worker::start();
    silent.signal("STOP");
    let since = Instant::now();
    eventually("the abandoned one's end", || !is_alive(silent.training));
    assert!(
        since.elapsed() > Duration::from_millis(600),
        "{:?}",
        since.elapsed()
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_training_that_stood_still_for_longer_than_the_lease_goes_on() {
    let mut lab = Lab::new();
    lab.config.lease = Duration::from_millis(800);
    let told = Mutex::new(None);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut monitor = Told::new(Directive::Continue);
            *told.lock().unwrap() = Some(lab.train("patient", &mut monitor));
        });
        eventually("a training", || lab.child().is_some());
        let child = lab.child().unwrap();
        fake::signal(child, "STOP");
        std::thread::park_timeout(Duration::from_secs(2));
        fake::signal(child, "CONT");
        // Still there after the second look: what came meanwhile was heard.
        std::thread::park_timeout(Duration::from_secs(1));
        assert!(is_alive(child));
        std::fs::write(lab.scratch.join("enough"), "").unwrap();
    });
    let outcome = told.into_inner().unwrap().unwrap();
    assert_eq!(outcome.unwrap().metrics, BTreeMap::new());
}
