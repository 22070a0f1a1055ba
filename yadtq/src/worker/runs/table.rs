//! The runs of this worker, by task. Here alone is decided whether a run is still the latest of its task.

use std::collections::{HashMap, hash_map};

use super::run::Run;
use crate::{core::names::TaskId, worker::job::RunId};

/// At most one run for each task.
#[derive(Default)]
pub(crate) struct Table(HashMap<TaskId, Run>);

impl Table {
    /// Adds a run; returns the one that its task had.
    pub(crate) fn insert(&mut self, run: Run) -> Option<Run> {
        self.0.insert(run.id.task.clone(), run)
    }

    /// `None`: it has ended, or a later claim of its task was granted.
    pub(crate) fn get(&self, id: &RunId) -> Option<&Run> {
        self.0.get(&id.task).filter(|run| run.id.token == id.token)
    }

    /// As [`get`](Self::get).
    pub(crate) fn get_mut(&mut self, id: &RunId) -> Option<&mut Run> {
        self.0.get_mut(&id.task).filter(|run| run.id.token == id.token)
    }

    /// As [`get`](Self::get).
    pub(crate) fn remove(&mut self, id: &RunId) -> Option<Run> {
        self.get(id)?;
        self.0.remove(&id.task)
    }

    /// The latest run of a task.
    pub(crate) fn of_task(&mut self, task: &TaskId) -> Option<&mut Run> {
        self.0.get_mut(task)
    }

    pub(crate) fn iter(&self) -> hash_map::Values<'_, TaskId, Run> {
        self.0.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
