//! Requests on behalf of operators: offsets of topics, deletion of records, and settings that endanger tasks.

use std::{sync::Arc, thread, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminOptions, ConfigResource, OwnedResourceSpecifier},
    error::{KafkaResult, RDKafkaErrorCode as Code},
    metadata::{Metadata, MetadataPartition},
    util::get_rdkafka_version,
};
use tokio::time::Instant;

use super::{
    super::{BrokerError, BrokerInfo, OffsetRange, queue_of},
    ADMIN_TIMEOUT, Cluster,
    blocking::run_blocking,
    replicas::{self, Replicas},
    topics::{LEADER_POLL_INTERVAL, code, is_leader_missing},
};

/// Shortest time that `ping` leaves for the last of its requests, however long the others took.
const MIN_SETTINGS_TIMEOUT: Duration = Duration::from_millis(500);

/// Settings of a topic that can lose tasks: the name, the value that the setting must have, and what happens otherwise.
const SETTINGS: [(&str, &str, &str); 3] = [
    ("retention.ms", "-1", "tasks that wait longer than this are deleted"),
    ("retention.bytes", "-1", "tasks are deleted when more bytes than this are waiting"),
    ("cleanup.policy", "delete", "of two tasks with the same ordering key only the later one is kept"),
];

impl Cluster {
    pub(super) async fn offset_ranges(self: &Arc<Self>, topic: &Arc<str>) -> Result<Vec<OffsetRange>, BrokerError> {
        let (cluster, asked) = (Arc::clone(self), Arc::clone(topic));
        let deadline = Instant::now() + ADMIN_TIMEOUT;
        // A new topic has no leaders for a moment.
        let ask = move || loop {
            match cluster.ask_offset_ranges(&asked) {
                Err(code) if is_leader_missing(code) && Instant::now() < deadline => {
                    thread::sleep(LEADER_POLL_INTERVAL);
                }
                answer => return answer,
            }
        };
        let offset_ranges = run_blocking(ask).await.unwrap_or(Err(Code::CriticalSystemResource));
        offset_ranges.map_err(|code| self.connection.error(code, &format!("offsets of topic {topic}"), ADMIN_TIMEOUT))
    }

    /// Blocks.
    fn ask_offset_ranges(&self, name: &str) -> Result<Vec<OffsetRange>, Code> {
        // A request for this one topic could create it.
        let metadata = self.metadata().map_err(|error| code(&error))?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else { return Ok(Vec::new()) };
        let offsets = |partition: &MetadataPartition| {
            let partition = partition.id();
            let (start, end) =
                self.producer.with_client(|client| client.fetch_watermarks(name, partition, ADMIN_TIMEOUT))?;
            Ok(OffsetRange { partition, start, end })
        };
        topic.partitions().iter().map(offsets).collect::<KafkaResult<_>>().map_err(|error| code(&error))
    }

