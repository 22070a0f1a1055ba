//! Creates topics when they are needed for the first time.
//!
//! Created topics have no retention limit: a record is deleted when its task is finished, not when it is old. An
//! existing topic is never altered; `ping` reports settings of it that can lose tasks.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rdkafka::{
    ClientContext,
    admin::{AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication},
    client::Client,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
    metadata::{Metadata, MetadataTopic},
};
use tokio::time::{Instant, timeout_at};
use tracing::{error, info};

use super::{
    super::{BrokerError, DEFAULT_MAX_MESSAGE_BYTES, EXTRA_MESSAGE_BYTES, queue_of},
    ADMIN_TIMEOUT, Cluster,
    blocking::run_blocking,
    replicas::{self, Replicas},
};

/// If the cluster has at most this many times as many topics as are looked for, one request asks for all of them.
const MAX_FOREIGN_SHARE: usize = 20;
/// Time from one request to the next while a new topic has no leaders yet.
pub(super) const LEADER_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Looks for each of these topics. Requests all topics at once, unless the
/// cluster has many others. `total`: the number of its topics, as far as that is known. Blocks.
pub(super) fn find_topics<C: ClientContext>(
    client: &Client<C>, topics: &[Arc<str>], total: &AtomicUsize, deadline: Instant,
) -> Result<Vec<Found>, Code> {
    let fetch = |topic: Option<&str>| {
        let left = deadline.saturating_duration_since(Instant::now());
        client.fetch_metadata(topic, left).map_err(|error| code(&error))
    };
    if total.load(Ordering::Relaxed) <= topics.len() * MAX_FOREIGN_SHARE {
        let all = fetch(None)?;
        total.store(all.topics().len(), Ordering::Relaxed);
        return Ok(topics.iter().map(|topic| Found::new(&all, topic)).collect());
    }
    topics.iter().map(|topic| Ok(Found::new(&fetch(Some(topic))?, topic))).collect()
}

/// What Kafka says of a topic.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    /// It has this many partitions.
    Partitions(u32),
    Missing,
    /// It may exist: Kafka refused to say, or has no answer yet.
    Unsure,
}

impl Found {
    fn new(metadata: &Metadata, topic: &str) -> Self {
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Self::Missing };
        match found.error().map(Code::from) {
            None if found.partitions().is_empty() => Self::Missing,
            None => u32::try_from(found.partitions().len()).map_or(Self::Unsure, Self::Partitions),
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Self::Missing,
            Some(_) => Self::Unsure,
        }
    }
}

