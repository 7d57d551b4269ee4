//! Time as leases need it: no clock step changes it, and no suspended machine stops it.

use std::{ops::Add, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// The monotonic clock stands still while the machine is suspended; leases do not.
#[cfg(any(target_os = "linux", target_os = "android"))]
const BOOT_CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const BOOT_CLOCK: ClockId = ClockId::Monotonic;

/// A point in time, by this machine's boot clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Moment {
    pub(crate) fn now() -> Self {
        let time = clock_gettime(BOOT_CLOCK);
        Self(Duration::new(
            u64::try_from(time.tv_sec).unwrap_or_default(),
            u32::try_from(time.tv_nsec).unwrap_or_default(),
        ))
    }

    /// Time from now until then; zero if it is past.
    pub(crate) fn until(self) -> Duration {
        self.0.saturating_sub(Self::now().0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_and_never_back() {
        let start = Moment::now();
        let later = start + Duration::from_mins(1);
        assert!(Moment::now() >= start && Moment::now() < later);
        assert!(later.until() <= Duration::from_mins(1));
        assert!(later.until() > Duration::from_secs(50));
        assert_eq!(start.until(), Duration::ZERO);
    }
}
