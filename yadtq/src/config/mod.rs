//! The settings of a client, such as the servers' addresses: from a builder, else from the environment, else a default.

#[cfg_attr(not(all(feature = "kafka", feature = "redis")), path = "no_servers.rs")]
mod servers;
mod settings;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub(crate) use self::settings::{KAFKA, KAFKA_CONF, NAMESPACE, REDIS, REDIS_TLS};
use self::{
    servers::Servers,
    settings::{Settings, var},
};
use crate::{
    broker::{Broker, memory::MemoryBroker},
    clock::{Clock, SystemClock},
    core::{names::Namespace, secret::Secret},
    error::Error,
    store::{Store, memory::MemoryStore},
};

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
    /// Kafka and Redis.
    Servers(Arc<Servers>),
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
            Target::Servers(servers) => servers.open_broker(),
        }
    }

    /// The same for Redis. The connections belong to the current runtime.
    pub(crate) fn open_store(&self) -> Result<Arc<dyn Store>, Error> {
        match &self.target {
            Target::Embedded(embedded) => Ok(Arc::clone(&embedded.store) as _),
            Target::Servers(servers) => servers.open_store(&self.namespace),
        }
    }

    /// The servers' addresses without passwords, to show them to a person.
    pub(crate) fn servers(&self) -> String {
        match &self.target {
            Target::Embedded(_) => "embedded".to_owned(),
            Target::Servers(servers) => servers.addresses(),
        }
    }
}

/// The settings of a [`Client`](crate::Client). A setting that is not set comes from the environment (`YADTQ_KAFKA`,
/// `YADTQ_REDIS`, `YADTQ_NAMESPACE`, `YADTQ_KAFKA_CONF`, `YADTQ_REDIS_TLS`), else it has its default.
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
    redis: Option<Secret>,
    redis_tls: Vec<(String, Secret)>,
    namespace: Option<String>,
    kafka_conf: Vec<(String, Secret)>,
    partitions: i32,
    replication: Option<i32>,
    min_in_sync: Option<i32>,
    send_timeout: Duration,
    max_record_bytes: usize,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            kafka: None,
            redis: None,
            redis_tls: Vec::new(),
            namespace: None,
            kafka_conf: Vec::new(),
            partitions: 12,
            replication: None,
            min_in_sync: None,
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

    /// The URL of Redis: `redis://`, `redis-cluster://`, `redis-sentinel://`, or one of them with `rediss` for TLS. Default: `YADTQ_REDIS`, else
    /// `redis://localhost:6379`.
    pub fn redis(mut self, url: impl Into<String>) -> Self {
        self.redis = Some(Secret::new(url));
        self
    }

    /// Adds a setting of TLS towards Redis, for a URL that begins with `rediss`: `ca` is a file with the certificates of those that
    /// sign the server's, in PEM format (default: whom the system trusts), `cert` and `key` are files with this
    /// client's own, `server-name` is the name in the server's certificate (default: the host in the URL). It overrides the
    /// same setting in `YADTQ_REDIS_TLS` (`ca=/etc/ca.pem,..`).
    ///
    /// ```no_run
    /// # async fn f() -> Result<(), yadtq::Error> {
    /// let client = yadtq::Client::builder().redis("rediss://redis:6380").redis_tls("ca", "/etc/ca.pem");
    /// # client.build().await?;
    /// # Ok(()) }
    /// ```
    pub fn redis_tls(mut self, setting: impl Into<String>, value: impl Into<String>) -> Self {
        self.redis_tls.push((setting.into(), Secret::new(value)));
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
        self.kafka_conf.push((key.into(), Secret::new(value)));
        self
    }

    /// Number of partitions of a topic that is created. It is the largest number of workers that can share a queue.
    /// Default: 12.
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Number of replicas of a topic that is created, and with it how many of them must have a task before it counts as sent:
    /// one less, so that one broker can be away, but at least one. Default: the broker's `default.replication.factor` and
    /// `min.insync.replicas`. With three brokers or more, 3 is right: nothing is lost with a broker, and everything goes on.
    ///
    /// ```
    /// let client = yadtq::Client::builder().replication(3); // min.insync.replicas is 2
    /// ```
    pub fn replication(mut self, replicas: i32) -> Self {
        self.replication = Some(replicas);
        self
    }

    /// The `min.insync.replicas` of a topic that is created: how many replicas must have a task before it counts as sent, at
    /// most as many as there are. With fewer in sync, nothing can be sent. Default: that of
    /// [`replication`](Self::replication).
    ///
    /// ```
    /// let client = yadtq::Client::builder().replication(5).min_in_sync_replicas(3);
    /// ```
    pub fn min_in_sync_replicas(mut self, replicas: i32) -> Self {
        self.min_in_sync = Some(replicas);
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
        let most = self.replication.unwrap_or(i32::MAX);
        if self.min_in_sync.is_some_and(|replicas| replicas < 1 || replicas > most) {
            return Err(Error::config(
                "min_in_sync_replicas",
                "must be at least 1, and at most the number of replicas",
            ));
        }
        if self.send_timeout < Duration::from_millis(100) {
            return Err(Error::config("send_timeout", "must be at least 100 ms"));
        }
        let clock = SystemClock::shared();
        let bootstrap = self.kafka.or_else(|| var(KAFKA)).unwrap_or_else(|| "localhost:9092".to_owned());
        let target = if bootstrap == "embedded" {
            Target::Embedded(process_wide(&namespace))
        } else {
            let settings = Settings {
                kafka: bootstrap,
                redis: self
                    .redis
                    .or_else(|| var(REDIS).map(Secret::new))
                    .unwrap_or_else(|| Secret::new("redis://localhost:6379")),
                redis_tls_environment: Secret::new(var(REDIS_TLS).unwrap_or_default()),
                redis_tls: self.redis_tls,
                environment: Secret::new(var(KAFKA_CONF).unwrap_or_default()),
                kafka_conf: self.kafka_conf,
                partitions: self.partitions,
                replication: self.replication,
                min_in_sync: self.min_in_sync.or(self.replication.map(|replicas| (replicas - 1).max(1))),
                send_timeout: self.send_timeout,
            };
            Target::Servers(Arc::new(Servers::new(settings, &namespace)?))
        };
        Ok(Config { target, namespace, max_record_bytes: self.max_record_bytes, clock })
    }
}

/// Whether the environment names Kafka's servers.
pub(crate) fn names_kafka() -> bool {
    var(KAFKA).is_some()
}

/// The servers for `YADTQ_KAFKA=embedded`: a process has one pair for each namespace.
fn process_wide(namespace: &Namespace) -> Embedded {
    static SHARED: Mutex<BTreeMap<String, Embedded>> = Mutex::new(BTreeMap::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let instance = shared.entry(namespace.to_string());
    instance.or_insert_with(|| Embedded::new(namespace, SystemClock::shared())).clone()
}