impl Cluster {
    /// Creates the topic if it is missing.
    pub(super) async fn ensure_topic(self: &Arc<Self>, topic: &Arc<str>, within: Duration) -> Result<(), BrokerError> {
        if self.knows(topic) {
            return Ok(());
        }
        let deadline = Instant::now() + within;
        // One caller at a time, so that many first publishes at once cause one request.
        let Ok(_creation) = timeout_at(deadline, self.creation.lock()).await else {
            return Err(self.connection.error(Code::OperationTimedOut, topic, within));
        };
        if self.knows(topic) {
            return Ok(());
        }
        let left = || deadline.saturating_duration_since(Instant::now());
        let topics = self.topic_names(left()).await.map_err(|code| self.connection.error(code, topic, within))?;
        // One partition without a leader must not keep others from being used: only what is new has to have all.
        if !topics.iter().any(|name| **name == **topic) {
            self.create_topic(topic, &topics, left())
                .await
                .map_err(|code| self.connection.error(code, &format!("creating topic {topic}"), within))?;
            self.await_leaders(topic, left())
                .await
                .map_err(|code| self.connection.error(code, &format!("leaders of topic {topic}"), within))?;
        }
        self.known_topics.write().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(topic));
        Ok(())
    }

    /// Makes the next use of the topic check that it exists: it may have been deleted.
    pub(super) fn forget_topic(&self, topic: &str) {
        self.known_topics.write().unwrap_or_else(PoisonError::into_inner).remove(topic);
    }

    fn knows(&self, topic: &str) -> bool {
        self.known_topics.read().unwrap_or_else(PoisonError::into_inner).contains(topic)
    }

    /// The names of all topics of the cluster. A request for a single topic could create it.
    pub(super) async fn topic_names(self: &Arc<Self>, within: Duration) -> Result<Vec<String>, Code> {
        let cluster = Arc::clone(self);
        let metadata = run_blocking(move || cluster.producer.with_client(|client| client.fetch_metadata(None, within)));
        let metadata = metadata.await.ok_or(Code::CriticalSystemResource)?.map_err(|error| code(&error))?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// Whether each of these topics exists. Requests only these topics, because workers do so every second and a
    /// cluster may have many others.
    pub(super) async fn exist(self: &Arc<Self>, topics: &[Arc<str>]) -> Result<Vec<bool>, BrokerError> {
        let (cluster, asked) = (Arc::clone(self), topics.to_vec());
        let ask = move || asked.iter().map(|topic| cluster.ask_existence(topic)).collect::<Result<_, _>>();
        let answers = run_blocking(ask).await.unwrap_or(Err(Code::CriticalSystemResource));
        answers.map_err(|code| self.connection.error(code, "looking for topics", ADMIN_TIMEOUT))
    }

    /// Blocks. Creates no topic, because the producer has `allow.auto.create.topics` off.
    fn ask_existence(&self, topic: &str) -> Result<bool, Code> {
        let metadata = self.producer.with_client(|client| client.fetch_metadata(Some(topic), ADMIN_TIMEOUT));
        let metadata = metadata.map_err(|error| code(&error))?;
        Ok(metadata.topics().iter().any(|found| found.name() == topic && !found.partitions().is_empty()))
    }

    /// Waits until every partition of a new topic has a leader, and logs if it could be lost with one of them. Kafka refuses records that come earlier, and librdkafka sends them
    /// again, perhaps after later records.
    async fn await_leaders(self: &Arc<Self>, topic: &Arc<str>, within: Duration) -> Result<(), Code> {
        let (cluster, topic, deadline) = (Arc::clone(self), Arc::clone(topic), Instant::now() + within);
        let ask = move || loop {
            match cluster.ask_leaders(&topic, deadline) {
                Err(error) if is_leader_missing(code(&error)) && Instant::now() < deadline => {
                    thread::sleep(LEADER_POLL_INTERVAL);
                }
                answer => return answer,
            }
        };
        run_blocking(ask).await.ok_or(Code::CriticalSystemResource)?.map_err(|error| code(&error))
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
            partitions
                .iter()
                .try_for_each(|partition| client.fetch_watermarks(topic, partition.id(), left()).map(drop))?;
            let replicas: Vec<_> = metadata.topics().iter().map(Replicas::of).collect();
            for warning in replicas::warnings(&replicas, metadata.brokers().len(), self.connection.bootstrap()) {
                error!(event = "broker_warning", server = self.connection.bootstrap(), "{warning}");
            }
            Ok(())
        })
    }

    async fn create_topic(&self, topic: &str, existing: &[String], within: Duration) -> Result<(), Code> {
        let replication = TopicReplication::Fixed(self.config.replication.unwrap_or(-1));
        let mut new = NewTopic::new(topic, self.config.partitions, replication).set("retention.ms", "-1");
        let (is_dead, is_compacted) =
            (topic == self.config.namespace.dead_topic(), self.config.namespace.is_compacted(topic));
        let (max_message_bytes, min_in_sync);
        if let Some(replicas) = self.config.min_in_sync {
            min_in_sync = replicas.to_string();
            new = new.set("min.insync.replicas", &min_in_sync);
        }
        if is_dead || is_compacted {
            max_message_bytes = (self.largest_record(existing, within).await + EXTRA_MESSAGE_BYTES).to_string();
            new = new.set("max.message.bytes", &max_message_bytes);
        }
        if is_compacted {
            // Compacted often, so that a new owner reads the waiting records and few others.
            new = new.set("cleanup.policy", "compact").set("segment.ms", "3600000");
            new = new.set("min.cleanable.dirty.ratio", "0.1");
        }
        if topic == self.config.namespace.delayed_topic() {
            // It is always read whole, so deletions are needed for as long as that takes. Kafka deletes records on request only
            // with the policy `delete`; without a retention limit it deletes none by itself.
            new = new.set("cleanup.policy", "compact,delete").set("retention.bytes", "-1");
            new = new.set("delete.retention.ms", "600000").set("segment.ms", "600000");
            new = new.set("max.compaction.lag.ms", "600000");
        }
        // The second option makes the broker answer when it has created the topic, not when it has started to.
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

    /// The largest `max.message.bytes` of the queues among these topics, or Kafka's default if there is none.
    async fn largest_record(&self, topics: &[String], within: Duration) -> usize {
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

/// Whether the error says that a partition has no leader yet: its topic is new, or the leader is moving.
pub(super) fn is_leader_missing(code: Code) -> bool {
    matches!(
        code,
        Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
    )
}

/// The code of an error. For a failed admin operation, rdkafka's own accessor does not return it.
pub(super) fn code(error: &KafkaError) -> Code {
    match error {
        KafkaError::AdminOp(code) => *code,
        KafkaError::AdminOpCreation(_) => Code::InvalidArgument,
        error => error.rdkafka_error_code().unwrap_or(Code::Fail),
    }
}
