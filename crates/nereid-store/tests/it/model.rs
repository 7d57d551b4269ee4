//! Random operations of two workers and a client against the store, and after each of them a
//! comparison with a model: what core's functions say, applied to a handful of fields.

use nereid_core::jobs::{Claim, JobKind, JobRequest, JobResult, JobStatus, TerminationReason};
use nereid_store::StoreError;
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::json;
use std::time::Duration;

use crate::support::{Db, LEASE, checkpoint, code, db, ended, noop, train};

mod job;
mod operations;

use job::Model;
use operations::{Op, op};

/// A case under way.
struct World<'a> {
    db: &'a Db,
    conn: sqlx::PgConnection,
    worker: nereid_core::ids::WorkerId,
    jobs: Vec<Model>,
    /// Every attempt there ever was: what is no longer current is a zombie.
    claims: Vec<Claim>,
}

/// The code of an outcome; none if it succeeded.
fn told<T>(result: Result<T, StoreError>) -> Result<(), String> {
    result.map(drop).map_err(|e| code(&e).to_owned())
}

fn expect(actual: &Result<(), String>, expected: Result<(), &str>) {
    assert_eq!(actual.as_ref().copied().map_err(String::as_str), expected);
}

impl World<'_> {
    fn job(&mut self, n: usize) -> Option<&mut Model> {
        let len = self.jobs.len();
        (len > 0).then(|| &mut self.jobs[n % len])
    }

    /// An attempt, its job, and whether it is current.
    fn attempt(&self, n: usize) -> Option<(Claim, usize, bool)> {
        let claim = self.claims.get(n % self.claims.len().max(1))?.clone();
        let job = self
            .jobs
            .iter()
            .position(|j| j.id == claim.fence.job)
            .unwrap();
        let model = &self.jobs[job];
        let current = model.status == JobStatus::Running && model.epoch == claim.fence.epoch;
        Some((claim, job, current))
    }

    async fn apply(&mut self, op: Op) {
        match op {
            Op::Submit {
                trains,
                max_attempts,
            } => self.submit(trains, max_attempts).await,
            Op::Claim => self.claim().await,
            Op::Expire(n) => self.expire(n).await,
            Op::Reap => self.reap().await,
            Op::Heartbeat(n) => self.heartbeat(n).await,
            Op::Checkpoint(n) => self.checkpoint(n).await,
            Op::Publish { attempt, early } => self.publish(attempt, early).await,
            Op::Complete(n) => self.complete(n).await,
            Op::End(n, reason) => self.end(n, reason).await,
            Op::Request(n, request) => self.request(n, request).await,
            Op::Resume(n) => self.resume(n).await,
            Op::Retry(n) => self.retry(n).await,
        }
    }

    async fn submit(&mut self, trains: bool, max_attempts: u32) {
        let options = json!({"max_attempts": max_attempts});
        let new = if trains {
            train("m", options)
        } else {
            noop(options)
        };
        self.jobs.push(Model {
            id: self.db.submit(&new).await,
            kind: new.spec.kind(),
            max_attempts,
            status: JobStatus::Queued,
            requested: None,
            attempts: 0,
            losses: 0,
            epoch: 0,
            trained: false,
            expired: false,
            versions: 0,
            has_result: false,
        });
    }

    async fn claim(&mut self) {
        // Whoever backs off is due.
        sqlx::query("UPDATE job_leases SET available_at = now()")
            .execute(&mut self.conn)
            .await
            .unwrap();
        let claims = self.db.claim(self.worker, 100, LEASE).await;
        let mut waiting = 0;
        for job in &mut self.jobs {
            if job.status == JobStatus::Queued {
                let claim = claims.iter().find(|c| c.fence.job == job.id).unwrap();
                job.turn(JobStatus::Running);
                (job.epoch, job.expired) = (job.epoch + 1, false);
                assert_eq!(
                    (claim.fence.epoch, claim.requested),
                    (job.epoch, job.requested)
                );
                assert_eq!(!claim.checkpoints.is_empty(), job.trained);
                waiting += 1;
            }
        }
        assert_eq!(claims.len(), waiting, "each job once, and no other");
        self.claims.extend(claims);
    }

    async fn expire(&mut self, n: usize) {
        let Some((claim, job, true)) = self.attempt(n) else {
            return;
        };
        self.jobs[job].expired = true;
        sqlx::query(
            "UPDATE job_leases SET expires_at = now() - interval '1 hour' WHERE job_id = $1",
        )
        .bind(claim.fence.job.0)
        .execute(&mut self.conn)
        .await
        .unwrap();
    }

    async fn reap(&mut self) {
        let reaped = self.db.store.reap(Duration::ZERO).await.unwrap();
        let mut expired = 0;
        for job in &mut self.jobs {
            if job.status == JobStatus::Running && job.expired {
                job.end(TerminationReason::LeaseLost);
                expired += 1;
            }
        }
        assert_eq!((reaped.leases, reaped.given_up), (expired, 0));
    }

    async fn heartbeat(&mut self, n: usize) {
        let Some((claim, job, current)) = self.attempt(n) else {
            return;
        };
        let beat = nereid_store::queue::Beat {
            fence: claim.fence,
            phase: None,
            progress: None,
        };
        let answers = self.db.store.heartbeat(self.worker, LEASE, &[beat]).await;
        let expected = if current {
            self.jobs[job].expired = false;
            nereid_core::jobs::Standing::Current(self.jobs[job].requested)
        } else {
            nereid_core::jobs::Standing::Lost
        };
        assert_eq!(answers.unwrap()[&claim.fence.job], expected);
    }

    async fn checkpoint(&mut self, n: usize) {
        let Some((claim, job, current)) = self.attempt(n) else {
            return;
        };
        if self.jobs[job].kind != JobKind::Train {
            return;
        }
        let taken = checkpoint(&claim.fence, n as u64 % 50);
        let result = told(self.db.store.set_checkpoint(&claim.fence, &taken).await);
        expect(&result, current.then_some(()).ok_or("lease_lost"));
        self.jobs[job].trained |= current;
    }

    /// What ends an attempt with a result is told.
    fn finish(
        &mut self,
        job: usize,
        current: bool,
        reason: TerminationReason,
    ) -> Result<(), &'static str> {
        let job = &mut self.jobs[job];
        if !current || job.expired {
            return Err("lease_lost");
        }
        if job.requested == Some(JobRequest::Cancel) {
            return Err("cancel_requested");
        }
        job.attempts += 1;
        job.rest(reason);
        Ok(())
    }

    async fn publish(&mut self, n: usize, early: bool) {
        let Some((claim, job, current)) = self.attempt(n) else {
            return;
        };
        if self.jobs[job].kind != JobKind::Train {
            return;
        }
        let mut version = Db::version(&claim);
        version.stopped_early = early;
        let result = self.db.store.publish_version(&claim.fence, &version).await;
        let again = self.has_finished(&claim, job);
        let reason = if early {
            TerminationReason::StoppedEarly
        } else {
            TerminationReason::Completed
        };
        let expected = if again {
            Ok(())
        } else {
            self.finish(job, current, reason)
        };
        expect(&told(result), expected);
        self.jobs[job].versions += i64::from(expected.is_ok() && !again);
    }

    async fn complete(&mut self, n: usize) {
        let Some((claim, job, current)) = self.attempt(n) else {
            return;
        };
        if self.jobs[job].kind != JobKind::Noop {
            return;
        }
        let result = self
            .db
            .store
            .complete(&claim.fence, &JobResult::Noop {})
            .await;
        let expected = if self.has_finished(&claim, job) {
            Ok(())
        } else {
            self.finish(job, current, TerminationReason::Completed)
        };
        expect(&told(result), expected);
    }

    /// Whether this attempt is the one that gave the job its result: it may say so again.
    fn has_finished(&self, claim: &Claim, job: usize) -> bool {
        self.jobs[job].has_result && self.jobs[job].epoch == claim.fence.epoch
    }

    async fn end(&mut self, n: usize, reason: TerminationReason) {
        let Some((claim, job, current)) = self.attempt(n) else {
            return;
        };
        let result = self
            .db
            .store
            .end_attempt(&claim.fence, &ended(reason))
            .await;
        if current {
            self.jobs[job].end(reason);
            assert_eq!(result.unwrap(), self.jobs[job].status);
        } else {
            expect(&told(result), Err("lease_lost"));
        }
    }

    async fn request(&mut self, n: usize, request: JobRequest) {
        let db = self.db;
        if let Some(job) = self.job(n) {
            let result = told(db.request(job.id, request).await);
            expect(&result, job.request(request));
        }
    }

    async fn resume(&mut self, n: usize) {
        let db = self.db;
        if let Some(job) = self.job(n) {
            let result = told(db.resume(job.id).await);
            if job.status == JobStatus::Paused {
                job.turn(JobStatus::Queued);
                expect(&result, Ok(()));
            } else {
                expect(&result, Err("job_not_paused"));
            }
        }
    }

    async fn retry(&mut self, n: usize) {
        let db = self.db;
        if let Some(job) = self.job(n) {
            let result = told(db.retry(job.id).await);
            if job.has_result {
                expect(&result, Err("job_succeeded"));
            } else if job.status.is_final() {
                job.turn(JobStatus::Queued);
                (job.attempts, job.losses) = (0, 0);
                expect(&result, Ok(()));
            } else {
                expect(&result, Err("job_not_final"));
            }
        }
    }

    /// The rows say what the model says, and the events tell the same story.
    async fn check(&mut self) {
        let ids: Vec<_> = self.jobs.iter().map(|j| j.id.0).collect();
        let rows: Vec<StoredRow> = sqlx::query_as(STORED)
            .bind(ids)
            .fetch_all(&mut self.conn)
            .await
            .unwrap();
        assert_eq!(rows.len(), self.jobs.len());
        for job in &self.jobs {
            let stored = rows.iter().find(|r| r.0 == job.id.0).unwrap();
            let queued = matches!(job.status, JobStatus::Queued | JobStatus::Running);
            let model: StoredRow = (
                job.id.0,
                job.status.to_string(),
                job.requested.map(|r| r.to_string()),
                vec![
                    i64::from(job.attempts),
                    i64::from(job.losses),
                    i64::from(job.has_result),
                    i64::from(queued),
                    job.versions,
                ],
                true,
                stored.5.clone(),
            );
            assert_eq!(*stored, model, "{job:?}");
            let mut status = JobStatus::Queued;
            for next in &stored.5 {
                let next = next.parse().unwrap();
                assert!(status.may_become(next), "{status} to {next}");
                status = next;
            }
            assert_eq!(status, job.status);
        }
    }
}

