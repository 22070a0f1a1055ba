//! Questions for people: how much waits, and what is wrong with this Kafka.

use std::{sync::Arc, thread, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminOptions, ConfigResource, OwnedResourceSpecifier},
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaResult, RDKafkaErrorCode as Code},
    metadata::{Metadata, MetadataPartition},
    util::get_rdkafka_version,
};
use tokio::time::Instant;

use super::{
    super::{BrokerError, BrokerInfo, Extent, QueueDepth, queue_of},
    Cluster,
    apart::apart,
    topics::{SETTLE_PAUSE, code, is_settling},
};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Settings of a queue's topic that a task can get lost by, with what they must be.
const SETTINGS: [(&str, &str, &str); 3] = [
    ("retention.ms", "-1", "tasks that wait longer are deleted"),
    ("retention.bytes", "-1", "tasks are deleted when more are waiting"),
    ("cleanup.policy", "delete", "of two tasks with one ordering key only the later stays"),
];

impl Cluster {
    pub(super) async fn queues(self: &Arc<Self>) -> Result<Vec<QueueDepth>, BrokerError> {
        let cluster = Arc::clone(self);
        let depths = apart(move || cluster.depths()).await.unwrap_or(Err(Code::CriticalSystemResource));
        depths.map_err(|code| self.connection.error(code, "depth of the queues", PATIENCE))
    }

    /// Blocks.
    fn depths(&self) -> Result<Vec<QueueDepth>, Code> {
        let metadata = self.metadata().map_err(|error| code(&error))?;
        let mut depths = Vec::new();
        for topic in metadata.topics() {
            if let Some((queue, priority)) = queue_of(&self.config.namespace, topic.name()) {
                let partitions: Vec<_> = topic.partitions().iter().map(|partition| partition.id()).collect();
                let mut depth =
                    QueueDepth { queue: queue.to_owned(), priority, partitions: partitions.len(), records: 0, lag: 0 };
                self.measure(topic.name(), &partitions, &mut depth).map_err(|error| code(&error))?;
                depths.push(depth);
            }
        }
        depths.sort_by(|a, b| (&a.queue, a.priority).cmp(&(&b.queue, b.priority)));
        Ok(depths)
    }

    pub(super) async fn extents(self: &Arc<Self>, topic: &Arc<str>) -> Result<Vec<Extent>, BrokerError> {
        let (cluster, asked) = (Arc::clone(self), Arc::clone(topic));
        let deadline = Instant::now() + PATIENCE;
        // A new topic has no leaders for a moment.
        let ask = move || loop {
            match cluster.ask_extents(&asked) {
                Err(code) if is_settling(code) && Instant::now() < deadline => thread::sleep(SETTLE_PAUSE),
                answer => return answer,
            }
        };
        let extents = apart(ask).await.unwrap_or(Err(Code::CriticalSystemResource));
        extents.map_err(|code| self.connection.error(code, &format!("extents of topic {topic}"), PATIENCE))
    }

    /// Blocks.
    fn ask_extents(&self, name: &str) -> Result<Vec<Extent>, Code> {
        // Asking for the one topic could create it.
        let metadata = self.metadata().map_err(|error| code(&error))?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else { return Ok(Vec::new()) };
        let extent = |partition: &MetadataPartition| {
            let partition = partition.id();
            let (start, end) =
                self.producer.with_client(|client| client.fetch_watermarks(name, partition, PATIENCE))?;
            Ok(Extent { partition, start, end })
        };
        topic.partitions().iter().map(extent).collect::<KafkaResult<_>>().map_err(|error| code(&error))
    }

    pub(super) async fn truncate(&self, topic: &str, below: &[(i32, i64)]) -> Result<(), BrokerError> {
        let mut list = TopicPartitionList::with_capacity(below.len());
        for &(partition, offset) in below.iter().filter(|(_, offset)| *offset > 0) {
            // Fails for negative offsets only.
            let _ = list.add_partition_offset(topic, partition, Offset::Offset(offset));
        }
        if list.count() == 0 {
            return Ok(());
        }
        let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
        let failed = match self.admin.delete_records(&list, &options).await {
            Ok(results) => results.elements().iter().find_map(|partition| partition.error().err()).map(|e| code(&e)),
            Err(error) => Some(code(&error)),
        };
        match failed {
            // Out of range: the topic is another one than it was when these offsets were read.
            None | Some(Code::OffsetOutOfRange | Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::NoEnt) => {
                Ok(())
            }
            Some(code) => Err(self.connection.error(code, &format!("deleting records of topic {topic}"), PATIENCE)),
        }
    }

