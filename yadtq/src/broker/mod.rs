//! The durable log that says what must run: Kafka, or the same in memory.
//!
//! A queue is a topic `<ns>.<queue>`, and one more for its high and its low priority. A record is accepted once
//! [`Broker::publish`] has returned `Ok` for it. It is delivered again and again until a consumer has committed an offset
//! beyond it. Who reads a partition is not decided here: a consumer reads the partitions that it is given. Two topics are
//! compacted, the delayed tasks and the control topic: they keep the latest record of each key, and nobody commits there. The rest
//! of the crate cannot see which of the two implementations it uses: the conformance suite holds both to the contracts below.

#[cfg(feature = "kafka")]
pub(crate) mod kafka;
pub(crate) mod memory;

#[cfg(test)]
mod conformance;

use std::{collections::HashSet, fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use crate::{
    core::{
        names::{Namespace, Queue},
        priority::Priority,
    },
    wire::Headers,
};

/// Longest wait of `Reader::next_or_timeout` for new events.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it looks meanwhile whether the broker has refused.
const REFUSAL_INTERVAL: Duration = Duration::from_millis(250);
/// Largest number of records that one call of `next` returns, of a subscription or of a reader.
const MAX_POLL_RECORDS: usize = 1_000;
/// Kafka's default for `max.message.bytes`: the size of the largest record that a topic accepts.
const DEFAULT_MAX_MESSAGE_BYTES: usize = 1_048_588;
/// How many bytes more than a queue's topic the dead-letter topic and the compacted topics accept: their records are
/// the largest record of a queue and what YADTQ adds to it.
const EXTRA_MESSAGE_BYTES: usize = 65_536;

/// A record to publish.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// The topic. The broker creates it if it does not exist.
    pub topic: Arc<str>,
    /// The key. Its hash chooses the partition if [`partition`](Self::partition) is `None`.
    pub key: Bytes,
    /// The value. An empty value is sent as no value: in a compacted topic that deletes the key.
    pub value: Bytes,
    /// The partition. Set it for a record that must be in the same partition as an earlier one.
    pub partition: Option<i32>,
    /// The headers.
    pub headers: Headers,
}

impl Outgoing {
    /// The size of key, value and headers together, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.key.len() + self.value.len() + headers_size(&self.headers)
    }

    /// A record without a value. In a compacted topic it deletes the key from this partition.
    pub(crate) fn tombstone(topic: Arc<str>, key: Bytes, partition: i32) -> Self {
        Self { topic, key, value: Bytes::new(), partition: Some(partition), headers: Vec::new() }
    }
}

/// A record as it was read from a topic.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    /// The partition of the topic.
    pub partition: i32,
    /// The offset in that partition.
    pub offset: i64,
    /// When the record was written, in ms since the Unix epoch. `None` if the broker does not know.
    pub timestamp_ms: Option<u64>,
    /// The key. `None` if the record has none.
    pub key: Option<Bytes>,
    /// The value. Empty if the record has none.
    pub value: Bytes,
    /// The headers.
    pub headers: Headers,
}

impl Incoming {
    /// The size of key, value and headers together, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.value.len() + headers_size(&self.headers)
    }
}

/// What was committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    /// The next offset to read.
    pub next: i64,
    /// What was stored with it.
    pub metadata: String,
}

/// A partition that is read from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assigned {
    pub partition: i32,
    /// What was committed for it. It is read from there, else from the start of the log.
    pub committed: Option<Committed>,
}

/// An event of a subscription or a reader. Events come in the order in which they happen: no record of a partition
/// comes before the partition's assignment or after its revocation.
#[derive(Debug)]
pub(crate) enum Event {
    /// This subscription now reads these partitions.
    Assigned(Vec<Assigned>),
    /// This subscription reads these partitions no more.
    Revoked(Vec<i32>),
    /// Records of assigned partitions. Those of one partition are in order.
    Records(Vec<Incoming>),
    /// All records that these partitions hold at the moment have been returned. Only readers and subscriptions to
    /// compacted topics get this event. It comes again each time the end is reached after new records.
    EndReached(Vec<i32>),
}

impl Event {
    /// Whether the event names no partition and no record.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Assigned(assigned) => assigned.is_empty(),
            Self::Revoked(partitions) | Self::EndReached(partitions) => partitions.is_empty(),
            Self::Records(records) => records.is_empty(),
        }
    }
}

/// What is known of a topic that exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicState {
    /// Number of its partitions.
    pub partitions: u32,
    /// Whether offsets were ever committed for it.
    pub has_commits: bool,
}

/// The offsets that a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetRange {
    /// The partition.
    pub partition: i32,
    /// The first offset that may still exist.
    pub start: i64,
    /// The offset that the next record will get.
    pub end: i64,
}

/// Why a request to the broker failed.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The broker did not answer in time. The request may or may not have been carried out.
    #[error("kafka did not answer within {after:.1?}: {detail}")]
    Timeout {
        /// How long YADTQ waited.
        after: Duration,
        /// What was requested, and the last error of the connection if there was one.
        detail: String,
    },
    /// The record is larger than its topic accepts.
    #[error("the record of {len} bytes is larger than topic {topic} accepts (its `max.message.bytes`)")]
    TooLarge {
        /// The topic.
        topic: Arc<str>,
        /// The size of the record in bytes.
        len: usize,
    },
    /// The broker or the client library refused the request, because of authentication, authorization or
    /// configuration. The text says which.
    #[error("kafka refused: {0}")]
    Refused(String),
}

