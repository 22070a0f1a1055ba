//! The durable log that says what must run: Kafka, or the same in memory.
//!
//! A queue is a topic `<ns>.<queue>` and a consumer group of the same name, and two more of each for its high and low
//! priority. A record is accepted once
//! [`Broker::publish`] returned `Ok` for it, and is read again by somebody until an offset beyond it was
//! committed. Two topics are compacted, the delayed tasks and the control topic: of each key they keep the latest
//! record, and nobody commits there. Which of the two implementations runs makes no difference to the rest of the crate: the
//! conformance suite holds both to the contracts below.

pub mod kafka;
pub mod memory;

#[cfg(test)]
mod conformance;

use std::{fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

use crate::{
    core::{
        names::{Namespace, Queue},
        priority::Priority,
    },
    wire::Headers,
};

/// Longest wait for something new in a read that somebody waits for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A record to publish.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The topic; created if it does not exist.
    pub topic: Arc<str>,
    /// Decides the partition, unless that is given.
    pub key: Bytes,
    /// The value. Empty: none, which in a compacted topic deletes what the key had.
    pub value: Bytes,
    /// The partition, for a record that belongs to one that is there already.
    pub partition: Option<i32>,
    /// The headers.
    pub headers: Headers,
}

impl Outgoing {
    /// Bytes of key, value and headers.
    pub(crate) fn size(&self) -> usize {
        self.key.len() + self.value.len() + headers_size(&self.headers)
    }
}

/// A record as it was polled.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The partition of the subscription's topic.
    pub partition: i32,
    /// The position in it.
    pub offset: i64,
    /// When it was written, in ms since the Unix epoch, if the broker knows.
    pub timestamp_ms: Option<u64>,
    /// The key, if there is one.
    pub key: Option<Bytes>,
    /// The value; empty if there is none.
    pub value: Bytes,
    /// The headers.
    pub headers: Headers,
}

impl Incoming {
    /// Bytes of key, value and headers.
    pub(crate) fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.value.len() + headers_size(&self.headers)
    }
}

/// What a subscription tells, in the order in which it is true: no record of a partition comes before its
/// assignment or after its revocation.
#[derive(Debug)]
pub enum Event {
    /// The partitions are ours from now on, each from its committed offset.
    Assigned(Vec<i32>),
    /// The partitions are no longer ours. What was stored for them is committed, if that can still be done.
    Revoked(Vec<i32>),
    /// Records of assigned partitions, each partition's in order.
    Records(Vec<Incoming>),
    /// Everything that these partitions held for now has been told. Only readers and subscriptions to compacted topics
    /// hear it, each time anew.
    Ended(Vec<i32>),
}

impl Event {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Assigned(partitions) | Self::Revoked(partitions) | Self::Ended(partitions) => partitions.is_empty(),
            Self::Records(records) => records.is_empty(),
        }
    }
}

/// What a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The partition.
    pub partition: i32,
    /// The first offset that may still be there.
    pub start: i64,
    /// The offset that the next record gets.
    pub end: i64,
}

/// Why the broker did not do as asked.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The broker did not answer in time. What was asked may or may not have happened.
    #[error("kafka did not answer within {after:.1?}: {detail}")]
    Timeout {
        /// How long we waited.
        after: Duration,
        /// The last error that the connection showed, if any.
        detail: String,
    },
    /// A record is larger than its topic takes.
    #[error("the record of {len} bytes is larger than topic {topic} takes (its `max.message.bytes`)")]
    TooLarge {
        /// The topic.
        topic: Arc<str>,
        /// The record's size in bytes.
        len: usize,
    },
    /// The broker refused: authentication, authorization, configuration.
    #[error("kafka refused: {0}")]
    Refused(String),
}

/// How much waits in a queue, of one priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDepth {
    /// The queue.
    pub queue: String,
    /// The priority.
    pub priority: Priority,
    /// Partitions of its topic.
    pub partitions: usize,
    /// Records that the log holds, finished ones that are not purged yet included.
    pub records: u64,
    /// Records beyond the committed offsets: waiting and running tasks.
    pub lag: u64,
}

