//! A trainer that does, in a process of its own, what the model's name says.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, Read, Write},
    process::Command,
    time::Duration,
};

use nereid_core::{
    clock::{Clock, SystemClock},
    datasets::FileRole,
    engine::{DataError, DataInput, EngineError, Monitor, Snapshot, TrainTask, Trainer},
    events::{LogLevel, MetricPoint, RuleReport},
    jobs::{Directive, JobPhase, Progress},
    models::TrainedModel,
    spec::rules::RuleAction,
};
use serde_json::{Value, json};

/// Has this binary run just one of its ignored tests.
pub fn arguments(test: &str) -> Vec<OsString> {
    let arguments = [test, "--exact", "--ignored", "--nocapture"];
    arguments.into_iter().map(Into::into).collect()
}

pub fn signal(process: u32, signal: &str) {
    let status = Command::new("kill")
        .arg(format!("-{signal}"))
        .arg(process.to_string())
        .status();
    assert!(status.unwrap().success());
}

pub fn digest(bytes: &[u8]) -> Value {
    let folded = bytes.iter().fold(7_u64, |sum, &byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    json!([bytes.len(), folded])
}

pub struct Fake;

impl Trainer for Fake {
    fn train(
        &self,
        task: &TrainTask<'_>,
        monitor: &mut dyn Monitor,
    ) -> Result<TrainedModel, EngineError> {
        let written = task.scratch.join("pid.new");
        std::fs::write(&written, std::process::id().to_string()).unwrap();
        std::fs::rename(written, task.scratch.join("pid")).unwrap();
        monitor.phase(JobPhase::Training);
        match task.spec.model.as_str() {
            "report" => Ok(report(task, monitor)),
            "abort" => {
                io::stderr().write_all(b"the last words\n").unwrap();
                std::process::abort()
            }
            "segv" => die("SEGV"),
            "kill" => die("KILL"),
            "exit" => std::process::exit(7),
            "panic" => panic!("at the disco"),
            // More than any address space.
            "huge" => Ok(model(json!([Vec::<u8>::with_capacity(1 << 50).len()]))),
            "eat" => eat(),
            "bad-data" => Err(EngineError::InvalidData(DataError {
                file: FileRole::Data,
                code: "not_a_number",
                row: Some(3),
                column: Some("a".to_owned()),
                detail: "\"x\" is no number".to_owned(),
            })),
            "read" => read(task),
            "sip" => sip(task, monitor),
            "obey" => obey(task, monitor),
            "patient" => loop {
                if task.scratch.join("enough").exists() {
                    return Ok(model(json!({})));
                }
                pause();
            },
            _ => loop {
                pause();
            },
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it stands for a computation")]
fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

fn die(how: &str) -> ! {
    loop {
        // The standard library's handler takes the first SIGSEGV that comes from outside.
        signal(std::process::id(), how);
        pause();
    }
}

fn eat() -> ! {
    let mut eaten = Vec::new();
    // Not without end: a limit that does not hold fails the test and not the machine.
    for _ in 0..256 {
        eaten.push(vec![1_u8; 8 << 20]);
        pause();
    }
    panic!("{} blocks did not hurt", eaten.len())
}

fn model(reports: Value) -> TrainedModel {
    TrainedModel {
        signature: serde_json::from_value(json!({
            "inputs": [], "outputs": [],
            "preprocessing": {"normalization": "none", "offset": [0.0], "scale": [1.0]},
        }))
        .unwrap(),
        metrics: BTreeMap::new(),
        reports: serde_json::from_value(reports).unwrap_or_default(),
        files: vec![],
        framework_version: "test 1".to_owned(),
    }
}

fn snapshot(task: &TrainTask<'_>, monitor: &mut dyn Monitor) {
    let path = task.scratch.join("7.snapshot");
    std::fs::write(&path, "snapshot").unwrap();
    monitor.checkpoint(Snapshot { step: 7, path });
}

/// What a rule of the fake finds.
pub fn rule() -> RuleReport {
    RuleReport {
        rule: "exploding_tensor".to_owned(),
        layer: Some("dense".to_owned()),
        step: 3,
        value: None,
        limit: 0.1 + 0.2,
        action: RuleAction::Stop,
        message: "too large".to_owned(),
    }
}

fn report(task: &TrainTask<'_>, monitor: &mut dyn Monitor) -> TrainedModel {
    // What some library prints must not end up among the messages.
    io::stdout().write_all(b"noise\n").unwrap();
    let values = [("odd", f64::NAN), ("third", 1.0 / 3.0)];
    let values = values.map(|(name, value)| (name.to_owned(), value));
    for step in 1..=1000 {
        monitor.progress(Progress {
            step,
            ..Progress::default()
        });
    }
    monitor.metrics(MetricPoint {
        step: 1,
        epoch: 0.5,
        values: values.clone().into(),
        at: SystemClock.now(),
    });
    monitor.rule(rule());
    monitor.log(LogLevel::Warn, "a line".to_owned());
    snapshot(task, monitor);
    // Every name but those that the loader or the test harness sets by itself.
    let names = std::env::vars_os().map(|(name, _)| name.into_string().unwrap());
    let mut made = model(json!({
        "environment": names.collect::<Vec<_>>(),
        "resume": task.resume,
        "base": task.base,
        "learning_rate": task.spec.optimizer.learning_rate(),
        "oom_score_adj": std::fs::read_to_string("/proc/self/oom_score_adj")
            .unwrap_or_default()
            .trim(),
    }));
    made.metrics.extend(values);
    made
}

/// Reads two files by turns, piece by piece, and asks for one that is not there.
fn read(task: &TrainTask<'_>) -> Result<TrainedModel, EngineError> {
    let failed = |source| EngineError::Io {
        context: "reading".to_owned(),
        source,
    };
    let open = |input: &DataInput| input.files.open(FileRole::Data).map_err(failed);
    let validation = task.validation.as_ref().unwrap();
    let mut files = [open(&task.train)?, open(validation)?];
    let mut contents = [Vec::new(), Vec::new()];
    loop {
        let before = contents[0].len() + contents[1].len();
        for (file, content) in files.iter_mut().zip(&mut contents) {
            file.take(70_001).read_to_end(content).map_err(failed)?;
        }
        if contents[0].len() + contents[1].len() == before {
            break;
        }
    }
    let labels = task.train.files.open(FileRole::Labels).err().unwrap();
    Ok(model(json!({
        "train": digest(&contents[0]),
        "validation": digest(&contents[1]),
        "labels": format!("{:?}: {labels}", labels.kind()),
    })))
}

fn sip(task: &TrainTask<'_>, monitor: &mut dyn Monitor) -> Result<TrainedModel, EngineError> {
    let mut file = task.train.files.open(FileRole::Data).unwrap();
    file.read_exact(&mut [0]).unwrap();
    obey(task, monitor)
}

fn obey(task: &TrainTask<'_>, monitor: &mut dyn Monitor) -> Result<TrainedModel, EngineError> {
    loop {
        match monitor.directive() {
            Directive::Continue => pause(),
            Directive::Finish => return Ok(model(json!({}))),
            Directive::Suspend => {
                snapshot(task, monitor);
                return Err(EngineError::Stopped);
            }
            Directive::Stop => return Err(EngineError::Stopped),
        }
    }
}