/// How much there is of one priority of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueDepth {
    /// The queue.
    pub queue: String,
    /// The priority.
    pub priority: Priority,
    /// The partitions of the topic.
    pub partitions: Vec<PartitionDepth>,
    /// Number of partitions that are not among them, because they have no leader that could say.
    pub leaderless: usize,
}

impl QueueDepth {
    /// Number of records in the topic.
    pub(crate) fn records(&self) -> u64 {
        let records = |depth: &PartitionDepth| u64::try_from(depth.end - depth.start).unwrap_or(0);
        self.partitions.iter().map(records).sum()
    }

    /// Number of records beyond the committed offsets.
    pub(crate) fn lag(&self) -> u64 {
        self.partitions.iter().map(PartitionDepth::lag).sum()
    }
}

/// How much there is in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionDepth {
    pub partition: i32,
    /// The offset of its first record.
    pub start: i64,
    /// What was committed, if anything was.
    pub committed: Option<Committed>,
    /// The offset after its last record.
    pub end: i64,
}

impl PartitionDepth {
    /// The first offset that is not committed.
    pub(crate) fn next(&self) -> i64 {
        self.committed.as_ref().map_or(self.start, |committed| committed.next.max(self.start))
    }

    /// Number of records beyond the committed offset.
    pub(crate) fn lag(&self) -> u64 {
        u64::try_from(self.end - self.next()).unwrap_or(0)
    }
}

/// What a broker reports about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BrokerInfo {
    /// One line for people: product, brokers, library version.
    pub summary: String,
    /// Settings that should be fixed, each with the command that fixes it.
    pub warnings: Vec<String>,
}

/// A durable log of records.
#[async_trait]
pub(crate) trait Broker: Debug + Send + Sync {
    /// Appends records, and creates topics that are missing. There is one answer per record, in the same order. `Ok`
    /// means that the record is on every in-sync replica. After an error the record may or may not be in the topic.
    async fn publish(&self, records: Vec<Outgoing>) -> Vec<Result<(), BrokerError>>;

    /// One client for all topics that one worker reads. Returns immediately, and connects in the background for as long as
    /// it lives. Call it on a Tokio runtime, which must outlive the consumer.
    fn consumer(&self) -> Result<Arc<dyn Consumer>, BrokerError>;

    /// Creates a topic if it is missing.
    async fn create(&self, topic: &Arc<str>) -> Result<(), BrokerError>;

    /// Reads partitions of a topic, each from the given offset, or from its first record if that comes later. The
    /// reader joins no consumer group and commits nothing. Call it on a Tokio runtime, which must outlive the reader.
    fn read(&self, topic: &Arc<str>, from: &[(i32, i64)]) -> Result<Box<dyn Reader>, BrokerError>;

    /// The offsets that each partition of a topic holds. Empty if the topic does not exist.
    async fn offset_ranges(&self, topic: &Arc<str>) -> Result<Vec<OffsetRange>, BrokerError>;

    /// Deletes the records below these offsets, given by partition. Offsets that are already deleted or not yet written
    /// have no effect, and so has a topic that does not exist.
    async fn truncate(&self, topic: &Arc<str>, below: &[(i32, i64)]) -> Result<(), BrokerError>;

    /// Whether each of these topics exists, in the same order. Creates none.
    async fn exist(&self, topics: &[Arc<str>]) -> Result<Vec<bool>, BrokerError>;

    /// The depth of every queue of this namespace, by each priority that was used there.
    async fn queues(&self) -> Result<Vec<QueueDepth>, BrokerError>;

    /// Asks the broker for its identity, and looks for settings that can lose tasks.
    async fn ping(&self) -> Result<BrokerInfo, BrokerError>;
}

/// Reads partitions without being a member of a consumer group.
#[async_trait]
pub(crate) trait Reader: Send + Sync {
    /// Waits for the next events and returns at least one: records, and ends of partitions. Never fails: it waits while
    /// the broker is unreachable. Cancel safe.
    async fn next(&mut self) -> Vec<Event>;

    /// Why the broker gives nothing, if it has refused to.
    fn refusal(&self) -> Option<BrokerError> {
        None
    }
}

impl dyn Reader {
    /// Like [`next`](Reader::next), for a caller that cannot wait for a broker that is unreachable. `what` names what
    /// is being read, for the error.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] if this user may not read, [`BrokerError::Timeout`] if there was no event for 10 s.
    pub(crate) async fn next_or_timeout(&mut self, what: &str) -> Result<Vec<Event>, BrokerError> {
        let deadline = Instant::now() + READ_TIMEOUT;
        loop {
            if let Ok(events) = timeout_at(deadline.min(Instant::now() + REFUSAL_INTERVAL), self.next()).await {
                return Ok(events);
            }
            if let Some(refusal) = self.refusal() {
                return Err(refusal);
            }
            if Instant::now() >= deadline {
                return Err(BrokerError::Timeout { after: READ_TIMEOUT, detail: format!("reading {what}") });
            }
        }
    }
}

