//! A record on its way through the worker, and the names of what it meets there.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    broker::Incoming,
    core::{
        lifecycle::{ClaimRequest, Token},
        names::TaskId,
        priority::{PerPriority, Priority},
    },
    task::{Body, Definition, TaskOptions},
    wire::{
        envelope::Envelope,
        offer::{MAX_OFFER_BYTES, OfferedRecord, Place},
    },
};

/// Names one source of the worker: the topic of one priority of one of its queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceId {
    /// Which of the worker's queues.
    pub(crate) queue: usize,
    pub(crate) priority: Priority,
}

/// Names one topic that this worker may own partitions of: that of a source, or that of the delayed tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TopicId(usize);

/// Names one run: a task, and the fence token of the claim that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunId {
    pub(crate) task: TaskId,
    pub(crate) token: Token,
}

/// Where a record was read, and in which assignment of its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) source: SourceId,
    pub(crate) partition: i32,
    /// The assignment of the partition: a later one has another epoch. [`FOREIGN`](Self::FOREIGN): the record was offered by
    /// another worker, which alone may complete its offset.
    pub(crate) epoch: u64,
    pub(crate) offset: i64,
    /// Size of the record in bytes.
    pub(crate) bytes: usize,
}

/// A record that was read as a task. Its offset stays open until it has ended.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) at: Position,
    pub(crate) topic: Arc<str>,
    pub(crate) record: Incoming,
    pub(crate) envelope: Envelope,
    /// What the worker asks the store for it.
    pub(crate) ask: Arc<ClaimRequest>,
    /// `None`: no task of that name is registered here.
    pub(crate) definition: Option<Definition>,
    /// When it was read.
    pub(crate) received: Instant,
    /// When its task counts as unknown, if it has waited for a worker that knows it.
    pub(crate) unknown_at: Option<Instant>,
}

/// Which slots a task takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Async,
    Blocking,
    /// For tasks that have crashed their workers, one at a time: so a task that kills its worker takes no other task with it.
    Quarantine,
}

impl Lane {
    pub(crate) const ALL: [Self; 3] = [Self::Async, Self::Blocking, Self::Quarantine];
    /// The lanes that records wait for. Only a claim shows that a task has crashed a worker.
    pub(crate) const OF_RECORDS: [Self; 2] = [Self::Async, Self::Blocking];
}

impl SourceId {
    /// The sources of this many queues.
    pub(crate) fn all(queues: usize) -> impl Iterator<Item = Self> {
        (0..queues).flat_map(Self::of_queue)
    }

    /// The sources of a queue, the highest priority first.
    pub(crate) fn of_queue(queue: usize) -> PerPriority<Self> {
        Priority::ALL.map(|priority| Self { queue, priority })
    }

    /// Its index among all sources of the worker.
    pub(crate) const fn index(self) -> usize {
        self.queue * Priority::ALL.len() + self.priority as usize
    }
}

impl Position {
    /// The epoch of a record that belongs to another worker.
    pub(crate) const FOREIGN: u64 = 0;

    /// Whether the record belongs to another worker, which has offered it.
    pub(crate) fn is_foreign(self) -> bool {
        self.epoch == Self::FOREIGN
    }
}

impl From<Position> for Place {
    fn from(Position { source, partition, epoch, offset, .. }: Position) -> Self {
        let source = u32::try_from(source.index()).expect("a worker has few queues");
        Self { source, partition, epoch, offset }
    }
}

impl TopicId {
    /// The topic of the delayed tasks, for a worker of this many queues.
    pub(crate) fn delayed(queues: usize) -> Self {
        Self(queues * Priority::ALL.len())
    }

    /// Its index among all topics of the worker.
    pub(crate) const fn index(self) -> usize {
        self.0
    }
}

impl From<SourceId> for TopicId {
    fn from(source: SourceId) -> Self {
        Self(source.index())
    }
}

impl Job {
    /// The options that it runs with: those of the record, else those of the task. For the rest the worker has defaults.
    pub(crate) fn options(&self) -> TaskOptions {
        self.envelope.options.or(self.definition.as_ref().map(|task| task.options).unwrap_or_default())
    }

    pub(crate) fn lane(&self) -> Lane {
        Self::lane_of(self.definition.as_ref())
    }

    /// Unknown tasks only pass through, so they take the cheaper slots.
    pub(crate) fn lane_of(definition: Option<&Definition>) -> Lane {
        match definition.map(|definition| definition.body) {
            Some(Body::Blocking(_)) => Lane::Blocking,
            Some(Body::Async(_)) | None => Lane::Async,
        }
    }

    /// Whether another worker may run it: the order of a key is kept here.
    pub(crate) fn may_be_offered(&self) -> bool {
        self.envelope.ordering_key.is_none() && !self.at.is_foreign() && self.at.bytes <= MAX_OFFER_BYTES
    }

    /// The record as it is offered to another worker.
    pub(crate) fn to_offer(&self) -> OfferedRecord {
        let Incoming { timestamp_ms, key, value, headers, .. } = self.record.clone();
        OfferedRecord { place: self.at.into(), topic: Arc::clone(&self.topic), timestamp_ms, key, value, headers }
    }

    /// The same record, as a later attempt than the record itself says.
    pub(crate) fn at_attempt(&self, attempt: u32) -> Self {
        let mut job = self.clone();
        job.ask = Arc::new(ClaimRequest { attempt, ..(*self.ask).clone() });
        job.envelope.attempt = attempt;
        job
    }

    /// Whether the task must not start any more.
    pub(crate) fn has_expired(&self, now_ms: u64) -> bool {
        self.envelope.expires.is_some_and(|at| at <= now_ms)
    }
}

#[cfg(test)]
impl Job {
    /// The job of a record that was read from partition 0 at offset 0 of the default queue; only `noop` is registered.
    pub(crate) fn for_test(record: &str) -> Self {
        Self::of_bytes(bytes::Bytes::from(record.to_owned())).unwrap()
    }

    /// The same; `None`: the record is no task.
    pub(crate) fn of_bytes(value: bytes::Bytes) -> Option<Self> {
        let envelope = Envelope::read(&value).ok()?;
        let source = SourceId { queue: 0, priority: Priority::Normal };
        let at = Position { source, partition: 0, epoch: 1, offset: 0, bytes: value.len() };
        let record = Incoming { partition: 0, offset: 0, timestamp_ms: None, key: None, value, headers: Vec::new() };
        let (task, queue) = (Arc::clone(&envelope.task), Arc::from("default"));
        let ask = Arc::new(ClaimRequest { seq: envelope.seq, attempt: envelope.attempt, nonce: 1, task, queue });
        let definition = (&*envelope.task == "noop").then(|| crate::task::Task::definition(&noop));
        Some(Self {
            at,
            topic: "yadtq.default".into(),
            record,
            envelope,
            ask,
            definition,
            received: Instant::now(),
            unknown_at: None,
        })
    }
}

#[cfg(test)]
#[crate::task(crate = crate)]
pub(crate) async fn noop() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_its_place() {
        assert!(SourceId::all(3).enumerate().all(|(place, source)| source.index() == place));
        assert_eq!(SourceId::all(3).count(), 9);
    }
}
