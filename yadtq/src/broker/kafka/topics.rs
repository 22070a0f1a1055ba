//! Topics are created by whoever needs them first.
//!
//! Retention is endless: a record goes when its task is finished, not when it is old. An existing topic is never
//! altered; what is wrong with it is for `ping` to say.

use std::{
    sync::{Arc, PoisonError},
    thread,
    time::Duration,
};

use rdkafka::{
    admin::{AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
    metadata::MetadataTopic,
};
use tokio::time::{Instant, timeout_at};
use tracing::info;

use super::{
    super::{BrokerError, queue_of},
    Cluster,
    apart::apart,
};

/// A dead letter is the largest record of a queue with its reasons, and so is one that waits for its retry.
const DEAD_LETTER_EXTRA: u64 = 65_536;
/// Pause between two questions to a topic that is about to exist.
pub(super) const SETTLE_PAUSE: Duration = Duration::from_millis(10);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Kafka's default for `max.message.bytes`.
const DEFAULT_MAX_MESSAGE_BYTES: u64 = 1_048_588;

impl Cluster {
    /// Creates the topic if it is missing.
    pub(super) async fn ensure_topic(self: &Arc<Self>, topic: &Arc<str>, within: Duration) -> Result<(), BrokerError> {
        if self.knows(topic) {
            return Ok(());
        }
        let deadline = Instant::now() + within;
        // One at a time: a thousand first publishes need not ask a thousand times.
        let Ok(_turn) = timeout_at(deadline, self.creating.lock()).await else {
            return Err(self.connection.error(Code::OperationTimedOut, topic, within));
        };
        if self.knows(topic) {
            return Ok(());
        }
        let left = || deadline.saturating_duration_since(Instant::now());
        let topics = self.topic_names(left()).await.map_err(|code| self.connection.error(code, topic, within))?;
        if !topics.iter().any(|name| **name == **topic) {
            self.create_topic(topic, &topics, left())
                .await
                .map_err(|code| self.connection.error(code, &format!("creating topic {topic}"), within))?;
        }
        self.await_leaders(topic, left())
            .await
            .map_err(|code| self.connection.error(code, &format!("leaders of topic {topic}"), within))?;
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(topic));
        Ok(())
    }

    /// Looks again before the next use: the topic may have been deleted.
    pub(super) fn forget_topic(&self, topic: &str) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(topic);
    }

    fn knows(&self, topic: &str) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).contains(topic)
    }

    /// All topics of the cluster. Asking for a single one could create it.
    pub(super) async fn topic_names(self: &Arc<Self>, within: Duration) -> Result<Vec<String>, Code> {
        let cluster = Arc::clone(self);
        let metadata = apart(move || cluster.producer.with_client(|client| client.fetch_metadata(None, within)));
        let metadata = metadata.await.ok_or(Code::CriticalSystemResource)?.map_err(|error| code(&error))?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// Which of these topics are there. Asks for these alone: workers do so every second, and a cluster may have many.
    pub(super) async fn exist(self: &Arc<Self>, topics: &[Arc<str>]) -> Result<Vec<bool>, BrokerError> {
        let (cluster, asked) = (Arc::clone(self), topics.to_vec());
        let ask = move || asked.iter().map(|topic| cluster.ask_existence(topic)).collect::<Result<_, _>>();
        let answers = apart(ask).await.unwrap_or(Err(Code::CriticalSystemResource));
        answers.map_err(|code| self.connection.error(code, "looking for topics", PATIENCE))
    }

    /// Blocks. Creates no topic: the producer's `allow.auto.create.topics` is off.
    fn ask_existence(&self, topic: &str) -> Result<bool, Code> {
        let metadata = self.producer.with_client(|client| client.fetch_metadata(Some(topic), PATIENCE));
        let metadata = metadata.map_err(|error| code(&error))?;
        Ok(metadata.topics().iter().any(|found| found.name() == topic && !found.partitions().is_empty()))
    }

    /// Waits until every partition answers. What is sent earlier to a new topic is refused, sent again by librdkafka,
    /// and may then come after what was sent later.
    async fn await_leaders(self: &Arc<Self>, topic: &Arc<str>, within: Duration) -> Result<(), Code> {
        let (cluster, topic, deadline) = (Arc::clone(self), Arc::clone(topic), Instant::now() + within);
        let ask = move || loop {
            match cluster.ask_leaders(&topic, deadline) {
                Err(error) if is_settling(code(&error)) && Instant::now() < deadline => thread::sleep(SETTLE_PAUSE),
                answer => return answer,
            }
        };
        apart(ask).await.ok_or(Code::CriticalSystemResource)?.map_err(|error| code(&error))
    }

    /// Blocks.
    fn ask_leaders(&self, topic: &str, deadline: Instant) -> KafkaResult<()> {
        let left = || deadline.saturating_duration_since(Instant::now());
        self.producer.with_client(|client| {
            let metadata = client.fetch_metadata(Some(topic), left())?;
            let partitions = metadata.topics().first().map(MetadataTopic::partitions).unwrap_or_default();
            if partitions.is_empty() {
                return Err(KafkaError::MetadataFetch(Code::UnknownTopic));
            }
            partitions.iter().try_for_each(|partition| client.fetch_watermarks(topic, partition.id(), left()).map(drop))
        })
    }

    async fn create_topic(&self, topic: &str, existing: &[String], within: Duration) -> Result<(), Code> {
        let replication = TopicReplication::Fixed(self.config.replication.unwrap_or(-1));
        let mut new = NewTopic::new(topic, self.config.partitions, replication).set("retention.ms", "-1");
        let (is_dead, is_compacted) =
            (topic == self.config.namespace.dead_topic(), self.config.namespace.is_compacted(topic));
        let max_message_bytes;
        if is_dead || is_compacted {
            max_message_bytes = (self.largest_record(existing, within).await + DEAD_LETTER_EXTRA).to_string();
            new = new.set("max.message.bytes", &max_message_bytes);
        }
        if is_compacted {
            // Compacted often, so that whoever takes over reads what waits and little else.
            new = new.set("cleanup.policy", "compact").set("segment.ms", "3600000");
            new = new.set("min.cleanable.dirty.ratio", "0.1");
        }
        // The second option makes the broker answer when the topic is there, not when it has begun.
        let options = AdminOptions::new().request_timeout(Some(within)).operation_timeout(Some(within));
        let results = self.admin.create_topics([&new], &options).await.map_err(|error| code(&error))?;
        match results.into_iter().next() {
            Some(Err((_, Code::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, code))) => Err(code),
            Some(Ok(_)) | None => {
                info!(event = "topic_created", topic, partitions = self.config.partitions, "created a topic");
                Ok(())
            }
        }
    }

    /// The largest `max.message.bytes` of the queues.
    async fn largest_record(&self, topics: &[String], within: Duration) -> u64 {
        let queue = |topic: &&str| queue_of(&self.config.namespace, topic).is_some();
        let queues: Vec<_> = topics.iter().map(String::as_str).filter(queue).collect();
        let settings = self.describe_topics(&queues, within).await.unwrap_or_default();
        let limit = |settings: &Result<ConfigResource, Code>| {
            settings.as_ref().ok()?.get("max.message.bytes")?.value.as_ref()?.parse().ok()
        };
        settings.iter().filter_map(limit).max().unwrap_or(DEFAULT_MAX_MESSAGE_BYTES)
    }

    /// The settings of topics, in any order.
    pub(super) async fn describe_topics(
        &self, topics: &[&str], within: Duration,
    ) -> Result<Vec<Result<ConfigResource, Code>>, Code> {
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let resources: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let options = AdminOptions::new().request_timeout(Some(within));
        self.admin.describe_configs(&resources, &options).await.map_err(|error| code(&error))
    }
}

/// A new topic, or one whose leader moves.
pub(super) fn is_settling(code: Code) -> bool {
    matches!(
        code,
        Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
    )
}

/// The code of an error. rdkafka hides that of a failed admin operation.
pub(super) fn code(error: &KafkaError) -> Code {
    match error {
        KafkaError::AdminOp(code) => *code,
        KafkaError::AdminOpCreation(_) => Code::InvalidArgument,
        error => error.rdkafka_error_code().unwrap_or(Code::Fail),
    }
}
