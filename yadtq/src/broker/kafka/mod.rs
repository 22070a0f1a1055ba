//! The log in Kafka. Nothing outside this directory names librdkafka.
//!
//! ```text
//!  publish ──► topics (create) ──► producer ──► acknowledged
//!  consumer ──► subscriptions ──► assigner (one librdkafka client) ──► events
//!                                   └── acknowledged commits ──► purger
//! ```
//! Building any of these parts does not wait for Kafka: every client connects in the background and retries until it
//! succeeds. [`connection`] reports when the connection to Kafka is lost and when it is back.

mod admin;
mod assigner;
mod batch;
mod blocking;
mod command;
mod commits;
mod config;
mod connection;
mod consumer;
mod depth;
mod polled;
mod producer;
mod purger;
mod reader;
mod replicas;
mod shared;
mod slot;
mod subscription;
mod topics;

#[cfg(test)]
pub(super) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
    sync::{Arc, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{
    admin::AdminClient,
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode as Code},
};
use tokio::time::Instant;

pub(crate) use self::config::KafkaConfig;
use self::{
    blocking::DropOnThread,
    connection::{Connection, ConnectionListener},
    consumer::KafkaConsumer,
    producer::Producer,
    reader::KafkaReader,
};
use super::{Broker, BrokerError, BrokerInfo, Consumer, OffsetRange, Outgoing, QueueDepth, Reader};
use crate::restart;

/// Longest wait for the answer to a request about topics, such as metadata, offsets or settings.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A Kafka cluster.
pub(crate) struct KafkaBroker {
    cluster: Arc<Cluster>,
}

/// What the parts of this directory share.
struct Cluster {
    config: KafkaConfig,
    connection: Arc<Connection>,
    producer: Producer,
    admin: DropOnThread<AdminClient<DefaultClientContext>>,
    /// Topics that are known to exist.
    known_topics: RwLock<HashSet<Arc<str>>>,
    /// Locked while a topic is looked for and created.
    creation: tokio::sync::Mutex<()>,
}

impl KafkaBroker {
    /// A broker that connects in the background.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] if librdkafka or YADTQ refuses a setting, or if no thread can be started.
    pub(crate) fn connect(config: KafkaConfig) -> Result<Arc<Self>, BrokerError> {
        config.check()?;
        let refused = |error: KafkaError| KafkaConfig::refused(&error);
        let (connection, probe_requests) = Connection::new(config.bootstrap.clone());
        let listener = ConnectionListener(Arc::clone(&connection));
        let cluster = Arc::new(Cluster {
            producer: Producer::new(config.producer(), listener).map_err(refused)?,
            admin: DropOnThread::new(config.admin().create().map_err(refused)?),
            config,
            connection,
            known_topics: RwLock::default(),
            creation: tokio::sync::Mutex::default(),
        });
        let probed = Arc::downgrade(&cluster);
        let probe = move |timeout: Duration| {
            let cluster = probed.upgrade()?;
            let answered = cluster.producer.with_client(|client| client.fetch_metadata(None, timeout)).is_ok();
            Some((Arc::clone(&cluster.connection), answered))
        };
        let probes = move || connection::run_probes(&probe_requests, &probe);
        blocking::spawn_thread(move || restart::run_blocking("kafka probes", probes, || ())).map_err(|error| {
            BrokerError::Refused(format!("could not start a thread that watches the connection: {error}"))
        })?;
        Ok(Arc::new(Self { cluster }))
    }
}

#[async_trait]
impl Broker for KafkaBroker {
    async fn publish(&self, records: Vec<Outgoing>) -> Vec<Result<(), BrokerError>> {
        let deadline = Instant::now() + self.cluster.config.send_timeout;
        let mut unusable = BTreeMap::new();
        for topic in records.iter().map(|record| &record.topic).collect::<BTreeSet<_>>() {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Err(error) = self.cluster.ensure_topic(topic, left).await {
                unusable.insert(topic, error);
            }
        }
        let usable: Vec<_> = records.iter().filter(|record| !unusable.contains_key(&record.topic)).collect();
        let mut answers = self.cluster.producer.send(&usable, deadline).await;
        self.cluster.send_alone(&usable, &mut answers, deadline).await;
        let mut answers = answers.into_iter();
        let answer = |record: &Outgoing| match unusable.get(&record.topic) {
            Some(error) => Err(error.clone()),
            None => answers.next().unwrap_or(Err(Code::Fail)).map_err(|code| self.cluster.send_error(record, code)),
        };
        records.iter().map(answer).collect()
    }

    fn consumer(&self) -> Result<Arc<dyn Consumer>, BrokerError> {
        Ok(KafkaConsumer::start(&self.cluster)?)
    }

    async fn create(&self, topic: &Arc<str>) -> Result<(), BrokerError> {
        // It may have been deleted since it was used last.
        self.cluster.forget_topic(topic);
        self.cluster.ensure_topic(topic, self.cluster.config.send_timeout).await
    }

    fn read(&self, topic: &Arc<str>, from: &[(i32, i64)]) -> Result<Box<dyn Reader>, BrokerError> {
        Ok(Box::new(KafkaReader::start(&self.cluster, Arc::clone(topic), from)?))
    }

    async fn offset_ranges(&self, topic: &Arc<str>) -> Result<Vec<OffsetRange>, BrokerError> {
        self.cluster.offset_ranges(topic).await
    }

    async fn truncate(&self, topic: &Arc<str>, below: &[(i32, i64)]) -> Result<(), BrokerError> {
        self.cluster.truncate(topic, below).await
    }

    async fn exist(&self, topics: &[Arc<str>]) -> Result<Vec<bool>, BrokerError> {
        self.cluster.exist(topics).await
    }

    async fn queues(&self) -> Result<Vec<QueueDepth>, BrokerError> {
        self.cluster.queues().await
    }

    async fn ping(&self) -> Result<BrokerInfo, BrokerError> {
        self.cluster.ping().await
    }
}

impl Cluster {
    /// Sends records again, each by itself, that were refused as too large: Kafka compares the size of a whole batch with what the
    /// topic accepts. The smallest ones go first; if one of a topic is refused again, all that are larger are too large.
    async fn send_alone(&self, records: &[&Outgoing], answers: &mut [Result<(), Code>], deadline: Instant) {
        const REFUSED: Result<(), Code> = Err(Code::MessageSizeTooLarge);
        let mut refused: Vec<_> = (0..records.len()).filter(|&index| answers[index] == REFUSED).collect();
        refused.sort_unstable_by_key(|&index| records[index].size());
        let mut too_large = HashSet::new();
        for index in refused {
            let record = records[index];
            if Instant::now() < deadline && !too_large.contains(&record.topic) {
                answers[index] = self.producer.send(&[record], deadline).await.pop().unwrap_or(Err(Code::Fail));
                if answers[index] == REFUSED {
                    too_large.insert(&record.topic);
                }
            }
        }
    }

    /// The error for a record that Kafka did not acknowledge.
    fn send_error(&self, record: &Outgoing, code: Code) -> BrokerError {
        if code == Code::MessageSizeTooLarge {
            return BrokerError::TooLarge { topic: Arc::clone(&record.topic), len: record.size() };
        }
        self.forget_topic(&record.topic);
        self.connection.error(code, &format!("sending to topic {}", record.topic), self.config.send_timeout)
    }
}

impl fmt::Debug for KafkaBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaBroker").field("config", &self.cluster.config).finish_non_exhaustive()
    }
}
