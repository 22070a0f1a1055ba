//! The records of this worker that it offered to others, until it is known what became of them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::fate::Fate;
use crate::{
    core::names::WorkerId,
    wire::offer::Place,
    worker::{
        job::Job,
        start::watch::watch_delay,
        timers::{TimerKey, Timers},
    },
};

/// The time between two searches for announced slots. A worker that found too few is also notified of new ones.
const SEARCH_INTERVAL: Duration = Duration::from_millis(250);
/// The time after which an owner looks what became of an offered record.
const LOOK_DELAY: Duration = Duration::from_millis(100);
/// How long the owner waits for the message that a task is completed which has ended: what follows may still be published.
const ENDED_DELAY: Duration = Duration::from_secs(1);
/// The most records that are looked at in one call.
const LOOK_BATCH: usize = 256;
/// Number of dead workers that are remembered, the latest ones: the store may still say that they run tasks.
const MOST_DEAD: usize = 256;

/// The offers that a worker made.
pub(in crate::worker) struct Made {
    lease: Duration,
    offered: HashMap<Place, Offered>,
    looks: Timers<Place>,
    /// When announced slots are looked for again, if records wait for some.
    search_at: Option<Instant>,
    /// Workers that were declared dead lately.
    dead: VecDeque<WorkerId>,
}

struct Offered {
    job: Arc<Job>,
    to: WorkerId,
    /// `None`: it is being looked at.
    timer: Option<TimerKey>,
    /// What the last look has shown; `None`: there was none.
    last: Option<Fate>,
}

impl Offered {
    /// The worker that runs the task, as far as is known, or that it was offered to.
    fn holder(&self) -> &WorkerId {
        match &self.last {
            Some(Fate::Runs { by: Some(worker), .. }) => worker,
            _ => &self.to,
        }
    }
}

impl Made {
    pub(super) fn new(lease: Duration) -> Self {
        Self { lease, offered: HashMap::new(), looks: Timers::default(), search_at: None, dead: VecDeque::new() }
    }

    /// Whether to look for announced slots. `has_excess`: records are ready for which there is no slot here.
    pub(in crate::worker) fn may_search(&mut self, has_excess: bool, now: Instant) -> bool {
        if !has_excess {
            self.search_at = None;
            return false;
        }
        let is_due = self.search_at.is_none_or(|at| at <= now);
        if is_due {
            self.search_at = Some(now + SEARCH_INTERVAL);
        }
        is_due
    }

    /// There are announced slots, perhaps.
    pub(in crate::worker) fn search_again(&mut self, now: Instant) {
        self.search_at = self.search_at.map(|_| now);
    }

    /// When slots are looked for again.
    pub(in crate::worker) fn next_search(&self) -> Option<Instant> {
        self.search_at
    }

    /// This record was offered to another worker.
    pub(in crate::worker) fn offered(&mut self, job: Arc<Job>, to: &WorkerId, now: Instant) {
        let place = Place::from(job.at);
        let timer = Some(self.looks.set(now, LOOK_DELAY, place));
        let offered = Offered { job, to: Arc::clone(to), timer, last: None };
        if let Some(timer) = self.offered.insert(place, offered).and_then(|older| older.timer) {
            self.looks.cancel(timer);
        }
    }

    /// The other worker does not have the record any more: it has completed or declined it. `None`: it is not among those that
    /// were offered.
    pub(in crate::worker) fn returned(&mut self, place: Place) -> Option<Arc<Job>> {
        let Offered { job, timer, .. } = self.offered.remove(&place)?;
        if let Some(timer) = timer {
            self.looks.cancel(timer);
        }
        Some(job)
    }

