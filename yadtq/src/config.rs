//! The settings of a client, such as the servers' addresses: from a builder, else from the environment, else a default.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    broker::{
        Broker,
        kafka::{KafkaBroker, KafkaConfig},
        memory::MemoryBroker,
    },
    clock::{Clock, SystemClock},
    core::names::Namespace,
    error::Error,
    store::{Store, memory::MemoryStore, redis::RedisStore},
};

/// The variable with Kafka's servers, `host:port,..`, or `embedded`.
pub(crate) const KAFKA: &str = "YADTQ_KAFKA";
/// The variable with the URL of Redis.
pub(crate) const REDIS: &str = "YADTQ_REDIS";
/// The variable with the prefix of every topic and key.
pub(crate) const NAMESPACE: &str = "YADTQ_NAMESPACE";
/// The variable with settings for librdkafka, `key=value,..`.
pub(crate) const KAFKA_CONF: &str = "YADTQ_KAFKA_CONF";

/// Both servers in the memory of this process.
#[derive(Clone, Debug)]
pub(crate) struct Embedded {
    broker: Arc<MemoryBroker>,
    store: Arc<MemoryStore>,
}

impl Embedded {
    pub(crate) fn new(namespace: &Namespace, clock: Arc<dyn Clock>) -> Self {
        let broker = MemoryBroker::with_clock(namespace.clone(), Arc::clone(&clock));
        Self { broker: Arc::new(broker), store: MemoryStore::new(clock) }
    }
}

#[cfg(test)]
impl Embedded {
    pub(crate) fn store(&self) -> &MemoryStore {
        &self.store
    }
}

/// The servers that a client uses.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Servers { kafka: KafkaConfig, redis: String },
    Embedded(Embedded),
}

/// The checked settings of a client and its workers.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) target: Target,
    pub(crate) namespace: Namespace,
    pub(crate) max_record_bytes: usize,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Config {
    /// Opens connections to Kafka. A server that cannot be reached is retried in the background.
    pub(crate) fn open_broker(&self) -> Result<Arc<dyn Broker>, Error> {
        match &self.target {
            Target::Embedded(embedded) => Ok(Arc::clone(&embedded.broker) as _),
            // No server was contacted yet, so an error here is about a setting.
            Target::Servers { kafka, .. } => {
                Ok(KafkaBroker::connect(kafka.clone()).map_err(|e| Error::config(KAFKA_CONF, e))?)
            }
        }
    }

    /// The same for Redis. The connections belong to the current runtime.
    pub(crate) fn open_store(&self) -> Result<Arc<dyn Store>, Error> {
        match &self.target {
            Target::Embedded(embedded) => Ok(Arc::clone(&embedded.store) as _),
            Target::Servers { redis, .. } => {
                Ok(RedisStore::connect(redis, &self.namespace).map_err(|e| Error::config(REDIS, e))?)
            }
        }
    }

    /// The servers' addresses without passwords, to show them to a person.
    pub(crate) fn servers(&self) -> String {
        match &self.target {
            Target::Embedded(_) => "embedded".to_owned(),
            Target::Servers { kafka, redis } => {
                format!("kafka {} and redis {}", kafka.bootstrap, without_password(redis))
            }
        }
    }
}

/// The settings of a [`Client`](crate::Client). A setting that is not set comes from the environment (`YADTQ_KAFKA`,
/// `YADTQ_REDIS`, `YADTQ_NAMESPACE`, `YADTQ_KAFKA_CONF`), else it has its default.
///
/// ```no_run
/// # async fn f() -> Result<(), yadtq::Error> {
/// let client = yadtq::Client::builder()
///     .kafka("kafka-1:9092,kafka-2:9092")
///     .redis("redis://redis:6379")
///     .namespace("shop")
///     .build()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    kafka: Option<String>,
    redis: Option<String>,
    namespace: Option<String>,
    kafka_conf: Vec<(String, String)>,
    partitions: i32,
    replication: Option<i32>,
    send_timeout: Duration,
    max_record_bytes: usize,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            kafka: None,
            redis: None,
            namespace: None,
            kafka_conf: Vec::new(),
            partitions: 12,
            replication: None,
            send_timeout: Duration::from_secs(10),
            max_record_bytes: 900 * 1_024,
        }
    }
}

