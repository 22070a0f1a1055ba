//! When periodic tasks are due: intervals, and cron expressions in a time zone.
//!
//! A schedule is a function from a time to the next tick, and nothing else: all workers with the same declaration
//! compute the same ticks, without communication. Times are ms since the Unix epoch.
//!
//! What cron expressions do when clocks are put forward or back:
//! - With named hours (`0 3 * * *`, `*/15 2,14 * * *`), each named local time is one tick. A local time that does not
//!   exist is due at the first instant after the gap; several of these are one tick. A local time that exists twice is
//!   due the first time.
//! - With every hour (`*/5 * * * *`), ticks follow the passing of time, whatever the local clock shows: a local time
//!   that
//!   does not exist is not due, and a local time that exists twice is due both times.

use std::{fmt, time::Duration};

use chrono::{DateTime, LocalResult, NaiveDateTime, SecondsFormat, TimeDelta, TimeZone};
use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Year},
};

/// Shortest interval. A loop inside a task is the better way for shorter ones.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Longest interval. A longer one is likely to have a wrong unit.
const MAX_INTERVAL: Duration = Duration::from_secs(100 * 366 * 24 * 3_600);
/// More than any time by which a local clock was ever put forward, in seconds.
const MAX_CLOCK_GAP_S: i64 = 48 * 3_600;

/// A time in ms since the Unix epoch, or a duration in ms.
pub(crate) type Ms = u64;

/// When a periodic task is due.
#[derive(Clone, Debug)]
pub(crate) enum Schedule {
    /// At every multiple of this interval since the Unix epoch.
    Every(Ms),
    /// At the times of a cron expression.
    Cron(Box<Crontab>),
}

/// A cron expression in a time zone.
#[derive(Clone, Debug)]
pub(crate) struct Crontab {
    text: String,
    zone: Tz,
    cron: Cron,
    every_hour: bool,
}

impl Schedule {
    /// A schedule with this interval.
    ///
    /// # Errors
    /// The interval is shorter than 1 s, longer than 100 years, or has a fraction of a millisecond.
    pub(crate) fn every(interval: Duration) -> Result<Self, String> {
        if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) {
            return Err(format!("must be 1 s to 100 years, not {interval:?}"));
        }
        if !interval.subsec_nanos().is_multiple_of(1_000_000) {
            return Err(format!("must be whole milliseconds, not {interval:?}"));
        }
        u64::try_from(interval.as_millis()).map(Self::Every).map_err(|e| e.to_string())
    }

    /// A schedule by a cron expression: five fields, or six with seconds in front, or a nickname such as `@daily`.
    ///
    /// # Errors
    /// The text is not a cron expression, or it is never due.
    pub(crate) fn cron(text: &str, zone: Tz) -> Result<Self, String> {
        let parser = CronParser::builder().year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| {
            format!("`{text}` is no cron expression: {error}; write minute, hour, day, month and weekday: `0 3 * * *`")
        })?;
        let every_hour = cron.pattern.hours.values().len() == 24;
        let crontab = Crontab { text: text.trim().to_owned(), zone, cron, every_hour };
        if crontab.after(0).is_none() {
            return Err(format!("`{text}` is never due"));
        }
        Ok(Self::Cron(Box::new(crontab)))
    }

    /// The first tick after this time. `None`: there is none.
    #[must_use]
    pub(crate) fn after(&self, time: Ms) -> Option<Ms> {
        match self {
            Self::Every(interval) => (time / interval).checked_add(1)?.checked_mul(*interval),
            Self::Cron(crontab) => crontab.after(time),
        }
    }

    /// The latest tick that is later than `after` and not later than `until`. `None`: there is none.
    #[must_use]
    pub(crate) fn latest(&self, after: Ms, until: Ms) -> Option<Ms> {
        let mut latest = self.after(after).filter(|&tick| tick <= until)?;
        // Binary search: the next tick after `latest` may be in time, the next tick after `beyond` is too late.
        let mut beyond = until;
        while latest < beyond {
            let middle = latest + (beyond - latest) / 2;
            match self.after(middle) {
                Some(tick) if tick <= until => latest = tick,
                _ => beyond = middle,
            }
        }
        Some(latest)
    }

    /// The IANA name of the time zone. `None` for an interval.
    #[must_use]
    pub(crate) fn zone(&self) -> Option<&'static str> {
        match self {
            Self::Every(_) => None,
            Self::Cron(crontab) => Some(crontab.zone.name()),
        }
    }
}

/// The cron expression as the user wrote it, such as `0 3 * * *`, or the interval, such as `every 30s`.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(ms) => write!(f, "every {:?}", Duration::from_millis(*ms)),
            Self::Cron(crontab) => f.write_str(&crontab.text),
        }
    }
}

