//! The settings of librdkafka that YADTQ makes, and those that users may add.

use std::time::Duration;

use rdkafka::{ClientConfig, config::RDKafkaLogLevel, error::KafkaError};

use super::super::BrokerError;
use crate::core::{names::Namespace, secret::Secret, settings};

/// How to reach Kafka and what to create there.
#[derive(Clone, Debug)]
pub(crate) struct KafkaConfig {
    /// The servers to connect to first: `host:port`, several separated by commas.
    pub bootstrap: String,
    /// Prefix of the names of all topics and groups.
    pub namespace: Namespace,
    /// Further settings of librdkafka, for example for TLS and SASL. Settings that YADTQ's guarantees depend on are
    /// refused.
    pub extra: Vec<(String, Secret)>,
    /// Number of partitions of each topic that YADTQ creates. Default: 12.
    pub partitions: i32,
    /// Number of replicas of each topic that YADTQ creates. `None`, the default: the broker's
    /// `default.replication.factor`.
    pub replication: Option<i32>,
    /// `min.insync.replicas` of each topic that YADTQ creates. `None`, the default: the broker's.
    pub min_in_sync: Option<i32>,
    /// Longest wait for the acknowledgement of a record. Default: 10 s.
    pub send_timeout: Duration,
}

/// Settings that users cannot change, and why.
const REFUSED: [(&str, &str); 20] = [
    ("bootstrap.servers", "set YADTQ_KAFKA instead"),
    ("metadata.broker.list", "set YADTQ_KAFKA instead"),
    ("acks", "a task is accepted when every in-sync replica has it"),
    ("request.required.acks", "a task is accepted when every in-sync replica has it"),
    ("enable.idempotence", "a resent record must not be stored twice or out of order"),
    ("transactional.id", "YADTQ uses no transactions"),
    ("partitioner", "every client must find the same partition for a key"),
    ("message.timeout.ms", "the send timeout of the client sets it"),
    ("delivery.timeout.ms", "the send timeout of the client sets it"),
    ("allow.auto.create.topics", "YADTQ creates its topics itself, without a retention limit"),
    ("group.id", "offsets are committed under the name of the namespace"),
    ("group.instance.id", "workers share partitions by leases in Redis, and join no group"),
    ("group.protocol", "workers share partitions by leases in Redis, and join no group"),
    ("partition.assignment.strategy", "workers share partitions by leases in Redis, and join no group"),
    ("enable.auto.commit", "finished tasks are committed about every second"),
    ("auto.commit.enable", "finished tasks are committed about every second"),
    ("enable.auto.offset.store", "only finished tasks may be committed"),
    ("auto.offset.reset", "a queue is always read from its beginning"),
    ("enable.partition.eof", "YADTQ sets it for each topic"),
    ("statistics.interval.ms", "YADTQ does not read the statistics"),
];

impl KafkaConfig {
    /// The configuration with all defaults.
    #[cfg(test)]
    pub(super) fn new(bootstrap: impl Into<String>, namespace: Namespace) -> Self {
        let send_timeout = Duration::from_secs(10);
        Self {
            bootstrap: bootstrap.into(),
            namespace,
            extra: Vec::new(),
            partitions: 12,
            replication: None,
            min_in_sync: None,
            send_timeout,
        }
    }

    /// Reads the settings in `YADTQ_KAFKA_CONF`, see [`settings::read`].
    ///
    /// # Errors
    /// [`BrokerError::Refused`] if the first part has no `=`.
    pub(crate) fn parse_extra(text: &str) -> Result<Vec<(String, Secret)>, BrokerError> {
        settings::read(text).map_err(BrokerError::Refused)
    }

    /// What librdkafka says of a setting that it refuses, without the value, which may be a password.
    pub(super) fn refused(error: &KafkaError) -> BrokerError {
        let text = match error {
            KafkaError::ClientConfig(_, detail, key, value) => {
                format!("setting `{key}`: {}", Secret::new(value).hide_in(detail))
            }
            other => other.to_string(),
        };
        BrokerError::Refused(text)
    }

