//! Keeps a panic of the tensor framework from ending the process.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nereid_core::engine::EngineError;

/// Runs `f`; a panic in it becomes [`EngineError::Internal`].
///
/// Whatever `f` was working on must be dropped by the caller on an error, since it may be half
/// changed.
pub(crate) fn panics<T>(
    what: &str,
    f: impl FnOnce() -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| {
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("panic without a message");
        tracing::error!(what, message, "the tensor framework panicked");
        Err(EngineError::Internal(format!("{what}: {message}")))
    })
}
