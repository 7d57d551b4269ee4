//! Reaping: what silent workers left behind goes back to the queue, what nobody takes is given up.

use std::time::Duration;

use nereid_core::{
    jobs::{JobRequest, JobStatus, Outcome, TerminationReason, retry_delay},
    limits::MAX_LEASE_LOSSES,
};

use super::finish::outcome;
use crate::{
    Store, StoreError,
    notify::Wake,
    rows::{self, Row},
    workers::SESSION_PREFIX,
};

/// Jobs changed by one statement.
const BATCH: i64 = 50;

/// What reaping has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Leases that had expired.
    pub leases: u64,
    /// Jobs that had waited for too long.
    pub given_up: u64,
    /// Sessions of silent workers that were ended; what they held locked is free in a moment.
    pub disconnected: u64,
}

impl Store {
    /// Hands expired leases back to the queue (or ends jobs whose budget is used up), fails jobs that have waited for
    /// longer than they may, marks silent workers gone and removes their replicas.
    ///
    /// Safe to run from every process at any time: each statement decides by the database's clock under the row's lock.
    /// Does nothing until `settle` after a start of Postgres, so that workers can renew first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn reap(&self, settle: Duration) -> Result<Reaped, StoreError> {
        let disconnected = self.disconnect_silent_workers(settle).await?;
        let reaped = Reaped {
            disconnected,
            leases: self.reap_leases(settle).await?,
            given_up: self.give_up(settle).await?,
        };
        self.reap_workers(settle).await?;
        Ok(reaped)
    }

    /// Ends the sessions of workers that have let their lease run out.
    ///
    /// A worker that was cut off or stopped in the middle of a transaction holds locks, which the reaper would skip for
    /// as long as Postgres waits for it; one that lives connects again.
    async fn disconnect_silent_workers(&self, settle: Duration) -> Result<u64, StoreError> {
        let ended = sqlx::query_scalar!(
            r#"SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid)) AS "ended!"
             FROM workers w
             JOIN pg_stat_activity a ON a.application_name = $2 || w.id
             WHERE w.status <> 'gone'
               AND w.expires_at < clock_timestamp()
               AND pg_postmaster_start_time() <= clock_timestamp() - make_interval(secs => $1)
               AND a.usename = current_user
               AND a.datname = current_database()"#,
            settle.as_secs_f64(),
            SESSION_PREFIX
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(u64::try_from(ended).unwrap_or_default())
    }

    async fn reap_leases(&self, settle: Duration) -> Result<u64, StoreError> {
        let rules = Rules::new();
        let mut leases = 0;
        loop {
            let rows = sqlx::query_file!(
                "queries/queue/reap.sql",
                settle.as_secs_f64(),
                BATCH,
                &rules.requested as &[Option<&str>],
                &rules.more,
                &rules.trained,
                &rules.status as &[&str],
                &rules.reason as &[&str],
                &delays(),
                rows::bind::<_, i32>(MAX_LEASE_LOSSES)?,
                "the worker stopped renewing its lease"
            )
            .fetch_all(&self.pool)
            .await?;
            for row in &rows {
                let status: JobStatus = Row::new("jobs", &row.id).word("status", &row.status)?;
                self.notify(Wake::Job(row.id.into()));
                if status == JobStatus::Queued {
                    self.notify(Wake::Queue);
                }
                leases += 1;
            }
            if rows.is_empty() {
                return Ok(leases);
            }
        }
    }

    async fn give_up(&self, settle: Duration) -> Result<u64, StoreError> {
        let mut given_up = 0;
        loop {
            let jobs = sqlx::query_file_scalar!(
                "queries/queue/give_up.sql",
                BATCH,
                settle.as_secs_f64(),
                "no worker took it within its max_queue_seconds"
            )
            .fetch_all(&self.pool)
            .await?;
            if jobs.is_empty() {
                return Ok(given_up);
            }
            for job in jobs {
                self.notify(Wake::Job(job.into()));
                given_up += 1;
            }
        }
    }

    async fn reap_workers(&self, settle: Duration) -> Result<(), StoreError> {
        let gone = sqlx::query!(
            "UPDATE workers SET status = 'gone' WHERE id IN (
                 SELECT id FROM workers
                 WHERE status <> 'gone'
                   AND expires_at < clock_timestamp()
                   AND pg_postmaster_start_time() <= clock_timestamp() - make_interval(secs => $1)
                 FOR UPDATE SKIP LOCKED)",
            settle.as_secs_f64()
        )
        .execute(&self.pool)
        .await?;
        // Of all that are gone: one may have taken a replica on while it was marked.
        let replicas = sqlx::query!(
            "DELETE FROM replicas WHERE id IN (
                 SELECT r.id FROM replicas r JOIN workers w ON w.id = r.worker_id
                 WHERE w.status = 'gone' FOR UPDATE OF r SKIP LOCKED)"
        )
        .execute(&self.pool)
        .await?;
        if gone.rows_affected() + replicas.rows_affected() > 0 {
            self.notify(Wake::Endpoints);
        }
        Ok(())
    }
}

/// Core's decision about each job whose lease was lost, as columns for the statement.
#[derive(Debug, Default)]
struct Rules {
    requested: Vec<Option<&'static str>>,
    more: Vec<bool>,
    trained: Vec<bool>,
    status: Vec<&'static str>,
    reason: Vec<&'static str>,
}

impl Rules {
    fn new() -> Self {
        let mut rules = Self::default();
        let asked = JobRequest::ALL.iter().copied().map(Some);
        for requested in asked.chain([None]) {
            for (more, trained) in [(false, false), (false, true), (true, false), (true, true)] {
                let lost = TerminationReason::LeaseLost;
                let (status, reason) = match outcome(lost, requested, more, trained) {
                    Outcome::Requeue => (JobStatus::Queued, lost),
                    Outcome::Rest(reason) => (reason.final_status(), reason),
                };
                rules.requested.push(requested.map(JobRequest::as_str));
                rules.more.push(more);
                rules.trained.push(trained);
                rules.status.push(status.as_str());
                rules.reason.push(reason.as_str());
            }
        }
        rules
    }
}

/// Longest delays in seconds by leases lost before: none at first, for it is rarely the job's fault.
fn delays() -> Vec<f64> {
    let later = (1..=MAX_LEASE_LOSSES).map(|lost| retry_delay(lost, 1.0));
    [0.0].into_iter().chain(later).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_lease_waits_for_nothing_at_first_and_never_for_longer_than_five_minutes() {
        let delays = delays();
        assert_eq!(delays[..3], [0.0, 2.0, 4.0]);
        assert!(delays.iter().all(|d| *d <= 300.0));
    }

    #[test]
    fn every_case_has_one_rule_and_running_jobs_may_become_what_it_says() {
        let rules = Rules::new();
        assert_eq!(rules.status.len(), 16);
        for status in rules.status {
            assert!(JobStatus::Running.may_become(status.parse().unwrap()));
        }
        assert!(
            JobStatus::Queued.may_become(JobStatus::Failed),
            "give_up.sql"
        );
    }
}
