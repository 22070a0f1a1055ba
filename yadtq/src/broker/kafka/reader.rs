//! Reads partitions beside any group, and commits nothing.

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
    super::{BrokerError, Event, Reader},
    Cluster,
    apart::DropApart,
    connection::Ears,
    member::{Batch, MAX_POLL},
};

pub(super) struct KafkaReader {
    topic: Arc<str>,
    consumer: DropApart<StreamConsumer<Ears>>,
    last_error: Option<Code>,
}

impl KafkaReader {
    /// Returns at once. Needs a Tokio runtime.
    pub(super) fn start(cluster: &Cluster, topic: Arc<str>, from: &[(i32, i64)]) -> Result<Self, BrokerError> {
        let refused = |error: KafkaError| BrokerError::Refused(error.to_string());
        let context = Ears(Arc::clone(&cluster.connection));
        let consumer = DropApart::new(cluster.config.reader().create_with_context(context).map_err(refused)?);
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
        stream: &mut MessageStream<'_, Ears>, topic: &str, last_error: &mut Option<Code>, context: &mut TaskContext<'_>,
    ) -> Poll<Vec<Event>> {
        let mut batch = Batch::default();
        while batch.records < MAX_POLL {
            match stream.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(message))) => batch.push(&message),
                Poll::Ready(Some(Err(KafkaError::PartitionEOF(partition)))) => batch.ended(partition),
                Poll::Ready(Some(Err(error))) => {
                    let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
                    // The connection has been told of an outage.
                    let is_outage = matches!(code, Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve);
                    if !is_outage && last_error.replace(code) != Some(code) {
                        warn!(event = "reader_error", topic, error = %code, "kafka cannot be read from for now");
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
}

impl ConsumerContext for Ears {}
