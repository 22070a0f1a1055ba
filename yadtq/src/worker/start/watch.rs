//! How often a task is looked at that another worker runs, or that waits in its place.

use std::time::Duration;

use crate::worker::options::DEFAULT_LEASE;

/// The longest time after which a task that another worker runs is claimed again, so that its lapsed lease is noticed.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// The longest time after which a task that waits in place is claimed again, so that its revocation is noticed.
const MAX_WATCH_INTERVAL: Duration = Duration::from_secs(5);
/// The shortest time after which a task that is held is claimed again.
const MIN_WATCH_INTERVAL: Duration = Duration::from_millis(10);

/// The time after which a task is claimed again that is held for this long: by a lease, or until it is due in place.
pub(super) fn watch_delay(left: Duration) -> Duration {
    let rarely = if left > DEFAULT_LEASE { (left / 8).min(MAX_WATCH_INTERVAL) } else { WATCH_INTERVAL };
    left.clamp(MIN_WATCH_INTERVAL, rarely.max(WATCH_INTERVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_long_is_looked_at_rarely_and_nothing_too_late() {
        let again = |ms| watch_delay(Duration::from_millis(ms)).as_millis();
        assert_eq!((again(0), again(300), again(5_000)), (10, 300, 1_000));
        assert_eq!((again(7_000), again(16_000), again(100_000_000)), (1_000, 2_000, 5_000));
    }
}
