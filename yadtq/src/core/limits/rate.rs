//! How often tasks may start.

use std::str::FromStr;

use thiserror::Error;

/// How often tasks may start: a number per second, minute or hour, spread evenly, with bursts of at most
/// [`burst`](Self::burst) tasks.
///
/// ```
/// use yadtq::Rate;
///
/// let gently = Rate::per_second(10);
/// let in_bursts = Rate::per_minute(100).burst(20);
/// assert_eq!("100/m".parse(), Ok(Rate::per_minute(100)));
/// # let _ = (gently, in_bursts);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Rate {
    count: u64,
    per_us: u64,
    pub(super) burst: u32,
}

/// The text is not a rate.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no rate; write it as `10/s`, `100/m` or `5/h`")]
pub struct BadRate(String);

impl Rate {
    const SECOND_US: u64 = 1_000_000;
    /// Largest number of starts per second. Reservations are counted in µs, and this keeps them 100 µs apart.
    pub(crate) const MAX_PER_SECOND: u64 = 10_000;
    /// The largest burst.
    pub(crate) const MAX_BURST: u32 = 100_000;

    /// `count` starts per second, from 1 to 10,000.
    pub const fn per_second(count: u64) -> Self {
        Self { count, per_us: Self::SECOND_US, burst: 1 }
    }

    /// `count` starts per minute, from 1 to 600,000.
    pub const fn per_minute(count: u64) -> Self {
        Self { count, per_us: 60 * Self::SECOND_US, burst: 1 }
    }

    /// `count` starts per hour, from 1 to 36,000,000.
    pub const fn per_hour(count: u64) -> Self {
        Self { count, per_us: 3_600 * Self::SECOND_US, burst: 1 }
    }

    /// How many tasks may start at once after a time without starts, from 1 to 100,000. In any period there are at most
    /// this many starts more than the rate allows. Default: 1, which spreads starts evenly.
    pub const fn burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self
    }

    /// Checks the numbers. An error names the wrong field and says what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let most = Self::MAX_PER_SECOND * (self.per_us / Self::SECOND_US);
        if self.count == 0 {
            return Err(("rate", "a rate of zero would let nothing start; leave the limit out, or pause".to_owned()));
        }
        if self.count > most {
            return Err(("rate", format!("must be at most {} starts a second", Self::MAX_PER_SECOND)));
        }
        if self.burst == 0 || self.burst > Self::MAX_BURST {
            return Err(("burst", format!("must be 1 to {}", Self::MAX_BURST)));
        }
        Ok(())
    }

    /// The time from one start to the next, in µs. It is rounded up, so that there are never more starts than allowed.
    pub(crate) fn interval_us(&self) -> u64 {
        self.per_us.div_ceil(self.count.max(1)).max(1)
    }

    /// How far a clock of the limit may be ahead of the present for a start, in µs. This is what allows bursts.
    pub(crate) fn ahead_us(&self) -> u64 {
        self.interval_us().saturating_mul(u64::from(self.burst.max(1)) - 1)
    }
}

impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Self, BadRate> {
        let bad = || BadRate(text.to_owned());
        let (count, unit) = text.split_once('/').ok_or_else(bad)?;
        let count = count.trim().parse().map_err(|_| bad())?;
        match unit.trim() {
            "s" => Ok(Self::per_second(count)),
            "m" => Ok(Self::per_minute(count)),
            "h" => Ok(Self::per_hour(count)),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_parsed_and_checked() {
        assert_eq!("10/s".parse(), Ok(Rate::per_second(10)));
        assert_eq!(Rate::per_minute(100).interval_us(), 600_000);
        assert_eq!(Rate::per_hour(7).interval_us(), 514_285_715);
        for text in ["", "10", "s", "/s", "10/", "10/d", "-1/s", "1.5/s", "10/s/s", "99999999999999999999/s"] {
            assert_eq!(text.parse::<Rate>(), Err(BadRate(text.to_owned())));
        }
        let field = |rate: Rate| rate.check().unwrap_err().0;
        assert_eq!(field(Rate::per_second(0)), "rate");
        assert_eq!(field(Rate::per_second(10_001)), "rate");
        assert_eq!(field(Rate::per_hour(u64::MAX)), "rate");
        assert_eq!(field(Rate::per_second(1).burst(0)), "burst");
        assert_eq!(field(Rate::per_second(1).burst(u32::MAX)), "burst");
        assert_eq!(Rate::per_second(10_000).burst(100_000).check(), Ok(()));
        assert_eq!(Rate::per_minute(600_000).check(), Ok(()));
    }
}
