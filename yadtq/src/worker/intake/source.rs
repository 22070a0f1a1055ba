//! One queue of a worker, at one priority: its partitions, its records that wait for a slot, and when no more are taken.
//!
//! Bounded in two ways. A partition whose window between oldest unfinished and newest record grows to [`WINDOW`] is
//! paused until half of it is done. A source of which [`READY_JOBS`] wait for a slot, or [`OPEN_BYTES`] are unfinished,
//! is not polled; the broker then keeps what it has prefetched, and fetches no more.
//!
//! What has ended in order is stored at once, to be committed. As long as something has ended out of order, the commit also
//! says what (`core/finished_set.rs`), and is stored twice a second at most, because that has to be worked out.
//!
//! A record that holds back the commit of others for too long is carried: it is published again at the end of the topic, and
//! its offset is completed once Kafka has the copy. Never one with an ordering key, whose place counts.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;
use tracing::{debug, warn};

use super::ordering_lanes::OrderingLanes;
use crate::{
    broker::{Assigned, Incoming},
    core::{
        carry::Window,
        controls::{ControlState, PurgeMark},
        finished_set::FinishedSet,
        names::{Namespace, Queue},
        offsets::{Head, OffsetTracker, Started},
    },
    worker::{
        effect::{Effect, Effects},
        job::{Job, Lane, Position, SourceId},
    },
};

/// Offsets between the oldest unfinished and the newest record at which a partition is paused.
const WINDOW: u64 = 10_000;
/// Number of records waiting for a slot at which a source is full.
const READY_JOBS: usize = 4_096;
/// Bytes of unfinished records at which a source is full.
const OPEN_BYTES: usize = 64 * 1_024 * 1_024;
/// The most records of a partition that are carried at once.
const CARRIES: usize = 4;

/// One topic that this worker takes from.
pub(super) struct Source {
    id: SourceId,
    pub(super) queue: Arc<str>,
    pub(super) topic: Arc<str>,
    /// Whether the topic is known to exist.
    pub(super) is_joined: bool,
    partitions: HashMap<i32, Partition>,
    /// Jobs that may be claimed, by lane.
    ready: [VecDeque<Arc<Job>>; 2],
    /// Purged records, which end without running.
    purged: VecDeque<Arc<Job>>,
    /// Up to where an operator has purged the queue.
    mark: Option<PurgeMark>,
    /// Whether an operator has paused the queue: then nothing is ready, and once enough is here, the rest stays in Kafka.
    is_on_hold: bool,
    /// Whether a poll is under way.
    pub(super) is_polling: bool,
}

struct Partition {
    /// Keeps the jobs that can be carried.
    tracker: OffsetTracker<Arc<Job>>,
    /// Bytes of its unfinished records.
    bytes: usize,
    /// Its records with an ordering key.
    lanes: OrderingLanes<Arc<Job>>,
    /// Whether its window is full.
    is_paused: bool,
    /// Offsets of records that are being carried.
    carried: Vec<i64>,
}

/// What follows from the end of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Completed {
    /// Nothing.
    InOrder,
    /// What has ended is to be [stored](Source::store) in due time.
    OutOfOrder,
    /// Heads are to be [carried](Source::carry), because nothing more can be read.
    HeldUp,
}

impl Partition {
    /// `noted`: what has ended already above the offset that it is read from.
    fn new(epoch: u64, noted: FinishedSet) -> Self {
        let tracker = OffsetTracker::new(epoch, noted);
        Self { tracker, bytes: 0, lanes: OrderingLanes::default(), is_paused: false, carried: Vec::new() }
    }

    /// Whether nothing more is read until the oldest record is carried.
    fn is_held_up(&self) -> bool {
        self.is_paused && self.tracker.open().next().is_some_and(|head| window(&head).is_held_up())
    }

    /// The oldest records, if they are to be carried now. `waits` says whether a job waits to be claimed: then it is carried only
    /// if nothing more can be read, because its worker would have it twice.
    fn carry(&mut self, waits: impl Fn(&Arc<Job>) -> bool, now: Instant, out: &mut Effects) {
        for head in self.tracker.open().take(CARRIES) {
            // One that cannot be carried holds all others back.
            let Some(job) = head.kept else { return };
            let (window, offset) = (window(&head), head.offset);
            let age = now.saturating_duration_since(job.received);
            if !window.is_held_up() && (!window.is_held_long(age) || waits(job)) {
                return;
            }
            if !self.carried.contains(&offset) {
                self.carried.push(offset);
                out.push_back(Effect::Carry(Arc::clone(job)));
            }
        }
    }
}

impl Source {
    pub(super) fn new(id: SourceId, namespace: &Namespace, queue: &Queue) -> Self {
        Self {
            id,
            queue: queue.shared(),
            topic: namespace.topic_of(queue, id.priority).into(),
            is_joined: false,
            partitions: HashMap::new(),
            ready: Default::default(),
            purged: VecDeque::new(),
            mark: None,
            is_on_hold: false,
            is_polling: false,
        }
    }

