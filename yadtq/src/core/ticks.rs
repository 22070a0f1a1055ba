//! Which ticks of a periodic task a worker produces, and what the store remembers of them.
//!
//! ```text
//!        handled             missed, unless known          due: each is produced
//!  ─────────────────────┼─────────────────────────────┼──────────────────────────┤
//!                     cursor                       horizon                      now
//! ```
//! The horizon is the start of the worker at first, and one minute ago later. A tick at or before it that this worker
//! has not handled was missed, unless the store knows that this tick or a later one is acknowledged. Nobody produced a
//! missed tick, because no worker was up or Kafka was unreachable.
//!
//! Several workers may produce the same tick, even several times: its task id makes it one task for as long as the
//! store remembers the end of that task, which is at least one hour. So a worker may produce an old tick only if it
//! knows that nobody did.
//! - Due ticks are at most a minute old, even if clocks differ by far more than they should.
//! - A missed tick is produced only if the store has known the declaration since before the tick, and has known no
//!   acknowledged tick since then. A store that has lost everything knows neither, so no old tick is produced.
//! - A missed tick that this worker has sent without an answer is given up after half an hour.
//!
//! One case is left: Kafka acknowledges a tick, its only producer dies before it notes that in the store, other workers
//! run the task, and the next worker that declares it starts after the store has forgotten the task's end (24 h by
//! default). Then that tick runs again.

use std::{fmt, str::FromStr, sync::Arc};

use super::{
    as_text::as_text,
    schedule::{Ms, Schedule},
};

/// Age up to which a tick is due, in ms. Older ticks were missed.
const MAX_DUE_AGE_MS: Ms = 60_000;
/// Age up to which a tick is sent again when it is not known whether Kafka has it, in ms. Half of the shortest time for
/// which the end of a task is remembered.
const RESEND_LIMIT_MS: Ms = 30 * 60_000;

/// What happens to ticks that were missed because no worker was up, or because Kafka was unreachable for over a minute.
///
/// ```
/// use yadtq::Missed;
///
/// assert_eq!(Missed::default(), Missed::RunOnce);
/// assert_eq!("skip".parse(), Ok(Missed::Skip));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Missed {
    /// The latest missed tick runs as soon as a worker is up, whatever its age; the others are skipped. This is the
    /// default: a nightly task runs even if all workers were restarting at its time.
    #[default]
    RunOnce,
    /// All missed ticks are skipped. For tasks that are useful only at their time.
    Skip,
}

impl Missed {
    /// The name that the store and the command line use: `run-once` or `skip`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RunOnce => "run-once",
            Self::Skip => "skip",
        }
    }
}

as_text!(Missed);

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Missed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::RunOnce, Self::Skip];
        all.into_iter().find(|one| one.as_str() == text).ok_or_else(|| format!("`{text}` is neither run-once nor skip"))
    }
}

/// A periodic task as a worker declares it to the store.
#[derive(Clone, Debug)]
pub(crate) struct Declaration {
    /// The name of the periodic task.
    pub name: Arc<str>,
    /// The schedule as the user wrote it.
    pub schedule: Arc<str>,
    /// The time zone. `None` for an interval.
    pub zone: Option<Arc<str>>,
    /// What happens to missed ticks.
    pub missed: Missed,
    /// The name of the task.
    pub task: Arc<str>,
    /// The queue of the task.
    pub queue: Arc<str>,
    /// The next tick.
    pub next: Option<Ms>,
    /// The latest tick that this worker knows to be acknowledged.
    pub last: Option<Ms>,
    /// The time on the worker's clock.
    pub now: Ms,
}

impl Declaration {
    /// How long the store remembers the declaration, in ms: `ms` after its next tick, or after now if there is none.
    #[must_use]
    pub(crate) fn ttl_ms(&self, ms: u64) -> u64 {
        ms + self.next.unwrap_or(0).saturating_sub(self.now)
    }
}