/// Identifier, status, request, numbers, whether the events have no gaps, and the statuses in them.
type StoredRow = (
    uuid::Uuid,
    String,
    Option<String>,
    Vec<i64>,
    bool,
    Vec<String>,
);

const STORED: &str = "
    SELECT id, status, requested,
        ARRAY[
            attempts::bigint, lease_losses::bigint, (result IS NOT NULL)::integer::bigint,
            (SELECT count(*) FROM job_leases WHERE job_id = j.id),
            (SELECT count(*) FROM model_versions WHERE job_id = j.id)],
        e.gapless AND e.last = last_event_seq, e.statuses
    FROM jobs j
    CROSS JOIN LATERAL (
        SELECT
            count(*) = max(seq) AND min(seq) = 1 AS gapless, max(seq) AS last,
            COALESCE(
                array_agg(data ->> 'status' ORDER BY seq) FILTER (WHERE kind = 'status_changed'),
                '{}') AS statuses
        FROM job_events WHERE job_id = j.id
    ) e
    WHERE id = ANY ($1)";

#[test]
fn random_operations_do_what_the_model_says() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (db, worker) = runtime.block_on(async {
        let db = db().await;
        let worker = db.worker().await;
        (db, worker)
    });
    let config = Config {
        cases: 40,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    // Always the same cases: a failure on one machine is one on every machine.
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let cases = prop::collection::vec(op(), 30);
    let result = runner.run(&cases, |ops| {
        runtime.block_on(async {
            // What the case before has left in the queue.
            db.sql("DELETE FROM job_leases").await;
            let mut world = World {
                db: &db,
                conn: db.connection().await,
                worker,
                jobs: Vec::new(),
                claims: Vec::new(),
            };
            for op in ops {
                world.apply(op).await;
                world.check().await;
            }
        });
        Ok(())
    });
    if let Err(e) = result {
        panic!("{e}");
    }
}
