//! One membership of a queue's consumer group: a client of librdkafka and what it tells.
//!
//! A rebalance happens inside a poll, in a callback. The callback notes it, and the poll loop looks at the note before
//! it takes the record that the poll returned: so each event comes after the records that were polled before it, and
//! before those polled after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::poll_fn};
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, MessageStream, Rebalance, StreamConsumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
    message::{BorrowedMessage, Headers as _},
};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{
    super::{Event, Incoming},
    apart::DropApart,
    connection::Ears,
    purge::Purge,
};
use crate::wire::Headers;

/// Records that one poll returns at most.
pub(super) const MAX_POLL: usize = 1_000;
/// Longest wait for the acknowledgement of the last commit. Under load librdkafka tells it only after the close, and the
/// next owner waits for that; the purge that is missed then is his.
const COMMIT_TIMEOUT: Duration = Duration::from_millis(300);

/// What a poll came to.
pub(super) enum Polled {
    /// At least one event.
    Events(Vec<Event>),
    /// The topic is not there (any more), or not known yet by the broker that was asked.
    NoTopic,
    /// This client is beyond repair.
    Fatal(String),
}

pub(super) struct Member {
    topic: Arc<str>,
    consumer: DropApart<StreamConsumer<Context>>,
    /// Somebody sees to it that the topic exists and is subscribed to.
    joining: AtomicBool,
}

impl Member {
    /// A client that is not subscribed yet. Needs a Tokio runtime.
    pub(super) fn new(config: &ClientConfig, topic: Arc<str>, ears: Ears, purge: Arc<Purge>) -> KafkaResult<Self> {
        let context = Context { ears, purge, notes: Mutex::default() };
        let consumer = DropApart::new(config.create_with_context(context)?);
        Ok(Self { topic, consumer, joining: AtomicBool::new(false) })
    }

    /// Takes the right to see to the topic, until `subscribe` succeeds. `false` if somebody has it.
    pub(super) fn begin_joining(&self) -> bool {
        !self.joining.swap(true, Ordering::AcqRel)
    }

    /// Joins the group of a topic that exists. Blocks for a moment.
    pub(super) fn subscribe(&self) -> KafkaResult<()> {
        let subscribed = self.consumer.subscribe(&[&self.topic]);
        if subscribed.is_ok() {
            self.joining.store(false, Ordering::Release);
        }
        subscribed
    }

    /// Waits for something, and takes all that is there with it. Cancel safe: it never waits with something in hand.
    pub(super) async fn poll(&self) -> Polled {
        let mut stream = self.consumer.stream();
        poll_fn(|context| self.drain(&mut stream, context)).await
    }

    fn drain(&self, stream: &mut MessageStream<'_, Context>, context: &mut TaskContext<'_>) -> Poll<Polled> {
        if std::mem::take(&mut self.notes().no_topic) {
            return Poll::Ready(Polled::NoTopic);
        }
        let mut batch = Batch::default();
        while batch.records < MAX_POLL {
            let polled = stream.poll_next_unpin(context);
            self.notes().told.drain(..).for_each(|event| batch.events.push(event));
            match polled {
                Poll::Ready(Some(Ok(message))) => batch.push(&message),
                Poll::Ready(Some(Err(KafkaError::PartitionEOF(partition)))) => batch.ended(partition),
                Poll::Ready(Some(Err(error))) => match self.judge(&error) {
                    Some(verdict) if batch.events.is_empty() => return Poll::Ready(verdict),
                    // What is in hand goes first. librdkafka repeats a fatal error when asked for it, the other not.
                    Some(verdict) => {
                        self.notes().no_topic = matches!(verdict, Polled::NoTopic);
                        break;
                    }
                    None => {}
                },
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        match batch.events.is_empty() {
            false => Poll::Ready(Polled::Events(batch.events)),
            true => match self.fatal() {
                Some(reason) => Poll::Ready(Polled::Fatal(reason)),
                None => Poll::Pending,
            },
        }
    }

    fn judge(&self, error: &KafkaError) -> Option<Polled> {
        if let Some(reason) = self.fatal() {
            return Some(Polled::Fatal(reason));
        }
        match error.rdkafka_error_code().unwrap_or(Code::Fail) {
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                return Some(Polled::NoTopic);
            }
            // The connection has been told.
            Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve => {}
            code => {
                let mut notes = self.notes();
                if notes.last_error.replace(code) != Some(code) {
                    warn!(event = "consumer_error", topic = &*self.topic, error = %code, "kafka refuses this member for now");
                }
            }
        }
        None
    }

    fn fatal(&self) -> Option<String> {
        self.consumer.client().fatal_error().map(|(_, reason)| reason)
    }

    /// The partitions that were told as assigned; they count as told to be revoked from now on.
    pub(super) fn take_assigned(&self) -> Vec<i32> {
        std::mem::take(&mut self.notes().assigned).into_iter().collect()
    }

    pub(super) fn store(&self, partition: i32, next: i64) {
        let stored = self.list(partition, Offset::Offset(next)).and_then(|list| self.consumer.store_offsets(&list));
        // An error means that the partition is not ours; then the offset is not ours to store.
        if stored.is_ok() {
            self.notes().unacknowledged.insert(partition, next);
        }
    }

    // Both wait for librdkafka's main thread, which does no I/O and answers within microseconds.
    pub(super) fn pause(&self, partition: i32) {
        let _ = self.list(partition, Offset::Invalid).and_then(|list| self.consumer.pause(&list));
    }

    pub(super) fn resume(&self, partition: i32) {
        let _ = self.list(partition, Offset::Invalid).and_then(|list| self.consumer.resume(&list));
    }

    /// Commits what is stored, leaves the group, and waits for both.
    pub(super) async fn close(self) {
        // A closing client commits too, but what Kafka says to that can get lost, and the purge waits for it.
        if !self.notes().unacknowledged.is_empty() && self.consumer.commit_consumer_state(CommitMode::Async).is_ok() {
            let _ = timeout(COMMIT_TIMEOUT, self.acknowledged()).await;
        }
        self.consumer.close().await;
    }

    async fn acknowledged(&self) {
        let mut stream = self.consumer.stream();
        let acknowledged = |context: &mut TaskContext<'_>| {
            // Records that come now are for the next owner.
            if self.drain(&mut stream, context).is_ready() {
                context.waker().wake_by_ref();
            }
            if self.notes().unacknowledged.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        };
        poll_fn(acknowledged).await;
    }

