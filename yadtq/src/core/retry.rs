//! How often and when a failed task is retried.
//!
//! The wait before a retry is an exponential backoff with equal jitter: a random time between one half of
//! `base * 2^(attempt - 1)` and the whole of it, at most the cap. "Exponential Backoff And Jitter" (AWS Architecture Blog,
//! 2015) compares the usual ways. Full jitter spreads retries a little better, but may use up several attempts at once, so that
//! the time which a task outlasts an outage could be anything.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often and when a failed task is retried. A value that a policy leaves out comes from the next one: first the
/// policy of the call, then that of the task, then that of the worker, then the defaults, which are 12 retries, a base
/// of 2 s and a cap of 1 h: a task that keeps failing is tried for one to two hours.
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
    /// Largest number of retries. With the default cap they take a month, so more are likely to be a mistake.
    const MAX_RETRIES: u32 = 1_000;
    /// Largest cap, in ms: 365 days.
    const MAX_CAP_MS: u64 = 365 * 24 * 3_600_000;
    const DEFAULT_RETRIES: u32 = 12;
    const DEFAULT_BASE_MS: u64 = 2_000;
    const DEFAULT_CAP_MS: u64 = 3_600_000;

    /// A policy that leaves out every value.
    pub const fn new() -> Self {
        Self { max: None, base_ms: None, cap_ms: None }
    }

    /// A policy without retries: the first failure is final.
    pub const fn never() -> Self {
        Self::new().max(0)
    }

    /// Number of retries after the first attempt, at most 1,000. Default: 12.
    pub const fn max(mut self, retries: u32) -> Self {
        self.max = Some(retries);
        self
    }

    /// Longest wait before the first retry; the shortest is half of it. It doubles with each further retry. At least 1 ms.
    /// Default: 2 s.
    pub const fn base(mut self, base: Duration) -> Self {
        self.base_ms = Some(millis(base));
        self
    }

    /// Longest wait before any retry, unless a base from elsewhere is longer. Not shorter than the base of this policy, and at
    /// most 365 days. Default: 1 h.
    pub const fn cap(mut self, cap: Duration) -> Self {
        self.cap_ms = Some(millis(cap));
        self
    }

    /// Whether the policy leaves out every value.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::new()
    }

    /// This policy, with the values that it leaves out taken from `other`.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            max: self.max.or(other.max),
            base_ms: self.base_ms.or(other.base_ms),
            cap_ms: self.cap_ms.or(other.cap_ms),
        }
    }

    /// Checks the values. An error names the wrong field and says what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.max.is_some_and(|max| max > Self::MAX_RETRIES) {
            return Err(("max_retries", format!("must be at most {}; more would never end", Self::MAX_RETRIES)));
        }
        if self.base_ms == Some(0) {
            return Err(("retry_base", "must be at least 1 ms".to_owned()));
        }
        if self.cap_ms.is_some_and(|cap| cap == 0 || cap > Self::MAX_CAP_MS) {
            return Err(("retry_cap", "must be between 1 ms and 365 days".to_owned()));
        }
        if self.base_ms.zip(self.cap_ms).is_some_and(|(base, cap)| base > cap) {
            return Err(("retry_base", "must not be longer than retry_cap".to_owned()));
        }
        Ok(())
    }

    /// Number of retries after the first attempt.
    pub(crate) fn retries(&self) -> u32 {
        self.max.unwrap_or(Self::DEFAULT_RETRIES).min(Self::MAX_RETRIES)
    }

    /// The wait after this attempt, counted from 1, in ms. `random` chooses the point between one half of the longest wait and
    /// the whole of it.
    pub(crate) fn wait_ms(&self, attempt: u32, random: u64) -> u64 {
        let base = self.base_ms.unwrap_or(Self::DEFAULT_BASE_MS).clamp(1, Self::MAX_CAP_MS);
        // A base from a nearer policy than the cap counts: nobody who asks for a day gets an hour.
        let cap = self.cap_ms.unwrap_or(Self::DEFAULT_CAP_MS).clamp(base, Self::MAX_CAP_MS);
        let doubled = 1_u64.checked_shl(attempt.saturating_sub(1)).unwrap_or(u64::MAX);
        let most = base.saturating_mul(doubled).min(cap);
        let least = most.div_ceil(2);
        least + random % (most - least + 1)
    }
}

/// The duration in whole ms, or the largest number if it is longer than that.
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
    fn the_nearest_policy_decides_field_by_field() {
        let call = Retry::new().max(7);
        let task = Retry::new().max(1).base(Duration::from_millis(20));
        let worker = Retry::new().cap(Duration::from_millis(50));
        let all = call.or(task).or(worker);
        assert_eq!(all, Retry { max: Some(7), base_ms: Some(20), cap_ms: Some(50) });
        assert_eq!(Retry::new().retries(), 12);
        assert_eq!(Retry::never().retries(), 0);
    }

    #[test]
    fn a_wrong_value_is_refused_by_the_name_of_its_field() {
        let field = |retry: Retry| retry.check().unwrap_err().0;
        assert_eq!(field(Retry::new().max(u32::MAX)), "max_retries");
        assert_eq!(field(Retry::new().base(Duration::ZERO)), "retry_base");
        assert_eq!(field(Retry::new().cap(Duration::ZERO)), "retry_cap");
        assert_eq!(field(Retry::new().cap(Duration::MAX)), "retry_cap");
        assert_eq!(field(Retry::new().base(Duration::from_secs(2)).cap(Duration::from_secs(1))), "retry_base");
        assert_eq!(Retry::new().max(Retry::MAX_RETRIES).check(), Ok(()));
    }

    /// The whole time that a task outlasts an outage, which the guide promises.
    #[test]
    fn by_default_a_task_is_tried_for_one_to_two_hours() {
        let retry = Retry::new();
        let window = |random| (1..=retry.retries()).map(|attempt| retry.wait_ms(attempt, random)).sum::<u64>();
        // The random number that leads to the longest wait is half of it.
        let longest: u64 = (1..=12).map(|attempt| (2_000 << (attempt - 1)).min(3_600_000)).sum();
        assert_eq!((window(0), longest), (3_847_000, 7_694_000), "64 and 128 minutes");
    }

    proptest! {
        /// Whatever values a record has: a wait is between a half and the whole of the longest, which doubles until it reaches
        /// the cap; a base above the cap is a cap too.
        #[test]
        fn waits_double_up_to_the_cap(
            base in 0..=u64::MAX, cap in 0..=u64::MAX, attempt in 0..=u32::MAX, random in any::<u64>(),
        ) {
            let retry = Retry { max: None, base_ms: Some(base), cap_ms: Some(cap) };
            let wait = retry.wait_ms(attempt, random);
            prop_assert!(wait >= 1 && wait <= base.max(cap).max(1) && wait <= Retry::MAX_CAP_MS);
            let plain = Retry { max: None, base_ms: Some(base.clamp(1, 1_000)), cap_ms: Some(1 << 40) };
            let (most, early) = (base.clamp(1, 1_000) << (attempt % 20), attempt % 20 + 1);
            prop_assert_eq!(plain.wait_ms(early, 0), most.div_ceil(2));
            prop_assert_eq!(plain.wait_ms(early, most / 2), most);
        }
    }
}