/// A periodic task as the store remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    /// The schedule as the user wrote it.
    pub schedule: Arc<str>,
    /// The time zone. `None` for an interval.
    pub zone: Option<Arc<str>>,
    /// What happens to missed ticks.
    pub missed: Missed,
    /// The name of the task.
    pub task: Arc<str>,
    /// The queue of the task.
    pub queue: Arc<str>,
    /// The next tick.
    pub next: Option<Ms>,
    /// The latest acknowledged tick.
    pub last: Option<Ms>,
    /// Since when the task has had this schedule and time zone without interruption.
    pub since: Ms,
    /// When a worker last declared the task.
    pub declared_at: Ms,
}

/// The store's answer to a declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// The latest acknowledged tick.
    pub last: Option<Ms>,
    /// Since when the store has known the schedule.
    pub since: Ms,
}

/// Stores a declaration. The latest acknowledged tick only grows. A changed schedule starts anew: its earlier ticks
/// were not missed.
pub(crate) fn declare(state: &mut Option<Declared>, by: &Declaration) -> Known {
    let before = state.take();
    let last = before.as_ref().and_then(|before| before.last).max(by.last);
    let same = before.filter(|before| before.schedule == by.schedule && before.zone == by.zone);
    let since = same.map_or(by.now, |before| before.since);
    *state = Some(Declared {
        schedule: Arc::clone(&by.schedule),
        zone: by.zone.clone(),
        missed: by.missed,
        task: Arc::clone(&by.task),
        queue: Arc::clone(&by.queue),
        next: by.next,
        last,
        since,
        declared_at: by.now,
    });
    Known { last, since }
}

/// One periodic task of one worker, and which of its ticks are handled.
#[derive(Clone, Debug)]
pub(crate) struct Ticker {
    schedule: Schedule,
    policy: Missed,
    started: Ms,
    /// All ticks up to this time are handled, but for the missed one.
    cursor: Ms,
    /// The first tick after the cursor.
    next: Option<Ms>,
    /// The latest missed tick, until it is handled.
    missed: Option<Ms>,
    /// The latest tick that was sent, even if it is not acknowledged.
    tried: Option<Ms>,
    has_learned: bool,
}

/// What a worker has to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Ticks to produce, in order.
    pub ticks: Vec<Ms>,
    /// The latest missed tick, if it is skipped.
    pub missed: Option<Ms>,
}

impl Ticker {
    /// A ticker whose first tick is the first one after now.
    #[must_use]
    pub(crate) fn new(schedule: Schedule, policy: Missed, now: Ms) -> Self {
        let next = schedule.after(now);
        Self { schedule, policy, started: now, cursor: now, next, missed: None, tried: None, has_learned: false }
    }

    /// The first tick that is not handled.
    #[must_use]
    pub(crate) fn next(&self) -> Option<Ms> {
        self.missed.or(self.next)
    }

    /// Whether it knows what the store knew about ticks before its start.
    #[must_use]
    pub(crate) fn has_learned(&self) -> bool {
        self.has_learned
    }

    /// Takes the store's knowledge about ticks before the start. Only the first call has an effect.
    pub(crate) fn learn(&mut self, known: Known) {
        if !self.has_learned {
            let from = known.last.unwrap_or(0).max(known.since).min(self.started);
            self.missed = self.missed.max(self.schedule.latest(from, self.started));
            self.has_learned = true;
        }
    }

