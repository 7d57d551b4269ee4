//! The promises, checked one by one against Postgres and S3 when everything has come to rest.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use nereid_core::{
    ids::JobId,
    jobs::{JobStatus, TerminationReason},
    models::Manifest,
};
use nereid_objects::{Objects, S3Uri};
use sha2::{Digest, Sha256};

use crate::{
    ledger::{Entry, Expected, Work},
    report::{Counts, Report},
    truth::{AttemptTruth, JobTruth, Point, Truth, VersionTruth},
};

/// Largest file of a version here.
const MAX_FILE: u64 = 64 << 20;
/// The file that holds the weights.
const WEIGHTS: &str = "weights.safetensors";

/// What an undisturbed run of a spec made.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    pub weights: String,
    pub metrics: Vec<Point>,
}

impl Reference {
    /// The result of a job that nothing disturbed.
    pub async fn of(truth: &JobTruth, objects: &Objects) -> Self {
        let [version] = &truth.versions[..] else {
            panic!("an undisturbed job made {:?}", truth.versions);
        };
        let weights = check_version(objects, version).await.unwrap();
        Self {
            weights,
            metrics: truth.metrics.clone(),
        }
    }
}

/// Checks everything and returns the counts; what is wrong goes into the report.
pub async fn verify(
    truth: &Truth,
    entries: &[Entry],
    references: &[Reference],
    objects: &Objects,
    report: &Report,
) -> Counts {
    let mut counts = Counts {
        accepted: entries.len(),
        ..Counts::default()
    };
    for entry in entries {
        let Some(job) = truth.jobs.get(&entry.id) else {
            counts.lost += 1;
            report.finding(Some(entry.id), "it was accepted and is not there");
            continue;
        };
        count(&mut counts, job);
        let mut broken = check_end(entry, job);
        broken.extend(check_attempts(&job.attempts));
        broken.extend(check_events(job));
        match entry.work {
            Work::Train(spec) => {
                broken.extend(check_training(job, &references[spec], objects).await);
            }
            Work::Noop if !job.versions.is_empty() => broken.push("it has a version".to_owned()),
            Work::Noop => {}
        }
        for what in broken {
            report.finding(Some(entry.id), what);
        }
    }
    let known: BTreeSet<_> = entries.iter().map(|entry| entry.id).collect();
    for id in truth.jobs.keys().filter(|id| !known.contains(id)) {
        counts.duplicated += 1;
        report.finding(Some(*id), "nobody submitted it");
    }
    for id in &truth.leases {
        report.finding(Some(*id), "it still has a row in the queue");
    }
    check_numbers(truth, report);
    counts
}

fn count(counts: &mut Counts, job: &JobTruth) {
    counts.attempts += job.attempts.len();
    counts.duplicated += job.versions.len().saturating_sub(1);
    match job.status {
        Some(JobStatus::Succeeded) => counts.succeeded += 1,
        Some(JobStatus::Stopped) => counts.stopped += 1,
        Some(JobStatus::Failed) => counts.failed += 1,
        _ => counts.lost += 1,
    }
}

/// The state that its client may expect, and a version exactly if there should be one.
fn check_end(entry: &Entry, job: &JobTruth) -> Vec<String> {
    let mut wrong = Vec::new();
    let (Some(status), Some(reason)) = (job.status, job.reason) else {
        return vec![format!("it never ended: {:?}", job.status)];
    };
    let expected = match entry.work {
        // Nobody asks anything of it.
        Work::Noop => Expected::Success,
        Work::Train(_) => entry.expected,
    };
    if let Err(what) = expected.check(status, reason) {
        wrong.push(format!("{what}; error: {:?}", job.error));
    }
    let publishes = matches!(entry.work, Work::Train(_))
        && (status == JobStatus::Succeeded || reason == TerminationReason::StoppedEarly);
    if job.versions.len() != usize::from(publishes) {
        let (n, reason) = (job.versions.len(), reason.as_str());
        wrong.push(format!("it ended {status} ({reason}) with {n} versions"));
    }
    let announced = job
        .events
        .iter()
        .filter(|(_, kind, _)| kind == "published")
        .count();
    if announced != job.versions.len() {
        wrong.push(format!("it has {announced} events of a publication"));
    }
    wrong
}

/// Epochs rise by one, and each attempt has ended.
fn check_attempts(attempts: &[AttemptTruth]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (attempt, expected) in attempts.iter().zip(1..) {
        if attempt.epoch != expected {
            wrong.push(format!("attempt {expected} has epoch {}", attempt.epoch));
        }
        if attempt.reason.is_none() {
            wrong.push(format!("attempt {expected} has not ended"));
        }
    }
    wrong
}

/// Events are numbered without gaps, and every change of status was one that is allowed.
fn check_events(job: &JobTruth) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut status: Option<JobStatus> = None;
    for ((seq, kind, data), expected) in job.events.iter().zip(1..) {
        if *seq != expected {
            wrong.push(format!("event {expected} has number {seq}"));
            break;
        }
        let named = data["status"]
            .as_str()
            .and_then(|s| s.parse::<JobStatus>().ok());
        if kind != "status_changed" {
            continue;
        }
        let Some(next) = named else {
            wrong.push(format!("event {seq} names no status: {data}"));
            continue;
        };
        let before = status.unwrap_or(JobStatus::Queued);
        if !before.may_become(next) {
            wrong.push(format!("event {seq}: from {before} to {next}"));
        }
        status = Some(next);
    }
    if status.is_some() && status != job.status {
        wrong.push(format!(
            "it is {:?}, its last event says {status:?}",
            job.status
        ));
    }
    wrong
}

