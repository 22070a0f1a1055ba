//! One queue of a worker, of one priority: its partitions, what of it waits for a slot, and when enough is enough.
//!
//! Bounded in two ways. A partition whose window between oldest unfinished and newest record grows to [`WINDOW`] is
//! paused until half of it is done. A queue of which [`READY_JOBS`] wait for a slot, or [`OPEN_BYTES`] are unfinished,
//! is not polled; if that lasts, it is paused and polled on, because a member that does not poll is put out of its
//! group. Pausing throws prefetched records away, hence the wait before it and the hysteresis.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{
    job::{Job, Lane, Position},
    lines::Lines,
};
use crate::{
    broker::{Broker, BrokerError, Incoming, Subscription},
    core::{
        names::{Namespace, Queue},
        offsets::OffsetTracker,
        orders::Mark,
        priority::Priority,
    },
};

const WINDOW: u64 = 10_000;
const READY_JOBS: usize = 4_096;
const OPEN_BYTES: usize = 64 * 1_024 * 1_024;
/// How long a full queue may be left alone.
pub(super) const PATIENCE: Duration = Duration::from_millis(300);

/// One topic that this worker takes from.
pub(super) struct Source {
    pub(super) queue: Arc<str>,
    pub(super) priority: Priority,
    pub(super) topic: Arc<str>,
    /// `None` while there is no such topic.
    subscription: Option<Arc<dyn Subscription>>,
    partitions: HashMap<i32, Partition>,
    ready: [VecDeque<Arc<Job>>; 2],
    /// What was purged, and is to be ended without running.
    doomed: VecDeque<Arc<Job>>,
    mark: Option<Mark>,
    /// An operator has paused the queue: nothing is ready, and what comes waits in Kafka once enough is here.
    on_hold: bool,
    polling: bool,
    full: Full,
}

struct Partition {
    tracker: OffsetTracker,
    /// Bytes of its unfinished records.
    bytes: usize,
    /// Its records with an ordering key.
    lines: Lines<Arc<Job>>,
    /// Its window is full.
    paused: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Full {
    No,
    /// Not polled, since then.
    Waiting(Instant),
    /// Everything is paused.
    Paused,
}

impl Partition {
    fn new(epoch: u64) -> Self {
        Self { tracker: OffsetTracker::new(epoch), bytes: 0, lines: Lines::default(), paused: false }
    }
}

impl Source {
    pub(super) fn new(namespace: &Namespace, queue: &Queue, priority: Priority) -> Self {
        Self {
            queue: queue.shared(),
            priority,
            topic: namespace.topic_of(queue, priority).into(),
            subscription: None,
            partitions: HashMap::new(),
            ready: Default::default(),
            doomed: VecDeque::new(),
            mark: None,
            on_hold: false,
            polling: false,
            full: Full::No,
        }
    }

    /// Joins the group of its topic, which is created if it is missing.
    pub(super) fn join(&mut self, broker: &dyn Broker) -> Result<(), BrokerError> {
        self.subscription = Some(broker.subscribe(&self.topic)?);
        Ok(())
    }

    pub(super) fn subscription(&self) -> Option<&Arc<dyn Subscription>> {
        self.subscription.as_ref()
    }

    pub(super) fn is_ready(&self, lane: Lane) -> bool {
        !self.on_hold && !self.ready[lane as usize].is_empty()
    }

    pub(super) fn is_polling(&self) -> bool {
        self.polling
    }

    pub(super) fn polled(&mut self) {
        self.polling = false;
    }

    /// The subscription, if it is time to poll it.
    pub(super) fn poll(&mut self) -> Option<Arc<dyn Subscription>> {
        let subscription = self.subscription.as_ref()?;
        let due = !self.polling && !matches!(self.full, Full::Waiting(_));
        self.polling |= due;
        due.then(|| Arc::clone(subscription))
    }

    pub(super) fn assigned(&mut self, partition: i32, epoch: u64) {
        self.partitions.insert(partition, Partition::new(epoch));
        if let Some(subscription) = self.subscription.as_ref().filter(|_| self.full == Full::Paused) {
            subscription.pause(partition);
        }
    }

    /// What waits for a slot goes: the next owner has it.
    pub(super) fn revoked(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.partitions.remove(partition);
        }
        for lane in self.ready.iter_mut().chain([&mut self.doomed]) {
            lane.retain(|job| !partitions.contains(&job.at.partition));
        }
    }

    /// Notes a record that was read; tells the assignment of its partition. `None`: it is not ours.
    ///
    /// An offset that was read before means that the log starts anew: its topic was deleted and made again, or its
    /// end was lost with a broker. Then offsets below mean other records, and are counted from scratch.
    pub(super) fn started(&mut self, record: &Incoming, fresh_epoch: impl FnOnce() -> u64) -> Option<u64> {
        let (partition, subscription) = (self.partitions.get_mut(&record.partition)?, self.subscription.as_ref()?);
        if !partition.tracker.start(record.offset) {
            warn!(event = "partition_rewound", topic = %self.topic, partition = record.partition, offset = record.offset,
                "the log goes on at an earlier offset: was the topic deleted?");
            if partition.paused && self.full != Full::Paused {
                subscription.resume(record.partition);
            }
            *partition = Partition::new(fresh_epoch());
            partition.tracker.start(record.offset);
            subscription.store(record.partition, record.offset);
        }
        partition.bytes += record.size();
        Some(partition.tracker.epoch())
    }

