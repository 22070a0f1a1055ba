//! The log in Kafka. Nothing outside this directory names librdkafka.
//!
//! ```text
//!  publish ──► topics (create) ──► producer ──► acknowledged
//!  subscribe ──► consumer ──► member (one librdkafka client) ──► events
//!                               └── acknowledged commits ──► purge
//! ```
//! Nothing here waits for Kafka when it is built: every client connects in the background and goes on trying.
//! [`connection`] tells when Kafka comes and goes.

mod admin;
mod apart;
mod config;
mod connection;
mod consumer;
mod member;
mod producer;
mod purge;
mod reader;
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

pub use self::config::KafkaConfig;
use self::{
    apart::DropApart,
    connection::{Connection, Ears},
    consumer::KafkaSubscription,
    producer::Producer,
    reader::KafkaReader,
};
use super::{Broker, BrokerError, BrokerInfo, Extent, Outgoing, QueueDepth, Reader, Subscription};

/// A Kafka cluster.
pub struct KafkaBroker {
    cluster: Arc<Cluster>,
}

/// What the parts share.
struct Cluster {
    config: KafkaConfig,
    connection: Arc<Connection>,
    producer: Producer,
    admin: DropApart<AdminClient<DefaultClientContext>>,
    /// Topics that are known to exist.
    known: RwLock<HashSet<Arc<str>>>,
    creating: tokio::sync::Mutex<()>,
}

impl KafkaBroker {
    /// A broker that connects in the background. Fails only for settings that librdkafka or YADTQ refuses.
    pub fn connect(config: KafkaConfig) -> Result<Arc<Self>, BrokerError> {
        config.check()?;
        let refused = |error: KafkaError| BrokerError::Refused(error.to_string());
        let (connection, questions) = Connection::new(config.bootstrap.clone());
        let ears = Ears(Arc::clone(&connection));
        let cluster = Arc::new(Cluster {
            producer: Producer::new(config.producer(), ears).map_err(refused)?,
            admin: DropApart::new(config.admin().create().map_err(refused)?),
            config,
            connection,
            known: RwLock::default(),
            creating: tokio::sync::Mutex::default(),
        });
        let watched = Arc::downgrade(&cluster);
        let ask = move |patience: Duration| {
            let cluster = watched.upgrade()?;
            let answered = cluster.producer.with_client(|client| client.fetch_metadata(None, patience)).is_ok();
            Some((Arc::clone(&cluster.connection), answered))
        };
        apart::spawn(move || connection::watch(&questions, ask))
            .map_err(|error| BrokerError::Refused(format!("no thread to watch the connection: {error}")))?;
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
        let mut answers = self.cluster.producer.send(&usable, deadline).await.into_iter();
        let answer = |record: &Outgoing| match unusable.get(&record.topic) {
            Some(error) => Err(error.clone()),
            None => answers.next().unwrap_or(Err(Code::Fail)).map_err(|code| self.cluster.unsent(record, code)),
        };
        records.iter().map(answer).collect()
    }

    fn subscribe(&self, topic: &Arc<str>) -> Result<Arc<dyn Subscription>, BrokerError> {
        Ok(Arc::new(KafkaSubscription::start(Arc::clone(&self.cluster), Arc::clone(topic))?))
    }

    fn read(&self, topic: &Arc<str>, from: &[(i32, i64)]) -> Result<Box<dyn Reader>, BrokerError> {
        Ok(Box::new(KafkaReader::start(&self.cluster, Arc::clone(topic), from)?))
    }

    async fn extents(&self, topic: &Arc<str>) -> Result<Vec<Extent>, BrokerError> {
        self.cluster.extents(topic).await
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
    fn unsent(&self, record: &Outgoing, code: Code) -> BrokerError {
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
