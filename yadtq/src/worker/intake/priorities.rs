//! Which source gives the next record: queues take turns, and within a queue the priorities, by weights or strictly.
//!
//! A priority is a topic. That of the high and low priority is created by whoever sends the first such task, and workers look for
//! it every second, because a consumer costs threads and memory. The order that holds here for claims holds once more for the
//! start of what was claimed ahead (`runs/ready_queue.rs`).

use crate::{
    core::priority::{PerPriority, PriorityChooser},
    worker::job::{Lane, SourceId},
};

/// Whose turn it is, for one lane.
pub(super) struct Priorities {
    /// The queue that was served last.
    last: usize,
    /// Whose turn it is within each queue.
    choosers: Vec<PriorityChooser>,
}

impl Priorities {
    pub(super) fn new(queues: usize, is_strict: bool) -> Self {
        Self { last: 0, choosers: vec![PriorityChooser::new(is_strict); queues] }
    }

    /// The source that gives the next record. `is_ready` says whether a source has one.
    pub(super) fn next(&mut self, is_ready: impl Fn(SourceId) -> bool) -> Option<SourceId> {
        let (last, queues) = (self.last, self.choosers.len());
        (1..=queues).map(|step| (last + step) % queues).find_map(|queue| {
            let ready: PerPriority<bool> = SourceId::of_queue(queue).map(&is_ready);
            let chooser = &mut self.choosers[queue];
            let priority = chooser.next(ready)?;
            chooser.spend(priority);
            self.last = queue;
            Some(SourceId { queue, priority })
        })
    }
}

/// One for each lane that records wait for.
pub(super) fn of_lanes(queues: usize, is_strict: bool) -> [Priorities; 2] {
    Lane::OF_RECORDS.map(|_| Priorities::new(queues, is_strict))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::priority::Priority;

    #[test]
    fn queues_take_turns_and_a_higher_priority_comes_more_often() {
        let mut priorities = Priorities::new(2, false);
        let mut taken = [0; 6];
        for _ in 0..40 {
            taken[priorities.next(|_| true).unwrap().index()] += 1;
        }
        assert_eq!(taken, [12, 6, 2, 12, 6, 2]);
    }

    #[test]
    fn what_has_nothing_gives_its_turn_up() {
        let mut priorities = Priorities::new(3, true);
        let only = SourceId { queue: 2, priority: Priority::Low };
        assert_eq!((0..3).map(|_| priorities.next(|source| source == only)).collect::<Vec<_>>(), [Some(only); 3]);
        assert_eq!(priorities.next(|_| false), None);
    }
}