impl ClientBuilder {
    /// Kafka's bootstrap servers, `host:port,..`, or `embedded`. Default: `YADTQ_KAFKA`, else `localhost:9092`.
    pub fn kafka(mut self, servers: impl Into<String>) -> Self {
        self.kafka = Some(servers.into());
        self
    }

    /// The URL of Redis: `redis://`, `rediss://` (TLS) or `redis-cluster://`. Default: `YADTQ_REDIS`, else
    /// `redis://localhost:6379`.
    pub fn redis(mut self, url: impl Into<String>) -> Self {
        self.redis = Some(url.into());
        self
    }

    /// The prefix of every topic and key. Default: `YADTQ_NAMESPACE`, else `yadtq`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Adds a setting for librdkafka, such as `security.protocol`. It overrides the same setting in `YADTQ_KAFKA_CONF`.
    /// [`build`](Self::build) refuses settings that would break the guarantees, such as `acks`.
    pub fn kafka_conf(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.kafka_conf.push((key.into(), value.into()));
        self
    }

    /// Number of partitions of a topic that is created. It is the largest number of workers that can share a queue.
    /// Default: 12.
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Number of replicas of a topic that is created. Default: the broker's `default.replication.factor`.
    pub fn replication(mut self, replicas: i32) -> Self {
        self.replication = Some(replicas);
        self
    }

    /// Longest time to wait for Kafka to acknowledge a task, at least 100 ms. Default: 10 s.
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.send_timeout = timeout;
        self
    }

    /// The largest task record that is sent, in bytes; a larger task is refused with [`Error::TooLarge`]. By default Kafka
    /// refuses records above 1 MB, and a worker makes dead letters of records above
    /// [8 MiB](crate::WorkerBuilder::max_record_bytes). Default: 921,600 (900 KiB).
    pub fn max_record_bytes(mut self, bytes: usize) -> Self {
        self.max_record_bytes = bytes;
        self
    }

    pub(crate) fn config(self) -> Result<Config, Error> {
        let namespace: Namespace = match self.namespace.or_else(|| var(NAMESPACE)) {
            Some(name) => name.parse().map_err(|e| Error::config(NAMESPACE, e))?,
            None => Namespace::default(),
        };
        if self.partitions < 1 || self.replication.is_some_and(|replicas| replicas < 1) {
            return Err(Error::config("partitions, replication", "must be at least 1"));
        }
        if self.send_timeout < Duration::from_millis(100) {
            return Err(Error::config("send_timeout", "must be at least 100 ms"));
        }
        let clock = SystemClock::shared();
        let bootstrap = self.kafka.or_else(|| var(KAFKA)).unwrap_or_else(|| "localhost:9092".to_owned());
        let target = if bootstrap == "embedded" {
            Target::Embedded(process_wide(&namespace))
        } else {
            let extra = KafkaConfig::parse_extra(&var(KAFKA_CONF).unwrap_or_default());
            let mut extra = extra.map_err(|e| Error::config(KAFKA_CONF, e))?;
            extra.extend(self.kafka_conf);
            let kafka = KafkaConfig {
                bootstrap,
                extra,
                partitions: self.partitions,
                replication: self.replication,
                send_timeout: self.send_timeout,
                namespace: namespace.clone(),
            };
            let redis = self.redis.or_else(|| var(REDIS)).unwrap_or_else(|| "redis://localhost:6379".to_owned());
            Target::Servers { kafka, redis }
        };
        Ok(Config { target, namespace, max_record_bytes: self.max_record_bytes, clock })
    }
}

/// The servers for `YADTQ_KAFKA=embedded`: a process has one pair for each namespace.
fn process_wide(namespace: &Namespace) -> Embedded {
    static SHARED: Mutex<BTreeMap<String, Embedded>> = Mutex::new(BTreeMap::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let instance = shared.entry(namespace.to_string());
    instance.or_insert_with(|| Embedded::new(namespace, SystemClock::shared())).clone()
}

fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The URL without user and password, so that it can be shown.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(without_password("redis://user:secret@host:6379/1"), "redis://host:6379/1");
        assert_eq!(without_password("redis://host"), "redis://host");
    }
}