impl Crontab {
    fn after(&self, time: Ms) -> Option<Ms> {
        let start = self.zone.timestamp_millis_opt(i64::try_from(time).ok()?).single()?;
        let tick = if self.every_hour {
            self.cron.find_next_occurrence(&start, false).ok()?
        } else {
            // Local times up to the present one are past, even if clocks are put back later.
            let mut local = start.naive_local();
            loop {
                local = self.cron.find_next_occurrence(&local, false).ok()?;
                let tick = self.instant(local)?;
                if tick > start {
                    break tick;
                }
            }
        };
        u64::try_from(tick.timestamp_millis()).ok()
    }

    /// The first instant at which the local clock shows this time, or a later one if it never shows this time.
    fn instant(&self, local: NaiveDateTime) -> Option<DateTime<Tz>> {
        let resolve =
            |seconds| match self.zone.from_local_datetime(&local.checked_add_signed(TimeDelta::seconds(seconds))?) {
                LocalResult::Single(instant) | LocalResult::Ambiguous(instant, _) => Some(instant),
                LocalResult::None => None,
            };
        if let Some(instant) = resolve(0) {
            return Some(instant);
        }
        let (mut inside, mut outside) = (0, MAX_CLOCK_GAP_S);
        while outside - inside > 1 {
            let middle = inside.midpoint(outside);
            match resolve(middle) {
                Some(_) => outside = middle,
                None => inside = middle,
            }
        }
        resolve(outside)
    }
}

/// The time zone with this IANA name.
///
/// # Errors
/// No time zone has this name.
pub(crate) fn zone(name: &str) -> Result<Tz, String> {
    name.parse().map_err(|_| format!("`{name}` is no time zone; write an IANA name such as `Europe/Berlin`, or `UTC`"))
}