/// Metrics and weights are those of a run that nothing disturbed.
async fn check_training(job: &JobTruth, reference: &Reference, objects: &Objects) -> Vec<String> {
    let mut wrong = check_metrics(job, &reference.metrics);
    for version in &job.versions {
        match check_version(objects, version).await {
            Ok(weights)
                if job.status == Some(JobStatus::Succeeded) && weights != reference.weights =>
            {
                wrong.push("its weights are not those of an undisturbed run".to_owned());
            }
            Ok(_) => {}
            Err(what) => wrong.push(what),
        }
    }
    wrong
}

/// Each step once, in order, without a gap, and with the values of an undisturbed run; that no
/// step is there twice the primary key sees to.
fn check_metrics(job: &JobTruth, reference: &[Point]) -> Vec<String> {
    let early = job.reason == Some(TerminationReason::StoppedEarly);
    let last = match job.step {
        _ if job.status == Some(JobStatus::Succeeded) => i64::MAX,
        Some(step) if early => step,
        // Cancelled: what was reported until then, whole up to wherever that is.
        _ => job.metrics.last().map_or(-1, |point| point.0),
    };
    let mut wrong = Vec::new();
    let steps: BTreeSet<_> = job.metrics.iter().map(|point| point.0).collect();
    let beyond: Vec<_> = steps.iter().filter(|step| **step > last).collect();
    if !beyond.is_empty() {
        wrong.push(format!(
            "it ended at step {last}, its metrics go on: {beyond:?}"
        ));
    }
    let expected = reference.iter().map(|point| point.0);
    let missing: Vec<_> = expected
        .filter(|n| *n <= last && !steps.contains(n))
        .collect();
    if !missing.is_empty() {
        wrong.push(format!("its metrics miss the steps {missing:?}"));
    }
    let theirs: BTreeMap<_, _> = reference.iter().map(|point| (point.0, point)).collect();
    for ours in &job.metrics {
        // Where a training ends early it closes its epoch, which no other run does there; so does
        // one that is cancelled after it was stopped.
        let closing = job.status != Some(JobStatus::Succeeded) && ours.0 >= last;
        let theirs = theirs.get(&ours.0).copied();
        if !closing && theirs != Some(ours) {
            wrong.push(format!(
                "its metrics have {ours:?}, an undisturbed run's {theirs:?}"
            ));
            break;
        }
    }
    wrong
}

/// Reads a version and all its files; returns the digest of its weights.
async fn check_version(objects: &Objects, version: &VersionTruth) -> Result<String, String> {
    let name = format!("{} version {}", version.model, version.version);
    let uri: S3Uri = version.manifest_uri.parse().unwrap();
    let text = objects
        .get_bytes(&uri, MAX_FILE)
        .await
        .map_err(|e| format!("{name}: {e}"))?;
    if hex::encode(Sha256::digest(&text)) != version.manifest_sha256 {
        return Err(format!("{name}: the manifest has another digest"));
    }
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| format!("{name}: {e}"))?;
    let (folder, _) = version.manifest_uri.rsplit_once('/').unwrap();
    for file in &manifest.files {
        let uri: S3Uri = format!("{folder}/{}", file.path).parse().unwrap();
        let read = objects.get_bytes(&uri, MAX_FILE).await;
        let bytes = read.map_err(|e| format!("{name}, {}: {e}", file.path))?;
        if bytes.len() as u64 != file.bytes || hex::encode(Sha256::digest(&bytes)) != file.sha256 {
            return Err(format!(
                "{name}: {} is not what the manifest says",
                file.path
            ));
        }
    }
    let weights = manifest.files.into_iter().find(|file| file.path == WEIGHTS);
    weights
        .map(|file| file.sha256)
        .ok_or_else(|| format!("{name} has no weights"))
}

/// Versions of a model are numbered from 1, each number once.
fn check_numbers(truth: &Truth, report: &Report) {
    let mut numbers: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for version in truth.versions() {
        numbers
            .entry(version.model)
            .or_default()
            .push(version.version);
    }
    for (model, mut numbers) in numbers {
        numbers.sort_unstable();
        if numbers
            .iter()
            .zip(1..)
            .any(|(number, expected)| *number != expected)
        {
            report.finding(None, format!("{model} has versions {numbers:?}"));
        }
    }
}

/// What is known of the jobs that something is wrong with.
pub fn histories(truth: &Truth, entries: &[Entry], jobs: &BTreeSet<JobId>) -> String {
    let by_id: HashMap<_, _> = entries.iter().map(|entry| (entry.id, entry)).collect();
    let mut lines = Vec::new();
    for id in jobs {
        lines.push(format!("\n== job {id}"));
        if let Some(entry) = by_id.get(id) {
            lines.push(format!("{:?}, asked: {:#?}", entry.work, entry.asked));
            lines.push(format!("as its client last saw it: {:?}", entry.last));
        }
        if let Some(job) = truth.jobs.get(id) {
            lines.extend(history(job));
        }
    }
    lines.join("\n")
}

fn history(job: &JobTruth) -> Vec<String> {
    let mut lines = vec![format!("{:?} {:?} {:?}", job.status, job.reason, job.error)];
    lines.extend(job.attempts.iter().map(|attempt| format!("{attempt:?}")));
    // Progress and the epochs' lines are many and say little.
    let events = job.events.iter().filter(|(_, kind, _)| kind != "progress");
    lines.extend(events.map(|(seq, kind, data)| format!("event {seq} {kind} {data}")));
    let logs = job
        .logs
        .iter()
        .filter(|(_, _, message)| !message.starts_with("epoch "));
    lines.extend(logs.map(|(epoch, level, message)| format!("log {epoch} {level} {message}")));
    lines.push(format!("versions: {:?}", job.versions));
    lines
}