    fn measure(&self, topic: &str, partitions: &[i32], depth: &mut QueueDepth) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            list.add_partition(topic, partition);
        }
        // Not a member: it only asks what the group has committed.
        let consumer: BaseConsumer = self.config.consumer(topic).create()?;
        let committed = consumer.committed_offsets(list, PATIENCE)?;
        for element in committed.elements() {
            let (low, high) = consumer.fetch_watermarks(topic, element.partition(), PATIENCE)?;
            let next = match element.offset() {
                Offset::Offset(next) => next.max(low),
                _ => low,
            };
            depth.records += u64::try_from(high - low).unwrap_or(0);
            depth.lag += u64::try_from(high - next).unwrap_or(0);
        }
        Ok(())
    }

    pub(super) async fn ping(self: &Arc<Self>) -> Result<BrokerInfo, BrokerError> {
        let deadline = Instant::now() + PATIENCE;
        let cluster = Arc::clone(self);
        let asked = move || {
            let metadata = cluster.metadata()?;
            let id = cluster.producer.with_client(|client| client.fetch_cluster_id(Duration::ZERO));
            Ok((summary(&metadata, id.as_deref()), own_topics(&cluster, &metadata)))
        };
        let answer: KafkaResult<_> =
            apart(asked).await.ok_or(BrokerError::Refused("no thread to ask with".to_owned()))?;
        let (summary, topics) = answer.map_err(|error| self.connection.error(code(&error), "ping", PATIENCE))?;
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(500));
        let warnings = match self.describe_topics(&topics, left).await {
            Ok(settings) => settings.iter().flat_map(|settings| self.warnings(settings.as_ref())).collect(),
            Err(code) => vec![format!("the settings of the topics could not be read: {code}")],
        };
        Ok(BrokerInfo { summary, warnings })
    }

    fn warnings(&self, settings: Result<&ConfigResource, &Code>) -> Vec<String> {
        let (settings, topic) = match settings {
            Ok(settings @ ConfigResource { specifier: OwnedResourceSpecifier::Topic(topic), .. }) => (settings, topic),
            Ok(_) => return Vec::new(),
            Err(code) => return vec![format!("the settings of a topic could not be read: {code}")],
        };
        let server = self.connection.bootstrap();
        let warning = |(key, good, danger): &(&str, &str, &str)| {
            let value = settings.get(key)?.value.as_deref().filter(|value| value != good)?;
            Some(format!(
                "topic {topic} has {key}={value}: {danger}. Mend it with: kafka-configs.sh --bootstrap-server {server} \
                 --alter --entity-type topics --entity-name {topic} --add-config {key}={good}"
            ))
        };
        SETTINGS.iter().filter_map(warning).collect()
    }

    fn metadata(&self) -> KafkaResult<Metadata> {
        self.producer.with_client(|client| client.fetch_metadata(None, PATIENCE))
    }
}

fn summary(metadata: &Metadata, cluster_id: Option<&str>) -> String {
    let brokers: Vec<_> =
        metadata.brokers().iter().map(|broker| format!("{}:{}", broker.host(), broker.port())).collect();
    let (count, brokers, id) = (brokers.len(), brokers.join(", "), cluster_id.unwrap_or("unknown"));
    let noun = if count == 1 { "broker" } else { "brokers" };
    format!("kafka, {count} {noun} ({brokers}), cluster id {id}, librdkafka {}", get_rdkafka_version().1)
}

/// The topics that hold tasks: queues, and the dead letters with what became of them.
fn own_topics(cluster: &Cluster, metadata: &Metadata) -> Vec<String> {
    let namespace = &cluster.config.namespace;
    let dead = [namespace.dead_topic(), namespace.settled_topic()];
    let own = |name: &&str| queue_of(namespace, name).is_some() || dead.iter().any(|dead| dead == *name);
    metadata.topics().iter().map(|topic| topic.name()).filter(own).map(str::to_owned).collect()
}
