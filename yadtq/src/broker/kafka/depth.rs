//! How much there is in each queue: the ends of its partitions, and what was committed.

use std::sync::Arc;

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::RDKafkaErrorCode as Code,
};

use super::{
    super::{BrokerError, Committed, PartitionDepth, QueueDepth, queue_of},
    ADMIN_TIMEOUT, Cluster,
    blocking::run_blocking,
    topics::{code, is_leader_missing},
};

impl Cluster {
    pub(super) async fn queues(self: &Arc<Self>) -> Result<Vec<QueueDepth>, BrokerError> {
        let cluster = Arc::clone(self);
        let depths = run_blocking(move || cluster.depths()).await.unwrap_or(Err(Code::CriticalSystemResource));
        depths.map_err(|code| self.connection.error(code, "depth of the queues", ADMIN_TIMEOUT))
    }

    /// Blocks.
    fn depths(&self) -> Result<Vec<QueueDepth>, Code> {
        let metadata = self.metadata().map_err(|error| code(&error))?;
        // This client reads nothing: it only asks for the committed offsets.
        let consumer: BaseConsumer = self.config.consumer().create().map_err(|error| code(&error))?;
        let mut depths = Vec::new();
        for topic in metadata.topics() {
            let Some((queue, priority)) = queue_of(&self.config.namespace, topic.name()) else { continue };
            // Nobody can say how much is in a partition without a leader.
            let led = topic.partitions().iter().filter(|partition| partition.leader() >= 0);
            let led: Vec<_> = led.map(|partition| partition.id()).collect();
            let partitions = measure(&consumer, topic.name(), &led)?;
            let leaderless = topic.partitions().len() - partitions.len();
            depths.push(QueueDepth { queue: queue.to_owned(), priority, partitions, leaderless });
        }
        depths.sort_by(|a, b| (&a.queue, a.priority).cmp(&(&b.queue, b.priority)));
        Ok(depths)
    }
}

/// What there is in these partitions. Those that have lost their leader are left out. Blocks.
fn measure(consumer: &BaseConsumer, topic: &str, partitions: &[i32]) -> Result<Vec<PartitionDepth>, Code> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for &partition in partitions {
        list.add_partition(topic, partition);
    }
    let committed = consumer.committed_offsets(list, ADMIN_TIMEOUT).map_err(|error| code(&error))?;
    let mut depths = Vec::with_capacity(partitions.len());
    for element in committed.elements() {
        let partition = element.partition();
        let (start, end) = match consumer.fetch_watermarks(topic, partition, ADMIN_TIMEOUT).map_err(|e| code(&e)) {
            Ok(ends) => ends,
            Err(code) if is_leader_missing(code) => continue,
            Err(code) => return Err(code),
        };
        let committed = match element.offset() {
            Offset::Offset(next) => Some(Committed { next, metadata: element.metadata().to_owned() }),
            _ => None,
        };
        depths.push(PartitionDepth { partition, start, committed, end });
    }
    Ok(depths)
}
