//! Whether a task may start under a rate, and how long it waits if it may not.
//!
//! A rate is held by the generic cell rate algorithm (GCRA), with one clock: `started` says when the last start no longer
//! counts. It alone keeps the limit, whether tasks come early, late or twice. A task that may not start joins the line of
//! its rate and is parked. How long is worked out when it asks, from the number of tasks in front of it and from the
//! present rate, so nothing has to be put right when the rate changes, or when a task in front leaves the line.
//!
//! ```text
//!  new ──── free, nobody in line ──► starts          comes at its turn ── free ────► starts, leaves the line
//!   └────── else ──────────────────► joins the line        └───────────── bunched ─► keeps its place, is parked again
//! ```
//! - Who is parked until its turn says so when it comes back, and needs only a free start then: those in front of it that
//!   are late do not delay it. So each task is parked once, and ten thousand waiting tasks do not ask again and again.
//! - Who would be parked for longer than [`RECHECK_US`] asks again after that time, and keeps its place. So a higher rate
//!   is noticed by those that wait already.
//! - Who does not come back in time has ended (it was revoked, purged, has expired), or its worker is stuck: it leaves the
//!   line after [`LATE_US`]. If it comes after all, it needs a free start, or joins the line again.
//!
//! **The store's clock goes back**: `started` is never further ahead than a start at the present rate could put it, so
//! nobody waits for the clock to catch up. **It goes forward**: who waits counts as late, and starts when it comes.

use super::{line::Line, rate::Rate};
use crate::core::names::TaskId;

/// How a task comes to a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// For the first time, or before its turn. It waits in line if it may not start now.
    New,
    /// From where it was parked until its turn. It keeps its place in line if it may not start now.
    Turn,
    /// From the memory of a worker, where it waits. It joins no line.
    Waiting,
}

/// The answer to a task that wants to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The task may start now.
    Now,
    /// It is the task's turn after this time in µs, and not before.
    In(u64),
    /// The task keeps its place in line, and asks again after this time in µs, before its turn.
    AskAgain(u64),
}

/// The use of one rate limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RateState {
    /// The time after the last start, in µs since the Unix epoch: the next start is at this time, less what the burst allows.
    pub started_us: u64,
    /// Who waits.
    pub line: Line,
}

/// How early a task may start, in µs, because tasks do not come back at the exact time of their turn. In any
/// period there are at most as many starts as the rate allows in a period that is longer by this time.
pub(crate) const RATE_SLACK_US: u64 = 250_000;
/// The first in line is parked for at most this time, in µs.
pub(crate) const RECHECK_US: u64 = 600_000_000;
/// Each task in front allows this much more, in µs. So all that wait for one rate ask at most 100 times a second.
pub(crate) const RECHECK_SPACING_US: u64 = 10_000;
/// A task that has not come back this long after its time has left the line, in µs.
pub(crate) const LATE_US: u64 = 15_000_000;

