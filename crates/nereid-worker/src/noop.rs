//! Runs a no-op job, which tries out the queue and nothing else.

use std::time::Duration;

use nereid_core::{jobs::JobResult, spec::NoopSpec};

use crate::{
    attempt::{Attempt, Order},
    error::RunError,
};

/// Holds the slot for as long as the spec says.
pub(crate) async fn run(attempt: &Attempt, spec: NoopSpec) -> Result<JobResult, RunError> {
    let rest = async {
        if spec.seconds > 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(spec.seconds)).await;
        }
        Ok::<_, RunError>(JobResult::Noop {})
    };
    attempt.unless(Order::Pause, rest).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::tests::attempt;

    #[tokio::test]
    async fn it_ends_by_itself_or_as_ordered() {
        let attempt = attempt(Duration::from_mins(1));
        let done = run(&attempt, NoopSpec { seconds: 0.01 }).await;
        assert!(matches!(done, Ok(JobResult::Noop {})));
        attempt.give(Order::Drain);
        let halted = run(&attempt, NoopSpec { seconds: 3600.0 }).await;
        assert!(matches!(halted, Err(RunError::Halted)));
    }
}
