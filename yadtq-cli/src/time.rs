//! Times and durations for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use humantime::format_duration;
use serde::{Serialize as _, Serializer};

/// How long ago a time was, or how far ahead it is, by this machine's clock: `3s ago`, `in 5m`.
pub(crate) fn ago(at: SystemTime) -> String {
    since(ms(at), now_ms())
}

/// Writes a time for programs: in ms since the Unix epoch.
pub(crate) fn write_some<S: Serializer>(at: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(ms).serialize(serializer)
}

fn ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The duration between two times, to the millisecond; `0s` if they are reversed.
pub(crate) fn between(from: SystemTime, to: SystemTime) -> String {
    exact(to.duration_since(from).unwrap_or_default())
}

/// The duration from a time until now, in its two largest units.
pub(crate) fn age(at: SystemTime) -> String {
    rough(Duration::from_millis(now_ms().saturating_sub(ms(at))))
}

/// A duration, to the millisecond.
pub(crate) fn exact(duration: Duration) -> String {
    format_duration(Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))).to_string()
}

fn since(at_ms: u64, now_ms: u64) -> String {
    if at_ms > now_ms.saturating_add(1_000) {
        return format!("in {}", rough(Duration::from_millis(at_ms - now_ms)));
    }
    match now_ms.saturating_sub(at_ms) {
        // This also covers a server's clock that is a little ahead.
        ..1_000 => "just now".to_owned(),
        ms => format!("{} ago", rough(Duration::from_millis(ms))),
    }
}

fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let unit = match seconds {
        0..3_600 => 1,
        3_600..86_400 => 60,
        86_400.. => 3_600,
    };
    format_duration(Duration::from_secs(seconds / unit * unit)).to_string()
}

#[allow(clippy::disallowed_methods, reason = "ages are shown to a person, who reads the same clock")]
fn now_ms() -> u64 {
    ms(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units() {
        let now = 10_000_000_000;
        for (ms, text) in [
            (0, "just now"),
            (999, "just now"),
            (3_200, "3s ago"),
            (192_000, "3m 12s ago"),
            (7_503_000, "2h 5m ago"),
            (93_784_000, "1day 2h ago"),
        ] {
            assert_eq!(since(now - ms, now), text);
        }
    }

    #[test]
    fn small_clock_differences_do_not_matter() {
        assert_eq!(since(10_900, 10_000), "just now");
        assert_eq!(since(75_000, 10_000), "in 1m 5s");
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        assert_eq!(
            (between(at(2_000), at(1_000)), between(at(1_000), at(2_500))),
            ("0s".to_owned(), "1s 500ms".to_owned())
        );
    }
}
