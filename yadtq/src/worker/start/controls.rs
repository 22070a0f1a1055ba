//! The controls of operators that are in force: paused and purged queues, disabled tasks.
//!
//! ```text
//!  control topic ──► controls ──► sources: a paused one gives no jobs, a purged one gives up what is below its mark
//!                           └──► granted tasks: of a purged queue end as revoked, of a disabled name wait or fail
//! ```
//! Revocations of single tasks come the same way, but there may be many of them (`core/revocations.rs`). A worker deletes those that
//! are not needed any more.
//!
//! The topic is the truth. It is read to its end before the first claim, so that a paused queue stays paused over restarts,
//! and then followed.

use std::{collections::HashSet, sync::Arc};

use tracing::{error, info, warn};

use crate::{
    broker::{Event, Incoming},
    core::{
        controls::{ControlRecord, ControlState},
        names::{TaskId, WorkerId},
        revocations::{Revocations, Revoked},
    },
    wire::{control, envelope::Envelope},
    worker::job::Job,
};

/// The most revocations that are deleted with one call.
const FORGET_BATCH: usize = 1_000;
/// Number of tasks that have ended as revoked lately of which a worker keeps at least the ids.
const RECENT_REVOKED: usize = 10_000;

/// The controls that this worker knows.
pub(in crate::worker) struct ControlsState {
    worker: WorkerId,
    controls: Arc<ControlState>,
    revocations: Revocations,
    /// Tasks whose revocations are to be deleted.
    obsolete: Vec<TaskId>,
    /// Tasks that have ended as revoked lately: their revocations may be read later than that.
    revoked: [HashSet<TaskId>; 2],
    /// Whether the topic was read to the end that it had at the start.
    is_loaded: bool,
}

impl ControlsState {
    pub(in crate::worker) fn new(worker: &WorkerId) -> Self {
        Self {
            worker: Arc::clone(worker),
            controls: Arc::default(),
            revocations: Revocations::default(),
            obsolete: Vec::new(),
            revoked: Default::default(),
            is_loaded: false,
        }
    }

    pub(in crate::worker) fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    pub(in crate::worker) fn current(&self) -> &Arc<ControlState> {
        &self.controls
    }

    /// Applies the events of the control topic.
    pub(in crate::worker) fn read(&mut self, events: Vec<Event>, now_ms: u64) {
        let mut has_ended = false;
        for event in events {
            match event {
                Event::Records(records) => records.iter().for_each(|record| self.read_record(record, now_ms)),
                Event::EndReached(_) => has_ended = true,
                Event::Assigned(_) | Event::Revoked(_) => {}
            }
        }
        if has_ended {
            self.loaded();
        }
    }

    fn read_record(&mut self, record: &Incoming, now_ms: u64) {
        let Some(control) = control::read(record.key.as_deref().unwrap_or_default(), &record.value) else {
            return error!(event = "order_unreadable", worker = %self.worker, offset = record.offset,
                "a control that this version does not know; it is not applied");
        };
        let control = match control {
            ControlRecord::Revoke { task_id, at, until, known } => {
                return self.revoked(&task_id, Revoked { at, is_known: known }, until <= now_ms);
            }
            ControlRecord::Forget { task_id } => {
                self.revocations.take(&task_id, None);
                return;
            }
            control => control,
        };
        if self.is_loaded {
            info!(event = "order_taken", worker = %self.worker, order = %String::from_utf8_lossy(&record.value),
                "an operator's control is applied from now on");
        }
        self.take(control);
    }

    pub(super) fn take(&mut self, control: ControlRecord) {
        Arc::make_mut(&mut self.controls).take(control);
    }

    /// The controls that were there at the start are known: claims may begin.
    pub(in crate::worker) fn loaded(&mut self) {
        if std::mem::replace(&mut self.is_loaded, true) {
            return;
        }
        let controls = &self.controls;
        info!(event = "orders_loaded", worker = %self.worker,
            paused = ?controls.paused().map(|(queue, _)| queue).collect::<Vec<_>>(),
            disabled = ?controls.all_disabled().map(|(task, ..)| task).collect::<Vec<_>>(), "controls of operators are known");
    }

    fn revoked(&mut self, id: &str, revoked: Revoked, has_lapsed: bool) {
        let has_ended = revoked.is_known && self.revoked.iter().any(|ids| ids.contains(id));
        if has_lapsed || has_ended {
            self.obsolete.extend(id.parse::<TaskId>().ok());
            return;
        }
        let dropped = self.revocations.take(id, Some(revoked));
        if dropped > 0 {
            warn!(event = "revocations_dropped", worker = %self.worker, dropped,
                "too many revoked tasks were not read yet; the oldest would run if redis lost its data");
        }
    }

    /// Whether this task was revoked before the store lost its memory.
    pub(super) fn is_revoked(&self, job: &Job) -> bool {
        let Envelope { id, replayed, .. } = &job.envelope;
        self.revocations.covers(id.as_str(), replayed.unwrap_or(0))
    }

    /// A record of the task has ended as revoked: its revocation is not needed any more.
    pub(in crate::worker) fn has_ended_revoked(&mut self, id: &TaskId) {
        if self.revocations.ends_with_a_record(id.as_str()) {
            self.revocations.take(id.as_str(), None);
            self.obsolete.push(id.clone());
            return;
        }
        if self.revoked[0].len() >= RECENT_REVOKED {
            self.revoked.swap(0, 1);
            self.revoked[0].clear();
        }
        self.revoked[0].insert(id.clone());
    }

    /// Tasks whose revocations are to be deleted, at most a batch.
    pub(in crate::worker) fn take_obsolete(&mut self) -> Vec<TaskId> {
        let count = self.obsolete.len().min(FORGET_BATCH);
        self.obsolete.drain(..count).collect()
    }

    /// Kafka did not take these deletions.
    pub(in crate::worker) fn put_back_obsolete(&mut self, ids: Vec<TaskId>) {
        self.obsolete.extend(ids);
    }

    /// Whether a control says that a task must not start, or not now.
    pub(in crate::worker) fn withhold(&self, job: &Job) -> bool {
        let (controls, ask) = (&self.controls, &job.ask);
        controls.is_paused(&ask.queue)
            || controls.disabled(&ask.task).is_some()
            || is_purged(job, controls)
            || self.is_revoked(job)
    }

    /// Whether a queue is paused: then tasks may have been claimed that must not start.
    pub(in crate::worker) fn has_paused(&self) -> bool {
        self.controls.paused().next().is_some()
    }
}

/// Whether an operator has purged the queue of this job after it was sent.
pub(super) fn is_purged(job: &Job, controls: &ControlState) -> bool {
    let mark = controls.mark(&job.ask.queue, job.at.source.priority);
    mark.is_some_and(|mark| mark.covers(job.at.partition, job.at.offset, job.record.timestamp_ms))
}
