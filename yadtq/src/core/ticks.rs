//! Which ticks of a periodic task a worker produces, and what is remembered of them.
//!
//! ```text
//!        dealt with          missed, unless known          due: each is produced
//!  ─────────────────────┼─────────────────────────────┼──────────────────────────┤
//!                     cursor                       horizon                      now
//! ```
//! The horizon is the start of the worker, later a minute ago. A tick at or before it that this worker has not dealt with
//! was missed, unless the store tells of it or a later one: nobody produced it, because no worker was up, or Kafka was
//! away.
//!
//! The same tick may be produced by many, and many times: its id makes it one task, for as long as the end of that task
//! is remembered, an hour at least. So nobody may produce an old tick without knowing that it was never produced.
//! - Due ticks are at most a minute old, also where clocks differ by far more than they should.
//! - A missed tick is produced only if the store has known the declaration since before it, and no acknowledged tick
//!   since then. A store that has lost everything knows neither, and nothing old is produced.
//! - A missed tick that this worker has sent before, without an answer, is given up after half an hour.
//!
//! What is left: Kafka acknowledges a tick, its only producer dies before it has noted that, other workers run the task,
//! and the next worker that declares it comes after the end is forgotten (24 h by default). Then that tick runs again.

use std::{fmt, str::FromStr, sync::Arc};

use super::schedule::{Ms, Schedule};

/// Ticks up to this age are produced while a worker is up, one by one.
const GRACE: Ms = 60_000;
/// Half of what the end of a task is remembered at least.
const LATE: Ms = 30 * 60_000;

/// What becomes of ticks that were missed: no worker was up, or Kafka was away for over a minute.
///
/// ```
/// use yadtq::Missed;
///
/// assert_eq!(Missed::default(), Missed::RunOnce);
/// assert_eq!("skip".parse(), Ok(Missed::Skip));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Missed {
    /// The latest of them runs as soon as a worker is up, whatever its age; the others are skipped. The default: a
    /// restart at the wrong moment does not cost a nightly task its day.
    #[default]
    RunOnce,
    /// They are skipped. For tasks that make no sense later than at their time.
    Skip,
}

impl Missed {
    /// As the store and the command line spell it: `run-once`, `skip`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RunOnce => "run-once",
            Self::Skip => "skip",
        }
    }
}

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

/// What a worker says of a periodic task that it declares.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// The name.
    pub name: Arc<str>,
    /// The schedule as it was written.
    pub schedule: Arc<str>,
    /// Its time zone, if it has one.
    pub zone: Option<Arc<str>>,
    /// What becomes of missed ticks.
    pub missed: Missed,
    /// The name of the task.
    pub task: Arc<str>,
    /// The queue that it is sent to.
    pub queue: Arc<str>,
    /// The next tick.
    pub next: Option<Ms>,
    /// The latest tick that this worker knows to be acknowledged.
    pub last: Option<Ms>,
    /// The worker's time.
    pub now: Ms,
}

impl Declaration {
    /// How long it is remembered, in ms: so long, and until its next tick.
    #[must_use]
    pub fn lives_ms(&self, ms: u64) -> u64 {
        ms + self.next.unwrap_or(0).saturating_sub(self.now)
    }
}

/// What is remembered of a periodic task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The schedule as it was written.
    pub schedule: Arc<str>,
    /// Its time zone, if it has one.
    pub zone: Option<Arc<str>>,
    /// What becomes of missed ticks.
    pub missed: Missed,
    /// The name of the task.
    pub task: Arc<str>,
    /// The queue that it is sent to.
    pub queue: Arc<str>,
    /// The next tick.
    pub next: Option<Ms>,
    /// The latest acknowledged tick.
    pub last: Option<Ms>,
    /// Since when it has had this schedule without a break.
    pub since: Ms,
    /// When a worker has declared it last.
    pub declared_at: Ms,
}

/// What a declaring worker has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The latest acknowledged tick.
    pub last: Option<Ms>,
    /// Since when the store has known of the schedule.
    pub since: Ms,
}

