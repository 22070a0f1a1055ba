//! What has to happen at a given time, and how long to wait before something that has failed is tried again.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// The wait after the first failure in a row.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// Things that wait for their times.
#[derive(Debug)]
pub(super) struct Timers<T> {
    waiting: BTreeMap<TimerKey, T>,
    /// Number of timers that were set: it orders those of the same time.
    set: u64,
}

/// Names one timer, so that it can be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimerKey(Instant, u64);

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), set: 0 }
    }
}

impl<T> Timers<T> {
    /// Sets a timer that goes off at `now` + `after`.
    pub(super) fn set(&mut self, now: Instant, after: Duration, what: T) -> TimerKey {
        self.set += 1;
        let key = TimerKey(now + after, self.set);
        self.waiting.insert(key, what);
        key
    }

    pub(super) fn cancel(&mut self, key: TimerKey) {
        self.waiting.remove(&key);
    }

    /// The earliest of those that have gone off by `now`.
    pub(super) fn pop(&mut self, now: Instant) -> Option<T> {
        let first = self.waiting.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// All that wait, the earliest first.
    pub(super) fn into_values(self) -> impl Iterator<Item = T> {
        self.waiting.into_values()
    }

    /// When the earliest one goes off.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(key, _)| key.0)
    }
}

/// Doubles the wait with each failure in a row, from 100 ms to 1 s.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Notes a failure. Returns the wait before the next attempt.
    pub(super) fn failed(&mut self) -> Duration {
        let delay = FIRST_DELAY.saturating_mul(1 << self.failures.min(10)).min(LONGEST_DELAY);
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// Notes a success: the next wait is the shortest again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_go_off_in_order_and_never_once_they_are_cancelled() {
        let (start, mut timers) = (Instant::now(), Timers::default());
        let ms = Duration::from_millis;
        timers.set(start, ms(20), 'c');
        timers.set(start, ms(10), 'a');
        let cancelled = timers.set(start, ms(10), 'x');
        timers.set(start, ms(10), 'b');
        timers.cancel(cancelled);
        assert_eq!((timers.next(), timers.pop(start)), (Some(start + ms(10)), None));
        assert_eq!([timers.pop(start + ms(15)), timers.pop(start + ms(15))], [Some('a'), Some('b')]);
        assert_eq!((timers.pop(start + ms(19)), timers.pop(start + ms(20))), (None, Some('c')));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn waits_double_up_to_a_second_and_start_over_after_a_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..6).map(|_| backoff.failed().as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_000, 1_000]);
        assert!((0..100).map(|_| backoff.failed()).all(|wait| wait == LONGEST_DELAY));
        backoff.reset();
        assert_eq!(backoff.failed(), FIRST_DELAY);
    }
}