    pub(super) fn is_ready(&self, lane: Lane) -> bool {
        !self.is_on_hold && !self.ready[lane as usize].is_empty()
    }

    pub(super) fn assigned(&mut self, assigned: &Assigned, epoch: u64) {
        let noted = assigned.committed.as_ref().map(|at| FinishedSet::read(at.next, &at.metadata)).unwrap_or_default();
        self.partitions.insert(assigned.partition, Partition::new(epoch, noted));
    }

    /// What waits for a slot goes: the next owner has it. Returns those of the partitions that were this worker's.
    pub(super) fn revoked(&mut self, mut partitions: Vec<i32>) -> Vec<i32> {
        partitions.retain(|partition| self.partitions.remove(partition).is_some());
        for queue in self.ready.iter_mut().chain([&mut self.purged]) {
            queue.retain(|job| !partitions.contains(&job.at.partition));
        }
        partitions
    }

    /// Notes a record that was read; returns the epoch of its partition's assignment, and whether the record has ended already.
    /// `None`: the partition is not ours.
    ///
    /// An offset that was read before means that the log starts anew: its topic was deleted and made again, or its
    /// end was lost with a broker. Then offsets below mean other records, and are counted from scratch.
    pub(super) fn started(
        &mut self, record: &Incoming, fresh_epoch: impl FnOnce() -> u64, out: &mut Effects,
    ) -> Option<(u64, bool)> {
        let partition = self.partitions.get_mut(&record.partition)?;
        let mut started = partition.tracker.start(record.offset, record.timestamp_ms);
        if started == Started::Again {
            warn!(event = "partition_rewound", topic = %self.topic, partition = record.partition, offset = record.offset,
                "the log goes on at an earlier offset: was the topic deleted?");
            if partition.is_paused {
                out.push_back(Effect::Resume(self.id, record.partition));
            }
            *partition = Partition::new(fresh_epoch(), FinishedSet::default());
            started = partition.tracker.start(record.offset, record.timestamp_ms);
            out.push_back(Effect::StoreOffset(self.id, record.partition, record.offset, String::new()));
        }
        partition.bytes += record.size();
        Some((partition.tracker.epoch(), started == Started::HasEnded))
    }

    /// The record has ended or was published anew: its offset can be committed with those below it.
    pub(super) fn complete(&mut self, at: Position, out: &mut Effects) -> Completed {
        let Some(partition) = self.partitions.get_mut(&at.partition) else { return Completed::InOrder };
        if !partition.tracker.finish(at.epoch, at.offset) {
            return Completed::InOrder;
        }
        partition.bytes = partition.bytes.saturating_sub(at.bytes);
        let next_in_lane = partition.lanes.leave(at.offset);
        let completed = match partition.tracker.has_gaps() {
            true if partition.is_held_up() => Completed::HeldUp,
            true => Completed::OutOfOrder,
            false => Completed::InOrder,
        };
        if completed == Completed::InOrder
            && let Some((next, metadata)) = partition.tracker.commit()
        {
            out.push_back(Effect::StoreOffset(self.id, at.partition, next, metadata));
        }
        if partition.is_paused && partition.tracker.window() <= WINDOW / 2 {
            partition.is_paused = false;
            out.push_back(Effect::Resume(self.id, at.partition));
        }
        if let Some(job) = next_in_lane {
            self.push(job);
        }
        completed
    }

    /// Carries the oldest records, where it is time. `waits`: whether a record waits to be claimed that is not ready here.
    pub(super) fn carry(&mut self, now: Instant, waits: &dyn Fn(&Job) -> bool, out: &mut Effects) {
        let ready = &self.ready;
        let waits = |job: &Arc<Job>| waits(job) || ready.iter().flatten().any(|waiting| waiting.at == job.at);
        self.partitions.values_mut().for_each(|partition| partition.carry(waits, now, out));
    }

    /// A record is not being carried any more. `false`: its partition has been given away since.
    pub(super) fn carried(&mut self, at: Position) -> bool {
        let partition = self.partitions.get_mut(&at.partition);
        let Some(partition) = partition.filter(|partition| partition.tracker.epoch() == at.epoch) else { return false };
        partition.carried.retain(|&offset| offset != at.offset);
        true
    }

    /// Whether something has ended out of order.
    pub(super) fn has_gaps(&self) -> bool {
        self.partitions.values().any(|partition| partition.tracker.has_gaps())
    }

    /// Stores what has ended in these partitions.
    pub(super) fn store(&mut self, is_one: impl Fn(i32) -> bool, out: &mut Effects) {
        for (&id, partition) in self.partitions.iter_mut().filter(|(id, _)| is_one(**id)) {
            if let Some((next, metadata)) = partition.tracker.commit() {
                out.push_back(Effect::StoreOffset(self.id, id, next, metadata));
            }
        }
    }

