//! Limits: how often tasks start, and how many run at once.
//!
//! A rate limit is the generic cell rate algorithm (GCRA) with two clocks. The clock `started` admits starts. It alone
//! keeps the limit, whether tasks come early, late or twice. A task that may not start yet reserves the next free time
//! on the clock `reserved`, and is parked until exactly that time. So each task is parked once, and ten thousand
//! waiting tasks do not come back again and again. A task that comes back is checked against `started` only, so that it
//! needs no second reservation because it came a little late.
//!
//! ```text
//!  new ──── free ────► starts                has a reservation ── free ────► starts
//!   └────── full ────► parked, with a reservation       └─────── bunched ──► parked, with a new reservation
//! ```

use std::{collections::BTreeMap, str::FromStr, sync::Arc, time::Duration};

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
    burst: u32,
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

/// How a task comes to a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// For the first time. It reserves a time if it may not start now.
    New,
    /// From where it was parked, with a reservation. It makes a new one if it may not start now.
    Reserved,
    /// From the memory of a worker, where it waits. It makes no reservation.
    Waiting,
}

/// The answer to a task that wants to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The task may start now.
    Now,
    /// The task may start after this time in µs, and not before.
    In(u64),
}

/// The clocks of one rate limit, in µs since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RateState {
    /// The time after the last reservation: the next reservation is for this time, less what the burst allows.
    pub reserved_us: u64,
    /// The time after the last start: the next start is at this time, less what the burst allows.
    pub started_us: u64,
}

/// How early a task may start, in µs, because tasks do not come back at the exact time of their reservation. In any
/// period there are at most as many starts as the rate allows in a period that is longer by this time.
pub(crate) const RATE_SLACK_US: u64 = 250_000;
/// Longest time that a task is parked at once, in µs: 365 days.
pub(crate) const MAX_PARK_US: u64 = 365 * 24 * 3_600 * 1_000_000;

/// Decides whether a task may start now, and notes its start or its reservation.
pub(crate) fn admit(state: &mut RateState, rate: &Rate, arrival: Arrival, now_us: u64) -> Admission {
    let (interval, ahead) = (rate.interval_us(), rate.ahead_us());
    let free_at = state.started_us.saturating_sub(ahead);
    let may_start = free_at <= now_us + RATE_SLACK_US;
    let reserves = arrival == Arrival::New || arrival == Arrival::Reserved && !may_start;
    let mut start_us = free_at;
    if reserves {
        // There is no free time before the next start is free.
        let clock = if may_start { state.reserved_us } else { state.reserved_us.max(state.started_us) };
        start_us = clock.saturating_sub(ahead).max(now_us);
        // Tasks beyond this share one time. When they come back, the clock of starts spreads them.
        if start_us < now_us + MAX_PARK_US {
            state.reserved_us = clock.max(now_us) + interval;
        }
    }
    if may_start && (arrival != Arrival::New || start_us == now_us) {
        state.started_us = state.started_us.max(now_us) + interval;
        return Admission::Now;
    }
    Admission::In((start_us - now_us).min(MAX_PARK_US))
}

/// The permits of one limit of tasks that run at once. Times are in ms since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Permits {
    /// The runs that hold a permit, each with the time when its lease ends.
    pub runs: BTreeMap<Arc<str>, u64>,
    /// When the last of the runs without a permit tries again.
    pub next_retry_ms: u64,
}

