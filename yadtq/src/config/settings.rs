//! The settings of both servers as they were given, and the variables that give them.

use std::time::Duration;

use crate::core::secret::Secret;

/// The variable with Kafka's servers, `host:port,..`, or `embedded`.
pub(crate) const KAFKA: &str = "YADTQ_KAFKA";
/// The variable with the URL of Redis.
pub(crate) const REDIS: &str = "YADTQ_REDIS";
/// The variable with the prefix of every topic and key.
pub(crate) const NAMESPACE: &str = "YADTQ_NAMESPACE";
/// The variable with settings for librdkafka, `key=value,..`.
pub(crate) const KAFKA_CONF: &str = "YADTQ_KAFKA_CONF";
/// The variable with settings of TLS towards Redis, `key=value,..`.
pub(crate) const REDIS_TLS: &str = "YADTQ_REDIS_TLS";

/// What [`ClientBuilder`](super::ClientBuilder) and the environment say about Kafka and Redis.
pub(super) struct Settings {
    pub(super) kafka: String,
    pub(super) redis: Secret,
    /// The value of `YADTQ_REDIS_TLS`.
    pub(super) redis_tls_environment: Secret,
    pub(super) redis_tls: Vec<(String, Secret)>,
    /// The value of `YADTQ_KAFKA_CONF`.
    pub(super) environment: Secret,
    pub(super) kafka_conf: Vec<(String, Secret)>,
    pub(super) partitions: i32,
    pub(super) replication: Option<i32>,
    pub(super) min_in_sync: Option<i32>,
    pub(super) send_timeout: Duration,
}

/// A variable of the environment, unless it is empty.
pub(super) fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
