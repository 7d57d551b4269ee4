//! Hands expired leases back to the queue; every process does so, none leads.
//!
//! While Postgres is away no worker can renew its leases, so nobody reaps until workers had one
//! lease's time to do so: after a start, after a failed look, and after a gap of this process's
//! own, which may mean that the whole machine stood still.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{sync::jittered, worker::Context};

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

/// Reaps until shutdown.
pub(crate) async fn run(ctx: Arc<Context>) {
    let lease = ctx.config.lease;
    let mut patience = Patience::new(lease, Instant::now());
    loop {
        tokio::select! {
            () = ctx.shutdown.cancelled() => return,
            () = tokio::time::sleep(jittered(lease / 3)) => {}
        }
        let result = if patience.look(Instant::now()) {
            ctx.store.reap(lease / 3).await
        } else {
            ctx.store.ping().await.map(|()| 0)
        };
        match result {
            Ok(0) => {}
            Ok(jobs) => {
                tracing::info!(jobs, "expired leases were handed back");
            }
            Err(e) => {
                tracing::warn!(error = %e, "cannot look for expired leases");
                patience.failed(Instant::now());
            }
        }
    }
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
