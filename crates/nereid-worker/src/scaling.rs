//! Has the store choose the number of replicas of what scales by itself, in turn with all others.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{attempt::LONGEST_CALL, sync::jittered, worker::Context};

/// Time between two looks; the store passes by what somebody else has just looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Time between two deletions of what was measured long ago.
const FORGET: Duration = Duration::from_mins(5);

/// Looks until shutdown.
pub(crate) async fn run(ctx: Arc<Context>) {
    let looks = async {
        let mut forgotten = Instant::now();
        loop {
            tokio::time::sleep(jittered(LOOK)).await;
            match tokio::time::timeout(LONGEST_CALL, ctx.store.autoscale()).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => tracing::warn!(error = %e, "cannot look at the load of endpoints"),
                Err(_) => tracing::warn!("looking at the load of endpoints took too long"),
            }
            if forgotten.elapsed() > FORGET {
                forgotten = Instant::now();
                if let Err(e) = ctx.store.forget_windows().await {
                    tracing::warn!(error = %e, "cannot delete old measurements of endpoints");
                }
            }
        }
    };
    ctx.shutdown.run_until_cancelled(looks).await;
}
