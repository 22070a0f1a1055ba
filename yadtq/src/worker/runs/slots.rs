//! How many tasks run at once, and how many more are claimed.
//!
//! A worker claims as many tasks as it has free slots, plus what its recent throughput finishes in 10 ms. Long tasks are never
//! claimed ahead, so they are never stuck behind a busy slot.

use std::time::Duration;

use tokio::time::Instant;

use super::ready_queue::ReadyQueue;
use crate::{
    core::priority::PerPriority,
    worker::{
        job::{Lane, RunId, SourceId},
        options::Options,
    },
};

/// How far ahead of free slots tasks are claimed: what the recent throughput finishes in this time. That keeps slots busy
/// between two batches of short tasks, and claims no long task that cannot start.
const CLAIM_AHEAD: Duration = Duration::from_millis(10);
/// Runs longer than this do not count for that: when their slots are free again, nobody knows.
const SHORT_RUN: Duration = Duration::from_millis(100);
/// The most tasks that are claimed ahead, per lane.
const MAX_CLAIMED_AHEAD: usize = 1_024;

/// The slots of each lane, and what waits for them.
pub(crate) struct Slots([LaneSlots; 3]);

struct LaneSlots {
    /// Number of slots.
    limit: usize,
    /// Number of slots that are taken.
    running: usize,
    ready: ReadyQueue,
    throughput: Throughput,
}

/// How many short tasks of a lane have ended lately.
struct Throughput {
    /// When counting began.
    since: Instant,
    /// Number of tasks that ended since then.
    ended: usize,
    /// How many tasks to claim ahead.
    ahead: usize,
}

impl Slots {
    pub(crate) fn new(options: &Options, queues: usize, now: Instant) -> Self {
        Self(Lane::ALL.map(|lane| LaneSlots {
            limit: match lane {
                Lane::Async => options.concurrency,
                Lane::Blocking => options.blocking_concurrency,
                Lane::Quarantine => 1,
            },
            running: 0,
            ready: ReadyQueue::new(queues, options.strict_priority),
            throughput: Throughput { since: now, ended: 0, ahead: 0 },
        }))
    }

    /// How many tasks may be claimed for a lane.
    pub(crate) fn room(&mut self, lane: Lane, now: Instant) -> usize {
        let slots = &mut self.0[lane as usize];
        let ahead = slots.throughput.ahead(now);
        slots.limit.saturating_add(ahead).saturating_sub(slots.running + slots.ready.len())
    }

    /// How many tasks of a source may be claimed although there is no room, because they start before lower ones of their
    /// queue that are ready: as many as there are free slots. `claimed`: those that are about to be claimed at this
    /// priority or above.
    pub(crate) fn room_above(&self, lane: Lane, source: SourceId, claimed: usize) -> usize {
        let slots = &self.0[lane as usize];
        let (above, below) = slots.ready.around(source);
        slots.limit.saturating_sub(slots.running + above + claimed).min(below)
    }

    /// Number of slots that are free, and not taken by what waits for one.
    pub(crate) fn free(&self, lane: Lane) -> usize {
        let slots = &self.0[lane as usize];
        slots.limit.saturating_sub(slots.running + slots.ready.len())
    }

    /// Whether any run waits for a slot.
    pub(crate) fn has_waiting(&self) -> bool {
        self.0.iter().any(|slots| slots.ready.len() > 0)
    }

    /// Whether nothing runs there or waits for it.
    pub(crate) fn is_free(&self, lane: Lane) -> bool {
        let slots = &self.0[lane as usize];
        slots.running + slots.ready.len() == 0
    }

    /// The run waits for a slot.
    pub(crate) fn push(&mut self, lane: Lane, source: SourceId, run: RunId) {
        self.0[lane as usize].ready.push(source, run);
    }

    /// The next run to start, if there is a slot for it. `coming` says for each priority of a queue whether a task of it is
    /// about to be claimed.
    pub(crate) fn next(&mut self, lane: Lane, coming: impl Fn(usize) -> PerPriority<bool>) -> Option<RunId> {
        let slots = &mut self.0[lane as usize];
        if slots.running < slots.limit { slots.ready.pop(coming) } else { None }
    }