    /// The record is terminal or handed on: its offset can be committed with those below it.
    pub(super) fn finished(&mut self, at: Position) {
        let (Some(partition), Some(subscription)) = (self.partitions.get_mut(&at.partition), &self.subscription) else {
            return;
        };
        if partition.tracker.epoch() != at.epoch {
            return;
        }
        partition.bytes = partition.bytes.saturating_sub(at.bytes);
        let next_in_line = partition.lines.leave(at.offset);
        if let Some(next) = partition.tracker.finish(at.epoch, at.offset) {
            subscription.store(at.partition, next);
        }
        if partition.paused && partition.tracker.window() <= WINDOW / 2 {
            partition.paused = false;
            if self.full != Full::Paused {
                subscription.resume(at.partition);
            }
        }
        if let Some(job) = next_in_line {
            self.push(job);
        }
    }

    /// Whether the partition has not been given away since the record was read.
    pub(super) fn owns(&self, at: Position) -> bool {
        self.partitions.get(&at.partition).is_some_and(|partition| partition.tracker.epoch() == at.epoch)
    }

    /// A job that was read is ready, unless it has to wait for another of its ordering key.
    pub(super) fn line_up(&mut self, job: Arc<Job>) {
        let line = job.envelope.ordering_key.clone().zip(self.partitions.get_mut(&job.at.partition));
        let head = match line {
            Some((key, partition)) => partition.lines.enter(&key, job.at.offset, job),
            None => Some(job),
        };
        if let Some(job) = head {
            self.push(job);
        }
    }

    pub(super) fn push(&mut self, job: Arc<Job>) {
        self.place(&job).push_back(job);
    }

    pub(super) fn push_front(&mut self, job: Arc<Job>) {
        self.place(&job).push_front(job);
    }

    fn place(&mut self, job: &Job) -> &mut VecDeque<Arc<Job>> {
        let (at, written) = (job.at, job.record.timestamp_ms);
        match &self.mark {
            Some(mark) if mark.covers(at.partition, at.offset, written) => &mut self.doomed,
            _ => &mut self.ready[job.lane() as usize],
        }
    }

    /// Operators have paused the queue, or not, and purged this much.
    pub(super) fn obey(&mut self, on_hold: bool, mark: Option<Mark>) {
        self.on_hold = on_hold;
        if self.mark != mark {
            self.mark = mark;
            let ready = self.ready.each_mut().map(std::mem::take);
            ready.into_iter().flatten().for_each(|job| self.push(job));
        }
    }

    /// Some of what was purged.
    pub(super) fn pop_doomed(&mut self, most: usize) -> impl Iterator<Item = Arc<Job>> {
        self.doomed.drain(..self.doomed.len().min(most))
    }

    pub(super) fn pop(&mut self, lane: Lane) -> Option<Arc<Job>> {
        self.ready[lane as usize].pop_front()
    }

    pub(super) fn clear(&mut self) {
        self.ready.iter_mut().chain([&mut self.doomed]).for_each(VecDeque::clear);
    }

    /// Pauses partitions whose window is full.
    pub(super) fn mind_windows(&mut self) {
        let Some(subscription) = &self.subscription else { return };
        for (&id, partition) in self.partitions.iter_mut().filter(|(_, partition)| !partition.paused) {
            if partition.tracker.window() >= WINDOW {
                partition.paused = true;
                subscription.pause(id);
                debug!(event = "partition_paused", queue = %self.queue, priority = %self.priority, partition = id,
                    "its oldest task has been running while {WINDOW} others came");
            }
        }
    }

    /// Notices that the queue has become full, or has room again. `true`: look again after [`PATIENCE`].
    pub(super) fn gauge(&mut self) -> bool {
        let jobs: usize = self.ready.iter().chain([&self.doomed]).map(VecDeque::len).sum();
        let bytes: usize = self.partitions.values().map(|partition| partition.bytes).sum();
        let has_room = jobs < READY_JOBS && bytes < OPEN_BYTES;
        match self.full {
            Full::No if !has_room => {
                self.full = Full::Waiting(Instant::now());
                return true;
            }
            Full::Waiting(_) if has_room => self.full = Full::No,
            Full::Paused if jobs < READY_JOBS / 2 && bytes < OPEN_BYTES / 2 => {
                self.full = Full::No;
                self.each_open_partition(|subscription, partition| subscription.resume(partition));
            }
            _ => {}
        }
        false
    }

    /// Otherwise it had room meanwhile, and another look follows the new wait.
    pub(super) fn still_full(&mut self) {
        if matches!(self.full, Full::Waiting(since) if since.elapsed() >= PATIENCE) {
            self.full = Full::Paused;
            self.each_open_partition(|subscription, partition| subscription.pause(partition));
        }
    }

    fn each_open_partition(&self, act: impl Fn(&dyn Subscription, i32)) {
        let Some(subscription) = &self.subscription else { return };
        for (&id, _) in self.partitions.iter().filter(|(_, partition)| !partition.paused) {
            act(&**subscription, id);
        }
    }
}
