//! When this worker announces free slots, so that others offer records for them.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    core::slots::TaskSet,
    store::FreeSlots,
    worker::{
        job::{Job, Lane},
        options::Plan,
    },
};

/// How long a worker has had free slots and nothing ready before it announces them: between two tasks it announces nothing.
const IDLE_GRACE: Duration = Duration::from_millis(2);
/// The wait before free slots are announced again, after an offer of which this worker took nothing.
const REFUSED_DELAY: Duration = Duration::from_millis(20);
/// After this time free slots are announced again: the store may have lost them, or the offers that were made for them.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(10);

/// The free slots of a worker.
pub(in crate::worker) struct Idle {
    queues: Vec<Arc<str>>,
    lanes: [LaneIdle; 2],
}

/// The free slots of one lane.
struct LaneIdle {
    /// The tasks that run there; `None`: there are none.
    tasks: Option<Arc<TaskSet>>,
    /// Number of slots for which this worker has nothing, not even on its way.
    free: usize,
    /// Since when there are some.
    since: Option<Instant>,
    /// How many are announced, and when they were.
    announced: usize,
    announced_at: Option<Instant>,
    /// Before this time nothing is announced.
    not_before: Option<Instant>,
}

impl Idle {
    pub(super) fn new(plan: &Plan) -> Self {
        let lane = |lane: Lane| {
            let of_lane = plan.tasks.values().filter(|task| Job::lane_of(Some(task)) == lane);
            let names: Vec<&str> = of_lane.map(|task| task.name()).collect();
            let tasks = (!names.is_empty()).then(|| Arc::new(TaskSet::new(names)));
            LaneIdle { tasks, free: 0, since: None, announced: 0, announced_at: None, not_before: None }
        };
        let queues = plan.queues.iter().map(|queue| queue.shared()).collect();
        Self { queues, lanes: Lane::OF_RECORDS.map(lane) }
    }

    /// Notes for how many slots of a lane this worker has nothing, not even on its way.
    pub(in crate::worker) fn observe(&mut self, lane: Lane, free: usize, now: Instant) {
        let lane = &mut self.lanes[lane as usize];
        lane.free = free;
        lane.since = (free > 0).then(|| lane.since.unwrap_or(now));
    }

    /// Number of slots of a lane that are announced.
    pub(in crate::worker) fn announced(&self, lane: Lane) -> usize {
        self.lanes[lane as usize].announced
    }

    /// Others may have used what was announced: it is announced anew.
    pub(in crate::worker) fn used(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.announced = 0);
    }

    /// This worker took nothing of an offer: its slots are announced anew, but not at once. The same might be offered again.
    pub(in crate::worker) fn refused(&mut self, now: Instant) {
        self.used();
        self.lanes.iter_mut().for_each(|lane| lane.not_before = Some(now + REFUSED_DELAY));
    }

    /// What withdraws all that was announced, once.
    pub(in crate::worker) fn withdraw(&mut self) -> Vec<FreeSlots> {
        let mut slots = Vec::new();
        for lane in &mut self.lanes {
            if lane.announced_at.take().is_some() {
                slots.extend(lane.slots(&self.queues, 0));
            }
        }
        slots
    }

    /// What has to be announced now.
    pub(in crate::worker) fn due(&mut self, now: Instant) -> Vec<FreeSlots> {
        let mut due = Vec::new();
        for lane in &mut self.lanes {
            if lane.next_due().is_some_and(|at| at <= now) {
                (lane.announced, lane.announced_at, lane.not_before) = (lane.free, Some(now), None);
                due.extend(lane.slots(&self.queues, lane.free));
            }
        }
        due
    }

    /// When [`due`](Self::due) has something to announce.
    pub(in crate::worker) fn next_due(&self) -> Option<Instant> {
        self.lanes.iter().filter_map(LaneIdle::next_due).min()
    }
}

impl LaneIdle {
    fn next_due(&self) -> Option<Instant> {
        self.tasks.as_ref()?;
        let idle = self.since? + IDLE_GRACE;
        let stands = self.announced > 0 && self.free < 2 * self.announced;
        let due = if stands { idle.max(self.announced_at? + ANNOUNCE_INTERVAL) } else { idle };
        Some(self.not_before.map_or(due, |at| due.max(at)))
    }

    /// This many slots for the tasks of each queue.
    fn slots(&self, queues: &[Arc<str>], count: usize) -> impl Iterator<Item = FreeSlots> {
        let slots = move |queue: &Arc<str>, tasks: &Arc<TaskSet>| FreeSlots {
            queue: Arc::clone(queue),
            tasks: Arc::clone(tasks),
            count,
        };
        self.tasks.iter().flat_map(move |tasks| queues.iter().map(move |queue| slots(queue, tasks)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_announced_once_they_have_been_idle_for_a_moment() {
        let (mut idle, start) = (Idle::new(&Plan::for_test()), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let mut announced = |free, ms| {
            idle.observe(Lane::Async, free, at(ms));
            let due = idle.due(at(ms));
            let next = idle.next_due();
            assert!(next.is_none_or(|next| next > at(ms)), "nothing wakes the loop again for it");
            due.first().map(|slots| slots.count)
        };
        assert_eq!(announced(4, 0), None);
        assert_eq!(announced(4, 2), Some(4));
        assert_eq!(announced(4, 100), None, "they stand");
        assert_eq!(announced(0, 200), None);
        assert_eq!((announced(4, 300), announced(4, 304)), (None, None), "nobody has used them");
        assert_eq!(announced(8, 305), Some(8), "twice as many");
        assert_eq!(announced(8, 10_305), Some(8), "the store may have lost them");
        idle.used();
        idle.observe(Lane::Async, 2, at(10_306));
        assert_eq!(idle.due(at(10_306)).first().map(|slots| slots.count), Some(2));
    }

    #[test]
    fn slots_for_which_nothing_fitting_was_offered_are_announced_again_after_a_moment() {
        let (mut idle, start) = (Idle::new(&Plan::for_test()), Instant::now());
        let count = |slots: &[FreeSlots]| slots.first().map(|slots| slots.count);
        idle.observe(Lane::Async, 4, start);
        assert_eq!(count(&idle.due(start + IDLE_GRACE)), Some(4));
        let refused = start + Duration::from_millis(50);
        idle.refused(refused);
        assert_eq!((count(&idle.due(refused)), idle.next_due()), (None, Some(refused + REFUSED_DELAY)));
        assert_eq!(count(&idle.due(refused + REFUSED_DELAY)), Some(4));
    }

    #[test]
    fn what_was_announced_is_withdrawn_once() {
        let (mut idle, start) = (Idle::new(&Plan::for_test()), Instant::now());
        assert!(idle.withdraw().is_empty(), "nothing was announced");
        idle.observe(Lane::Async, 4, start);
        idle.due(start + IDLE_GRACE);
        idle.used();
        let slots = idle.withdraw();
        assert!(slots.len() == 1 && slots[0].count == 0, "{} announcements", slots.len());
        assert!(idle.withdraw().is_empty());
    }

    #[test]
    fn a_lane_without_tasks_announces_nothing() {
        let (mut idle, start) = (Idle::new(&Plan::for_test()), Instant::now());
        idle.observe(Lane::Blocking, 4, start);
        assert!(idle.next_due().is_none() && idle.due(start + ANNOUNCE_INTERVAL).is_empty());
    }
}