    pub(super) async fn truncate(&self, topic: &str, below: &[(i32, i64)]) -> Result<(), BrokerError> {
        let options = AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT)).operation_timeout(Some(ADMIN_TIMEOUT));
        match self.delete_records(topic, below.iter().copied(), &options).await {
            // Out of range: the topic was deleted and created again after these offsets were read.
            Ok(()) | Err(Code::OffsetOutOfRange | Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::NoEnt) => {
                Ok(())
            }
            Err(code) => Err(self.connection.error(code, &format!("deleting records of topic {topic}"), ADMIN_TIMEOUT)),
        }
    }

    /// Deletes the records below these offsets, given by partition. Offsets that are not positive have no effect.
    pub(super) async fn delete_records(
        &self, topic: &str, below: impl Iterator<Item = (i32, i64)>, options: &AdminOptions,
    ) -> Result<(), Code> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in below.filter(|&(_, offset)| offset > 0) {
            // Fails for negative offsets only.
            let _ = list.add_partition_offset(topic, partition, Offset::Offset(offset));
        }
        if list.count() == 0 {
            return Ok(());
        }
        let results = self.admin.delete_records(&list, options).await.map_err(|error| code(&error))?;
        let failed = results.elements().iter().find_map(|partition| partition.error().err());
        failed.map_or(Ok(()), |error| Err(code(&error)))
    }

    pub(super) async fn ping(self: &Arc<Self>) -> Result<BrokerInfo, BrokerError> {
        let deadline = Instant::now() + ADMIN_TIMEOUT;
        let cluster = Arc::clone(self);
        let ask = move || {
            let metadata = cluster.metadata()?;
            let id = cluster.producer.with_client(|client| client.fetch_cluster_id(Duration::ZERO));
            Ok((summary(&metadata, id.as_deref()), own_topics(&cluster, &metadata), metadata.brokers().len()))
        };
        let answer: KafkaResult<_> =
            run_blocking(ask).await.ok_or(BrokerError::Refused("could not start a thread".to_owned()))?;
        let (summary, mut replicas, brokers) =
            answer.map_err(|error| self.connection.error(code(&error), "ping", ADMIN_TIMEOUT))?;
        let topics: Vec<_> = replicas.iter().map(|of| of.topic.as_str()).collect();
        let left = deadline.saturating_duration_since(Instant::now()).max(MIN_SETTINGS_TIMEOUT);
        let mut warnings = Vec::new();
        match self.describe_topics(&topics, left).await {
            Ok(settings) => {
                warnings.extend(settings.iter().flat_map(|settings| self.warnings(settings.as_ref())));
                for settings in settings.iter().flatten() {
                    let OwnedResourceSpecifier::Topic(topic) = &settings.specifier else { continue };
                    if let Some(of) = replicas.iter_mut().find(|of| of.topic == *topic) {
                        of.set(settings);
                    }
                }
            }
            Err(code) => warnings.push(format!("the settings of the topics could not be read: {code}")),
        }
        warnings.extend(replicas::warnings(&replicas, brokers, self.connection.bootstrap()));
        Ok(BrokerInfo { summary, warnings })
    }

    /// One warning for each setting of a topic that can lose tasks.
    fn warnings(&self, settings: Result<&ConfigResource, &Code>) -> Vec<String> {
        let (settings, topic) = match settings {
            Ok(settings @ ConfigResource { specifier: OwnedResourceSpecifier::Topic(topic), .. }) => (settings, topic),
            Ok(_) => return Vec::new(),
            Err(code) => return vec![format!("the settings of a topic could not be read: {code}")],
        };
        // These have another policy.
        if self.config.namespace.is_compacted(topic) {
            return Vec::new();
        }
        let server = self.connection.bootstrap();
        let warning = |(key, good, danger): &(&str, &str, &str)| {
            let value = settings.get(key)?.value.as_deref().filter(|value| value != good)?;
            Some(format!(
                "topic {topic} has {key}={value}: {danger}. Fix it with: kafka-configs.sh --bootstrap-server {server} \
                 --alter --entity-type topics --entity-name {topic} --add-config {key}={good}"
            ))
        };
        SETTINGS.iter().filter_map(warning).collect()
    }

    /// The metadata of the whole cluster. Blocks.
    pub(super) fn metadata(&self) -> KafkaResult<Metadata> {
        self.producer.with_client(|client| client.fetch_metadata(None, ADMIN_TIMEOUT))
    }
}

fn summary(metadata: &Metadata, cluster_id: Option<&str>) -> String {
    let brokers: Vec<_> =
        metadata.brokers().iter().map(|broker| format!("{}:{}", broker.host(), broker.port())).collect();
    let (count, brokers, id) = (brokers.len(), brokers.join(", "), cluster_id.unwrap_or("unknown"));
    let noun = if count == 1 { "broker" } else { "brokers" };
    format!("kafka, {count} {noun} ({brokers}), cluster id {id}, librdkafka {}", get_rdkafka_version().1)
}

/// The topics of this namespace that exist.
fn own_topics(cluster: &Cluster, metadata: &Metadata) -> Vec<Replicas> {
    let namespace = &cluster.config.namespace;
    let others =
        [namespace.dead_topic(), namespace.settled_topic(), namespace.delayed_topic(), namespace.control_topic()];
    let own = |name: &str| queue_of(namespace, name).is_some() || others.iter().any(|other| other == name);
    metadata.topics().iter().filter(|topic| own(topic.name())).map(Replicas::of).collect()
}