    /// Whether the record is not completed, and its partition has not been given away since it was read.
    pub(super) fn owns(&self, at: Position) -> bool {
        self.partitions.get(&at.partition).is_some_and(|partition| partition.tracker.is_open(at.epoch, at.offset))
    }

    /// The job of a record that is open.
    pub(super) fn open_job(&self, partition: i32, epoch: u64, offset: i64) -> Option<&Arc<Job>> {
        self.partitions.get(&partition)?.tracker.kept(epoch, offset)
    }

    /// A job that was read is ready, unless it has to wait for another of its ordering key.
    pub(super) fn enter(&mut self, job: Arc<Job>) {
        let Some(partition) = self.partitions.get_mut(&job.at.partition) else { return };
        let head = match job.envelope.ordering_key.clone() {
            Some(key) => partition.lanes.enter(&key, job.at.offset, job),
            None => {
                partition.tracker.keep(job.at.offset, Arc::clone(&job));
                Some(job)
            }
        };
        if let Some(job) = head {
            self.push(job);
        }
    }

    pub(super) fn push(&mut self, job: Arc<Job>) {
        self.queue_of(&job).push_back(job);
    }

    pub(super) fn push_front(&mut self, job: Arc<Job>) {
        self.queue_of(&job).push_front(job);
    }

    fn queue_of(&mut self, job: &Job) -> &mut VecDeque<Arc<Job>> {
        let (at, written) = (job.at, job.record.timestamp_ms);
        match &self.mark {
            Some(mark) if mark.covers(at.partition, at.offset, written) => &mut self.purged,
            _ => &mut self.ready[job.lane() as usize],
        }
    }

    /// Applies the controls of operators: the queue is paused or not, and this much of it was purged.
    pub(super) fn apply(&mut self, controls: &ControlState) {
        self.is_on_hold = controls.is_paused(&self.queue);
        let mark = controls.mark(&self.queue, self.id.priority);
        if self.mark.as_ref() != mark {
            self.mark = mark.cloned();
            let ready = self.ready.each_mut().map(std::mem::take);
            ready.into_iter().flatten().for_each(|job| self.push(job));
        }
    }

    pub(super) fn pop(&mut self, lane: Lane) -> Option<Arc<Job>> {
        self.ready[lane as usize].pop_front()
    }

    /// Ready jobs that other workers may run.
    pub(super) fn offerable(&self, lane: Lane) -> impl Iterator<Item = &Arc<Job>> {
        let ready = (!self.is_on_hold).then_some(&self.ready[lane as usize]);
        ready.into_iter().flatten().filter(|job| job.may_be_offered())
    }

    /// Takes out ready jobs of this task that other workers may run and for which `which` holds, until there are `most`.
    pub(super) fn take_offerable(
        &mut self, task: &str, most: usize, which: impl Fn(&Job) -> bool, taken: &mut Vec<Arc<Job>>,
    ) {
        for ready in self.ready.iter_mut().filter(|_| !self.is_on_hold) {
            ready.retain(|job| {
                let takes = taken.len() < most && *job.ask.task == *task && job.may_be_offered() && which(job);
                if takes {
                    taken.push(Arc::clone(job));
                }
                !takes
            });
        }
    }

    /// Some of what was purged.
    pub(super) fn pop_purged(&mut self, most: usize) -> impl Iterator<Item = Arc<Job>> {
        self.purged.drain(..self.purged.len().min(most))
    }

    pub(super) fn clear(&mut self) {
        self.ready.iter_mut().chain([&mut self.purged]).for_each(VecDeque::clear);
    }

    /// Pauses partitions whose window is full.
    pub(super) fn pause_full_windows(&mut self, out: &mut Effects) {
        for (&id, partition) in self.partitions.iter_mut().filter(|(_, partition)| !partition.is_paused) {
            if partition.tracker.window() >= WINDOW {
                partition.is_paused = true;
                out.push_back(Effect::Pause(self.id, id));
                debug!(event = "partition_paused", queue = %self.queue, priority = %self.id.priority, partition = id,
                    "its oldest task has been running while {WINDOW} others came");
            }
        }
    }

    /// Polls, if there is room for more.
    pub(super) fn poll(&mut self, out: &mut Effects) {
        let jobs: usize = self.ready.iter().chain([&self.purged]).map(VecDeque::len).sum();
        let bytes: usize = self.partitions.values().map(|partition| partition.bytes).sum();
        if self.is_joined && !self.is_polling && jobs < READY_JOBS && bytes < OPEN_BYTES {
            self.is_polling = true;
            out.push_back(Effect::Poll(self.id));
        }
    }
}

fn window<T>(head: &Head<'_, T>) -> Window {
    Window { size: head.size, done: head.done, limit: WINDOW }
}