/// Decides whether a task may start now, and notes its start, or that it waits.
pub(crate) fn admit(state: &mut RateState, rate: &Rate, arrival: Arrival, task: &TaskId, now_us: u64) -> Admission {
    let (interval, ahead) = (rate.interval_us(), rate.ahead_us());
    // If it is further ahead, the rate was lower then, or the clock has gone back.
    state.started_us = state.started_us.min(now_us + RATE_SLACK_US + ahead + interval);
    let started = state.started_us;
    let free_at = started.saturating_sub(ahead);
    let is_free = free_at <= now_us + RATE_SLACK_US;
    state.line.drop_late(now_us.saturating_sub(LATE_US));
    let known = state.line.in_front(task);
    let in_front = known.unwrap_or_else(|| state.line.len()) as u64;
    let turn = started.max(now_us).saturating_add(in_front.saturating_mul(interval)).saturating_sub(ahead).max(now_us);
    let may_start = is_free
        && match arrival {
            Arrival::New if known.is_some() => turn <= now_us + RATE_SLACK_US,
            Arrival::New => turn == now_us,
            Arrival::Turn | Arrival::Waiting => true,
        };
    if may_start {
        state.started_us = started.max(now_us) + interval;
        state.line.leave(task);
        return Admission::Now;
    }
    if arrival == Arrival::Waiting {
        return Admission::In(free_at.saturating_sub(now_us));
    }
    let (wait, longest) = (turn - now_us, RECHECK_US + in_front * RECHECK_SPACING_US);
    state.line.wait(task, now_us + wait.min(longest));
    if wait <= longest { Admission::In(wait) } else { Admission::AskAgain(longest) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    const SECOND_US: u64 = 1_000_000;
    const HOUR_US: u64 = 3_600 * SECOND_US;
    const START_US: u64 = 1_000 * HOUR_US;

    fn task(number: usize) -> TaskId {
        format!("t{number}").parse().unwrap()
    }

    fn rate() -> impl Strategy<Value = Rate> {
        let unit = prop_oneof![Just("s"), Just("m"), Just("h")];
        (1..2_000_u64, unit, 1..50_u32)
            .prop_map(|(count, unit, burst)| format!("{count}/{unit}").parse::<Rate>().unwrap().burst(burst))
    }

    fn arrival() -> impl Strategy<Value = Arrival> {
        prop_oneof![4 => Just(Arrival::New), 4 => Just(Arrival::Turn), 1 => Just(Arrival::Waiting)]
    }

    /// Whether no period has more starts than burst and rate allow, with the slack.
    fn within(rate: &Rate, starts: &[u64]) -> bool {
        let allowed = |window: u64| (window + RATE_SLACK_US + rate.ahead_us()) / rate.interval_us() + 1;
        starts.iter().enumerate().all(|(i, first)| {
            let windows = starts[i..].iter().map(|last| last - first).zip(1_u64..);
            windows.into_iter().all(|(window, count)| count <= allowed(window))
        })
    }

    /// A rate, its waiting tasks by the time at which they ask again, and when each has started.
    struct Play {
        rate: Rate,
        state: RateState,
        now_us: u64,
        waiting: BTreeSet<(u64, usize, bool)>,
        started: Vec<(usize, u64)>,
        asked: usize,
    }

    impl Play {
        fn new(rate: Rate) -> Self {
            let (waiting, started) = (BTreeSet::new(), Vec::new());
            Self { rate, state: RateState::default(), now_us: START_US, waiting, started, asked: 0 }
        }

        fn ask(&mut self, number: usize, arrival: Arrival) -> Admission {
            let admission = admit(&mut self.state, &self.rate, arrival, &task(number), self.now_us);
            self.asked += 1;
            match admission {
                Admission::Now => self.started.push((number, self.now_us)),
                Admission::In(us) | Admission::AskAgain(us) => {
                    let is_turn = matches!(admission, Admission::In(_));
                    self.waiting.insert((self.now_us + us, number, is_turn));
                }
            }
            admission
        }

        fn new_task(&mut self, number: usize) -> Admission {
            self.ask(number, Arrival::New)
        }

        fn new_tasks(&mut self, numbers: impl IntoIterator<Item = usize>) {
            for number in numbers {
                self.new_task(number);
            }
        }

        /// All that wait come back, each this much too late.
        fn run(&mut self, mut late: impl FnMut() -> u64) {
            while let Some((at, number, is_turn)) = self.waiting.pop_first() {
                self.now_us = self.now_us.max(at + late());
                self.ask(number, if is_turn { Arrival::Turn } else { Arrival::New });
            }
        }
    }

    fn secs(admission: Admission) -> u64 {
        match admission {
            Admission::Now => 0,
            Admission::In(us) | Admission::AskAgain(us) => us.div_ceil(SECOND_US),
        }
    }

    proptest! {
        /// Whenever and however tasks come.
        #[test]
        fn never_more_starts_than_the_rate_allows(
            rate in rate(), asks in vec((0..400_000_u64, arrival(), 0..40_usize), 1..300),
        ) {
            let mut play = Play::new(rate);
            for (passed, arrival, number) in asks {
                play.now_us += passed;
                play.ask(number, arrival);
            }
            let starts: Vec<u64> = play.started.iter().map(|(_, at)| *at).collect();
            prop_assert!(within(&rate, &starts), "{starts:?}");
        }

        /// Tasks that come together start one after the other, at the rate, even if each comes back a little late. Nobody has
        /// to wait twice for its turn.
        #[test]
        fn the_line_is_served_in_order_and_leaves_no_gap(
            rate in rate(), count in 1..400_usize, late in vec(0..RATE_SLACK_US, 1..50),
        ) {
            let mut play = Play::new(rate);
            play.new_tasks(0..count);
            prop_assert_eq!(play.started.len(), count.min(rate.burst as usize));
            let mut late = late.into_iter().cycle();
            play.run(|| late.next().unwrap());
            prop_assert_eq!(play.started.len(), count);
            prop_assert_eq!(&play.state.line, &Line::default());
            for (&(number, at), place) in play.started.iter().zip(0_u64..) {
                let turn = START_US + (place + 1).saturating_sub(u64::from(rate.burst)) * rate.interval_us();
                // Who asks again counts from starts that were late.
                let tolerance = RATE_SLACK_US * (2 + (turn - START_US) / RECHECK_US);
                prop_assert!(at.abs_diff(turn) <= tolerance, "{number} starts {} us off", at.abs_diff(turn));
            }
            let rechecks = (count as u64 * rate.interval_us()).div_ceil(RECHECK_US);
            prop_assert!(play.asked as u64 <= count as u64 * (2 + rechecks), "{} times for {count}", play.asked);
        }

        /// A task that waits in a worker may ask at any time, and delays no other task.
        #[test]
        fn waiting_joins_no_line(rate in rate(), started in 0..5_000_000_u64) {
            let mut state = RateState { started_us: START_US + started, line: Line::default() };
            if let Admission::In(wait) = admit(&mut state, &rate, Arrival::Waiting, &task(1), START_US) {
                prop_assert!(state.started_us <= START_US + started && state.line == Line::default());
                prop_assert_eq!(admit(&mut state, &rate, Arrival::Waiting, &task(1), START_US + wait), Admission::Now);
            }
        }
    }

    #[test]
    fn the_line_moves_as_fast_as_the_present_rate() {
        let mut play = Play::new(Rate::per_hour(1));
        play.new_tasks(0..=100);
        play.rate = Rate::per_second(10);
        assert_eq!(secs(play.new_task(101)), 11, "a hundred wait in front");
        play.run(|| 0);
        let took = play.now_us - START_US;
        assert!(took < RECHECK_US + 100 * RECHECK_SPACING_US + 12 * SECOND_US, "{took}");
        assert_eq!(play.started.len(), 102);

        let mut play = Play::new(Rate::per_second(10));
        play.new_tasks(0..=100);
        play.rate = Rate::per_hour(1);
        play.run(|| 0);
        let starts: Vec<u64> = play.started.iter().map(|(_, at)| *at).collect();
        assert!(within(&play.rate, &starts[2..]), "the second may start by the earlier rate");
    }

    #[test]
    fn who_does_not_come_back_loses_its_place() {
        for (rate, longest) in [(Rate::per_hour(1), RECHECK_US), (Rate::per_second(10), 10 * SECOND_US)] {
            let mut play = Play::new(rate);
            play.new_tasks(0..=100);
            play.waiting.clear();
            play.now_us += longest + 100 * RECHECK_SPACING_US + LATE_US;
            let after = play.new_task(101);
            assert!(secs(after) * SECOND_US <= rate.interval_us(), "{after:?}");
            assert_eq!(play.state.line.len(), play.waiting.len());
        }
    }

    #[test]
    fn a_late_task_starts_as_soon_as_it_may() {
        let mut play = Play::new(Rate::per_second(1));
        play.new_tasks(0..4);
        play.now_us += 3 * SECOND_US;
        assert_eq!(play.ask(3, Arrival::Turn), Admission::Now, "those in front are late");
        assert_eq!(play.ask(1, Arrival::Turn), Admission::In(SECOND_US), "and keep their places");
        assert_eq!(play.ask(2, Arrival::Turn), Admission::In(2 * SECOND_US));
        play.now_us += 60 * SECOND_US;
        assert_eq!(play.ask(1, Arrival::Turn), Admission::Now, "even if the line has dropped it");
        assert_eq!(play.new_task(4), Admission::In(SECOND_US));
    }

    #[test]
    fn a_clock_that_goes_back_makes_nobody_wait_for_it() {
        let mut play = Play::new(Rate::per_second(1).burst(3));
        play.new_tasks(0..6);
        play.now_us -= HOUR_US;
        let interval = 1 + 1;
        assert!(secs(play.new_task(6)) <= 3 + interval, "three wait in front");
        play.waiting =
            play.waiting.iter().map(|&(at, number, is_turn)| (at.min(at - HOUR_US), number, is_turn)).collect();
        play.waiting.retain(|(_, number, _)| *number < 6);
        play.run(|| 0);
        assert!(play.now_us < START_US - HOUR_US + 10 * SECOND_US);
    }
}
