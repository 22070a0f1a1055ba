//! Reads partitions without joining a consumer group, and commits nothing.

use std::{
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use async_trait::async_trait;
use futures_util::{StreamExt as _, future::poll_fn};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{Consumer as _, ConsumerContext, MessageStream, StreamConsumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
};
use tracing::warn;

use super::{
    super::{BrokerError, Event, MAX_POLL_RECORDS, Reader},
    Cluster,
    batch::Batch,
    blocking::DropOnThread,
    connection::{ConnectionListener, is_refusal},
};

/// The bytes from which on one call of `next` returns no more records.
const MAX_POLL_BYTES: usize = 2 * 1_024 * 1_024;

pub(super) struct KafkaReader {
    topic: Arc<str>,
    consumer: DropOnThread<StreamConsumer<ConnectionListener>>,
    /// The error that was logged last, so that a repeated one is logged once.
    last_error: Option<Code>,
}

impl KafkaReader {
    /// Returns immediately. Needs a Tokio runtime.
    pub(super) fn start(cluster: &Cluster, topic: Arc<str>, from: &[(i32, i64)]) -> Result<Self, BrokerError> {
        let refused = |error: KafkaError| super::KafkaConfig::refused(&error);
        let context = ConnectionListener(Arc::clone(&cluster.connection));
        let consumer = DropOnThread::new(cluster.config.reader().create_with_context(context).map_err(refused)?);
        let reader = Self { topic, consumer, last_error: None };
        reader.assign(from).map_err(refused)?;
        Ok(reader)
    }

    fn assign(&self, from: &[(i32, i64)]) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(from.len());
        for &(partition, offset) in from {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
        }
        self.consumer.assign(&list)
    }

    fn drain(
        stream: &mut MessageStream<'_, ConnectionListener>, topic: &str, last_error: &mut Option<Code>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Vec<Event>> {
        let mut batch = Batch::default();
        while batch.records < MAX_POLL_RECORDS && batch.bytes < MAX_POLL_BYTES {
            match stream.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(message))) => {
                    *last_error = None;
                    batch.push(&message);
                }
                Poll::Ready(Some(Err(KafkaError::PartitionEOF(partition)))) => batch.ended(partition),
                Poll::Ready(Some(Err(error))) => {
                    let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
                    // The connection reports an outage.
                    let is_outage = matches!(code, Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve);
                    if !is_outage && last_error.replace(code) != Some(code) {
                        warn!(event = "reader_error", topic, error = %code, "cannot read from kafka; will retry");
                    }
                }
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        if batch.events.is_empty() { Poll::Pending } else { Poll::Ready(batch.events) }
    }
}

#[async_trait]
impl Reader for KafkaReader {
    async fn next(&mut self) -> Vec<Event> {
        let mut stream = self.consumer.stream();
        let (topic, last_error) = (&*self.topic, &mut self.last_error);
        poll_fn(|context| Self::drain(&mut stream, topic, last_error, context)).await
    }

    fn refusal(&self) -> Option<BrokerError> {
        let code = self.last_error.filter(|code| is_refusal(*code))?;
        Some(BrokerError::Refused(format!("reading `{}`: {code}", self.topic)))
    }
}

impl ConsumerContext for ConnectionListener {}