/// Remembers a declaration. The latest acknowledged tick only grows. Another schedule starts anew: its ticks in the past
/// were not missed.
pub fn declare(state: &mut Option<Declared>, by: &Declaration) -> Known {
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

/// One periodic task of one worker: which of its ticks are dealt with.
#[derive(Clone, Debug)]
pub struct Ticker {
    schedule: Schedule,
    missed: Missed,
    started: Ms,
    /// Every tick up to here is dealt with, or owed.
    cursor: Ms,
    /// The first tick after that.
    next: Option<Ms>,
    /// The latest tick that was missed, until that is dealt with.
    owed: Option<Ms>,
    /// The latest tick that was sent, and perhaps not acknowledged.
    tried: Option<Ms>,
    learned: bool,
}

/// What is to be done now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Ticks to produce, in order.
    pub ticks: Vec<Ms>,
    /// The latest tick that was missed and is not made up for.
    pub missed: Option<Ms>,
}

impl Ticker {
    /// From now on.
    #[must_use]
    pub fn new(schedule: Schedule, missed: Missed, now: Ms) -> Self {
        let next = schedule.after(now);
        Self { schedule, missed, started: now, cursor: now, next, owed: None, tried: None, learned: false }
    }

    /// The first tick that is not dealt with.
    #[must_use]
    pub fn next(&self) -> Option<Ms> {
        self.owed.or(self.next)
    }

    /// Whether it has heard of what was before its start.
    #[must_use]
    pub fn has_learned(&self) -> bool {
        self.learned
    }

    /// What the store knows: there may have been ticks before the start.
    pub fn learn(&mut self, known: Known) {
        if !self.learned {
            let from = known.last.unwrap_or(0).max(known.since).min(self.started);
            self.owed = self.owed.max(self.schedule.latest(from, self.started));
            self.learned = true;
        }
    }

    /// What is to be done now. `last` is the latest acknowledged tick, if the store could tell.
    #[must_use]
    pub fn due(&mut self, now: Ms, last: Option<Ms>) -> Due {
        if now + GRACE < self.cursor.max(self.started) {
            // The clock was wrong, and has been put right.
            self.started = self.started.min(now);
            self.move_to(self.cursor.min(now));
        }
        let horizon = self.started.max(now.saturating_sub(GRACE)).min(now);
        self.owed = self.owed.max(self.schedule.latest(self.cursor, horizon));
        self.move_to(self.cursor.max(horizon));
        // Others have gone on beyond it, whatever a clock that was wrong has made of later ones.
        self.owed = self.owed.filter(|&owed| last.is_none_or(|last| last.min(horizon) < owed));
        let next = |&tick: &Ms| self.schedule.after(tick).filter(|&tick| tick <= now);
        let mut ticks: Vec<Ms> = std::iter::successors(next(&self.cursor), next).collect();
        // That a later one is acknowledged says nothing of an earlier one: its producer may have started in between.
        if last.is_some() && ticks.last().copied() == last {
            ticks.pop();
            if ticks.is_empty() {
                self.done(last.unwrap_or(0));
            }
        }
        let mut missed = None;
        if let Some(owed) = self.owed {
            let unsure = self.tried >= Some(owed) && now - owed > LATE;
            if self.missed == Missed::RunOnce && !unsure {
                ticks.insert(0, owed);
            } else {
                missed = self.owed.take();
            }
        }
        Due { ticks, missed }
    }

    /// A tick is about to be sent.
    pub fn tried(&mut self, tick: Ms) {
        self.tried = self.tried.max(Some(tick));
    }

    /// A tick, and all before it, is dealt with.
    pub fn done(&mut self, tick: Ms) {
        self.owed = self.owed.filter(|&owed| owed > tick);
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
        // Somebody else was faster, or was faster with the later one alone.
        assert_eq!((ticker.due(120_050, Some(120_000)), ticker.next()), (produce(&[]), Some(130_000)));
        assert_eq!(ticker.due(140_050, Some(140_000)), produce(&[130_000]));
        ticker.done(130_000);
        assert_eq!((ticker.due(140_060, Some(140_000)), ticker.next()), (produce(&[]), Some(150_000)));
    }

