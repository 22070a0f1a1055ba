//! One assignment of one partition: the task that takes its records from librdkafka, and the few that wait to be taken.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context as TaskContext, Poll},
};

use futures_util::{StreamExt as _, future::poll_fn};
use rdkafka::{
    consumer::{MessageStream, stream_consumer::StreamPartitionQueue},
    error::{KafkaError, RDKafkaErrorCode as Code},
};
use tokio::{runtime::Handle, sync::Notify, task::AbortHandle};
use tracing::{debug, warn};

use super::{super::Incoming, batch::incoming, connection::ConnectionListener};
use crate::restart;

/// The most records of a partition that wait to be taken, beyond those in librdkafka's queue.
const MAX_WAITING_RECORDS: usize = 500;
/// The bytes of waiting records from which on no more are taken from librdkafka's queue.
const MAX_WAITING_BYTES: usize = 1_048_576;

pub(super) type PartitionQueue = StreamPartitionQueue<ConnectionListener>;

/// One assignment of one partition.
pub(super) struct Slot {
    pub(super) partition: i32,
    waiting: Mutex<Waiting>,
    /// Whether the end of the partition is an event.
    reports_end: bool,
    /// Notified when records were taken.
    room: Notify,
    filled: Arc<Notify>,
}

#[derive(Default)]
struct Waiting {
    records: VecDeque<Incoming>,
    /// The size of the records.
    bytes: usize,
    has_ended: bool,
    is_paused: bool,
    /// The task that reads, from the assignment on.
    reading: Option<AbortHandle>,
}

impl Waiting {
    fn is_full(&self) -> bool {
        self.records.len() >= MAX_WAITING_RECORDS || self.bytes >= MAX_WAITING_BYTES
    }
}

impl Slot {
    pub(super) fn new(partition: i32, reports_end: bool, filled: Arc<Notify>) -> Self {
        Self { partition, waiting: Mutex::default(), reports_end, room: Notify::new(), filled }
    }

    /// Starts to read.
    pub(super) fn begin(self: &Arc<Self>, topic: &Arc<str>, queue: Arc<PartitionQueue>, runtime: &Handle) {
        let (topic, slot) = (Arc::clone(topic), Arc::clone(self));
        let read = move || read(Arc::clone(&topic), Arc::clone(&queue), Arc::clone(&slot));
        let task = runtime.spawn(restart::run("kafka partition", read));
        self.waiting().reading = Some(task.abort_handle());
    }

    /// Reads no more. Whether it has begun before.
    pub(super) fn end(&self) -> bool {
        self.waiting().reading.take().inspect(AbortHandle::abort).is_some()
    }

    pub(super) fn set_paused(&self, is_paused: bool) {
        self.waiting().is_paused = is_paused;
    }

    /// Takes waiting records, at most this many, and whether they were the last ones of the partition.
    pub(super) fn take(&self, most: usize) -> (Vec<Incoming>, bool) {
        let mut waiting = self.waiting();
        if waiting.is_paused || waiting.reading.is_none() {
            return (Vec::new(), false);
        }
        let count = waiting.records.len().min(most);
        let records: Vec<_> = waiting.records.drain(..count).collect();
        waiting.bytes -= records.iter().map(Incoming::size).sum::<usize>();
        if count > 0 {
            self.room.notify_one();
        }
        let has_ended = waiting.records.is_empty() && std::mem::take(&mut waiting.has_ended);
        (records, has_ended)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn has_room(&self) {
        while self.waiting().is_full() {
            self.room.notified().await;
        }
    }
}

/// Takes records from librdkafka's queue of a partition while there is room for them.
async fn read(topic: Arc<str>, queue: Arc<PartitionQueue>, slot: Arc<Slot>) {
    let (mut stream, mut last_error) = (queue.stream(), None);
    loop {
        slot.has_room().await;
        let error = poll_fn(|context| drain(&mut stream, &slot, context)).await;
        let Some(error) = error else { continue };
        let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
        match code {
            // The connection reports an outage; a missing topic shows when topics are looked up.
            Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve => {}
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                debug!(event = "consumer_error", %topic, partition = slot.partition, error = %code, "will retry");
            }
            code if last_error.replace(code) != Some(code) => {
                warn!(event = "consumer_error", %topic, partition = slot.partition, error = %code, "cannot consume from kafka; will retry");
            }
            _ => {}
        }
    }
}

/// Moves what is there into the slot, as far as there is room. Ready with `None` if something was moved, or with an error.
fn drain(
    stream: &mut MessageStream<'_, ConnectionListener>, slot: &Slot, context: &mut TaskContext<'_>,
) -> Poll<Option<KafkaError>> {
    let mut has_moved = false;
    loop {
        match stream.poll_next_unpin(context) {
            Poll::Ready(Some(Ok(message))) => {
                let mut waiting = slot.waiting();
                let record = incoming(&message);
                waiting.bytes += record.size();
                waiting.records.push_back(record);
                has_moved = true;
                if waiting.is_full() {
                    break;
                }
            }
            Poll::Ready(Some(Err(KafkaError::PartitionEOF(_)))) => {
                has_moved |= slot.reports_end;
                slot.waiting().has_ended = slot.reports_end;
            }
            Poll::Ready(Some(Err(error))) => {
                if has_moved {
                    slot.filled.notify_one();
                }
                return Poll::Ready(Some(error));
            }
            Poll::Ready(None) | Poll::Pending => break,
        }
    }
    if !has_moved {
        return Poll::Pending;
    }
    slot.filled.notify_one();
    Poll::Ready(None)
}
