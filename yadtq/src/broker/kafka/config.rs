//! What librdkafka is told, and what users may tell it themselves.

use std::{fmt, time::Duration};

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

use super::super::BrokerError;
use crate::core::names::Namespace;

/// How to reach Kafka and what to create there.
#[derive(Clone)]
pub struct KafkaConfig {
    /// Where to ask first: `host:port`, several separated by commas.
    pub bootstrap: String,
    /// Prefix of every topic and group.
    pub namespace: Namespace,
    /// Further settings of librdkafka, for TLS and SASL above all. Those that YADTQ's guarantees rest on are refused.
    pub extra: Vec<(String, String)>,
    /// Partitions of a topic that has to be created. Default: 12.
    pub partitions: i32,
    /// Replicas of a topic that has to be created. Default: what the broker says (`default.replication.factor`).
    pub replication: Option<i32>,
    /// Longest wait for the acknowledgement of a record. Default: 10 s.
    pub send_timeout: Duration,
}

/// Settings that are YADTQ's own, and why.
const REFUSED: [(&str, &str); 19] = [
    ("bootstrap.servers", "set YADTQ_KAFKA instead"),
    ("metadata.broker.list", "set YADTQ_KAFKA instead"),
    ("acks", "a task is accepted when every in-sync replica has it"),
    ("request.required.acks", "a task is accepted when every in-sync replica has it"),
    ("enable.idempotence", "a resent record must not be stored twice or out of order"),
    ("transactional.id", "YADTQ uses no transactions"),
    ("partitioner", "every client must find the same partition for a key"),
    ("message.timeout.ms", "the send timeout of the client sets it"),
    ("delivery.timeout.ms", "the send timeout of the client sets it"),
    ("allow.auto.create.topics", "YADTQ creates its topics itself, with endless retention"),
    ("group.id", "a queue's consumer group has the name of its topic"),
    ("group.instance.id", "every worker is a member of its own"),
    ("partition.assignment.strategy", "workers must be able to share a queue while they are replaced"),
    ("enable.auto.commit", "finished tasks are committed about every second"),
    ("auto.commit.enable", "finished tasks are committed about every second"),
    ("enable.auto.offset.store", "only finished tasks may be committed"),
    ("auto.offset.reset", "a queue is always read from its beginning"),
    ("enable.partition.eof", "the end of a partition is no event for a worker"),
    ("statistics.interval.ms", "nobody reads the statistics"),
];

impl KafkaConfig {
    /// As a client makes it, unless told otherwise.
    #[cfg(test)]
    pub(super) fn new(bootstrap: impl Into<String>, namespace: Namespace) -> Self {
        let send_timeout = Duration::from_secs(10);
        Self {
            bootstrap: bootstrap.into(),
            namespace,
            extra: Vec::new(),
            partitions: 12,
            replication: None,
            send_timeout,
        }
    }

