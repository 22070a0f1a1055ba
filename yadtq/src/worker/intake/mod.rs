//! From polled records to jobs that are ready to be claimed, and from completed offsets to what is committed.
//!
//! ```text
//!  poll ─► unreadable: dead letter
//!       └► job ─► ordering lane, if it has a key ─► ready, by source and lane ─► taken for a claim
//!  completed offset ─► offset tracker (core/offsets.rs) ─► next offset to commit, and what has ended above it
//! ```
//! Which partitions are this worker's, and how much of them it has in memory, is known here alone. Invariants 2, 6 and 8
//! of ARCHITECTURE.md are kept here.

mod offerable;
mod ordering_lanes;
pub(super) mod ownership;
mod priorities;
mod source;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{debug, info, warn};

use self::{
    priorities::Priorities,
    source::{Completed, Source},
};
use super::{
    effect::{Effect, Effects},
    job::{Job, Lane, Position, SourceId, TopicId},
    options::Plan,
};
use crate::{
    broker::{Assigned, Event, Incoming},
    core::{
        controls::ControlState,
        lifecycle::ClaimRequest,
        names::{Namespace, WorkerId},
        text::Escaped,
    },
    wire::{
        envelope::{Envelope, Unreadable},
        offer::Place,
    },
};

/// The time from one store of what has ended out of order to the next.
const STORE_INTERVAL: Duration = Duration::from_millis(500);
/// The time from one look at the oldest records to the next, if nothing has ended meanwhile.
const CARRY_INTERVAL: Duration = Duration::from_secs(5);

/// The sources of a worker.
pub(super) struct Intake {
    worker: WorkerId,
    plan: Arc<Plan>,
    sources: Vec<Source>,
    priorities: [Priorities; 2],
    /// The latest epoch: no two assignments of this worker share one.
    epoch: u64,
    /// The latest nonce: no two claims of this worker share one.
    nonce: u64,
    is_stopped: bool,
    /// What has ended out of order since that was stored last.
    ended: Completed,
    /// Whether something had ended out of order then.
    has_gaps: bool,
    stored: Instant,
}

impl Intake {
    pub(super) fn new(worker: &WorkerId, plan: &Arc<Plan>, namespace: &Namespace, now: Instant) -> Self {
        let queues = plan.queues.len();
        let source = |id: SourceId| Source::new(id, namespace, &plan.queues[id.queue]);
        Self {
            worker: Arc::clone(worker),
            plan: Arc::clone(plan),
            sources: SourceId::all(queues).map(source).collect(),
            priorities: priorities::of_lanes(queues, plan.options.strict_priority),
            epoch: 0,
            nonce: 0,
            is_stopped: false,
            ended: Completed::InOrder,
            has_gaps: false,
            stored: now,
        }
    }

    pub(super) fn topic(&self, id: SourceId) -> &Arc<str> {
        &self.source(id).topic
    }

    /// The source's topic exists.
    pub(super) fn joined(&mut self, id: SourceId) {
        let source = &mut self.sources[id.index()];
        let is_new = !std::mem::replace(&mut source.is_joined, true);
        if is_new && !id.priority.is_normal() {
            info!(event = "priority_joined", worker = %self.worker, queue = %source.queue, priority = %id.priority,
                topic = %source.topic, "the queue has tasks of this priority");
        }
    }

    /// Polls the sources that have room for more.
    pub(super) fn poll(&mut self, out: &mut Effects) {
        if !self.is_stopped {
            self.sources.iter_mut().for_each(|source| source.poll(out));
        }
    }