    #[cfg(test)]
    pub(super) fn native_ptr(&self) -> *mut rdkafka::bindings::rd_kafka_t {
        self.consumer.client().native_ptr()
    }

    fn list(&self, partition: i32, offset: Offset) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&self.topic, partition, offset)?;
        Ok(list)
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.consumer.context().notes()
    }
}

#[derive(Default)]
pub(super) struct Batch {
    pub(super) events: Vec<Event>,
    pub(super) records: usize,
}

impl Batch {
    pub(super) fn ended(&mut self, partition: i32) {
        match self.events.last_mut() {
            Some(Event::Ended(partitions)) => partitions.push(partition),
            _ => self.events.push(Event::Ended(vec![partition])),
        }
    }

    pub(super) fn push(&mut self, message: &BorrowedMessage<'_>) {
        self.records += 1;
        match self.events.last_mut() {
            Some(Event::Records(records)) => records.push(incoming(message)),
            _ => self.events.push(Event::Records(vec![incoming(message)])),
        }
    }
}

fn incoming(message: &BorrowedMessage<'_>) -> Incoming {
    Incoming {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().and_then(|ms| u64::try_from(ms).ok()),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice).unwrap_or_default(),
        headers: headers(message),
    }
}

/// The headers, without those whose name is no UTF-8: rdkafka panics when asked for one.
fn headers(message: &BorrowedMessage<'_>) -> Headers {
    let Some(headers) = message.headers() else { return Headers::new() };
    let header = |index| {
        let header = catch_unwind(AssertUnwindSafe(|| headers.get(index))).ok()?;
        Some((header.key.to_owned(), header.value.map(Bytes::copy_from_slice).unwrap_or_default()))
    };
    (0..headers.count()).filter_map(header).collect()
}

/// Notes what librdkafka tells in callbacks. None of them may block.
pub(super) struct Context {
    ears: Ears,
    purge: Arc<Purge>,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    told: Vec<Event>,
    assigned: BTreeSet<i32>,
    /// Offsets that are stored and not known to be committed.
    unacknowledged: BTreeMap<i32, i64>,
    last_error: Option<Code>,
    /// A verdict that waits for the next poll.
    no_topic: bool,
}

impl Context {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.ears.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.ears.error(error, reason);
    }
}

impl ConsumerContext for Context {
    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) if list.count() > 0 => {
                // librdkafka remembers a pause from an earlier assignment.
                let _ = consumer.resume(list);
                let partitions = partitions(list);
                let mut notes = self.notes();
                notes.last_error = None;
                notes.assigned.extend(&partitions);
                notes.told.push(Event::Assigned(partitions));
            }
            Rebalance::Revoke(list) if list.count() > 0 => {
                let partitions = partitions(list);
                let mut notes = self.notes();
                notes.assigned.retain(|partition| !partitions.contains(partition));
                notes.unacknowledged.retain(|partition, _| !partitions.contains(partition));
                notes.told.push(Event::Revoked(partitions));
            }
            Rebalance::Assign(_) | Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => debug!(event = "rebalance_error", %error),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        match result {
            Ok(()) => {
                for element in offsets.elements().iter().filter(|element| element.error().is_ok()) {
                    if let Offset::Offset(next) = element.offset() {
                        self.purge.committed(element.partition(), next);
                        self.notes()
                            .unacknowledged
                            .retain(|&partition, stored| partition != element.partition() || *stored > next);
                    }
                }
            }
            // Tried again with the next commit. Not committed means only that tasks are looked at once more.
            Err(error) => debug!(event = "commit_failed", %error),
        }
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<i32> {
    list.elements().iter().map(|element| element.partition()).collect()
}