    /// Reads `key=value,key=value`, as in `YADTQ_KAFKA_CONF`. A part without `=` belongs to the value before it, so
    /// `debug=broker,topic,client.id=shop` has two settings.
    pub fn parse_extra(text: &str) -> Result<Vec<(String, String)>, BrokerError> {
        let mut settings: Vec<(String, String)> = Vec::new();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            match (part.split_once('='), settings.last_mut()) {
                (Some((key, value)), _) => settings.push((key.trim().to_owned(), value.trim().to_owned())),
                (None, Some((_, value))) => *value = format!("{value},{}", part.trim()),
                (None, None) => {
                    return Err(BrokerError::Refused(format!("`{part}` is not `key=value` (in YADTQ_KAFKA_CONF)")));
                }
            }
        }
        Ok(settings)
    }

    /// Rejects settings that are YADTQ's own.
    pub(super) fn check(&self) -> Result<(), BrokerError> {
        for (key, _) in &self.extra {
            if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| refused == key) {
                return Err(BrokerError::Refused(format!("setting `{key}` can not be changed: {reason}")));
            }
        }
        Ok(())
    }

    /// For the client that sends records and asks for metadata.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.common();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("partitioner", "murmur2_random")
            // A broker would create a deleted topic with a retention that loses tasks.
            .set("allow.auto.create.topics", "false")
            // The topic's own limit decides, so far as a broker reads the request at all (100 MB).
            .set("message.max.bytes", "100000000")
            .set("message.timeout.ms", self.send_timeout.as_millis().to_string());
        self.with_extra(config)
    }

    /// For the client that creates topics, reads their settings and purges them.
    pub(super) fn admin(&self) -> ClientConfig {
        let mut config = self.with_extra(self.common());
        // Nobody reads this client's log queue, so nothing may be put there.
        config.set_log_level(RDKafkaLogLevel::Emerg);
        config
    }

    /// For reading beside any group.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut config = self.common();
        config
            // librdkafka wants one, though nobody joins it.
            .set("group.id", format!("{}.reader", self.namespace))
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "100")
            .set("queued.max.messages.kbytes", "16384");
        self.with_extra(config)
    }

    /// For the group of a topic.
    pub(super) fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.common();
        if self.namespace.is_compacted(group) {
            config.set("enable.partition.eof", "true");
        }
        config
            .set("group.id", group)
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "1000")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            // An idle fetch is answered as soon as there is a record; this bounds how long a resumed or newly
            // assigned partition waits for the fetch that is under way without it.
            .set("fetch.wait.max.ms", "100")
            // Bounds the prefetch, and fetches on as soon as there is room.
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.queue.backoff.ms", "10")
            // A deleted or enlarged topic is noticed that soon.
            .set("topic.metadata.refresh.interval.ms", "30000");
        if !self.is_new_protocol() {
            config
                .set("partition.assignment.strategy", "cooperative-sticky")
                .set("session.timeout.ms", "6000")
                .set("heartbeat.interval.ms", "1000");
        }
        self.with_extra(config)
    }

    /// KIP-848: these three settings are the broker's then, and a client that sets them is refused.
    fn is_new_protocol(&self) -> bool {
        self.extra.iter().any(|(key, value)| key == "group.protocol" && value.eq_ignore_ascii_case("consumer"))
    }

    fn common(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", "yadtq")
            .set("socket.keepalive.enable", "true")
            // A broker that accepts and never answers is noticed that soon.
            .set("socket.timeout.ms", "10000")
            .set("socket.connection.setup.timeout.ms", "10000")
            // After an outage, work goes on that soon.
            .set("reconnect.backoff.max.ms", "2000")
            .set_log_level(RDKafkaLogLevel::Info);
        config
    }

    fn with_extra(&self, mut config: ClientConfig) -> ClientConfig {
        for (key, value) in &self.extra {
            config.set(key, value);
        }
        config
    }
}

/// Without the values of `extra`: there are passwords among them.
impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extra: Vec<_> = self.extra.iter().map(|(key, _)| key).collect();
        f.debug_struct("KafkaConfig")
            .field("bootstrap", &self.bootstrap)
            .field("namespace", &self.namespace)
            .field("extra", &extra)
            .field("partitions", &self.partitions)
            .field("replication", &self.replication)
            .field("send_timeout", &self.send_timeout)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn config(extra: &str) -> KafkaConfig {
        let extra = KafkaConfig::parse_extra(extra).unwrap();
        KafkaConfig { extra, ..KafkaConfig::new("localhost:9092", Namespace::default()) }
    }

    #[test]
    fn extra_settings_are_read() {
        let settings = config("security.protocol = SASL_SSL, debug=broker,topic ,sasl.password=a=b,").extra;
        let settings: Vec<_> = settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let expected = [("security.protocol", "SASL_SSL"), ("debug", "broker,topic"), ("sasl.password", "a=b")];
        assert_eq!(settings, expected);
        assert!(KafkaConfig::parse_extra("nonsense").is_err());
    }

    #[test]
    fn a_setting_that_a_guarantee_rests_on_is_refused_by_name() {
        for (key, _) in REFUSED {
            let error = config(&format!("{key}=x")).check().unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
        config("security.protocol=SSL,session.timeout.ms=10000").check().unwrap();
    }

    #[test]
    fn the_new_group_protocol_leaves_timeouts_to_the_broker() {
        let classic = config("session.timeout.ms=9000").consumer("g");
        assert_eq!(classic.get("session.timeout.ms"), Some("9000"));
        assert_eq!(classic.get("partition.assignment.strategy"), Some("cooperative-sticky"));
        let new = config("group.protocol=consumer").consumer("g");
        for key in ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"] {
            assert_eq!(new.get(key), None, "{key}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let shown = format!("{:?}", config("sasl.password=hunter2"));
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
    }
}
