//! The loop that reaps: every process runs it, none leads.
//!
//! While Postgres is away no worker can renew its leases, so nobody reaps until workers had one
//! lease's time to do so: after a start, after a failed look, and after a gap of this process's
//! own, which may mean that the whole machine stood still.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::{Store, StoreError};

use super::reap::Reaped;

/// Longest mean time between two looks; an expired lease is found within a little more than that.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time for the locks of a session that was ended to be free.
const UNLOCKED: Duration = Duration::from_millis(100);
/// Time between two asks whether the daily chores are due.
const CHORES_INTERVAL: Duration = Duration::from_mins(10);
/// How often the chores are done, by one process for all.
const CHORES_EVERY: Duration = Duration::from_hours(24);
/// How long a request can be repeated with its `Idempotency-Key` before it counts as a new one.
pub const IDEMPOTENCY_WINDOW: Duration = Duration::from_hours(24);

/// Decides whether leases may be trusted to be expired.
#[derive(Debug)]
struct Patience {
    lease: Duration,
    reap_after: Instant,
    looked_at: Instant,
}

impl Patience {
    fn new(lease: Duration, now: Instant) -> Self {
        Self {
            lease,
            reap_after: now + lease,
            looked_at: now,
        }
    }

    /// Notes a look at the database; true if it may reap.
    fn look(&mut self, now: Instant) -> bool {
        if now.duration_since(self.looked_at) > self.lease {
            self.reap_after = now + self.lease;
        }
        self.looked_at = now;
        now >= self.reap_after
    }

    /// Notes that the database did not answer.
    fn failed(&mut self, now: Instant) {
        self.looked_at = now;
        self.reap_after = now + self.lease;
    }
}

impl Store {
    /// Reaps about every second until `shutdown`; `lease` is that of the workers. Also does the daily chores.
    pub fn reaper(
        &self,
        lease: Duration,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let store = self.clone();
        async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                ((), ()) = async { tokio::join!(store.keep_reaping(lease), store.keep_house()) } => {}
            }
        }
    }

    async fn keep_reaping(&self, lease: Duration) {
        let mut patience = Patience::new(lease, Instant::now());
        // Its own pauses must not look as if it had stood still.
        let interval = INTERVAL.min(lease / 3);
        let mut pause = interval;
        loop {
            tokio::time::sleep(jittered(pause)).await;
            pause = interval;
            let result = if patience.look(Instant::now()) {
                self.reap(lease).await
            } else {
                self.ping().await.map(|()| Reaped::default())
            };
            match result {
                Ok(reaped) if reaped == Reaped::default() => {}
                Ok(reaped) => {
                    tracing::info!(?reaped, "expired leases and waits were ended");
                    if reaped.disconnected > 0 {
                        pause = interval.min(UNLOCKED);
                    }
                }
                Err(e) => {
                    tracing::warn!(error = %e, "cannot look for expired leases");
                    patience.failed(Instant::now());
                }
            }
        }
    }

    async fn keep_house(&self) {
        loop {
            if let Err(e) = self.do_chores().await {
                tracing::warn!(error = %e, "daily chores failed; they are tried again tomorrow");
            }
            tokio::time::sleep(jittered(CHORES_INTERVAL)).await;
        }
    }

    async fn do_chores(&self) -> Result<(), StoreError> {
        if self.begin_chore("upkeep", CHORES_EVERY).await? {
            self.ensure_partitions().await?;
            let forgotten = self.forget_old(IDEMPOTENCY_WINDOW).await?;
            tracing::info!(forgotten, "daily chores are done");
        }
        Ok(())
    }
}

/// Processes started together do not stay in step.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(rand::random_range(0.75..1.25))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_reaps_before_workers_had_a_chance_to_renew() {
        let lease = Duration::from_secs(15);
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut patience = Patience::new(lease, start);
        assert!(!patience.look(at(5)));
        assert!(!patience.look(at(10)));
        assert!(patience.look(at(15)));
        assert!(patience.look(at(20)));
        // Postgres was away.
        patience.failed(at(25));
        assert!(!patience.look(at(30)));
        assert!(patience.look(at(40)));
        // This process stood still.
        assert!(!patience.look(at(100)));
        assert!(!patience.look(at(110)));
        assert!(patience.look(at(116)));
    }
}