    /// A run has taken a slot.
    pub(crate) fn started(&mut self, lane: Lane) {
        self.0[lane as usize].running += 1;
    }

    /// The slot of a run is free again. `ran`: for how long it ran, if that is known.
    pub(crate) fn ended(&mut self, lane: Lane, ran: Option<Duration>) {
        let slots = &mut self.0[lane as usize];
        slots.running -= 1;
        slots.throughput.ended += usize::from(ran.is_some_and(|ran| ran <= SHORT_RUN));
    }

    /// Takes runs out that wait for a slot.
    pub(crate) fn take_ready(&mut self, which: impl Fn(&RunId) -> bool) -> Vec<RunId> {
        self.0.iter_mut().flat_map(|slots| slots.ready.take(&which)).collect()
    }
}

impl Throughput {
    /// How many tasks to claim ahead; counts anew every [`CLAIM_AHEAD`].
    fn ahead(&mut self, now: Instant) -> usize {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= CLAIM_AHEAD {
            let share = CLAIM_AHEAD.as_secs_f64() / elapsed.as_secs_f64();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let ahead = (self.ended as f64 * share) as usize;
            *self = Self { since: now, ended: 0, ahead: ahead.min(MAX_CLAIMED_AHEAD) };
        }
        self.ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::priority::Priority;

    const NOTHING: fn(usize) -> PerPriority<bool> = |_| [false; 3];

    fn slots(concurrency: usize, now: Instant) -> Slots {
        Slots::new(&Options { concurrency, ..Options::default() }, 1, now)
    }

    fn push(slots: &mut Slots, lane: Lane, token: u64) {
        let run = RunId { task: format!("t{token}").parse().unwrap(), token };
        slots.push(lane, SourceId { queue: 0, priority: Priority::Normal }, run);
    }

    #[test]
    fn short_tasks_are_claimed_ahead_and_long_ones_are_not() {
        let start = Instant::now();
        let mut slots = slots(2, start);
        assert_eq!(slots.room(Lane::Async, start), 2);
        for token in 0..100 {
            push(&mut slots, Lane::Async, token);
            assert!(slots.next(Lane::Async, NOTHING).is_some());
            slots.started(Lane::Async);
            slots.ended(Lane::Async, Some(SHORT_RUN));
        }
        assert_eq!(slots.room(Lane::Async, start + CLAIM_AHEAD * 2), 2 + 50, "half of what ended in twice the time");
        assert_eq!(slots.room(Lane::Async, start + CLAIM_AHEAD * 3), 2, "nothing has ended since");
    }

    #[test]
    fn long_tasks_that_end_together_are_not_taken_for_short_ones() {
        let start = Instant::now();
        let mut slots = slots(4, start);
        for token in 0..4 {
            push(&mut slots, Lane::Async, token);
            assert!(slots.next(Lane::Async, NOTHING).is_some());
            slots.started(Lane::Async);
        }
        assert_eq!((slots.free(Lane::Async), slots.has_waiting()), (0, false));
        (0..4).for_each(|_| slots.ended(Lane::Async, Some(Duration::from_secs(1))));
        assert_eq!(slots.room(Lane::Async, start + CLAIM_AHEAD), 4);
        push(&mut slots, Lane::Async, 4);
        assert_eq!((slots.free(Lane::Async), slots.has_waiting()), (3, true));
    }

    #[test]
    fn one_suspect_runs_at_a_time_whatever_the_concurrency() {
        let mut slots = slots(10, Instant::now());
        assert!(slots.is_free(Lane::Quarantine));
        [1, 2].into_iter().for_each(|token| push(&mut slots, Lane::Quarantine, token));
        assert!(!slots.is_free(Lane::Quarantine));
        assert!(slots.next(Lane::Quarantine, NOTHING).is_some());
        slots.started(Lane::Quarantine);
        assert!(slots.next(Lane::Quarantine, NOTHING).is_none());
        slots.ended(Lane::Quarantine, None);
        assert!(slots.next(Lane::Quarantine, NOTHING).is_some());
    }
}
