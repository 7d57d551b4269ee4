//! Why a queued job waits: its place, and what is missing.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use nereid_core::{
    jobs::{Job, WaitReason, Waiting},
    limits::COUNTED_AHEAD,
    workers::{DeviceKind, WorkerStatus},
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    rows::{self, Row},
};

/// Workers named in a message.
const NAMED: usize = 5;

/// A job's place in the queue, as far as it is there.
struct Place {
    position: i64,
    since: Option<DateTime<Utc>>,
    available_at: DateTime<Utc>,
    gives_up_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
}

/// A worker, as far as it matters to a job that waits.
struct Offer {
    host: String,
    device: DeviceKind,
    labels: BTreeMap<String, String>,
    status: WorkerStatus,
    slots: u64,
    running: u64,
}

impl Offer {
    fn fits(&self, job: &Job) -> bool {
        let wanted = &job.options.worker_labels;
        job.options.device.is_none_or(|d| d == self.device)
            && wanted.iter().all(|(k, v)| self.labels.get(k) == Some(v))
    }
}

impl Store {
    /// Reads why a queued job waits; nothing if it has been claimed, paused or ended meanwhile.
    ///
    /// The position counts the jobs that go before it in the order in which jobs are claimed: fairly by project, then by
    /// priority and age. Only jobs count that some active worker could take which could take this one, too, and that
    /// may be claimed now; while there is no such worker, the jobs that need the same device and labels.
    pub(super) async fn waiting(&self, job: &Job) -> Result<Option<Waiting>, StoreError> {
        let offers = self.offers().await?;
        let takers = offers
            .iter()
            .filter(|o| o.status == WorkerStatus::Active && o.fits(job));
        let takers: Vec<&Offer> = takers.collect();
        let Some(place) = self.place(job, &takers).await? else {
            return Ok(None);
        };
        let position = Row::new("job_leases", &job.id).number("position", place.position)?;
        let (reason, detail) = explain(job, &offers, &takers, &place, position);
        Ok(Some(Waiting {
            reason,
            detail,
            position,
            since: place.since.unwrap_or(job.created_at),
            not_before: Some(place.available_at).filter(|at| *at > place.now),
            gives_up_at: place.gives_up_at,
        }))
    }

    /// Workers that are not gone, with what they run.
    async fn offers(&self) -> Result<Vec<Offer>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT w.id, host, device, labels, status, slots,
                 (SELECT count(*) FROM job_leases l WHERE l.worker_id = w.id AND l.state = 'running') AS "running!"
             FROM workers w WHERE status <> 'gone' ORDER BY w.id"#
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|r| {
                let row = Row::new("workers", &r.id);
                Ok(Offer {
                    host: r.host,
                    device: row.word("device", &r.device)?,
                    labels: row.json("labels", r.labels)?,
                    status: row.word("status", &r.status)?,
                    slots: row.number("slots", r.slots)?,
                    running: row.number("running", r.running)?,
                })
            })
            .collect()
    }

    async fn place(&self, job: &Job, takers: &[&Offer]) -> Result<Option<Place>, StoreError> {
        let mut kinds: Vec<(&str, Value)> = Vec::new();
        for taker in takers {
            let kind = (taker.device.as_str(), rows::json(&taker.labels)?);
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        let (devices, labels): (Vec<&str>, Vec<Value>) = kinds.into_iter().unzip();
        let row = sqlx::query_file!(
            "queries/jobs/place.sql",
            job.id.0 as Uuid,
            &devices as &[&str],
            &labels,
            COUNTED_AHEAD
        );
        let row = row.fetch_optional(&self.pool).await?;
        Ok(row.map(|r| Place {
            position: r.position,
            since: r.queued_at,
            available_at: r.available_at,
            gives_up_at: r.gives_up_at,
            now: r.now,
        }))
    }
}

/// Names what is missing.
fn explain(
    job: &Job,
    offers: &[Offer],
    takers: &[&Offer],
    place: &Place,
    position: u64,
) -> (WaitReason, String) {
    let active: Vec<&Offer> = offers
        .iter()
        .filter(|o| o.status == WorkerStatus::Active)
        .collect();
    if active.is_empty() {
        let draining = match offers.len() {
            0 => String::new(),
            n => format!("; {} draining", count(n, "worker is", "workers are")),
        };
        return (
            WaitReason::NoWorker,
            format!("no worker is active{draining}"),
        );
    }
    if takers.is_empty() {
        let detail = format!(
            "no active worker has {}; {}: {}",
            needs(job),
            count(active.len(), "active worker", "active workers"),
            named(&active)
        );
        return (WaitReason::NoMatchingWorker, detail);
    }
    if place.available_at > place.now {
        let why = job.error.as_ref().map(|e| e.reason.as_str());
        let why = why.map(|r| format!(" after {r}")).unwrap_or_default();
        let at = place
            .available_at
            .to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        return (
            WaitReason::BackingOff,
            format!("it is tried again at {at}{why}"),
        );
    }
    let slots: u64 = takers.iter().map(|t| t.slots).sum();
    let running: u64 = takers.iter().map(|t| t.running).sum();
    let free = slots.saturating_sub(running);
    let could = count(takers.len(), "worker that", "workers that");
    let ahead = count(position - 1, "job is", "jobs are");
    if position <= free {
        let detail = format!("{free} of {slots} slots of the {could} can take it are free");
        return (WaitReason::Starting, detail);
    }
    let detail = format!(
        "{} of {slots} slots of the {could} can take it are taken; {ahead} before it",
        slots - free
    );
    (WaitReason::WorkersBusy, detail)
}

/// What a worker must have to take the job.
fn needs(job: &Job) -> String {
    let device = job.options.device.map(|d| format!("device {d}"));
    let labels = job.options.worker_labels.iter();
    let labels: Vec<String> = labels.map(|(k, v)| format!("{k}={v}")).collect();
    let labels = match labels.len() {
        0 => None,
        1 => Some(format!("label {}", labels[0])),
        _ => Some(format!("labels {}", labels.join(", "))),
    };
    let needs: Vec<String> = device.into_iter().chain(labels).collect();
    needs.join(" and ")
}

fn named(workers: &[&Offer]) -> String {
    let name = |w: &&Offer| {
        let labels = w.labels.iter().map(|(k, v)| format!(", {k}={v}"));
        format!("{} ({}{})", w.host, w.device, labels.collect::<String>())
    };
    let mut names: Vec<String> = workers.iter().take(NAMED).map(name).collect();
    if workers.len() > NAMED {
        names.push("…".to_owned());
    }
    names.join(", ")
}

fn count(n: impl TryInto<u64>, one: &str, many: &str) -> String {
    let n = n.try_into().unwrap_or(u64::MAX);
    format!("{n} {}", if n == 1 { one } else { many })
}
