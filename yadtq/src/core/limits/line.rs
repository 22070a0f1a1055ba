//! Who waits for a rate, and in which order.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::core::names::TaskId;

/// The most tasks that one call drops because they are late.
pub(crate) const LATE_BATCH: usize = 1_000;

/// The waiting line of one rate. A task has a position, and a time at which it asks again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// Each with its position, and the time in µs at which it asks again.
    tasks: HashMap<TaskId, (u64, u64)>,
    by_position: BTreeMap<u64, TaskId>,
    by_time: BTreeSet<(u64, TaskId)>,
}

impl Line {
    /// Number of tasks in the line.
    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Number of tasks in front of this one; `None`: it is not in the line.
    pub(crate) fn in_front(&self, task: &TaskId) -> Option<usize> {
        self.tasks.get(task).map(|(position, _)| self.by_position.range(..position).count())
    }

    /// The task waits in its place, or joins at the end, and asks again at this time.
    pub(crate) fn wait(&mut self, task: &TaskId, until_us: u64) {
        let position = match self.tasks.get(task) {
            Some(&(position, earlier)) => {
                self.by_time.remove(&(earlier, task.clone()));
                position
            }
            None => self.by_position.last_key_value().map_or(1, |(last, _)| last + 1),
        };
        self.tasks.insert(task.clone(), (position, until_us));
        self.by_position.insert(position, task.clone());
        self.by_time.insert((until_us, task.clone()));
    }

    /// The task leaves the line, if it is there.
    pub(crate) fn leave(&mut self, task: &TaskId) {
        if let Some((position, until_us)) = self.tasks.remove(task) {
            self.by_position.remove(&position);
            self.by_time.remove(&(until_us, task.clone()));
        }
    }

    /// Those that should have asked again by this time leave the line, at most [`LATE_BATCH`] of them.
    pub(crate) fn drop_late(&mut self, due_us: u64) {
        let late = self.by_time.iter().take_while(|(until_us, _)| *until_us <= due_us).take(LATE_BATCH);
        let late: Vec<TaskId> = late.map(|(_, task)| task.clone()).collect();
        late.iter().for_each(|task| self.leave(task));
    }

    /// Whether a task in the line is to ask again after this time.
    pub(crate) fn lasts_until(&self, us: u64) -> bool {
        self.by_time.last().is_some_and(|(until_us, _)| *until_us > us)
    }
}
