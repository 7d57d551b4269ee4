//! Wall-clock time as an injected dependency, so that tests decide what "now" is.

use chrono::{DateTime, Utc};

/// A point in time, UTC, as RFC 3339 in JSON.
pub type Timestamp = DateTime<Utc>;

/// Source of the current time.
///
/// Leases never use it: their clock is the database's.
pub trait Clock: Send + Sync + 'static {
    /// Returns the current time.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock"
    )]
    fn now(&self) -> Timestamp {
        Utc::now()
    }
}
