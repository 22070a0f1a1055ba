//! How full a server of the store is, and how long it has left.

use std::time::Duration;

/// From this share of its limit on, in percent, a server is reported.
const HIGH_PERCENT: u64 = 70;
const MEBIBYTE: u64 = 1_024 * 1_024;

/// The memory of one server that has a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub server: String,
    /// In bytes.
    pub used: u64,
    /// `maxmemory`, in bytes.
    pub most: u64,
}

impl Memory {
    pub(crate) fn is_high(&self) -> bool {
        self.percent() >= HIGH_PERCENT
    }

    fn percent(&self) -> u64 {
        self.used.saturating_mul(100) / self.most.max(1)
    }

    /// What to say of a server that is nearly full. `earlier`: what it used this long ago.
    pub(crate) fn warning(&self, earlier: &Self, ago: Duration) -> Option<String> {
        if !self.is_high() {
            return None;
        }
        let left = match self.time_left(earlier, ago) {
            Some(left) => format!("At the present rate it is full in about {}.", rough(left)),
            None => "It does not grow at present.".to_owned(),
        };
        Some(format!(
            "redis at {} uses {} % of its maxmemory ({} of {} MB). {left} Full, it takes no writes: tasks wait, and nothing is \
             lost. Raise maxmemory, keep results for a shorter time (result_ttl, ignore_result), or use a cluster",
            self.server,
            self.percent(),
            self.used / MEBIBYTE,
            self.most / MEBIBYTE
        ))
    }

    /// `None` if it does not grow.
    fn time_left(&self, earlier: &Self, ago: Duration) -> Option<Duration> {
        let grown = self.used.checked_sub(earlier.used).filter(|&grown| grown > 0)?;
        let left = self.most.saturating_sub(self.used);
        Duration::try_from_secs_f64(ago.as_secs_f64() * left as f64 / grown as f64).ok()
    }
}

/// The duration in its largest unit.
fn rough(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_says_how_long_is_left() {
        let memory = |used| Memory { server: "db:6379".to_owned(), used: used * MEBIBYTE, most: 1_000 * MEBIBYTE };
        let says = |earlier, used, secs| memory(used).warning(&memory(earlier), Duration::from_secs(secs));
        assert_eq!(says(0, 699, 60), None);
        let text = says(690, 700, 3_600).expect("70 %");
        assert!(
            text.contains("70 % of its maxmemory (700 of 1000 MB)") && text.contains("full in about 30 h"),
            "{text}"
        );
        for (earlier, used, secs, left) in [
            (700, 700, 60, "does not grow"),
            (800, 700, 60, "does not grow"),
            (600, 800, 1, "about 1 s"),
            (790, 800, 60, "about 20 min"),
            (799, 800, 3_600, "about 8 days"),
            (999, 1_001, 60, "about 0 s"),
        ] {
            let text = says(earlier, used, secs).expect("high");
            assert!(text.contains(left), "{text}");
        }
    }
}