/// Time between the retries of two runs that got no permit, in ms, so that they do not all retry at once.
pub(crate) const PERMIT_RETRY_SPACING_MS: u64 = 5;
/// Shortest time before a run that got no permit retries.
pub(crate) const PERMIT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Gives a run a permit, or extends the one that it has. `None`: it has a permit. Otherwise the time in ms after which
/// it may retry. `max_running`: the number of permits. `holds`: the run had a permit by its worker's account.
pub(crate) fn acquire_permit(
    permits: &mut Permits, run: &Arc<str>, max_running: u32, holds: bool, lease_ms: u64, now_ms: u64,
) -> Option<u64> {
    permits.runs.retain(|_, until_ms| *until_ms > now_ms);
    if holds || permits.runs.contains_key(run) || permits.runs.len() < max_running as usize {
        permits.runs.insert(Arc::clone(run), now_ms + lease_ms);
        return None;
    }
    permits.next_retry_ms = permits.next_retry_ms.max(now_ms) + PERMIT_RETRY_SPACING_MS;
    Some(permits.next_retry_ms - now_ms)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn rate() -> impl Strategy<Value = Rate> {
        let unit = prop_oneof![Just("s"), Just("m"), Just("h")];
        (1..2_000_u64, unit, 1..50_u32)
            .prop_map(|(count, unit, burst)| format!("{count}/{unit}").parse::<Rate>().unwrap().burst(burst))
    }

    fn arrival() -> impl Strategy<Value = Arrival> {
        prop_oneof![4 => Just(Arrival::New), 4 => Just(Arrival::Reserved), 1 => Just(Arrival::Waiting)]
    }

    /// Whether no period has more starts than burst and rate allow, with the slack.
    fn within(rate: &Rate, starts: &[u64]) -> bool {
        let allowed = |window: u64| u64::from(rate.burst) + (window + RATE_SLACK_US) / rate.interval_us();
        starts.iter().enumerate().all(|(i, first)| {
            let windows = starts[i..].iter().map(|last| last - first).zip(1_u64..);
            windows.into_iter().all(|(window, count)| count <= allowed(window))
        })
    }

    proptest! {
        /// Whenever and however tasks come.
        #[test]
        fn never_more_starts_than_the_rate_allows(rate in rate(), asks in vec((0..400_000_u64, arrival()), 1..300)) {
            let (mut state, mut now, mut starts) = (RateState::default(), 1_000_000_000, Vec::new());
            for (passed, arrival) in asks {
                now += passed;
                if admit(&mut state, &rate, arrival, now) == Admission::Now {
                    starts.push(now);
                }
            }
            prop_assert!(within(&rate, &starts), "{starts:?}");
        }

        /// A task that comes back at the time of its reservation, or a little later, starts then. Reservations leave no
        /// gap.
        #[test]
        fn a_reservation_is_kept(rate in rate(), count in 1..400_u64, late in vec(0..RATE_SLACK_US, 400)) {
            let now = 1_000_000_000;
            let (mut state, mut parked, mut begun) = (RateState::default(), Vec::new(), 0_u64);
            for _ in 0..count {
                match admit(&mut state, &rate, Arrival::New, now) {
                    Admission::Now => begun += 1,
                    Admission::In(wait) => parked.push(now + wait),
                }
            }
            prop_assert!(parked.is_sorted());
            prop_assert_eq!(begun, count.min(u64::from(rate.burst)));
            prop_assert!(parked.iter().zip(1..).all(|(&due, n)| due == now + n * rate.interval_us()));
            let mut back: Vec<u64> = parked.iter().zip(&late).map(|(due, late)| due + late).collect();
            back.sort_unstable();
            for now in back {
                prop_assert_eq!(admit(&mut state, &rate, Arrival::Reserved, now), Admission::Now);
            }
        }

        /// A task that waits in a worker may ask at any time, and delays no other task.
        #[test]
        fn waiting_makes_no_reservation(
            rate in rate(), reserved in 0..5_000_000_u64, started in 500_000..5_000_000_u64,
        ) {
            let mut state = RateState { reserved_us: reserved, started_us: started };
            let before = state;
            if let Admission::In(wait) = admit(&mut state, &rate, Arrival::Waiting, 0) {
                prop_assert_eq!(state, before);
                prop_assert_eq!(admit(&mut state, &rate, Arrival::Waiting, wait), Admission::Now);
            }
        }

        #[test]
        fn never_more_runs_than_permits(
            most in 1..5_u32, asks in vec((0..8_u32, 0..2_000_u64, any::<bool>()), 1..200),
        ) {
            let (mut permits, mut now, mut running) = (Permits::default(), 1_000, BTreeMap::<u32, u64>::new());
            for (run, passed, ends) in asks {
                now += passed;
                running.retain(|_, until| *until > now);
                let name: Arc<str> = run.to_string().into();
                if ends {
                    permits.runs.remove(&name);
                    running.remove(&run);
                } else if acquire_permit(&mut permits, &name, most, running.contains_key(&run), 6_000, now).is_none() {
                    running.insert(run, now + 6_000);
                }
                prop_assert!(running.len() <= most as usize);
            }
        }
    }

    #[test]
    fn runs_without_a_permit_retry_one_after_the_other() {
        let mut permits = Permits::default();
        let mut ask = |run: &str| acquire_permit(&mut permits, &run.into(), 1, false, 6_000, 1_000);
        assert_eq!([ask("a"), ask("b"), ask("c"), ask("a")], [None, Some(5), Some(10), None]);
        assert_eq!(
            acquire_permit(&mut permits, &"b".into(), 1, true, 6_000, 1_000),
            None,
            "a running task keeps its permit"
        );
        assert_eq!(acquire_permit(&mut permits, &"c".into(), 1, false, 6_000, 7_000), None, "both leases are over");
    }

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

    #[test]
    fn no_task_is_parked_longer_than_a_year() {
        let (rate, mut state) = (Rate::per_hour(1), RateState::default());
        for _ in 0..20_000 {
            admit(&mut state, &rate, Arrival::New, 0);
        }
        assert_eq!(admit(&mut state, &rate, Arrival::New, 0), Admission::In(MAX_PARK_US));
        assert!(state.reserved_us <= MAX_PARK_US + rate.interval_us());
    }
}
