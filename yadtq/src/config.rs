//! Where the servers are and what a client may do: from a builder, from the environment, else defaults.

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

/// `host:port,..` of Kafka, or `embedded`.
pub(crate) const KAFKA: &str = "YADTQ_KAFKA";
/// URL of Redis.
pub(crate) const REDIS: &str = "YADTQ_REDIS";
/// Prefix of every topic and key.
pub(crate) const NAMESPACE: &str = "YADTQ_NAMESPACE";
/// `key=value,..` for librdkafka.
pub(crate) const KAFKA_CONF: &str = "YADTQ_KAFKA_CONF";

/// Both servers in memory, for one process.
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

/// Which servers.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Servers { kafka: KafkaConfig, redis: String },
    Embedded(Embedded),
}

/// Connections to both servers.
pub(crate) type Servers = (Arc<dyn Broker>, Arc<dyn Store>);

/// What clients and workers are made from.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) target: Target,
    pub(crate) namespace: Namespace,
    pub(crate) max_record_bytes: usize,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Config {
    /// Opens connections that belong to the current runtime. Servers that cannot be reached are retried in the
    /// background.
    pub(crate) fn open(&self) -> Result<Servers, Error> {
        match &self.target {
            Target::Embedded(Embedded { broker, store }) => Ok((Arc::clone(broker) as _, Arc::clone(store) as _)),
            Target::Servers { kafka, redis } => {
                // Nobody has been asked yet, so what fails here is a setting.
                let broker = KafkaBroker::connect(kafka.clone()).map_err(|e| Error::config(KAFKA_CONF, e))?;
                let store = RedisStore::connect(redis, &self.namespace).map_err(|e| Error::config(REDIS, e))?;
                Ok((broker, store))
            }
        }
    }

    /// Where the servers are, for people.
    pub(crate) fn servers(&self) -> String {
        match &self.target {
            Target::Embedded(_) => "embedded".to_owned(),
            Target::Servers { kafka, redis } => {
                format!("kafka {} and redis {}", kafka.bootstrap, without_password(redis))
            }
        }
    }
}

/// Settings of a [`Client`](crate::Client). What is not set comes from the environment (`YADTQ_KAFKA`,
/// `YADTQ_REDIS`, `YADTQ_NAMESPACE`, `YADTQ_KAFKA_CONF`), else has its default.
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

    /// One more setting for librdkafka, such as `security.protocol`. Wins over the same one in
    /// `YADTQ_KAFKA_CONF`. Settings on which the guarantees rest are refused by [`build`](Self::build).
    pub fn kafka_conf(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.kafka_conf.push((key.into(), value.into()));
        self
    }

    /// Partitions of a topic that has to be created: the most workers that can share its queue. Default: 12.
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Replicas of a topic that has to be created. Default: the broker's `default.replication.factor`.
    pub fn replication(mut self, replicas: i32) -> Self {
        self.replication = Some(replicas);
        self
    }

    /// How long Kafka may take to acknowledge a task. Default: 10 s.
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.send_timeout = timeout;
        self
    }

    /// The largest task record that is sent, in bytes. Kafka's own limit is 1 MB by default, and a worker's
    /// [8 MiB](crate::WorkerBuilder::max_record_bytes): what is over those ends as a dead letter, or is refused.
    /// Default: 921,600.
    pub fn max_record_bytes(mut self, bytes: usize) -> Self {
        self.max_record_bytes = bytes;
        self
    }

    /// Checks everything and connects. Waits for Redis, at most a second, so that the first tasks can be noted as
    /// queued. Servers that cannot be reached are no error here: they are retried in the background, and calls
    /// that need them fail within their timeouts.
    ///
    /// # Errors
    /// [`Error::Config`]: a name, URL, number or librdkafka setting is wrong.
    pub async fn build(self) -> Result<crate::Client, Error> {
        crate::Client::connect(self.config()?).await
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

/// The instance behind `YADTQ_KAFKA=embedded`: one for the process and namespace.
fn process_wide(namespace: &Namespace) -> Embedded {
    static SHARED: Mutex<BTreeMap<String, Embedded>> = Mutex::new(BTreeMap::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let instance = shared.entry(namespace.to_string());
    instance.or_insert_with(|| Embedded::new(namespace, SystemClock::shared())).clone()
}

fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The URL as it may be shown.
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
