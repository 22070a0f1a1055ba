//! Limits: how often tasks start, and how many run at once.
//!
//! A rate is the generic cell rate algorithm (GCRA) on two lines. Starts go by the line `started`, which is what makes the
//! limit hold, whatever comes early, late or twice. A task that may not start yet gets the next free place on the line
//! `reserved`, and is parked until exactly then: so each is parked once, and ten thousand of them do not come back again
//! and again. When it is back, only the line of starts is looked at, so that it does not stand in line a second time
//! because it came a little late.
//!
//! ```text
//!  new ──── free ────► starts                holds a place ── free ────► starts
//!   └────── full ────► parked, to hold a place       └─────── bunched ──► parked, with a new place
//! ```

use std::{collections::BTreeMap, str::FromStr, sync::Arc, time::Duration};

use thiserror::Error;

/// How often tasks may start: so many in a time, spread evenly, and how many of them at once.
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

/// The text is no rate.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no rate; write it as `10/s`, `100/m` or `5/h`")]
pub struct BadRate(String);

impl Rate {
    const SECOND_US: u64 = 1_000_000;
    /// Starts per second, at most: a place in line is as wide as a µs, and has to be told from the next.
    pub(crate) const MOST_PER_SECOND: u64 = 10_000;
    /// The largest burst.
    pub(crate) const MOST_BURST: u32 = 100_000;

    /// So many starts a second; 1 to 10,000.
    pub const fn per_second(count: u64) -> Self {
        Self { count, per_us: Self::SECOND_US, burst: 1 }
    }

    /// So many starts a minute; 1 to 600,000.
    pub const fn per_minute(count: u64) -> Self {
        Self { count, per_us: 60 * Self::SECOND_US, burst: 1 }
    }

    /// So many starts an hour; 1 to 36,000,000.
    pub const fn per_hour(count: u64) -> Self {
        Self { count, per_us: 3_600 * Self::SECOND_US, burst: 1 }
    }

    /// How many may start at once after a quiet time; 1 to 100,000. In any time there are at most this many starts more
    /// than the rate says. Default: 1, which spreads them evenly.
    pub const fn burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self
    }

    /// The field that is wrong, and what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let most = Self::MOST_PER_SECOND * (self.per_us / Self::SECOND_US);
        if self.count == 0 {
            return Err(("rate", "a rate of zero would let nothing start; leave the limit out, or pause".to_owned()));
        }
        if self.count > most {
            return Err(("rate", format!("must be at most {} starts a second", Self::MOST_PER_SECOND)));
        }
        if self.burst == 0 || self.burst > Self::MOST_BURST {
            return Err(("burst", format!("must be 1 to {}", Self::MOST_BURST)));
        }
        Ok(())
    }

    /// The time from one start to the next, in µs; rounded up, so that there are never more starts.
    pub(crate) fn interval_us(&self) -> u64 {
        self.per_us.div_ceil(self.count.max(1)).max(1)
    }

    /// How far a line may be ahead of the time for a start, in µs.
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

/// How a task comes to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// For the first time.
    New,
    /// Back from where it was parked.
    Holds,
    /// It waits in a worker, and takes no place in line.
    Waits,
}

/// The answer to a task that wants to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It starts.
    Now,
    /// After so many µs, and not before.
    In(u64),
}

/// How far the starts under one rate have got, in µs since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// When the last place in line would be free again.
    pub reserved_us: u64,
    /// When the last start would be.
    pub started_us: u64,
}

/// How much closer together than the rate says starts may be, in µs, since nothing comes back at the very moment: in any
/// time there are at most as many starts as in a time that is so much longer.
pub const SLACK_US: u64 = 250_000;
/// Nothing is parked for longer at once: 365 days.
pub const LONGEST_US: u64 = 365 * 24 * 3_600 * 1_000_000;

/// A task wants to start.
pub fn admit(pace: &mut Pace, rate: &Rate, turn: Turn, now_us: u64) -> Admission {
    let (interval, ahead) = (rate.interval_us(), rate.ahead_us());
    let free_at = pace.started_us.saturating_sub(ahead);
    let may_start = free_at <= now_us + SLACK_US;
    let takes_a_place = turn == Turn::New || turn == Turn::Holds && !may_start;
    let mut place = free_at;
    if takes_a_place {
        // There is no place in line before the next start is free.
        let line = if may_start { pace.reserved_us } else { pace.reserved_us.max(pace.started_us) };
        place = line.saturating_sub(ahead).max(now_us);
        // Beyond that, tasks share a place: when they are back, the line of starts tells them apart.
        if place < now_us + LONGEST_US {
            pace.reserved_us = line.max(now_us) + interval;
        }
    }
    if may_start && (turn != Turn::New || place == now_us) {
        pace.started_us = pace.started_us.max(now_us) + interval;
        return Admission::Now;
    }
    Admission::In((place - now_us).min(LONGEST_US))
}

/// Who runs under a limit of tasks at once, and who looks again when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Runs, each until its lease ends in ms.
    pub runs: BTreeMap<Arc<str>, u64>,
    /// When the last of those that found no place looks again, in ms.
    pub line_ms: u64,
}