    /// Refuses settings that users cannot change.
    pub(super) fn check(&self) -> Result<(), BrokerError> {
        for (key, _) in &self.extra {
            if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| refused == key) {
                return Err(BrokerError::Refused(format!("setting `{key}` cannot be changed: {reason}")));
            }
        }
        Ok(())
    }

    /// Settings of the client that sends records and requests metadata.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.common();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("partitioner", "murmur2_random")
            // A broker would create a deleted topic again, with a retention limit that loses tasks.
            .set("allow.auto.create.topics", "false")
            // The topic's own limit decides, as long as a broker reads the request at all (100 MB).
            .set("message.max.bytes", "100000000")
            .set("message.timeout.ms", self.send_timeout.as_millis().to_string());
        self.with_extra(config)
    }

    /// Settings of the client that creates topics, reads their settings and deletes records.
    pub(super) fn admin(&self) -> ClientConfig {
        let mut config = self.with_extra(self.common());
        // Nobody reads the log queue of this client, so it must stay empty.
        config.set_log_level(RDKafkaLogLevel::Emerg);
        config
    }

    /// Settings of a client that reads without joining a group.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut config = self.common();
        config
            // librdkafka requires a group id even if the client does not join the group.
            .set("group.id", format!("{}.reader", self.namespace))
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "true")
            // There is no session, but librdkafka waits for that long before a commit without a coordinator fails.
            .set("session.timeout.ms", "6000")
            .set("fetch.wait.max.ms", "100")
            .set("queued.max.messages.kbytes", "16384");
        self.with_extra(config)
    }

    /// Settings of the client that reads for a worker. It is a member of no group: who reads what is not decided by Kafka.
    pub(super) fn consumer(&self) -> ClientConfig {
        let mut config = self.common();
        config
            // The offsets are committed under this name.
            .set("group.id", self.namespace.as_str())
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "true")
            // A broker answers a fetch as soon as it has a record. This limits how long a newly assigned partition waits for
            // a fetch that was sent without it.
            .set("fetch.wait.max.ms", "100")
            // These limit what is prefetched of each partition, and fetch more as soon as there is room.
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", "1024")
            // What one fetch brings of a partition comes on top of these. Of small records that is many times as much in memory.
            .set("max.partition.fetch.bytes", "262144")
            .set("fetch.queue.backoff.ms", "10");
        self.with_extra(config)
    }

    fn common(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", "yadtq")
            .set("socket.keepalive.enable", "true")
            // A broker that accepts a connection and never answers is noticed within this time.
            .set("socket.timeout.ms", "10000")
            .set("socket.connection.setup.timeout.ms", "10000")
            // After an outage, clients reconnect within this time.
            .set("reconnect.backoff.max.ms", "500")
            .set_log_level(RDKafkaLogLevel::Info);
        config
    }

    fn with_extra(&self, mut config: ClientConfig) -> ClientConfig {
        for (key, value) in &self.extra {
            config.set(key, value.expose());
        }
        config
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rdkafka::{admin::AdminClient, client::DefaultClientContext};

    use super::*;

    fn config(extra: &str) -> KafkaConfig {
        let extra = KafkaConfig::parse_extra(extra).unwrap();
        KafkaConfig { extra, ..KafkaConfig::new("localhost:9092", Namespace::default()) }
    }

    #[test]
    fn extra_settings_are_parsed() {
        let settings = config("security.protocol = SASL_SSL, debug=broker,topic ,sasl.password=a=b,").extra;
        let settings: Vec<_> = settings.iter().map(|(key, value)| (key.as_str(), value.expose())).collect();
        let expected = [("security.protocol", "SASL_SSL"), ("debug", "broker,topic"), ("sasl.password", "a=b")];
        assert_eq!(settings, expected);
        let error = KafkaConfig::parse_extra("nonsense").unwrap_err().to_string();
        assert!(error.contains("no `=`") && !error.contains("nonsense"), "{error}");
        let [(_, password), (id, _)] = &config(r"sasl.password=a\,b\\\,=c\d,client.id=x").extra[..] else {
            panic!("two")
        };
        assert_eq!((password.expose(), &**id), (r"a,b\,=c\d", "client.id"));
    }

    #[test]
    fn a_setting_that_a_guarantee_depends_on_is_refused_by_name() {
        for (key, _) in REFUSED {
            let error = config(&format!("{key}=x")).check().unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
        config("security.protocol=SSL,socket.timeout.ms=10000").check().unwrap();
    }

    #[test]
    fn passwords_are_not_shown() {
        let shown = format!("{:?}", config("sasl.password=hunter2"));
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
        for wrong in ["sasl.pasword=hunter2", "security.protocol=hunter2", "socket.timeout.ms=hunter2"] {
            let refused = config(wrong)
                .admin()
                .create::<AdminClient<DefaultClientContext>>()
                .map(drop)
                .map_err(|e| KafkaConfig::refused(&e));
            let error = refused.unwrap_err().to_string();
            let key = wrong.split('=').next().unwrap();
            assert!(error.contains(key) && !error.contains("hunter2"), "{error}");
        }
    }
}
