//! What a pool of workers has to do: its queue and its members.

use std::collections::BTreeMap;

use nereid_core::{
    ids::WorkerId,
    workers::{DeviceKind, WorkerStatus},
};

use uuid::Uuid;

use crate::{
    Store, StoreError,
    rows::{self, Row},
};

/// A worker of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolMember {
    /// Identifier.
    pub id: WorkerId,
    /// Host name; in Kubernetes that of its pod.
    pub host: String,
    /// Where it stands; never gone.
    pub status: WorkerStatus,
    /// Jobs that it runs.
    pub running: u32,
    /// Replicas that it holds.
    pub replicas: u32,
}

/// What a pool has to do, and with what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolLoad {
    /// Jobs that wait and that its workers could take.
    pub queued: u64,
    /// Its workers, those with the least to do first.
    pub members: Vec<PoolMember>,
}

struct MemberRow {
    id: Uuid,
    host: String,
    status: String,
    running: i64,
    replicas: i64,
}

impl Store {
    /// Reads the members of a pool, which are the workers that have all of `labels`, and the jobs that wait for
    /// workers with `device` and `labels`.
    ///
    /// Jobs put off to a later time do not count.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn pool_load(
        &self,
        device: DeviceKind,
        labels: &BTreeMap<String, String>,
    ) -> Result<PoolLoad, StoreError> {
        let labels = rows::json(labels)?;
        let queued = sqlx::query_scalar!(
            r#"SELECT count(*) AS "queued!" FROM job_leases
             WHERE state = 'queued' AND available_at <= now() AND (device IS NULL OR device = $1) AND labels <@ $2"#,
            device.as_str(),
            labels
        )
        .fetch_one(&self.pool)
        .await?;
        let rows = sqlx::query_as!(
            MemberRow,
            r#"SELECT w.id, w.host, w.status,
                 (SELECT count(*) FROM job_leases l WHERE l.worker_id = w.id AND l.state = 'running') AS "running!",
                 (SELECT count(*) FROM replicas r WHERE r.worker_id = w.id AND r.status <> 'failed') AS "replicas!"
             FROM workers w WHERE w.status <> 'gone' AND w.labels @> $1
             ORDER BY 4, 5, w.started_at DESC, w.id"#,
            labels
        )
        .fetch_all(&self.pool)
        .await?;
        let member = |r: MemberRow| {
            let row = Row::new("workers", &r.id);
            Ok(PoolMember {
                id: r.id.into(),
                host: r.host,
                status: row.word("status", &r.status)?,
                running: row.number("running", r.running)?,
                replicas: row.number("replicas", r.replicas)?,
            })
        };
        let members = rows
            .into_iter()
            .map(member)
            .collect::<Result<_, StoreError>>()?;
        Ok(PoolLoad {
            queued: Row::new("job_leases", &"pool").number("queued", queued)?,
            members,
        })
    }
}
