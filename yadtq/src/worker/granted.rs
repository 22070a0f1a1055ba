//! Granted tasks that wait for their slot: queues in turn, and of a queue the priority whose turn it is.
//!
//! Tasks are claimed a little ahead of free slots. A task of a higher priority that comes then starts before those, and so
//! they must not take the slot while its own claim is under way: strictly none of them; by weights at most a round of
//! them, so that a trickle of high tasks does not make the slots wait for one claim after another.

use std::collections::VecDeque;

use crate::core::{
    lifecycle::Token,
    names::TaskId,
    priority::{Chooser, Levels, Priority, ROUND},
};

/// A task that waits for its slot.
pub(super) type Waiting = (TaskId, Token);

/// What waits for the slots of a lane.
pub(super) struct Granted {
    queues: Vec<Queue>,
    /// The queue that was served last.
    turn: usize,
}

struct Queue {
    waiting: Levels<VecDeque<Waiting>>,
    chooser: Chooser,
    /// Lower tasks that started since a level has had tasks that were about to be granted.
    overtaken: Levels<u32>,
}

impl Granted {
    pub(super) fn new(queues: usize, strict: bool) -> Self {
        let queue = || Queue { waiting: Levels::default(), chooser: Chooser::new(strict), overtaken: [0; 3] };
        Self { queues: std::iter::repeat_with(queue).take(queues).collect(), turn: 0 }
    }

    pub(super) fn push(&mut self, queue: usize, priority: Priority, task: Waiting) {
        self.queues[queue].waiting[priority as usize].push_back(task);
    }

    /// The next to start. `coming` tells of each level of a queue whether it has a task that is about to be claimed.
    pub(super) fn pop(&mut self, coming: impl Fn(usize) -> Levels<bool>) -> Option<Waiting> {
        for _ in 0..self.queues.len() {
            self.turn = (self.turn + 1) % self.queues.len();
            let queue = &mut self.queues[self.turn];
            if !queue.is_empty()
                && let Some(task) = queue.pop(coming(self.turn))
            {
                return Some(task);
            }
        }
        None
    }

    pub(super) fn len(&self) -> usize {
        self.queues.iter().flat_map(|queue| &queue.waiting).map(VecDeque::len).sum()
    }

    /// How many of a queue wait at this level or above, and how many below.
    pub(super) fn around(&self, queue: usize, priority: Priority) -> (usize, usize) {
        let (above, below) = self.queues[queue].waiting.split_at(priority as usize + 1);
        let count = |levels: &[VecDeque<Waiting>]| levels.iter().map(VecDeque::len).sum();
        (count(above), count(below))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.queues.iter().flat_map(|queue| &queue.waiting).flatten()
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&TaskId) -> bool) {
        for waiting in self.queues.iter_mut().flat_map(|queue| &mut queue.waiting) {
            waiting.retain(|(id, _)| keep(id));
        }
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.waiting.iter().all(VecDeque::is_empty)
    }

    fn pop(&mut self, coming: Levels<bool>) -> Option<Waiting> {
        let mut has = [0, 1, 2].map(|level| !self.waiting[level].is_empty());
        // Only what is above all that wait here is waited for.
        let highest = has.iter().position(|&has| has)?;
        let higher = coming.iter().take(highest).position(|&coming| coming);
        if let Some(higher) = higher {
            has[higher] = self.chooser.is_strict() || self.overtaken[higher] >= ROUND;
        }
        for (overtaken, _) in self.overtaken.iter_mut().zip(coming).filter(|(_, coming)| !coming) {
            *overtaken = 0;
        }
        let level = self.chooser.next(has)?;
        let task = self.waiting[level as usize].pop_front()?;
        self.chooser.spend(level);
        if let Some(higher) = higher {
            self.overtaken[higher] += 1;
        }
        Some(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Levels<bool> = [false; 3];
    const HIGH: Levels<bool> = [true, false, false];

    fn granted(strict: bool, tasks: &[(usize, Priority, usize)]) -> Granted {
        let mut granted = Granted::new(2, strict);
        for &(queue, priority, count) in tasks {
            for n in 0..count {
                let id = format!("{queue}-{priority}-{n}").parse().unwrap();
                granted.push(queue, priority, (id, 1));
            }
        }
        granted
    }

    fn started(granted: &mut Granted, coming: Levels<bool>) -> Vec<String> {
        std::iter::from_fn(|| granted.pop(|_| coming)).map(|(id, _)| id.to_string()).collect()
    }

    #[test]
    fn a_higher_task_starts_before_those_that_were_granted_earlier() {
        for strict in [false, true] {
            let mut granted =
                granted(strict, &[(0, Priority::Low, 3), (0, Priority::Normal, 1), (0, Priority::High, 1)]);
            assert_eq!(granted.around(0, Priority::Normal), (2, 3));
            let order = started(&mut granted, NOTHING);
            assert_eq!(order, ["0-high-0", "0-normal-0", "0-low-0", "0-low-1", "0-low-2"]);
        }
    }

    #[test]
    fn weights_hold_where_all_levels_wait() {
        let mut all = granted(false, &[(0, Priority::Low, 20), (0, Priority::Normal, 20), (0, Priority::High, 20)]);
        let order = started(&mut all, NOTHING);
        let of = |level: &str, among: &[String]| among.iter().filter(|id| id.contains(level)).count();
        for round in order[..30].chunks(10) {
            assert_eq!((of("high", round), of("normal", round), of("low", round)), (6, 3, 1));
        }
    }

    #[test]
    fn a_slot_is_kept_for_a_high_task_that_is_being_claimed() {
        let mut strict = granted(true, &[(0, Priority::Low, 50)]);
        assert_eq!(strict.pop(|_| HIGH), None, "not even one");
        assert!(strict.pop(|_| NOTHING).is_some());

        let mut weighted = granted(false, &[(0, Priority::Low, 50)]);
        assert_eq!(started(&mut weighted, HIGH).len(), 10, "a round, and no more");
        // While more of them come, low tasks get their turns and nothing beyond.
        for n in 0..13 {
            weighted.push(0, Priority::High, (format!("high-{n}").parse().unwrap(), 1));
        }
        assert_eq!(started(&mut weighted, HIGH).iter().filter(|id| id.contains("low")).count(), 1);
        assert_eq!(started(&mut weighted, NOTHING).len(), 39, "it did not come after all");
        // Below what waits, nothing is waited for.
        let mut high = granted(true, &[(0, Priority::High, 3)]);
        assert_eq!(started(&mut high, [true; 3]).len(), 3);
    }

    #[test]
    fn queues_take_turns_whatever_their_priorities() {
        let mut granted = granted(true, &[(0, Priority::High, 2), (1, Priority::Low, 2)]);
        let order = started(&mut granted, NOTHING);
        assert_eq!(order, ["1-low-0", "0-high-0", "1-low-1", "0-high-1"]);
    }
}