    /// These workers are dead: returns what they have. All the rest is looked at now, because they may have claimed some of it since
    /// the last look.
    pub(in crate::worker) fn lost(&mut self, dead: &[WorkerId], now: Instant) -> Vec<Arc<Job>> {
        self.dead.extend(dead.iter().cloned());
        self.dead.drain(..self.dead.len().saturating_sub(MOST_DEAD));
        let is_lost = |offered: &Offered| dead.contains(offered.holder());
        let lost = self.offered.iter().filter(|(_, offered)| is_lost(offered)).map(|(&place, _)| place);
        let lost: Vec<_> = lost.collect();
        let jobs = lost.into_iter().filter_map(|place| self.returned(place)).collect();
        for (&place, offered) in &mut self.offered {
            if let Some(timer) = offered.timer.take() {
                self.looks.cancel(timer);
                offered.timer = Some(self.looks.set(now, Duration::ZERO, place));
            }
        }
        jobs
    }

    /// The records that are to be looked at now.
    pub(in crate::worker) fn due(&mut self, now: Instant) -> Vec<Arc<Job>> {
        let mut jobs = Vec::new();
        while let Some(place) = (jobs.len() < LOOK_BATCH).then(|| self.looks.pop(now)).flatten() {
            if let Some(offered) = self.offered.get_mut(&place) {
                offered.timer = None;
                jobs.push(Arc::clone(&offered.job));
            }
        }
        jobs
    }

    /// When [`due`](Self::due) returns some.
    pub(in crate::worker) fn next_look(&self) -> Option<Instant> {
        self.looks.next()
    }

