//! Clients that submit in a closed loop: each waits for its answer before it goes on.

use std::time::{Duration, Instant};

use nereid_core::{ids::ProjectId, jobs::NewJob};
use nereid_store::Store;
use tokio::task::JoinSet;

/// Time before a measurement in which the same is done, but not counted.
const WARM_UP: Duration = Duration::from_millis(500);

/// Submits no-op jobs.
pub trait Submitter: Send + 'static {
    /// Submits one and waits until it is accepted.
    fn submit(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Submits through the store, without HTTP.
#[derive(Clone)]
pub struct StoreClient {
    pub store: Store,
    pub project: ProjectId,
    pub job: NewJob,
}

impl Submitter for StoreClient {
    async fn submit(&mut self) -> anyhow::Result<()> {
        self.store.submit_job(self.project, None, &self.job).await?;
        Ok(())
    }
}

/// Returns submissions per second of all `clients` together, over `time`.
pub async fn per_second<S: Submitter>(clients: Vec<S>, time: Duration) -> anyhow::Result<f64> {
    let counted_from = Instant::now() + WARM_UP;
    let until = counted_from + time;
    let mut running = JoinSet::new();
    for client in clients {
        running.spawn(count(client, counted_from, until));
    }
    let mut jobs = 0_u32;
    while let Some(ended) = running.join_next().await {
        jobs += ended??;
    }
    Ok(f64::from(jobs) / time.as_secs_f64())
}

async fn count<S: Submitter>(mut client: S, from: Instant, until: Instant) -> anyhow::Result<u32> {
    let mut counted = 0;
    loop {
        client.submit().await?;
        let now = Instant::now();
        if now >= until {
            return Ok(counted);
        }
        counted += u32::from(now >= from);
    }
}

/// Submits `jobs` by `clients` together, as fast as may be.
pub async fn fill<S: Submitter>(clients: Vec<S>, jobs: u64) -> anyhow::Result<()> {
    let share = jobs / clients.len() as u64;
    let mut rest = jobs % clients.len() as u64;
    let mut running = JoinSet::new();
    for mut client in clients {
        let mine = share + std::mem::take(&mut rest);
        running.spawn(async move {
            for _ in 0..mine {
                client.submit().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}