    #[test]
    fn what_was_missed_before_the_start_is_skipped_or_runs_once() {
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
    fn what_was_missed_may_be_learned_late() {
        let mut ticker = ticker(10, Missed::RunOnce, 105_000);
        assert_eq!(ticker.due(110_010, None), produce(&[110_000]));
        ticker.done(110_000);
        ticker.learn(Known { last: Some(70_000), since: 60_000 });
        assert_eq!((ticker.next(), ticker.due(110_020, Some(70_000))), (Some(100_000), produce(&[100_000])));
        // Another was faster.
        assert_eq!((ticker.due(110_030, Some(100_000)), ticker.next()), (produce(&[]), Some(120_000)));
        ticker.learn(Known { last: Some(70_000), since: 60_000 });
        assert_eq!(ticker.due(110_040, Some(70_000)), produce(&[]), "it learns once");
    }

    #[test]
    fn a_first_start_or_an_emptied_store_makes_no_old_ticks() {
        let now = 9 * HOUR + 1_000;
        for known in [None, Some(Known { last: None, since: now }), Some(Known { last: Some(9 * HOUR), since: HOUR })] {
            let mut ticker = ticker(3_600, Missed::RunOnce, now);
            known.into_iter().for_each(|known| ticker.learn(known));
            assert_eq!(ticker.due(now + 10, known.and_then(|known| known.last)), produce(&[]), "{known:?}");
            assert_eq!(ticker.next(), Some(10 * HOUR));
        }
    }

    #[test]
    fn a_worker_that_stood_still_makes_up_for_what_nobody_did() {
        for missed in [Missed::Skip, Missed::RunOnce] {
            let mut ticker = ticker(10, missed, 100_000);
            // Ten minutes later: the others have gone on, and only the last minute is in doubt.
            assert_eq!(
                ticker.due(700_000, Some(640_000)),
                produce(&[650_000, 660_000, 670_000, 680_000, 690_000, 700_000])
            );
            ticker.done(700_000);
            // Nobody has.
            let due = ticker.due(1_300_000, Some(700_000));
            let (made_up, missed) = match missed {
                Missed::Skip => (6, Some(1_240_000)),
                Missed::RunOnce => (7, None),
            };
            assert_eq!((due.ticks.len(), due.missed), (made_up, missed), "{due:?}");
        }
        let mut hourly = ticker(3_600, Missed::RunOnce, HOUR + 1);
        assert_eq!(hourly.due(2 * HOUR + 2 * GRACE, None), produce(&[2 * HOUR]));
        hourly.tried(2 * HOUR);
        assert_eq!(hourly.due(2 * HOUR + LATE, None), produce(&[2 * HOUR]), "not acknowledged yet");
        assert_eq!(hourly.due(2 * HOUR + LATE + 1, None), skipped(2 * HOUR), "it may have run, and be forgotten soon");
        assert_eq!(hourly.next(), Some(3 * HOUR));
    }

    #[test]
    fn a_clock_that_was_wrong_holds_nothing_up() {
        let mut ticker = ticker(10, Missed::RunOnce, 86_500_000);
        assert_eq!(ticker.due(86_510_000, None), produce(&[86_510_000]));
        ticker.done(86_510_000);
        assert_eq!(ticker.due(100_005, Some(86_510_000)), produce(&[]));
        assert_eq!(ticker.due(110_000, Some(86_510_000)), produce(&[110_000]), "what it said then does not matter now");
        // A little step back makes no tick twice.
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
        /// A worker looks, after so many ms; Kafka acknowledges, and the note reaches the store, or not.
        Look { worker: usize, after: Ms, acknowledged: bool, noted: bool },
        /// A worker starts anew.
        Restart { worker: usize },
    }

    proptest! {
        /// Workers that look at least every 30 s and whose sends get through sooner or later: no tick is missing while
        /// one was up all the time, and none comes later than a minute after its time.
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
                        // The first one never fails and is never away.
                        look(&mut workers, 0, now, true, noted, &mut store, &mut produced);
                    }
                    Event::Restart { worker } => workers[worker] = ticker(every_s, Missed::RunOnce, now),
                }
            }
            let schedule = Schedule::every(Duration::from_secs(every_s)).unwrap();
            let expected = std::iter::successors(schedule.after(start), |&tick| schedule.after(tick));
            for tick in expected.take_while(|&tick| tick <= now) {
                // Another may produce it again later, where the note got lost.
                let first = produced.iter().find(|&&(found, _)| found == tick);
                let in_time = first.is_some_and(|&(_, at)| at >= tick && at - tick <= GRACE);
                prop_assert!(in_time, "{} of {:?}", tick, produced);
            }
            prop_assert!(produced.iter().all(|&(tick, _)| tick > start), "{:?}", produced);
        }
    }
}