/// Reads partitions of a topic from these offsets to their ends, and passes every record to `each`. Records that are
/// written in the meantime may be among them.
///
/// # Errors
/// [`BrokerError::Timeout`] if there was no event for 10 s.
pub(crate) async fn read_to_end(
    broker: &dyn Broker, topic: &Arc<str>, from: &[(i32, i64)], mut each: impl FnMut(Incoming),
) -> Result<(), BrokerError> {
    let mut unread: HashSet<i32> = from.iter().map(|&(partition, _)| partition).collect();
    if unread.is_empty() {
        return Ok(());
    }
    let (mut reader, what) = (broker.read(topic, from)?, format!("topic {topic}"));
    while !unread.is_empty() {
        for event in reader.next_or_timeout(&what).await? {
            match event {
                Event::Records(records) => records.into_iter().for_each(&mut each),
                Event::EndReached(partitions) => unread.retain(|partition| !partitions.contains(partition)),
                Event::Assigned(_) | Event::Revoked(_) => {}
            }
        }
    }
    Ok(())
}

/// Reads partitions of several topics, and commits how far it has come.
#[async_trait]
pub(crate) trait Consumer: Debug + Send + Sync {
    /// The part of this consumer that reads one topic. It reads nothing at first. Once per topic.
    fn subscribe(&self, topic: &Arc<str>) -> Arc<dyn Subscription>;

    /// The state of each topic, in the same order; `None`: it does not exist. Answers or fails within about a second.
    async fn look_up(&self, topics: &[Arc<str>]) -> Result<Vec<Option<TopicState>>, BrokerError>;

    /// Commits what was stored, waits for the acknowledgement, and closes the client. `next` of its subscriptions must not be
    /// called afterwards.
    async fn close(&self);
}

/// Reads partitions of one topic.
#[async_trait]
pub(crate) trait Subscription: Debug + Send + Sync {
    /// Waits for the next events and returns at least one, together with all others that are available by then, at most
    /// 1,000 records. Never fails: a broken connection is logged and retried, and a client in a fatal state is rebuilt
    /// (its partitions come as revoked, and then as assigned). Cancel safe. One caller at a time.
    async fn next(&self) -> Vec<Event>;

    /// Reads these partitions: from the committed offset, or from the start of the log if there is none; those of a
    /// compacted topic from the start. Has no effect on a partition that is read already.
    fn assign(&self, partitions: &[i32]);

    /// Reads these partitions no more. What was fetched and not returned is dropped. What was stored is still committed.
    fn revoke(&self, partitions: &[i32]);

    /// Reads these partitions no more, and commits nothing more for them: another worker does.
    fn lose(&self, partitions: &[i32]);

    /// Reads no partition any more, and forgets all that was stored: the topic was deleted, and its offsets mean nothing in
    /// a topic that is created under its name.
    fn forget(&self);

    /// Stores the next offset to commit of a partition, with metadata of at most 4,096 bytes. Stored offsets are committed
    /// about every second, by [`commit`](Self::commit), and on close. Has no effect if the partition is not read.
    fn store(&self, partition: i32, next: i64, metadata: &str);

    /// Commits what was stored for these partitions, and waits for the acknowledgement.
    async fn commit(&self, partitions: &[i32]) -> Result<(), BrokerError>;

    /// Returns no more records of a partition. What was fetched is kept.
    fn pause(&self, partition: i32);

    /// Returns records of a partition again, starting after the last one that `next` returned.
    fn resume(&self, partition: i32);
}

/// The queue and priority that a topic belongs to. `None` for topics that YADTQ uses for something else, and for topics
/// of other programs.
fn queue_of<'a>(namespace: &Namespace, topic: &'a str) -> Option<(&'a str, Priority)> {
    let name = topic.strip_prefix(namespace.as_str())?.strip_prefix('.')?;
    let (queue, priority) = match name.split_once('.') {
        None => (name, Priority::Normal),
        Some((queue, "high")) => (queue, Priority::High),
        Some((queue, "low")) => (queue, Priority::Low),
        Some(_) => return None,
    };
    queue.parse::<Queue>().is_ok().then_some((queue, priority))
}

fn headers_size(headers: &Headers) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_names_its_queue_and_priority() {
        let (namespace, mail): (Namespace, Queue) = ("shop".parse().unwrap(), "mail".parse().unwrap());
        for priority in Priority::ALL {
            let topic = namespace.topic_of(&mail, priority);
            assert_eq!(queue_of(&namespace, &topic), Some(("mail", priority)), "{topic}");
        }
        assert_eq!(namespace.topic_of(&mail, Priority::Normal), namespace.topic(&mail));
        let foreign =
            ["shop.mail.normal", "shop.mail.high.low", "shop.dead", "shop.dead.high", "shop..low", "shopx.mail"];
        for topic in foreign {
            assert_eq!(queue_of(&namespace, topic), None, "{topic}");
        }
    }
}