    /// What to do now. `last` is the latest acknowledged tick. `None`: there is none, or the store did not answer.
    #[must_use]
    pub(crate) fn due(&mut self, now: Ms, last: Option<Ms>) -> Due {
        if now + MAX_DUE_AGE_MS < self.cursor.max(self.started) {
            // The clock was wrong and has been corrected.
            self.started = self.started.min(now);
            self.move_to(self.cursor.min(now));
        }
        let horizon = self.started.max(now.saturating_sub(MAX_DUE_AGE_MS)).min(now);
        self.missed = self.missed.max(self.schedule.latest(self.cursor, horizon));
        self.move_to(self.cursor.max(horizon));
        // A missed tick is dropped if it or a later one is acknowledged. Ticks beyond the horizon do not count for
        // this: they may come from a clock that was wrong.
        self.missed = self.missed.filter(|&missed| last.is_none_or(|last| last.min(horizon) < missed));
        let next = |&tick: &Ms| self.schedule.after(tick).filter(|&tick| tick <= now);
        let mut ticks: Vec<Ms> = std::iter::successors(next(&self.cursor), next).collect();
        // An acknowledged tick says nothing about an earlier one: its producer may have started in between.
        if last.is_some() && ticks.last().copied() == last {
            ticks.pop();
            if ticks.is_empty() {
                self.done(last.unwrap_or(0));
            }
        }
        let mut skipped = None;
        if let Some(missed) = self.missed {
            let may_have_run = self.tried >= Some(missed) && now - missed > RESEND_LIMIT_MS;
            if self.policy == Missed::RunOnce && !may_have_run {
                ticks.insert(0, missed);
            } else {
                skipped = self.missed.take();
            }
        }
        Due { ticks, missed: skipped }
    }

    /// Notes that a tick is about to be sent.
    pub(crate) fn tried(&mut self, tick: Ms) {
        self.tried = self.tried.max(Some(tick));
    }

    /// Notes that a tick, and all before it, are handled.
    pub(crate) fn done(&mut self, tick: Ms) {
        self.missed = self.missed.filter(|&missed| missed > tick);
        self.move_to(self.cursor.max(tick));
    }