/// How far apart those look again that found no place, in ms.
pub const LOOK_MS: u64 = 5;
/// How long one waits at least before it looks again.
pub const LOOK_AFTER: Duration = Duration::from_secs(1);

/// A run wants a place, or keeps the one it has: `None`. Else after how many ms it is its turn to look again.
pub fn occupy(places: &mut Places, run: &Arc<str>, most: u32, holds: bool, lease_ms: u64, now_ms: u64) -> Option<u64> {
    places.runs.retain(|_, until_ms| *until_ms > now_ms);
    if holds || places.runs.contains_key(run) || places.runs.len() < most as usize {
        places.runs.insert(Arc::clone(run), now_ms + lease_ms);
        return None;
    }
    places.line_ms = places.line_ms.max(now_ms) + LOOK_MS;
    Some(places.line_ms - now_ms)
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

    fn turn() -> impl Strategy<Value = Turn> {
        prop_oneof![4 => Just(Turn::New), 4 => Just(Turn::Holds), 1 => Just(Turn::Waits)]
    }

    /// Whether there are ever more starts in a time than burst and rate allow, with the slack.
    fn within(rate: &Rate, starts: &[u64]) -> bool {
        let allowed = |window: u64| u64::from(rate.burst) + (window + SLACK_US) / rate.interval_us();
        starts.iter().enumerate().all(|(i, first)| {
            let windows = starts[i..].iter().map(|last| last - first).zip(1_u64..);
            windows.into_iter().all(|(window, count)| count <= allowed(window))
        })
    }

    proptest! {
        /// Whoever comes when and how.
        #[test]
        fn never_more_starts_than_the_rate_allows(rate in rate(), asks in vec((0..400_000_u64, turn()), 1..300)) {
            let (mut pace, mut now, mut starts) = (Pace::default(), 1_000_000_000, Vec::new());
            for (passed, turn) in asks {
                now += passed;
                if admit(&mut pace, &rate, turn, now) == Admission::Now {
                    starts.push(now);
                }
            }
            prop_assert!(within(&rate, &starts), "{starts:?}");
        }

        /// Who comes back when told to, or a little later, starts then. The line has no gap.
        #[test]
        fn a_place_is_a_promise(rate in rate(), count in 1..400_u64, late in vec(0..SLACK_US, 400)) {
            let now = 1_000_000_000;
            let (mut pace, mut parked, mut begun) = (Pace::default(), Vec::new(), 0_u64);
            for _ in 0..count {
                match admit(&mut pace, &rate, Turn::New, now) {
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
                prop_assert_eq!(admit(&mut pace, &rate, Turn::Holds, now), Admission::Now);
            }
        }

        /// A worker that waits asks as often as it likes, and takes nothing from anybody.
        #[test]
        fn waiting_takes_no_place(rate in rate(), reserved in 0..5_000_000_u64, started in 500_000..5_000_000_u64) {
            let mut pace = Pace { reserved_us: reserved, started_us: started };
            let before = pace;
            if let Admission::In(wait) = admit(&mut pace, &rate, Turn::Waits, 0) {
                prop_assert_eq!(pace, before);
                prop_assert_eq!(admit(&mut pace, &rate, Turn::Waits, wait), Admission::Now);
            }
        }

        #[test]
        fn never_more_runs_than_places(most in 1..5_u32, asks in vec((0..8_u32, 0..2_000_u64, any::<bool>()), 1..200)) {
            let (mut places, mut now, mut running) = (Places::default(), 1_000, BTreeMap::<u32, u64>::new());
            for (run, passed, ends) in asks {
                now += passed;
                running.retain(|_, until| *until > now);
                let name: Arc<str> = run.to_string().into();
                if ends {
                    places.runs.remove(&name);
                    running.remove(&run);
                } else if occupy(&mut places, &name, most, running.contains_key(&run), 6_000, now).is_none() {
                    running.insert(run, now + 6_000);
                }
                prop_assert!(running.len() <= most as usize);
            }
        }
    }

    #[test]
    fn what_is_parked_looks_again_one_after_the_other() {
        let mut places = Places::default();
        let mut ask = |run: &str| occupy(&mut places, &run.into(), 1, false, 6_000, 1_000);
        assert_eq!([ask("a"), ask("b"), ask("c"), ask("a")], [None, Some(5), Some(10), None]);
        assert_eq!(occupy(&mut places, &"b".into(), 1, true, 6_000, 1_000), None, "what runs keeps its place");
        assert_eq!(occupy(&mut places, &"c".into(), 1, false, 6_000, 7_000), None, "both leases are over");
    }

    #[test]
    fn rates_are_read_and_checked() {
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
    fn the_far_future_is_no_place() {
        let (rate, mut pace) = (Rate::per_hour(1), Pace::default());
        for _ in 0..20_000 {
            admit(&mut pace, &rate, Turn::New, 0);
        }
        assert_eq!(admit(&mut pace, &rate, Turn::New, 0), Admission::In(LONGEST_US));
        assert!(pace.reserved_us <= LONGEST_US + rate.interval_us());
    }
}
