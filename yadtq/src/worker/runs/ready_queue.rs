//! Runs that wait for a slot: queues take turns, and within a queue the priorities, by weights or strictly.
//!
//! Tasks are claimed a little ahead of free slots, and a task of a higher priority that comes then starts before those.
//! With strict priorities a free slot is also kept for a higher task whose claim is under way. By weights it is not, because what
//! was claimed ahead takes about 10 ms.

use std::collections::VecDeque;

use crate::{
    core::priority::{PerPriority, PriorityChooser},
    worker::job::{RunId, SourceId},
};

/// The runs that wait for the slots of one lane.
pub(super) struct ReadyQueue {
    queues: Vec<Queue>,
    /// The queue that was served last.
    last: usize,
}

struct Queue {
    waiting: PerPriority<VecDeque<RunId>>,
    chooser: PriorityChooser,
}

impl ReadyQueue {
    pub(super) fn new(queues: usize, is_strict: bool) -> Self {
        let queue = || Queue { waiting: PerPriority::default(), chooser: PriorityChooser::new(is_strict) };
        Self { queues: std::iter::repeat_with(queue).take(queues).collect(), last: 0 }
    }

    /// The run waits behind those of its source.
    pub(super) fn push(&mut self, source: SourceId, run: RunId) {
        self.queues[source.queue].waiting[source.priority as usize].push_back(run);
    }

    /// The next run to start. `coming` says for each priority of a queue whether a task of it is about to be claimed.
    pub(super) fn pop(&mut self, coming: impl Fn(usize) -> PerPriority<bool>) -> Option<RunId> {
        for _ in 0..self.queues.len() {
            self.last = (self.last + 1) % self.queues.len();
            let last = self.last;
            if let Some(run) = self.queues[last].pop(|| coming(last)) {
                return Some(run);
            }
        }
        None
    }

    /// Number of runs that wait.
    pub(super) fn len(&self) -> usize {
        self.queues.iter().flat_map(|queue| &queue.waiting).map(VecDeque::len).sum()
    }

    /// How many runs of a source's queue wait at its priority or above, and how many below.
    pub(super) fn around(&self, source: SourceId) -> (usize, usize) {
        let (above, below) = self.queues[source.queue].waiting.split_at(source.priority as usize + 1);
        let count = |waiting: &[VecDeque<RunId>]| waiting.iter().map(VecDeque::len).sum();
        (count(above), count(below))
    }

    /// Takes out the runs for which `which` holds.
    pub(super) fn take(&mut self, which: impl Fn(&RunId) -> bool) -> Vec<RunId> {
        let mut taken = Vec::new();
        for waiting in self.queues.iter_mut().flat_map(|queue| &mut queue.waiting) {
            if waiting.iter().any(&which) {
                let (take, keep) = std::mem::take(waiting).into_iter().partition::<VecDeque<_>, _>(|run| which(run));
                *waiting = keep;
                taken.extend(take);
            }
        }
        taken
    }
}

impl Queue {
    fn pop(&mut self, coming: impl FnOnce() -> PerPriority<bool>) -> Option<RunId> {
        let has = self.waiting.each_ref().map(|waiting| !waiting.is_empty());
        let priority = self.chooser.next(has)?;
        if self.chooser.is_strict() && coming()[..priority as usize].contains(&true) {
            return None;
        }
        self.chooser.spend(priority);
        self.waiting[priority as usize].pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::priority::Priority;

    const NOTHING: PerPriority<bool> = [false; 3];
    const HIGH: PerPriority<bool> = [true, false, false];

    fn ready(is_strict: bool, tasks: &[(usize, Priority, usize)]) -> ReadyQueue {
        let mut ready = ReadyQueue::new(2, is_strict);
        for &(queue, priority, count) in tasks {
            for n in 0..count {
                let task = format!("{queue}-{priority}-{n}").parse().unwrap();
                ready.push(SourceId { queue, priority }, RunId { task, token: 1 });
            }
        }
        ready
    }

    fn started(ready: &mut ReadyQueue, coming: PerPriority<bool>) -> Vec<String> {
        std::iter::from_fn(|| ready.pop(|_| coming)).map(|run| run.task.to_string()).collect()
    }

    #[test]
    fn a_higher_task_starts_before_those_that_were_granted_earlier() {
        for is_strict in [false, true] {
            let tasks = [(0, Priority::Low, 3), (0, Priority::Normal, 1), (0, Priority::High, 1)];
            let mut ready = ready(is_strict, &tasks);
            assert_eq!(ready.around(SourceId { queue: 0, priority: Priority::Normal }), (2, 3));
            let order = started(&mut ready, NOTHING);
            assert_eq!(order, ["0-high-0", "0-normal-0", "0-low-0", "0-low-1", "0-low-2"]);
        }
    }

    #[test]
    fn weights_hold_where_all_priorities_wait() {
        let mut all = ready(false, &[(0, Priority::Low, 20), (0, Priority::Normal, 20), (0, Priority::High, 20)]);
        let order = started(&mut all, NOTHING);
        let of = |priority: &str, among: &[String]| among.iter().filter(|id| id.contains(priority)).count();
        for round in order[..30].chunks(10) {
            assert_eq!((of("high", round), of("normal", round), of("low", round)), (6, 3, 1));
        }
    }

    #[test]
    fn strictly_a_slot_is_kept_for_a_high_task_that_is_being_claimed() {
        let mut strict = ready(true, &[(0, Priority::Low, 50)]);
        assert_eq!(strict.pop(|_| HIGH), None, "not even one");
        assert!(strict.pop(|_| NOTHING).is_some());
        // Below what waits, nothing is waited for.
        let mut high = ready(true, &[(0, Priority::High, 3)]);
        assert_eq!(started(&mut high, [true; 3]).len(), 3);
        let mut weighted = ready(false, &[(0, Priority::Low, 50)]);
        assert_eq!(started(&mut weighted, HIGH).len(), 50);
    }

    #[test]
    fn queues_take_turns_whatever_their_priorities() {
        let mut ready = ready(true, &[(0, Priority::High, 2), (1, Priority::Low, 2)]);
        assert_eq!(started(&mut ready, NOTHING), ["1-low-0", "0-high-0", "1-low-1", "0-high-1"]);
    }

    #[test]
    fn what_is_taken_out_does_not_start() {
        let mut ready = ready(false, &[(0, Priority::Low, 3)]);
        let taken = ready.take(|run| run.task.as_str() == "0-low-1");
        assert_eq!((taken.len(), ready.len()), (1, 2));
        assert_eq!(started(&mut ready, NOTHING), ["0-low-0", "0-low-2"]);
    }
}