    /// Takes nothing more from any source, and drops the jobs that wait.
    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
        self.sources.iter_mut().for_each(Source::clear);
    }

    /// Takes the events that a poll has returned.
    pub(super) fn polled(&mut self, id: SourceId, events: Vec<Event>, now: Instant, out: &mut Effects) {
        self.sources[id.index()].is_polling = false;
        if self.is_stopped {
            return;
        }
        for event in events {
            match event {
                Event::Assigned(partitions) => self.assigned(id, &partitions),
                Event::Revoked(partitions) => self.revoked(id, partitions, out),
                Event::Records(records) => {
                    records.into_iter().for_each(|record| self.received(id, record, now, out));
                }
                Event::EndReached(_) => {}
            }
        }
        self.sources[id.index()].pause_full_windows(out);
    }

    fn assigned(&mut self, id: SourceId, assigned: &[Assigned]) {
        let source = &mut self.sources[id.index()];
        let partitions: Vec<_> = assigned.iter().map(|assigned| assigned.partition).collect();
        info!(event = "partitions_assigned", worker = %self.worker, queue = %source.queue, priority = %id.priority,
            ?partitions, "partitions assigned");
        for assigned in assigned {
            self.epoch += 1;
            source.assigned(assigned, self.epoch);
        }
    }

    /// The partitions belong to another worker now. Tasks of them that run go on: their leases live, and the next owner watches
    /// them.
    pub(super) fn revoked(&mut self, id: SourceId, partitions: Vec<i32>, out: &mut Effects) {
        let source = &mut self.sources[id.index()];
        let partitions = source.revoked(partitions);
        if partitions.is_empty() {
            return;
        }
        info!(event = "partitions_revoked", worker = %self.worker, queue = %source.queue, priority = %id.priority,
            ?partitions, "partitions revoked");
        out.push_back(Effect::GiveBack { source: id, partitions });
        // A slot may have been kept for what is gone.
        out.push_back(Effect::FillSlots);
    }

    fn received(&mut self, id: SourceId, record: Incoming, now: Instant, out: &mut Effects) {
        let source = &mut self.sources[id.index()];
        let fresh_epoch = || {
            self.epoch += 1;
            self.epoch
        };
        let Some((epoch, has_ended)) = source.started(&record, fresh_epoch, out) else { return };
        let (partition, offset) = (record.partition, record.offset);
        let at = Position { source: id, partition, epoch, offset, bytes: record.size() };
        if has_ended {
            debug!(event = "record_ended_before", worker = %self.worker, topic = %source.topic, partition, offset,
                "the owner before has committed that it ended");
            return self.complete(at, out);
        }
        let topic = Arc::clone(&source.topic);
        let max = self.plan.options.max_record_bytes;
        let read = match record.value.len() {
            len if len > max => Err(Unreadable::TooLarge { len, max }),
            _ => Envelope::read(&record.value),
        };
        let envelope = match read {
            Ok(envelope) => envelope,
            Err(error) => {
                let reason = error.to_string();
                warn!(event = "record_unreadable", worker = %self.worker, %topic, partition, offset, error = reason,
                    "not a task; it becomes a dead letter");
                return out.push_back(Effect::Unreadable { at, topic, record, reason });
            }
        };
        debug!(event = "task_received", worker = %self.worker, task_id = %envelope.id.shown(), task = %Escaped(&envelope.task),
            queue = %source.queue, %topic, priority = %envelope.priority, attempt = envelope.attempt, partition, offset,
            "task received");
        let job = self.job(at, record, envelope, now);
        self.sources[id.index()].enter(job);
    }

    fn job(&mut self, at: Position, record: Incoming, envelope: Envelope, received: Instant) -> Arc<Job> {
        self.nonce += 1;
        let source = &self.sources[at.source.index()];
        let (topic, task, queue) = (Arc::clone(&source.topic), Arc::clone(&envelope.task), Arc::clone(&source.queue));
        let ask = ClaimRequest { seq: envelope.seq, attempt: envelope.attempt, nonce: self.nonce, task, queue };
        let definition = self.plan.tasks.get(&*envelope.task).cloned();
        Arc::new(Job { at, topic, record, envelope, ask: Arc::new(ask), definition, received, unknown_at: None })
    }

    /// The source that this topic is of; `None`: it is that of the delayed tasks.
    pub(super) fn source_of(&self, topic: TopicId) -> Option<SourceId> {
        self.source_ids().nth(topic.index())
    }

    /// The record has ended or was published anew.
    pub(super) fn complete(&mut self, at: Position, out: &mut Effects) {
        let completed = self.sources[at.source.index()].complete(at, out);
        self.ended = self.ended.max(completed);
    }

    /// A record was to be published again. If that has worked, its offset is completed. `waits`: as in [`due`](Self::due).
    pub(super) fn carried(
        &mut self, job: &Job, is_published: bool, now: Instant, waits: &dyn Fn(&Job) -> bool, out: &mut Effects,
    ) {
        let at = job.at;
        let source = &mut self.sources[at.source.index()];
        if !source.carried(at) || !is_published {
            return;
        }
        info!(event = "task_carried", worker = %self.worker, task_id = %job.envelope.id.shown(), task = %Escaped(&job.ask.task),
            topic = %job.topic, partition = at.partition, offset = at.offset,
            "its record was published again, so that what ended behind it can be committed");
        self.complete(at, out);
        self.carry(at.source, now, waits, out);
    }

    fn carry(&mut self, id: SourceId, now: Instant, waits: &dyn Fn(&Job) -> bool, out: &mut Effects) {
        if !self.is_stopped {
            self.sources[id.index()].carry(now, waits, out);
        }
    }

    /// Stores what has ended out of order, and carries the records that hold it back, if it is time. `waits` says
    /// of which records it is known that they are not claimed yet, although they are not here.
    pub(super) fn due(&mut self, now: Instant, waits: &dyn Fn(&Job) -> bool, out: &mut Effects) {
        if self.next_due().is_none_or(|due| due > now) {
            return;
        }
        if now >= self.stored + STORE_INTERVAL {
            self.stored = now;
            self.sources.iter_mut().for_each(|source| source.store(|_| true, out));
            self.ended = Completed::InOrder;
        } else {
            self.ended = Completed::OutOfOrder;
        }
        self.source_ids().for_each(|id| self.carry(id, now, waits, out));
        self.has_gaps = self.sources.iter().any(Source::has_gaps);
    }

    /// When [`due`](Self::due) has to be called although nothing happens.
    pub(super) fn next_due(&self) -> Option<Instant> {
        match self.ended {
            Completed::HeldUp => Some(self.stored),
            Completed::OutOfOrder => Some(self.stored + STORE_INTERVAL),
            Completed::InOrder => self.has_gaps.then_some(self.stored + CARRY_INTERVAL),
        }
    }

    /// Stores all that has ended in these partitions, because nothing can be stored for them later.
    pub(super) fn store(&mut self, id: SourceId, partitions: &[i32], out: &mut Effects) {
        self.sources[id.index()].store(|partition| partitions.contains(&partition), out);
    }

    /// Whether the record is this worker's to run: its partition has been this worker's since it was read, and it is not completed,
    /// as one that was carried is.
    pub(super) fn owns(&self, at: Position) -> bool {
        self.source(at.source).owns(at)
    }

    /// The job is ready (again), unless its record is completed, or belongs to another worker now.
    pub(super) fn ask(&mut self, job: Arc<Job>) {
        let source = &mut self.sources[job.at.source.index()];
        if source.owns(job.at) {
            source.push(job);
        }
    }

    /// Where a record was read, if it is open.
    pub(super) fn position_of(&self, place: Place) -> Option<Position> {
        let source = self.sources.get(usize::try_from(place.source).ok()?)?;
        source.open_job(place.partition, place.epoch, place.offset).map(|job| job.at)
    }

    /// A claim of the job was not answered: it is the first to be claimed again.
    pub(super) fn put_back(&mut self, job: Arc<Job>) {
        let source = &mut self.sources[job.at.source.index()];
        if source.owns(job.at) {
            source.push_front(job);
        }
    }

    /// The same record, for a claim that is a new one and not a repeated one.
    pub(super) fn renewed(&mut self, mut job: Job) -> Arc<Job> {
        self.nonce += 1;
        Arc::make_mut(&mut job.ask).nonce = self.nonce;
        Arc::new(job)
    }

    pub(super) fn source_ids(&self) -> impl Iterator<Item = SourceId> + use<> {
        SourceId::all(self.plan.queues.len())
    }

    /// Whether the source has a job that may be claimed.
    pub(super) fn is_ready(&self, id: SourceId, lane: Lane) -> bool {
        self.source(id).is_ready(lane)
    }

    /// The next job of a lane, from the source whose turn it is.
    pub(super) fn take(&mut self, lane: Lane) -> Option<Arc<Job>> {
        let sources = &self.sources;
        let next = self.priorities[lane as usize].next(|id| sources[id.index()].is_ready(lane))?;
        self.sources[next.index()].pop(lane)
    }

    /// The next job of a lane from this source.
    pub(super) fn take_from(&mut self, id: SourceId, lane: Lane) -> Option<Arc<Job>> {
        self.sources[id.index()].pop(lane)
    }

    /// Adds at most `most` jobs that were purged, from all queues.
    pub(super) fn take_purged(&mut self, most: usize, jobs: &mut Vec<Arc<Job>>) {
        let most = jobs.len() + most;
        for source in &mut self.sources {
            jobs.extend(source.pop_purged(most - jobs.len()));
        }
    }

    /// Applies the controls of operators to what waits here.
    pub(super) fn apply(&mut self, controls: &ControlState) {
        for source in &mut self.sources {
            source.apply(controls);
        }
    }

    fn source(&self, id: SourceId) -> &Source {
        &self.sources[id.index()]
    }
}
