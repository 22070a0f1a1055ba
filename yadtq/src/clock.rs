//! The only source of time. Tests replace it by a clock that they move.

#[cfg(test)]
use std::sync::atomic::{AtomicU64, Ordering};
use std::{
    fmt::Debug,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The times that YADTQ needs.
pub(crate) trait Clock: Debug + Send + Sync {
    /// Microseconds since the Unix epoch, UTC.
    fn now_us(&self) -> u64;

    /// Milliseconds since the Unix epoch, UTC.
    fn now_ms(&self) -> u64 {
        self.now_us() / 1_000
    }

    /// Monotonic time since an unspecified start. On Linux it also advances while the machine is suspended.
    fn steady(&self) -> Duration;
}

/// The time that is this many ms after the Unix epoch.
pub(crate) fn at(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

/// Whole milliseconds. A duration that is too long for the type becomes the longest one.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The machine's clocks.
#[derive(Debug)]
pub(crate) struct SystemClock {
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    start: std::time::Instant,
}

impl SystemClock {
    /// The machine's clocks, for several owners.
    #[must_use]
    pub(crate) fn shared() -> Arc<dyn Clock> {
        Arc::new(Self {
            #[cfg(not(any(target_os = "linux", target_os = "android")))]
            start: std::time::Instant::now(),
        })
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the only place that asks the system")]
    fn now_us(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn steady(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn steady(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that moves only when a test advances it.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct ManualClock {
    us: AtomicU64,
}

#[cfg(test)]
impl ManualClock {
    /// A clock at this number of microseconds since the Unix epoch.
    #[must_use]
    pub(crate) fn at_us(us: u64) -> Self {
        Self { us: AtomicU64::new(us) }
    }

    /// Moves the clock forward.
    pub(crate) fn advance(&self, by: Duration) {
        self.us.fetch_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

#[cfg(test)]
impl Clock for ManualClock {
    fn now_us(&self) -> u64 {
        self.us.load(Ordering::SeqCst)
    }

    fn steady(&self) -> Duration {
        Duration::from_micros(self.now_us())
    }
}
