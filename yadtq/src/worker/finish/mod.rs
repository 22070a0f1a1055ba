//! What follows the end of a run: its record in the store, the next record or the dead letter, and the completed offset.
//!
//! ```text
//!  ended ─► outcome (what becomes of the task) ─► completer (the store records it)
//!             ├─ succeeded, revoked ───────────────────────────────────────► offset completed
//!             ├─ failed ──────────► dead letter ─┐
//!             ├─ retry, waits ────► reschedule ──┴─► publisher (Kafka has it) ─► offset completed; of a dead letter it is noted
//!             │        └─ with an ordering key: the record waits in its place
//!             └─ given back ──────► the record is claimed again
//! ```

pub(super) mod carrier;
pub(super) mod completer;
mod dead_letter;
mod outcome;
pub(super) mod publisher;
mod reschedule;
#[cfg(test)]
mod tests;
pub(super) mod too_large;

use std::{collections::VecDeque, sync::Arc};

use self::{completer::Completer, publisher::Publication};
use super::{
    effect::{DeadLetter, Ended, NextRecord},
    job::Position,
    options::Plan,
    runs::run::Run,
};
use crate::{
    broker::Incoming,
    core::names::{Namespace, TaskId, WorkerId},
};

/// The most dead letters that are noted with one call.
const NOTE_BATCH: usize = 256;

/// The part of a worker that records ends, and publishes what follows.
pub(super) struct Finisher {
    worker: WorkerId,
    plan: Arc<Plan>,
    namespace: Namespace,
    pub(super) completer: Completer,
    /// Tasks and `seq`s whose dead letters are acknowledged, until that is noted.
    dead_lettered: VecDeque<(TaskId, u64)>,
}

impl Finisher {
    pub(super) fn new(worker: &WorkerId, plan: &Arc<Plan>, namespace: &Namespace) -> Self {
        Self {
            worker: Arc::clone(worker),
            plan: Arc::clone(plan),
            namespace: namespace.clone(),
            completer: Completer::new(worker, plan),
            dead_lettered: VecDeque::new(),
        }
    }

    /// A run has ended, or will not start: its end is to be recorded.
    pub(super) fn run_ended(&mut self, run: &mut Run, ended: Ended, now_ms: u64) {
        self.completer.run_ended(run, ended, now_ms);
    }

    /// The record under which a task goes on.
    pub(super) fn next_record(&self, next: NextRecord, now_ms: u64) -> Publication {
        reschedule::next_record(&self.worker, &self.namespace, next, now_ms)
    }

    /// The dead letter of a task that has failed for good.
    pub(super) fn dead_letter(&self, dead: DeadLetter) -> Publication {
        dead_letter::of_failed(&self.worker, &self.namespace, dead, self.plan.options.retry)
    }

    /// A dead letter is acknowledged: that is to be noted, so that the record, should it come back, has no other one.
    pub(super) fn dead_lettered(&mut self, task: TaskId, seq: u64) {
        self.dead_lettered.push_back((task, seq));
    }

    /// The next dead letters to note.
    pub(super) fn take_dead_lettered(&mut self) -> Vec<(TaskId, u64)> {
        self.dead_lettered.drain(..self.dead_lettered.len().min(NOTE_BATCH)).collect()
    }

    /// Whether all dead letters are noted, but for a call under way.
    pub(super) fn has_noted_all(&self) -> bool {
        self.dead_lettered.is_empty()
    }

    /// The dead letter of a record that is no task.
    pub(super) fn unreadable(&self, at: Position, topic: &Arc<str>, record: &Incoming, reason: String) -> Publication {
        dead_letter::of_unreadable(&self.worker, &self.namespace, at, topic, record, reason)
    }
}