/// What a broker says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerInfo {
    /// One line a person can read: product, brokers, library version.
    pub summary: String,
    /// What should be mended, each with its remedy.
    pub warnings: Vec<String>,
}

/// A durable log of records.
#[async_trait]
pub trait Broker: Debug + Send + Sync {
    /// Appends records. An `Ok` means that the record is on every in-sync replica; an error that it may or may
    /// not be. One answer a record, in the same order. Creates topics that are missing.
    async fn publish(&self, records: Vec<Outgoing>) -> Vec<Result<(), BrokerError>>;

    /// Joins the consumer group of a topic, which has its name. The topic is created if it is missing. Returns at
    /// once; an unreachable broker is retried in the background for as long as the subscription lives. Call it on a
    /// Tokio runtime, which must outlive the subscription.
    fn subscribe(&self, topic: &Arc<str>) -> Result<Arc<dyn Subscription>, BrokerError>;

    /// Reads partitions of a topic from these offsets on, or from what is left of them, beside any group and without
    /// a trace. Call it on a Tokio runtime, which must outlive the reader.
    fn read(&self, topic: &Arc<str>, from: &[(i32, i64)]) -> Result<Box<dyn Reader>, BrokerError>;

    /// What the partitions of a topic hold; none if there is no such topic.
    async fn extents(&self, topic: &Arc<str>) -> Result<Vec<Extent>, BrokerError>;

    /// Deletes what the partitions of a topic hold below these offsets. What is deleted already, or not written yet,
    /// is left as it is.
    async fn truncate(&self, topic: &Arc<str>, below: &[(i32, i64)]) -> Result<(), BrokerError>;

    /// Which of these topics are there. Creates none.
    async fn exist(&self, topics: &[Arc<str>]) -> Result<Vec<bool>, BrokerError>;

    /// Depth and lag of every queue of this namespace, and of each priority that was used there.
    async fn queues(&self) -> Result<Vec<QueueDepth>, BrokerError>;

    /// Asks the broker who it is and looks for settings that endanger tasks.
    async fn ping(&self) -> Result<BrokerInfo, BrokerError>;
}

/// Reads without being a member of a group.
#[async_trait]
pub trait Reader: Send + Sync {
    /// The next events, at least one: records, and ends of partitions. Never fails: while the broker is away it
    /// waits. Cancel safe.
    async fn next(&mut self) -> Vec<Event>;
}

impl dyn Reader {
    /// The next events of a read that somebody waits for.
    ///
    /// # Errors
    /// Nothing came for [`PATIENCE`]: the broker is away. `what` was being read.
    pub(crate) async fn next_in_time(&mut self, what: &str) -> Result<Vec<Event>, BrokerError> {
        let timed_out = |_| BrokerError::Timeout { after: PATIENCE, detail: format!("reading {what}") };
        tokio::time::timeout(PATIENCE, self.next()).await.map_err(timed_out)
    }
}

/// Membership in the consumer group of one topic.
#[async_trait]
pub trait Subscription: Debug + Send + Sync {
    /// The next events, at least one; as many as are there without waiting, at most about a thousand records.
    /// Never fails: a broken connection is logged and retried, a client that is beyond repair is rebuilt (its
    /// partitions are told as revoked). Cancel safe. One caller at a time.
    async fn next(&self) -> Vec<Event>;

    /// Remembers the next offset to commit of a partition; committed about every second, on revocation and on
    /// close. Ignored if the partition is not ours.
    fn store(&self, partition: i32, next: i64);

    /// Stops fetching from a partition; records of it may still be in the next batch.
    fn pause(&self, partition: i32);

    /// Fetches again, from the record after the last one returned by `next`.
    fn resume(&self, partition: i32);

    /// Commits what is stored and leaves the group. `next` must not be called again.
    async fn close(&self);
}

/// The queue and priority whose topic this is. `None` for topics of YADTQ's own and for foreign ones.
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
