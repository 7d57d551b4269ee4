//! Patience with S3: while it fails, a step is repeated, and after that it is a clean failure.

use std::time::Duration;

use nereid_core::jobs::TerminationReason;
use tokio::time::Instant;

use crate::{error::RunError, sync::Backoff, worker::Context};

impl Context {
    /// Repeats `step`, named `what`, while storage is away and the worker's patience lasts.
    ///
    /// One try has already made those of the S3 client. The caller sees to it that an order of
    /// the attempt ends the wait.
    ///
    /// # Errors
    /// The last one, so that the attempt ends as unavailable and the job is tried again later.
    pub(crate) async fn patiently<T, F>(
        &self,
        what: &str,
        mut step: impl FnMut() -> F,
    ) -> Result<T, RunError>
    where
        F: Future<Output = Result<T, RunError>>,
    {
        let until = Instant::now() + self.config.storage_patience;
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
        loop {
            let error = match step().await {
                Err(e) if e.reason() == Some(TerminationReason::Unavailable) => e,
                result => return result,
            };
            let next = Instant::now() + backoff.pause();
            if next >= until {
                return Err(error);
            }
            tracing::warn!(%error, "{what} is tried again");
            tokio::time::sleep_until(next).await;
        }
    }
}