    fn move_to(&mut self, cursor: Ms) {
        if cursor != self.cursor {
            self.cursor = cursor;
            self.next = self.schedule.after(cursor);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const HOUR: Ms = 3_600_000;

    fn ticker(every_s: u64, missed: Missed, now: Ms) -> Ticker {
        Ticker::new(Schedule::every(Duration::from_secs(every_s)).unwrap(), missed, now)
    }

    fn produce(ticks: &[Ms]) -> Due {
        Due { ticks: ticks.to_vec(), missed: None }
    }

    fn skipped(missed: Ms) -> Due {
        Due { ticks: Vec::new(), missed: Some(missed) }
    }

    #[test]
    fn a_tick_is_due_once() {
        let mut ticker = ticker(10, Missed::RunOnce, 100_500);
        assert_eq!(ticker.next(), Some(110_000));
        assert_eq!(ticker.due(109_999, None), produce(&[]));
        assert_eq!(ticker.due(110_000, None), produce(&[110_000]));
        assert_eq!(ticker.due(110_500, None), produce(&[110_000]), "until it is done");
        ticker.done(110_000);
        assert_eq!((ticker.due(110_600, None), ticker.next()), (produce(&[]), Some(120_000)));
        // Another worker was faster, or was faster with the later tick only.
        assert_eq!((ticker.due(120_050, Some(120_000)), ticker.next()), (produce(&[]), Some(130_000)));
        assert_eq!(ticker.due(140_050, Some(140_000)), produce(&[130_000]));
        ticker.done(130_000);
        assert_eq!((ticker.due(140_060, Some(140_000)), ticker.next()), (produce(&[]), Some(150_000)));
    }

    #[test]
    fn ticks_missed_before_the_start_are_skipped_or_run_once() {
        let known = Known { last: Some(2 * HOUR), since: HOUR };
        for (missed, due) in [(Missed::Skip, skipped(9 * HOUR)), (Missed::RunOnce, produce(&[9 * HOUR]))] {
            let mut ticker = ticker(3_600, missed, 9 * HOUR + 1_000);
            ticker.learn(known);
            assert_eq!(ticker.due(9 * HOUR + 1_010, known.last), due);
            due.ticks.iter().for_each(|&tick| ticker.done(tick));
            assert_eq!(ticker.due(9 * HOUR + 2_000, known.last), produce(&[]));
            assert_eq!(ticker.due(10 * HOUR, known.last), produce(&[10 * HOUR]));
        }
    }

    #[test]
    fn missed_ticks_may_be_learned_late() {
        let mut ticker = ticker(10, Missed::RunOnce, 105_000);
        assert_eq!(ticker.due(110_010, None), produce(&[110_000]));
        ticker.done(110_000);
        ticker.learn(Known { last: Some(70_000), since: 60_000 });
        assert_eq!((ticker.next(), ticker.due(110_020, Some(70_000))), (Some(100_000), produce(&[100_000])));
        // Another worker was faster.
        assert_eq!((ticker.due(110_030, Some(100_000)), ticker.next()), (produce(&[]), Some(120_000)));
        ticker.learn(Known { last: Some(70_000), since: 60_000 });
        assert_eq!(ticker.due(110_040, Some(70_000)), produce(&[]), "it learns once");
    }

    #[test]
    fn a_first_start_or_an_emptied_store_produces_no_old_ticks() {
        let now = 9 * HOUR + 1_000;
        for known in [None, Some(Known { last: None, since: now }), Some(Known { last: Some(9 * HOUR), since: HOUR })] {
            let mut ticker = ticker(3_600, Missed::RunOnce, now);
            known.into_iter().for_each(|known| ticker.learn(known));
            assert_eq!(ticker.due(now + 10, known.and_then(|known| known.last)), produce(&[]), "{known:?}");
            assert_eq!(ticker.next(), Some(10 * HOUR));
        }
    }

    #[test]
    fn a_suspended_worker_produces_what_nobody_else_did() {
        for missed in [Missed::Skip, Missed::RunOnce] {
            let mut ticker = ticker(10, missed, 100_000);
            // Ten minutes later: other workers produced ticks, and only those of the last minute are due.
            assert_eq!(
                ticker.due(700_000, Some(640_000)),
                produce(&[650_000, 660_000, 670_000, 680_000, 690_000, 700_000])
            );
            ticker.done(700_000);
            // No other worker has.
            let due = ticker.due(1_300_000, Some(700_000));
            let (made_up, missed) = match missed {
                Missed::Skip => (6, Some(1_240_000)),
                Missed::RunOnce => (7, None),
            };
            assert_eq!((due.ticks.len(), due.missed), (made_up, missed), "{due:?}");
        }
        let mut hourly = ticker(3_600, Missed::RunOnce, HOUR + 1);
        assert_eq!(hourly.due(2 * HOUR + 2 * MAX_DUE_AGE_MS, None), produce(&[2 * HOUR]));
        hourly.tried(2 * HOUR);
        assert_eq!(hourly.due(2 * HOUR + RESEND_LIMIT_MS, None), produce(&[2 * HOUR]), "not acknowledged yet");
        assert_eq!(
            hourly.due(2 * HOUR + RESEND_LIMIT_MS + 1, None),
            skipped(2 * HOUR),
            "it may have run, and its end may be forgotten soon"
        );
        assert_eq!(hourly.next(), Some(3 * HOUR));
    }

    #[test]
    fn a_clock_that_was_wrong_delays_nothing() {
        let mut ticker = ticker(10, Missed::RunOnce, 86_500_000);
        assert_eq!(ticker.due(86_510_000, None), produce(&[86_510_000]));
        ticker.done(86_510_000);
        assert_eq!(ticker.due(100_005, Some(86_510_000)), produce(&[]));
        assert_eq!(ticker.due(110_000, Some(86_510_000)), produce(&[110_000]), "the wrong tick does not matter now");
        // A small step back produces no tick twice.
        ticker.done(110_000);
        assert_eq!(ticker.due(109_000, None), produce(&[]));
        assert_eq!(ticker.due(110_500, None), produce(&[]));
    }

    #[test]
    fn the_latest_acknowledged_tick_only_grows_and_a_new_schedule_starts_anew() {
        let by = |schedule: &str, last, now| Declaration {
            name: "n".into(),
            schedule: schedule.into(),
            zone: None,
            missed: Missed::Skip,
            task: "t".into(),
            queue: "q".into(),
            next: None,
            last,
            now,
        };
        let mut state = None;
        assert_eq!(declare(&mut state, &by("a", None, 5)), Known { last: None, since: 5 });
        assert_eq!(declare(&mut state, &by("a", Some(7), 8)), Known { last: Some(7), since: 5 });
        assert_eq!(declare(&mut state, &by("a", Some(6), 9)), Known { last: Some(7), since: 5 });
        assert_eq!(declare(&mut state, &by("b", None, 10)), Known { last: Some(7), since: 10 });
        assert_eq!(state.unwrap().declared_at, 10);
    }

    #[derive(Clone, Debug)]
    enum Event {
        /// A worker looks for due ticks, `after` ms later. Kafka may acknowledge them, and the store may note that.
        Look { worker: usize, after: Ms, acknowledged: bool, noted: bool },
        /// A worker is restarted.
        Restart { worker: usize },
    }

    proptest! {
        /// One worker is up all the time, and every record gets through sooner or later: then no tick is missing, and
        /// none is produced later than a minute after its time.
        #[test]
        fn no_tick_is_missing_while_a_worker_is_up(
            every_s in 1..100_u64,
            events in proptest::collection::vec(prop_oneof![
                8 => (0..3_usize, 0..10_000_u64, any::<bool>(), any::<bool>()).prop_map(|(worker, after, acknowledged, noted)|
                    Event::Look { worker, after, acknowledged, noted }),
                1 => (1..3_usize).prop_map(|worker| Event::Restart { worker }),
            ], 1..200),
        ) {
            let start = 1_000_000;
            let (mut now, mut store) = (start, None);
            let declaration = |now, last| Declaration {
                name: "n".into(), schedule: "s".into(), zone: None, missed: Missed::RunOnce, task: "t".into(),
                queue: "q".into(), next: None, last, now,
            };
            let mut workers: Vec<Ticker> = (0..3).map(|_| ticker(every_s, Missed::RunOnce, now)).collect();
            let mut produced = Vec::new();
            let look = |workers: &mut Vec<Ticker>, worker: usize, now, acknowledged, noted, store: &mut Option<Declared>, produced: &mut Vec<(Ms, Ms)>| {
                let known = declare(store, &declaration(now, None));
                workers[worker].learn(known);
                let ticks = workers[worker].due(now, known.last).ticks;
                for tick in ticks {
                    workers[worker].tried(tick);
                    if acknowledged {
                        produced.push((tick, now));
                        workers[worker].done(tick);
                        if noted {
                            declare(store, &declaration(now, Some(tick)));
                        }
                    }
                }
            };
            for event in events {
                match event {
                    Event::Look { worker, after, acknowledged, noted } => {
                        now += after;
                        look(&mut workers, worker, now, acknowledged, noted, &mut store, &mut produced);
                        // The first worker never fails and is never down.
                        look(&mut workers, 0, now, true, noted, &mut store, &mut produced);
                    }
                    Event::Restart { worker } => workers[worker] = ticker(every_s, Missed::RunOnce, now),
                }
            }
            let schedule = Schedule::every(Duration::from_secs(every_s)).unwrap();
            let expected = std::iter::successors(schedule.after(start), |&tick| schedule.after(tick));
            for tick in expected.take_while(|&tick| tick <= now) {
                // Another worker may produce the tick again later, if the note got lost.
                let first = produced.iter().find(|&&(found, _)| found == tick);
                let in_time = first.is_some_and(|&(_, at)| at >= tick && at - tick <= MAX_DUE_AGE_MS);
                prop_assert!(in_time, "{} of {:?}", tick, produced);
            }
            prop_assert!(produced.iter().all(|&(tick, _)| tick > start), "{:?}", produced);
        }
    }
}