/// A tick as text, for people and for task ids: `2027-03-28T01:00:00Z`.
#[must_use]
pub(crate) fn format_tick(tick: Ms) -> String {
    let time = i64::try_from(tick).ok().and_then(DateTime::from_timestamp_millis);
    time.map_or_else(|| tick.to_string(), |time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(text: &str) -> Ms {
        u64::try_from(DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()).unwrap()
    }

    fn cron(text: &str, name: &str) -> Schedule {
        Schedule::cron(text, zone(name).unwrap()).unwrap()
    }

    /// The ticks after one time and up to another, in UTC.
    fn ticks(schedule: &Schedule, after: &str, until: &str) -> Vec<String> {
        let until = ms(until);
        let next = |&tick: &Ms| schedule.after(tick).filter(|&tick| tick <= until);
        std::iter::successors(next(&ms(after)), next).map(format_tick).collect()
    }

    #[test]
    fn cron_follows_the_local_clock() {
        let nightly = cron("0 3 * * *", "Europe/Berlin");
        let found = ticks(&nightly, "2027-03-26T12:00:00Z", "2027-03-29T12:00:00Z");
        // Summer time begins on the 28th.
        assert_eq!(found, ["2027-03-27T02:00:00Z", "2027-03-28T01:00:00Z", "2027-03-29T01:00:00Z"]);
        assert_eq!((nightly.zone(), &*nightly.to_string()), (Some("Europe/Berlin"), "0 3 * * *"));
        let weekly = cron(" 30 8 * * MON ", "UTC");
        assert_eq!(ticks(&weekly, "2027-01-01T00:00:00Z", "2027-01-11T08:30:00Z").len(), 2);
        assert_eq!(weekly.to_string(), "30 8 * * MON");
    }

    #[test]
    fn a_local_time_that_does_not_exist_is_due_after_the_gap() {
        let found = |text| ticks(&cron(text, "Europe/Berlin"), "2027-03-27T20:00:00Z", "2027-03-28T20:00:00Z");
        assert_eq!(found("30 2 * * *"), ["2027-03-28T01:00:00Z"]);
        // All local times in the gap are one tick, together with the one that is due at its end.
        assert_eq!(found("*/15 2 * * *"), ["2027-03-28T01:00:00Z"]);
        assert_eq!(found("0 2,3 * * *"), ["2027-03-28T01:00:00Z"]);
        assert_eq!(found("30 1,2,3 * * *"), ["2027-03-28T00:30:00Z", "2027-03-28T01:00:00Z", "2027-03-28T01:30:00Z"]);
        // A gap of half an hour, and a whole day that Samoa skipped.
        let lord_howe =
            ticks(&cron("15 2 * * *", "Australia/Lord_Howe"), "2026-10-03T12:00:00Z", "2026-10-04T12:00:00Z");
        assert_eq!(lord_howe, ["2026-10-03T15:30:00Z"]);
        let samoa = ticks(&cron("0 12 30 12 *", "Pacific/Apia"), "2011-12-01T00:00:00Z", "2012-01-31T00:00:00Z");
        assert_eq!(samoa, ["2011-12-30T10:00:00Z"]);
    }

    #[test]
    fn a_local_time_that_exists_twice_is_due_once() {
        let found = |text| ticks(&cron(text, "Europe/Berlin"), "2027-10-30T20:00:00Z", "2027-10-31T20:00:00Z");
        assert_eq!(found("30 2 * * *"), ["2027-10-31T00:30:00Z"]);
        assert_eq!(found("30 2,3 * * *"), ["2027-10-31T00:30:00Z", "2027-10-31T02:30:00Z"]);
        assert_eq!(found("0,30 2 * * *"), ["2027-10-31T00:00:00Z", "2027-10-31T00:30:00Z"]);
        // The start is within the hour that comes a second time.
        let nightly = cron("30 2 * * *", "Europe/Berlin");
        assert_eq!(nightly.after(ms("2027-10-31T01:10:00Z")).map(format_tick).unwrap(), "2027-11-01T01:30:00Z");
    }

    #[test]
    fn an_expression_with_every_hour_follows_the_passing_of_time() {
        let quarters = cron("*/15 * * * *", "Europe/Berlin");
        for change in ["2027-03-28T", "2027-10-31T"] {
            let found = ticks(&quarters, &format!("{change}00:00:00Z"), &format!("{change}03:00:00Z"));
            assert_eq!(found.len(), 12, "{found:?}");
            assert_eq!(found[3], format!("{change}01:00:00Z"));
        }
        let seconds = cron("*/10 * * * * *", "UTC");
        assert_eq!(seconds.after(ms("2027-01-01T00:00:09.999Z")), Some(ms("2027-01-01T00:00:10Z")));
    }

    #[test]
    fn intervals_are_multiples_since_the_epoch() {
        let every = |seconds| Schedule::every(Duration::from_secs(seconds)).unwrap();
        assert_eq!(
            (every(7).after(0), every(7).after(6_999), every(7).after(7_000)),
            (Some(7_000), Some(7_000), Some(14_000))
        );
        let years = every(10 * 365 * 86_400);
        assert_eq!(years.after(1), Some(10 * 365 * 86_400_000));
        assert_eq!((years.after(u64::MAX), years.zone()), (None, None));
        assert_eq!(Schedule::every(Duration::from_millis(1_500)).unwrap().to_string(), "every 1.5s");
    }

    #[test]
    fn a_wrong_schedule_is_refused() {
        for interval in [Duration::ZERO, Duration::from_millis(999), Duration::from_micros(1_000_001), Duration::MAX] {
            assert!(Schedule::every(interval).unwrap_err().contains(&format!("not {interval:?}")), "{interval:?}");
        }
        for text in
            ["", "never", "* * * *", "60 * * * *", "0 3 * * * 2027 1", "0 0 3 * * * 2027", "* * * * *;", "0 24 * * *"]
        {
            assert!(Schedule::cron(text, Tz::UTC).unwrap_err().contains(&format!("`{text}` is no cron expression")));
        }
        assert_eq!(Schedule::cron("0 0 30 2 *", Tz::UTC).unwrap_err(), "`0 0 30 2 *` is never due");
        for name in ["", "Europe/Atlantis", "europe/berlin", "+01:00"] {
            assert!(zone(name).unwrap_err().contains("IANA"), "{name}");
        }
    }

    fn schedules() -> impl Strategy<Value = Schedule> {
        let field = |max: u8| {
            prop_oneof![
                Just("*".to_owned()),
                (1..max).prop_map(|step| format!("*/{step}")),
                proptest::collection::vec(0..max, 1..4).prop_map(|values| values
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(",")),
            ]
        };
        let zones =
            ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca"];
        let crons = (field(60), field(24), field(7), proptest::sample::select(zones.to_vec()))
            .prop_map(|(minute, hour, weekday, name)| cron(&format!("{minute} {hour} * * {weekday}"), name));
        prop_oneof![(1..10_000_000_u64).prop_map(|s| Schedule::every(Duration::from_secs(s)).unwrap()), crons]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn ticks_grow_and_do_not_depend_on_who_asks_when(
            schedule in schedules(), start in 1_700_000_000_000_u64..2_000_000_000_000, within in 0..100_u64,
        ) {
            let mut last = start;
            for _ in 0..40 {
                let Some(tick) = schedule.after(last) else { break };
                prop_assert!(tick > last, "{schedule}: {tick} after {last}");
                // The answer is the same for every time in between.
                let between = last + (tick - last) * within / 100;
                if between < tick {
                    prop_assert_eq!(schedule.after(between), Some(tick), "{} asked at {}", schedule, between);
                }
                last = tick;
            }
            let naive = std::iter::successors(schedule.after(start), |&tick| schedule.after(tick))
                .take_while(|&tick| tick <= last)
                .last();
            prop_assert_eq!(schedule.latest(start, last), naive);
            prop_assert_eq!(schedule.latest(last, last), None);
        }

        #[test]
        fn no_text_causes_a_panic(text in "[@*0-9,/#LW A-Za-z?+-]{0,20}|\\PC{0,20}", time: u64) {
            if let Ok(schedule) = Schedule::cron(&text, Tz::UTC) {
                let _ = schedule.after(time);
            }
        }
    }
}