    /// A record was looked at. Returns its fate if the owner has to act. `None` as fate: the store did not say.
    pub(in crate::worker) fn looked(&mut self, job: &Job, fate: Option<Fate>, now: Instant) -> Option<Fate> {
        let place = Place::from(job.at);
        let offered = self.offered.get_mut(&place)?;
        let is_dead = |worker: &Option<WorkerId>| worker.as_ref().is_some_and(|worker| self.dead.contains(worker));
        let again = match (&fate, &offered.last) {
            (Some(Fate::Runs { by, left }), _) if !is_dead(by) => watch_delay(*left),
            (Some(Fate::Ended), last) if *last != Some(Fate::Ended) => ENDED_DELAY,
            // The store was emptied. The worker that runs the task brings it back when it extends its lease.
            (Some(Fate::Absent), Some(Fate::Runs { .. })) => self.lease,
            (None, _) => ENDED_DELAY,
            (Some(Fate::Runs { .. }), _) => return self.returned(job.at.into()).map(|_| Fate::Ready),
            (Some(Fate::Ended | Fate::Ready | Fate::Absent), _) => {
                self.returned(place);
                return fate;
            }
        };
        offered.last = fate.or(offered.last.take());
        if let Some(older) = offered.timer.replace(self.looks.set(now, again, place)) {
            self.looks.cancel(older);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(offset: i64) -> Arc<Job> {
        let mut job = Job::for_test(&format!(r#"{{"task-id":"t{offset}","task":"noop","args":[],"seq":2}}"#));
        job.at.offset = offset;
        Arc::new(job)
    }

    const LEASE: Duration = Duration::from_secs(6);

    fn runs(by: &str) -> Option<Fate> {
        Some(Fate::Runs { by: Some(by.into()), left: LEASE })
    }

    fn offsets(jobs: &[Arc<Job>]) -> Vec<i64> {
        jobs.iter().map(|job| job.at.offset).collect()
    }

    #[test]
    fn an_offered_record_comes_back_once() {
        let (mut made, now) = (Made::new(LEASE), Instant::now());
        (1..=3).for_each(|offset| made.offered(job(offset), &"r".into(), now));
        made.offered(job(4), &"dead".into(), now);
        assert!(made.due(now).is_empty());
        let place = Place::from(job(1).at);
        assert_eq!(made.returned(place).unwrap().at.offset, 1);
        assert!(made.returned(place).is_none());
        assert_eq!(offsets(&made.lost(&["dead".into(), "other".into()], now)), [4]);
        assert_eq!(offsets(&made.due(now)).len(), 2, "all others are looked at");
        // While it is being looked at, a message still counts, and then the look does not.
        assert!(made.returned(Place::from(job(2).at)).is_some());
        assert_eq!(made.looked(&job(2), Some(Fate::Ready), now), None);
        assert_eq!(made.looked(&job(3), Some(Fate::Ready), now), Some(Fate::Ready));
        assert_eq!(made.next_look(), None);
    }

    #[test]
    fn what_runs_is_looked_at_again_and_what_has_ended_is_claimed_after_a_while() {
        let (mut made, now) = (Made::new(LEASE), Instant::now());
        made.offered(job(1), &"r".into(), now);
        let mut look = |after, fate| {
            assert_eq!(made.due(now + after).len(), 1);
            made.looked(&job(1), fate, now + after)
        };
        let (first, secs) = (LOOK_DELAY, Duration::from_secs);
        assert_eq!(look(first, runs("r")), None);
        assert_eq!(look(first + secs(1), runs("r")), None);
        assert_eq!(look(first + secs(2), None), None);
        assert_eq!(look(first + secs(3), Some(Fate::Ended)), None, "the message may be on its way");
        assert_eq!(look(first + secs(4), Some(Fate::Ended)), Some(Fate::Ended));
    }

    #[test]
    fn what_a_dead_worker_runs_is_ready_whomever_it_was_offered_to() {
        let (mut made, now) = (Made::new(LEASE), Instant::now());
        (1..=3).for_each(|offset| made.offered(job(offset), &"r".into(), now));
        assert_eq!(made.due(now + LOOK_DELAY).len(), 3);
        for (offset, by) in [(1, "dead"), (2, "r")] {
            assert_eq!(made.looked(&job(offset), runs(by), now), None);
        }
        assert_eq!(offsets(&made.lost(&["dead".into()], now)), [1]);
        assert_eq!(offsets(&made.due(now)), [2], "3 is being looked at");
        for offset in [2, 3] {
            assert_eq!(made.looked(&job(offset), runs("dead"), now), Some(Fate::Ready), "it has claimed it meanwhile");
        }
        assert!(made.offered.is_empty() && made.next_look().is_none());
    }

    #[test]
    fn what_ran_before_the_store_was_emptied_gets_a_lease_to_come_back() {
        let (mut made, now) = (Made::new(LEASE), Instant::now());
        (1..=2).for_each(|offset| made.offered(job(offset), &"r".into(), now));
        let mut look = |after, fates: Vec<Option<Fate>>| {
            let jobs = made.due(now + after);
            assert_eq!(jobs.len(), fates.len());
            let looked = |(job, fate): (&Arc<Job>, Option<Fate>)| made.looked(job, fate, now + after);
            jobs.iter().zip(fates).map(looked).collect::<Vec<_>>()
        };
        let (secs, absent) = (Duration::from_secs, Some(Fate::Absent));
        assert_eq!(look(secs(1), vec![runs("r"), absent.clone()]), [None, absent.clone()], "nobody ran the second one");
        assert_eq!(look(secs(2), vec![absent.clone()]), [None]);
        assert_eq!(look(secs(7), vec![]), []);
        assert_eq!(look(secs(8), vec![runs("r")]), [None], "it has come back");
        assert_eq!(look(secs(9), vec![absent.clone()]), [None]);
        assert_eq!(look(secs(15), vec![absent.clone()]), [absent]);
    }

    #[test]
    fn a_look_that_comes_twice_leaves_one_timer() {
        let (mut made, now) = (Made::new(LEASE), Instant::now());
        made.offered(job(1), &"r".into(), now);
        assert_eq!((made.looked(&job(1), runs("r"), now), made.looked(&job(1), runs("r"), now)), (None, None));
        assert_eq!((made.due(now + LEASE).len(), made.next_look()), (1, None));
    }

    #[test]
    fn slots_are_looked_for_at_once_then_rarely_or_when_there_are_some() {
        let (mut made, now) = (Made::new(LEASE), Instant::now());
        assert!(!made.may_search(false, now));
        assert!(made.may_search(true, now) && !made.may_search(true, now));
        assert!(made.may_search(true, now + SEARCH_INTERVAL));
        made.search_again(now);
        assert!(made.may_search(true, now));
        assert!(!made.may_search(false, now) && made.next_search().is_none());
        made.search_again(now);
        assert_eq!(made.next_search(), None, "nothing waits");
    }
}
