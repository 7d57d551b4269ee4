//! Users: each submits a job, asks this and that of it, waits for its end, and submits another.

use std::{sync::Arc, time::Duration};

use nereid_core::{
    ids::JobId,
    jobs::{Job, JobStatus},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    http::{Answer, Http},
    ledger::{Expected, Ledger, Work},
    report::Report,
    specs,
};

/// Pause between two looks at a job.
const POLL: Duration = Duration::from_millis(250);

pub struct Clients {
    pub http: Http,
    pub ledger: Ledger,
    pub report: Arc<Report>,
    /// Cancelled when no new job is to be submitted.
    pub closing: CancellationToken,
}

impl Clients {
    /// Starts users; each ends with its last job.
    pub fn start(self: &Arc<Self>, seed: u64, trainers: u64, nooppers: u64) -> JoinSet<()> {
        let mut users = JoinSet::new();
        for user in 0..trainers + nooppers {
            let rng = StdRng::seed_from_u64(seed.wrapping_mul(1000) + user);
            let clients = Arc::clone(self);
            users.spawn(async move { Box::pin(clients.user(rng, user < trainers)).await });
        }
        users
    }

    async fn user(&self, mut rng: StdRng, trains: bool) {
        while !self.closing.is_cancelled() {
            let work = if trains {
                Work::Train(rng.random_range(0..specs::COUNT))
            } else {
                Work::Noop
            };
            let Some(id) = self.submit(&mut rng, work).await else {
                return;
            };
            if matches!(work, Work::Train(_)) {
                self.disturb(&mut rng, id).await;
            }
            self.follow(&mut rng, id).await;
        }
    }

    /// Submits a job until it is accepted; sometimes once more, which must make no other job.
    async fn submit(&self, rng: &mut StdRng, work: Work) -> Option<JobId> {
        let body = match work {
            Work::Train(spec) => {
                // Few models and many jobs, so that versions are published side by side.
                let model = format!("model-{}", rng.random_range(0..3));
                specs::train(spec, &model)
            }
            Work::Noop => {
                let seconds = rng.random_range(0.0..0.2);
                json!({"kind": "noop", "spec": {"seconds": seconds}, "max_attempts": 20})
            }
        };
        let key = uuid::Uuid::now_v7().to_string();
        let mut sent = 0;
        let answer = self
            .http
            .post(rng, "/v1/jobs", &body, &key, &mut sent)
            .await;
        let id = self.job_of(answer)?;
        self.ledger.accepted(id, work);
        if rng.random_bool(0.3) {
            let again = self
                .http
                .post(rng, "/v1/jobs", &body, &key, &mut sent)
                .await;
            if let Some(again) = self.job_of(again)
                && again != id
            {
                let what = format!("its idempotency key also made job {again}");
                self.report.finding(Some(id), what);
            }
        }
        self.ledger.sent(sent);
        Some(id)
    }

    fn job_of(&self, answer: Answer) -> Option<JobId> {
        match answer {
            Answer::Accepted(job) => Some(job["id"].as_str().unwrap().parse().unwrap()),
            Answer::Refused(status, code) => {
                let what = format!("a submission was refused: {status}, {code}");
                self.report.finding(None, what);
                None
            }
            Answer::GaveUp => None,
        }
    }

    /// Asks something of a job, perhaps.
    async fn disturb(&self, rng: &mut StdRng, id: JobId) {
        let asks: &[&str] = match rng.random_range(0..100) {
            0..12 => &["cancel"],
            12..20 => &["cancel", "retry"],
            20..32 => &["stop"],
            32..38 => &["stop", "cancel"],
            38..55 => &["pause", "resume"],
            55..60 => &["pause", "cancel"],
            _ => &[],
        };
        for ask in asks {
            sleep(Duration::from_secs_f64(rng.random_range(0.0..4.0))).await;
            if *ask == "retry" || *ask == "resume" {
                let rests = |job: &Job| job.status.is_final() || job.status == JobStatus::Paused;
                if self.wait(rng, id, rests).await.is_none() {
                    return;
                }
            }
            self.ask(rng, id, ask).await;
        }
    }

    /// Asks something of a job and notes what may become of it.
    async fn ask(&self, rng: &mut StdRng, id: JobId, what: &str) {
        let answer = self.http.ask(rng, id, what).await;
        let accepted = matches!(answer, Answer::Accepted(_));
        let said = match answer {
            Answer::Accepted(job) => format!("{what}: accepted, {}", summary(&job)),
            Answer::Refused(status, code) => format!("{what}: refused, {status} {code}"),
            Answer::GaveUp => format!("{what}: no answer"),
        };
        self.ledger.update(id, |entry| {
            entry.asked.push(said);
            entry.expected = match what {
                "cancel" if accepted => Expected::Cancellation,
                "stop" if accepted => Expected::EarlyStop,
                "retry" if accepted => Expected::Success,
                _ => entry.expected,
            };
        });
    }

    /// Waits for a job's end, resuming it whenever it rests.
    async fn follow(&self, rng: &mut StdRng, id: JobId) {
        loop {
            let rests = |job: &Job| job.status.is_final() || job.status == JobStatus::Paused;
            let Some(job) = self.wait(rng, id, rests).await else {
                return;
            };
            if job.status.is_final() {
                return;
            }
            self.ask(rng, id, "resume").await;
        }
    }

    async fn wait(&self, rng: &mut StdRng, id: JobId, until: impl Fn(&Job) -> bool) -> Option<Job> {
        loop {
            let job = self.http.job(rng, id).await?;
            let done = until(&job);
            self.ledger
                .update(id, |entry| entry.last = Some(Box::new(job.clone())));
            if done {
                return Some(job);
            }
            sleep(POLL).await;
        }
    }
}

fn summary(job: &Value) -> String {
    format!("{} requested={}", job["status"], job["requested"])
}
