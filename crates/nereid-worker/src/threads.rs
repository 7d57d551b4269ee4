//! Threads of their own for work that computes for long.
//!
//! Not tokio's blocking pool: the runtime waits for that pool when it ends, and a training that
//! does not heed its directive must not keep a drained process alive.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::sync::CancellationToken;

use crate::error::RunError;

/// Runs `work` on a thread named `name` and returns what it returns; `what` names it in messages.
///
/// If the future is dropped, the thread goes on to its end unheeded.
pub(crate) async fn on_thread<T: Send + 'static>(
    name: &str,
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RunError> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // The result is dropped if nobody waits any more.
            let _ = sender.send(catch_unwind(AssertUnwindSafe(work)));
        })
        .map_err(|e| RunError::Internal(format!("no thread for {what}: {e}")))?;
    match receiver.await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(panic)) => {
            let message = panic_message(&*panic);
            Err(RunError::Internal(format!("{what} panicked: {message}")))
        }
        Err(_) => Err(RunError::Internal(format!("{what} vanished"))),
    }
}

/// Drives the future that `make` returns on a thread of its own, until nobody waits for it.
///
/// For uploads: the digest of what is sent is computed between two waits for the network, and
/// would keep an async thread from everything else, heartbeats included.
pub(crate) async fn drive<T: Send + 'static, F: Future<Output = T>>(
    name: &str,
    what: &'static str,
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<T, RunError> {
    let runtime = Handle::current();
    let unwanted = CancellationToken::new();
    let _cancel_on_drop = unwanted.clone().drop_guard();
    let work = move || runtime.block_on(unwanted.run_until_cancelled(make()));
    on_thread(name, what, work).await?.ok_or(RunError::Halted)
}

/// The text that a panic was raised with.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_error() {
        let result = on_thread("test", "training thread", || -> u8 { panic!("of {}", 42) }).await;
        let error = result.unwrap_err();
        assert!(matches!(&error, RunError::Internal(m) if m == "training thread panicked: of 42"));
        assert_eq!(on_thread("test", "thread", || 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_future_that_nobody_waits_for_is_dropped() {
        assert_eq!(drive("test", "thread", async || 7).await.unwrap(), 7);
        let (alive, mut dropped) = tokio::sync::mpsc::channel::<()>(1);
        let driven = drive("test", "thread", async move || {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), driven);
        assert!(waiting.await.is_err());
        assert_eq!(dropped.recv().await, None);
    }
}
