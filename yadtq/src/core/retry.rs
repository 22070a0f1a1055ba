//! When a failed attempt is made again.
//!
//! Exponential backoff with full jitter, as measured best in "Exponential Backoff And Jitter" (AWS Architecture
//! Blog, 2015): the wait is random between nothing and `base * 2^(attempt - 1)`, at most the cap.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often and when a failed attempt is made again. What is left out here says the next level: first the call, then
/// the task, then the worker, then the defaults, which are 3 retries, 1 s and 10 min.
///
/// ```
/// use std::time::Duration;
/// use yadtq::Retry;
///
/// let patient = Retry::new().max(10).base(Duration::from_secs(5)).cap(Duration::from_secs(3_600));
/// let never = Retry::never();
/// # let _ = (patient, never);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[must_use]
pub struct Retry {
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cap_ms: Option<u64>,
}

impl Retry {
    /// More retries are a mistake: with the default cap, these take a week.
    pub(crate) const MOST: u32 = 1_000;
    const LONGEST_MS: u64 = 365 * 24 * 3_600_000;

    /// A policy that says nothing yet.
    pub const fn new() -> Self {
        Self { max: None, base_ms: None, cap_ms: None }
    }

    /// A failed attempt is final.
    pub const fn never() -> Self {
        Self::new().max(0)
    }

    /// How often a task is tried again after its first attempt, at most 1,000. Default: 3.
    pub const fn max(mut self, retries: u32) -> Self {
        self.max = Some(retries);
        self
    }

    /// The longest wait before the first retry; it doubles with each. At least 1 ms. Default: 1 s.
    pub const fn base(mut self, base: Duration) -> Self {
        self.base_ms = Some(millis(base));
        self
    }

    /// The longest wait before any retry; not shorter than the base, at most 365 days. Default: 10 min.
    pub const fn cap(mut self, cap: Duration) -> Self {
        self.cap_ms = Some(millis(cap));
        self
    }

    /// Whether it says nothing.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::new()
    }

    /// What this leaves out, as `other` says.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            max: self.max.or(other.max),
            base_ms: self.base_ms.or(other.base_ms),
            cap_ms: self.cap_ms.or(other.cap_ms),
        }
    }

    /// The field that is wrong, and what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.max.is_some_and(|max| max > Self::MOST) {
            return Err(("max_retries", format!("must be at most {}; more would never end", Self::MOST)));
        }
        if self.base_ms == Some(0) {
            return Err(("retry_base", "must be at least 1 ms".to_owned()));
        }
        if self.cap_ms.is_some_and(|cap| cap == 0 || cap > Self::LONGEST_MS) {
            return Err(("retry_cap", "must be between 1 ms and 365 days".to_owned()));
        }
        if self.base_ms.zip(self.cap_ms).is_some_and(|(base, cap)| base > cap) {
            return Err(("retry_base", "must not be longer than retry_cap".to_owned()));
        }
        Ok(())
    }

    /// How many retries there are.
    pub(crate) fn retries(&self) -> u32 {
        self.max.unwrap_or(3).min(Self::MOST)
    }

    /// How long to wait after this attempt, from 1, in ms. `random` decides where between nothing and the most.
    pub(crate) fn wait_ms(&self, attempt: u32, random: u64) -> u64 {
        let cap = self.cap_ms.unwrap_or(600_000).min(Self::LONGEST_MS);
        let base = self.base_ms.unwrap_or(1_000).clamp(1, cap.max(1));
        let doubled = 1_u64.checked_shl(attempt.saturating_sub(1)).unwrap_or(u64::MAX);
        let most = base.saturating_mul(doubled).min(cap);
        random % most.saturating_add(1)
    }
}

/// Whole ms; what is longer than can be said is checked like the longest.
#[allow(clippy::cast_possible_truncation, reason = "compared before; `try_from` is not const")]
const fn millis(duration: Duration) -> u64 {
    let ms = duration.as_millis();
    if ms > u64::MAX as u128 { u64::MAX } else { ms as u64 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_nearest_level_decides_field_by_field() {
        let call = Retry::new().max(7);
        let task = Retry::new().max(1).base(Duration::from_millis(20));
        let worker = Retry::new().cap(Duration::from_millis(50));
        let all = call.or(task).or(worker);
        assert_eq!(all, Retry { max: Some(7), base_ms: Some(20), cap_ms: Some(50) });
        assert_eq!(Retry::new().retries(), 3);
        assert_eq!(Retry::never().retries(), 0);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let field = |retry: Retry| retry.check().unwrap_err().0;
        assert_eq!(field(Retry::new().max(u32::MAX)), "max_retries");
        assert_eq!(field(Retry::new().base(Duration::ZERO)), "retry_base");
        assert_eq!(field(Retry::new().cap(Duration::ZERO)), "retry_cap");
        assert_eq!(field(Retry::new().cap(Duration::MAX)), "retry_cap");
        assert_eq!(field(Retry::new().base(Duration::from_secs(2)).cap(Duration::from_secs(1))), "retry_base");
        assert_eq!(Retry::new().max(Retry::MOST).check(), Ok(()));
    }

    proptest! {
        /// Whatever a record says: never beyond the cap, doubled until there, and all of it can be drawn.
        #[test]
        fn waits_double_up_to_the_cap(
            base in 0..=u64::MAX, cap in 0..=u64::MAX, attempt in 0..=u32::MAX, random in any::<u64>(),
        ) {
            let retry = Retry { max: None, base_ms: Some(base), cap_ms: Some(cap) };
            let wait = retry.wait_ms(attempt, random);
            prop_assert!(wait <= cap && wait <= Retry::LONGEST_MS);
            let plain = Retry { max: None, base_ms: Some(base.clamp(1, 1_000)), cap_ms: Some(1 << 40) };
            let (most, early) = (base.clamp(1, 1_000) << (attempt % 20), attempt % 20 + 1);
            prop_assert_eq!(plain.wait_ms(early, most), most);
            prop_assert_eq!(plain.wait_ms(early, most + 1), 0);
        }
    }
}
