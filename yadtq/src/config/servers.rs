//! Kafka and Redis as the servers of a client: their settings, and the connections to them.

use std::sync::Arc;

use super::settings::{KAFKA_CONF, REDIS, REDIS_TLS, Settings};
use crate::{
    broker::{
        Broker,
        kafka::{KafkaBroker, KafkaConfig},
    },
    core::{names::Namespace, secret::Secret, settings},
    error::Error,
    store::{
        Store,
        redis::{RedisStore, TlsSettings},
    },
};

/// Kafka and Redis, which are not connected to yet.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    kafka: KafkaConfig,
    redis: Secret,
    redis_tls: TlsSettings,
}

impl Servers {
    pub(super) fn new(settings: Settings, namespace: &Namespace) -> Result<Self, Error> {
        let mut extra =
            KafkaConfig::parse_extra(settings.environment.expose()).map_err(|e| Error::config(KAFKA_CONF, e))?;
        extra.extend(settings.kafka_conf);
        let kafka = KafkaConfig {
            bootstrap: settings.kafka,
            extra,
            partitions: settings.partitions,
            replication: settings.replication,
            min_in_sync: settings.min_in_sync,
            send_timeout: settings.send_timeout,
            namespace: namespace.clone(),
        };
        let refused = |detail| Error::config(REDIS_TLS, detail);
        let mut redis_tls = settings::read(settings.redis_tls_environment.expose()).map_err(refused)?;
        redis_tls.extend(settings.redis_tls);
        let redis_tls = TlsSettings::of(redis_tls).map_err(refused)?;
        Ok(Self { kafka, redis: settings.redis, redis_tls })
    }

    /// Opens connections to Kafka. A server that cannot be reached is retried in the background.
    pub(super) fn open_broker(&self) -> Result<Arc<dyn Broker>, Error> {
        // No server was contacted yet, so an error here is about a setting.
        Ok(KafkaBroker::connect(self.kafka.clone()).map_err(|e| Error::config(KAFKA_CONF, e))?)
    }

    /// The same for Redis. The connections belong to the current runtime.
    pub(super) fn open_store(&self, namespace: &Namespace) -> Result<Arc<dyn Store>, Error> {
        Ok(RedisStore::connect(self.redis.expose(), &self.redis_tls, namespace).map_err(|e| Error::config(REDIS, e))?)
    }

    /// Their addresses without passwords, to show them to a person.
    pub(super) fn addresses(&self) -> String {
        format!("kafka {} and redis {}", self.kafka.bootstrap, self.redis.address())
    }
}
