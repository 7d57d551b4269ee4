//! Submission: cold row, queue row, first event and audit entry, in one transaction.
//!
//! Jobs that name nothing which would have to be locked, and that come without an idempotency key,
//! are committed together with others that come at the same time.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};
use nereid_core::{
    ids::{JobId, KeyId, ProjectId},
    jobs::{Job, JobSpec, JobStatus, NewJob},
    spec::train::SPEC_VERSION,
    workers::DeviceKind,
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Begun, IdempotencyKey, Store, StoreError, StoredResponse,
    connection::Pool,
    group::GroupWrite,
    notify::{CHANNEL, Pending, QUEUE, Wake},
    rows::{self, Row},
};

/// HTTP status under which the answer to an accepted job is stored.
const CREATED: u16 = 201;

/// What came of a submission.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "held for a moment, once per request"
)]
pub enum Submitted {
    /// The job was accepted.
    Fresh(Job),
    /// It was accepted before; answer with this.
    Replay(StoredResponse),
}

impl Store {
    /// Accepts a job, or finds that it was accepted under `key` before. Versions in the spec are already resolved.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if a dataset or model version of the spec is gone; [`StoreError::IdempotencyInFlight`],
    /// [`StoreError::IdempotencyMismatch`]; [`StoreError::Conflict`] `unresolved_version` if a dataset is named without
    /// one.
    pub async fn submit_job(
        &self,
        project: ProjectId,
        key: Option<IdempotencyKey>,
        new: &NewJob,
    ) -> Result<Submitted, StoreError> {
        if key.is_none() && matches!(new.spec, JobSpec::Noop(_)) {
            let submission = Submission {
                id: JobId::generate(),
                project,
                actor: self.actor,
                new: new.clone(),
            };
            let job = self.groups.submissions.call(submission).await?;
            return Ok(Submitted::Fresh(job));
        }
        let mut tx = match self.begin(project, key).await? {
            Begun::Fresh(tx) => tx,
            Begun::Replay(response) => return Ok(Submitted::Replay(response)),
        };
        match tx.submit_job(new).await {
            Ok(job) => {
                tx.commit(CREATED, &job).await?;
                Ok(Submitted::Fresh(job))
            }
            Err(e) => {
                // What is wrong with the submission matters more than how its transaction ends.
                let _ = tx.rollback().await;
                Err(e)
            }
        }
    }
}

/// Accepts jobs in one statement for all of them.
#[derive(Debug)]
pub(crate) struct Submissions {
    pub(crate) pool: Pool,
    pub(crate) pending: Arc<Pending>,
}

/// A job to accept.
#[derive(Debug)]
pub(crate) struct Submission {
    id: JobId,
    project: ProjectId,
    actor: Option<KeyId>,
    new: NewJob,
}

impl GroupWrite for Submissions {
    type Call = Submission;
    type Answer = Job;

    async fn write(&self, calls: &[Submission]) -> Result<Vec<Job>, StoreError> {
        let columns = Columns::of(calls)?;
        // Nobody can watch a job before its submitter knows it: only workers are waiting.
        let wakes = self.pending.carry_queue();
        let rows = sqlx::query_file!(
            "queries/jobs/submit_many.sql",
            &columns.ids,
            &columns.projects,
            &columns.kinds as &[&str],
            &columns.specs,
            &columns.labels,
            &columns.priorities,
            &columns.max_attempts,
            &columns.devices as &[Option<&str>],
            &columns.worker_labels,
            &columns.max_runtimes as &[Option<i32>],
            &columns.max_queues as &[Option<i32>],
            &columns.actors as &[Option<Uuid>],
            rows::bind::<_, i32>(SPEC_VERSION)?,
            wakes,
            CHANNEL,
            QUEUE
        )
        .fetch_all(&self.pool)
        .await?;
        if !wakes {
            self.pending.add(Wake::Queue);
        }
        let created: HashMap<Uuid, DateTime<Utc>> =
            rows.into_iter().map(|r| (r.id, r.created_at)).collect();
        let accepted = calls.iter().map(|call| {
            let missing = || Row::new("jobs", &call.id).corrupt("id", "not inserted");
            Ok(call.accepted(*created.get(&call.id.0).ok_or_else(missing)?))
        });
        accepted.collect()
    }
}

impl Submission {
    /// The job as it stands in the table now.
    fn accepted(&self, created_at: DateTime<Utc>) -> Job {
        Job {
            id: self.id,
            project_id: self.project,
            spec: self.new.spec.clone(),
            options: self.new.options.clone(),
            status: JobStatus::Queued,
            phase: None,
            requested: None,
            waiting: None,
            attempts: 0,
            lease_losses: 0,
            progress: None,
            result: None,
            error: None,
            termination_reason: None,
            created_at,
            started_at: None,
            finished_at: None,
        }
    }
}

/// Submissions by column.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    projects: Vec<Uuid>,
    kinds: Vec<&'a str>,
    specs: Vec<Value>,
    labels: Vec<Value>,
    priorities: Vec<i32>,
    max_attempts: Vec<i32>,
    devices: Vec<Option<&'a str>>,
    worker_labels: Vec<Value>,
    max_runtimes: Vec<Option<i32>>,
    max_queues: Vec<Option<i32>>,
    actors: Vec<Option<Uuid>>,
}

impl<'a> Columns<'a> {
    fn of(calls: &'a [Submission]) -> Result<Self, StoreError> {
        let mut columns = Self::default();
        for call in calls {
            columns.push(call)?;
        }
        Ok(columns)
    }

    fn push(&mut self, call: &'a Submission) -> Result<(), StoreError> {
        let options = &call.new.options;
        let seconds = |limit: Option<u32>| limit.map(rows::bind::<_, i32>).transpose();
        self.ids.push(call.id.0);
        self.projects.push(call.project.0);
        self.kinds.push(call.new.spec.kind().as_str());
        self.specs.push(super::spec_document(&call.new.spec)?);
        self.labels.push(rows::json(&options.labels)?);
        self.priorities.push(i32::from(options.priority));
        self.max_attempts.push(rows::bind(options.max_attempts)?);
        self.devices.push(options.device.map(DeviceKind::as_str));
        self.worker_labels.push(rows::json(&options.worker_labels)?);
        self.max_runtimes
            .push(seconds(options.max_runtime_seconds)?);
        self.max_queues.push(seconds(options.max_queue_seconds)?);
        self.actors.push(call.actor.map(|a| a.0));
        Ok(())
    }
}
